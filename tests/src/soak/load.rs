//! One client of the soak: it says all that clients say, and knows what must come back.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::Tally;
use crate::client::{Client, Login};
use crate::demo::HOMES;
use crate::message as m;
use crate::transcript::{End, Transcript};

/// A sequence that looks random and is the same every time (xorshift).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What a lost server explains.
const EXPLAINED: [&str; 6] = ["57P01", "57P02", "57P03", "08006", "08007", "25P02"];
const ZONES: [&str; 4] = ["UTC", "Asia/Tokyo", "Europe/Madrid", "America/Lima"];

/// A client that comes again whenever it has gone or was thrown out.
pub struct Visitor<'a> {
    address: SocketAddr,
    number: u64,
    chance: Chance,
    /// The last steps of this connection.
    steps: Vec<u64>,
    tally: &'a Tally,
}

/// What one connection has set so far.
struct Visit {
    client: Client,
    home: usize,
    zone: &'static str,
    prepared: bool,
}

/// The connection is over.
struct Over;

impl<'a> Visitor<'a> {
    pub fn new(address: SocketAddr, number: u64, tally: &'a Tally) -> Self {
        Self { address, number, chance: Chance::new(number), steps: Vec::new(), tally }
    }

    /// Comes and goes until the time is over.
    pub fn stay(mut self) {
        while !self.tally.done.load(Ordering::Relaxed) {
            let home = if self.chance.below(2) == 0 { 0 } else { 1 };
            let parameters = [("helios.region", HOMES[home].region), ("TimeZone", ZONES[0])];
            let login = Login { parameters: &parameters, ..Login::default() };
            let mut client = match Client::login(self.address, &login) {
                Ok(client) => client,
                Err(said) => {
                    self.explain(&said, "a login").ok();
                    // A region whose server is down refuses at once; this is no contest in asking.
                    thread::sleep(Duration::from_millis(50));
                    continue;
                }
            };
            client.set_patience(Duration::from_secs(40));
            let mut visit = Visit { client, home, zone: ZONES[0], prepared: false };
            self.steps.clear();
            let steps = 20 + self.chance.below(200);
            let stayed = (0..steps)
                .try_for_each(|_| if self.tally.done.load(Ordering::Relaxed) { Err(Over) } else { self.step(&mut visit) });
            if stayed.is_ok() {
                self.leave(visit.client);
            }
        }
    }

    fn step(&mut self, visit: &mut Visit) -> Result<(), Over> {
        // Few tags, so that the texts of all clients fit into any cache.
        let tag = format!("client {} {}", self.number, self.chance.below(8));
        let text =
            format!("SELECT '{tag}', pg_catalog.current_setting('cluster_name'), repeat('x', 200) FROM generate_series(1, 20)");
        let step = self.chance.below(12);
        self.steps.push(step);
        match step {
            0..3 => self.rows(visit, &m::query(&text), &tag),
            3 => self.rows(visit, &[m::prepared("", &text), m::sync()].concat(), &tag),
            4..6 => {
                let parse = if visit.prepared { Vec::new() } else { m::parse("s", PREPARED) };
                let ask = [parse, m::bind("", "s", &[&tag]), m::execute("", 0), m::sync()].concat();
                self.rows(visit, &ask, &tag)?;
                visit.prepared = true;
                Ok(())
            }
            6 => {
                self.done(visit, "BEGIN", 'T')?;
                self.rows(visit, &m::query(&text), &tag)?;
                self.rows(visit, &m::query(&text), &tag)?;
                self.done(visit, "COMMIT", 'I')
            }
            7 => {
                let copy = format!("COPY (SELECT '{tag}' FROM generate_series(1, 50)) TO STDOUT");
                let said = self.ask(visit, &m::query(&copy), 'I')?;
                let data: Vec<_> = said.messages.iter().filter(|message| message.tag == b'd').collect();
                if data.len() != 50 || data.iter().any(|line| line.body.trim_ascii_end() != tag.as_bytes()) {
                    self.tally.fault(format!("crossed: {tag}: {said}"));
                }
                Ok(())
            }
            8 => {
                let zone = usize::try_from(self.chance.below(4)).unwrap_or(0);
                visit.zone = ZONES[zone];
                self.done(visit, &format!("SET TimeZone = '{}'", visit.zone), 'I')
            }
            9 => {
                let said = self.ask(visit, &m::query("SHOW TimeZone"), 'I')?;
                if said.value().as_deref() != Some(visit.zone) {
                    self.tally.fault(format!("{tag}: not {}: {said}", visit.zone));
                }
                Ok(())
            }
            10 => {
                self.done(visit, "LISTEN soak", 'I')?;
                self.rows(visit, &m::query(&text), &tag)?;
                self.done(visit, "UNLISTEN *", 'I')?;
                // Gives back what LISTEN kept, and all else with it; the region too.
                self.done(visit, "DISCARD ALL", 'I')?;
                let region = HOMES[visit.home].region;
                (visit.prepared, visit.zone) = (false, ZONES[0]);
                self.done(visit, &format!("SET helios.region = '{region}'"), 'I')
            }
            _ => {
                visit.home = 1 - visit.home;
                let region = HOMES[visit.home].region;
                self.done(visit, &format!("SET helios.region = '{region}'"), 'I')
            }
        }
    }

    /// Leaves in one of the ways that clients leave in.
    fn leave(&mut self, mut client: Client) {
        self.tally.cut.fetch_add(1, Ordering::Relaxed);
        match self.chance.below(5) {
            0 => client.send(&m::terminate()),
            1 => drop(client),
            2 => client.reset_when_dropped(),
            3 => {
                client.query("BEGIN; SELECT 1");
                client.reset_when_dropped();
            }
            _ => {
                client.send(&m::query("SELECT repeat('x', 1000) FROM generate_series(1, 5000)"));
                client.until(|message| message.tag == b'D');
            }
        }
    }

    /// A statement whose rows all carry the tag and the name of the region's server.
    fn rows(&self, visit: &mut Visit, bytes: &[u8], tag: &str) -> Result<(), Over> {
        let own = |row: &Vec<String>| row[0] == tag && row[1] == HOMES[visit.home].node;
        visit.client.send(bytes);
        let said = visit.client.until_ready();
        // Rows that came before an error are looked at too.
        if !said.rows().iter().all(own) {
            self.tally.fault(format!("crossed: {tag} in {}: {said}", HOMES[visit.home].region));
        }
        self.judge(&said, None)?;
        if said.rows().is_empty() {
            self.tally.fault(format!("no rows for {tag}: {said}"));
        }
        Ok(())
    }

    fn done(&self, visit: &mut Visit, text: &str, status: char) -> Result<(), Over> {
        self.ask(visit, &m::query(text), status).map(drop)
    }

    fn ask(&self, visit: &mut Visit, bytes: &[u8], status: char) -> Result<Transcript, Over> {
        visit.client.send(bytes);
        let said = visit.client.until_ready();
        self.judge(&said, Some(status)).map(|()| said)
    }

    fn judge(&self, said: &Transcript, status: Option<char>) -> Result<(), Over> {
        if said.end != End::Reached || said.error().is_some() {
            return self.explain(said, "an answer");
        }
        if status.is_some_and(|status| said.status() != status) {
            self.tally.fault(format!("client {}: not {status:?}: {said}", self.number));
        }
        self.tally.answers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Counts what a lost server explains; anything else is a fault. The connection is given up either way.
    fn explain(&self, said: &Transcript, what: &str) -> Result<(), Over> {
        match (said.sqlstate().as_str(), &said.end) {
            ("", _) => self
                .tally
                .fault(format!("client {}: {what} broke off without a word: {said} after {:?}", self.number, self.steps)),
            (code, _) if EXPLAINED.contains(&code) => self.tally.error(code),
            _ => self.tally.fault(format!("client {}: {what}: {said}", self.number)),
        }
        Err(Over)
    }
}

const PREPARED: &str =
    "SELECT $1::text, pg_catalog.current_setting('cluster_name'), repeat('y', 200) FROM generate_series(1, 20)";
