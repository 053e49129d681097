//! A client: what it says, and what it must be answered.

use std::collections::VecDeque;

use domicile::session::SessionKey;
use domicile_tests::message as m;
use fastrand::Rng;

use crate::server::{Server, Status};
use crate::wire::{Message, Reply, Stream};

/// How the names of clients begin whose statements take their time, and so what they ask for.
pub const SLOW: char = 'y';
/// Answers that a client lets stand out before it says more.
const OUTSTANDING_MAX: usize = 3;

pub struct Client {
    pub name: String,
    pub session: SessionKey,
    /// Bytes that have not reached the core.
    pub unsent: VecDeque<u8>,
    pub paused: bool,
    pub open: bool,
    incoming: Stream,
    reference: Server,
    expected: VecDeque<Reply>,
    /// It goes from region to region, and leaves nothing in any of them.
    roams: bool,
    /// It is in session mode.
    keeps_server: bool,
    /// Its statements take their time, and it may cancel them.
    pub takes_its_time: bool,
    /// How often it has asked for that, less those that it was told of.
    pub cancels: usize,
    /// The process ID and the secret that it was told.
    key: Option<(u32, u32)>,
    said: usize,
    /// What it has said and heard, for a failure.
    pub log: Vec<String>,
}

/// Whether an answer is as good as another. Where the proxy has failed a transaction, it tells that before a wrong name.
fn alike(expected: &Reply, heard: &Reply) -> bool {
    let of_failed = |reply: &Reply| matches!(reply, Reply::Error { code, .. } if code == "25P02" || code == "26000");
    expected.same_as(heard) || of_failed(expected) && of_failed(heard)
}

impl Client {
    pub fn new(name: String, session: SessionKey, reference: Server, roams: bool, keeps_server: bool) -> Self {
        Self {
            takes_its_time: name.starts_with(SLOW),
            cancels: 0,
            key: None,
            name,
            session,
            unsent: VecDeque::new(),
            paused: false,
            open: true,
            incoming: Stream::default(),
            reference,
            expected: VecDeque::from([Reply::Ready(b'I')]),
            roams,
            keeps_server,
            said: 0,
            log: Vec::new(),
        }
    }

    /// The process ID and the secret that it was told, once it was.
    pub fn key(&self) -> Option<(u32, u32)> {
        self.key
    }

    /// Whether everything it has asked for has been answered.
    pub fn is_answered(&self) -> bool {
        self.expected.is_empty() && self.unsent.is_empty()
    }

    /// Whether it is in the middle of a message that will not be told to its end.
    pub fn is_cut_off(&self) -> bool {
        !self.incoming.at_boundary()
    }

    /// What it has asked to be written since somebody last looked.
    pub fn take_asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.reference.written)
    }

    /// What it still waits for.
    pub fn waits_for(&self) -> usize {
        self.expected.iter().filter(|reply| matches!(reply, Reply::Ready(_))).count()
    }

    pub fn may_speak(&self) -> bool {
        self.open && self.waits_for() < OUTSTANDING_MAX
    }

    fn tag(&mut self) -> String {
        self.said += 1;
        format!("{}.{}", self.name, self.said)
    }

    fn say(&mut self, bytes: &[u8]) {
        self.unsent.extend(bytes);
        let mut stream = Stream::default();
        stream.push(bytes);
        while let Some(message) = stream.next() {
            self.log.push(format!("> {}", shown(&message)));
            self.reference.message(&message);
            let answers = self.reference.take_all();
            self.expected.extend(answers.into_iter().filter(|reply| !reply.is_asynchronous()));
        }
    }

    /// Says something: one unit of messages, up to its ReadyForQuery.
    pub fn speak(&mut self, rng: &mut Rng) {
        let tag = self.tag();
        if self.takes_its_time {
            return self.say(&m::query(&format!("SELECT '{tag}'")));
        }
        let bytes = if rng.u8(..10) < 5 { self.simple(rng, &tag) } else { self.extended(rng, &tag) };
        self.say(&bytes);
    }

    /// Ends whatever transaction it is in.
    pub fn finish(&mut self) {
        if self.reference.status != Status::Idle {
            self.say(&m::query("ROLLBACK"));
        }
    }

    fn statement(&self, rng: &mut Rng, tag: &str) -> String {
        let number = rng.u8(1..4);
        let anywhere = [
            format!("SELECT '{tag}'"),
            format!("SELECT '{tag}'"),
            format!("SELECT '{tag}' FROM generate_series({number})"),
            format!("INSERT INTO ledger VALUES ('{tag}')"),
            format!("SELECT fail('{tag}')"),
            "BEGIN".to_owned(),
            "COMMIT".to_owned(),
            "ROLLBACK".to_owned(),
            "SAVEPOINT s".to_owned(),
            "ROLLBACK TO s".to_owned(),
            "RELEASE s".to_owned(),
            format!("SET TimeZone = 'zone{number}'"),
            format!("SET LOCAL TimeZone = 'zone{number}'"),
            "SHOW TimeZone".to_owned(),
            format!("SELECT set_config('application_name', 'name{number}', true)"),
            "SHOW application_name".to_owned(),
            "RESET TimeZone".to_owned(),
        ];
        let pinning = [
            format!("SET work_mem = '{number}MB'"),
            format!("SELECT set_config('work_mem', '{number}MB', false)"),
            format!("PREPARE q{number} AS SELECT '{tag}'"),
            "CREATE TEMP TABLE scratch (a int)".to_owned(),
            format!("SELECT pg_advisory_lock({number})"),
            "SELECT nextval('seq')".to_owned(),
            "LISTEN channel".to_owned(),
            format!("DECLARE h{number} CURSOR WITH HOLD FOR SELECT '{tag}'"),
        ];
        let after_pinning = [
            "SHOW work_mem".to_owned(),
            format!("EXECUTE q{number}"),
            format!("DEALLOCATE q{number}"),
            format!("SELECT '{tag}' FROM scratch"),
            "DROP TABLE scratch".to_owned(),
            format!("SELECT pg_advisory_unlock({number})"),
            "SELECT currval('seq')".to_owned(),
            "UNLISTEN *".to_owned(),
            format!("FETCH 1 FROM h{number}"),
            format!("CLOSE h{number}"),
            "RESET ALL".to_owned(),
        ];
        let of = |rng: &mut Rng, statements: &[String]| statements[rng.usize(..statements.len())].clone();
        match rng.u8(..20) {
            0 if !self.roams => of(rng, &pinning),
            1 | 2 if !self.roams => of(rng, &after_pinning),
            _ => of(rng, &anywhere),
        }
    }

    fn simple(&self, rng: &mut Rng, tag: &str) -> Vec<u8> {
        match rng.u8(..16) {
            0 => m::query("DISCARD ALL"),
            1 => m::query("DEALLOCATE ALL"),
            2 => m::query(""),
            3 => m::query("SELEC 1"),
            4 => m::query(&format!("COPY (SELECT '{tag}') TO STDOUT")),
            5 => {
                let end = if rng.bool() { m::copy_done() } else { m::copy_fail("no") };
                [m::query(&format!("COPY ledger FROM STDIN /* '{tag}' */")), m::copy_data("x\n"), end].concat()
            }
            6 if self.roams && self.is_answered() && self.reference.status == Status::Idle => {
                m::query(&format!("SET domicile.region = '{}'", if rng.bool() { "eu" } else { "us" }))
            }
            7 | 8 => m::query(&format!("{}; {}", self.statement(rng, tag), self.statement(rng, &format!("{tag}b")))),
            _ => m::query(&self.statement(rng, tag)),
        }
    }

    fn extended(&self, rng: &mut Rng, tag: &str) -> Vec<u8> {
        let mut name = ["", "s1", "s2"][rng.usize(..3)];
        let bind = |name: &str| m::bind("", name, &[]);
        let text = self.statement(rng, tag);
        let other = self.statement(rng, &format!("{tag}b"));
        let rows = u32::from(rng.u8(..3));
        // In session mode the proxy keeps statements of its own apart from those of the server, and does not see equal names.
        if self.keeps_server && (is_the_proxys(&text) || is_the_proxys(&other)) {
            name = "";
        }
        let unit = match rng.u8(..10) {
            0 => vec![m::parse(name, &text), m::describe_statement(name)],
            1 => vec![m::close_statement(name), m::parse(name, &text)],
            2 => vec![bind(name), m::describe_portal(""), m::execute("", rows)],
            3 => vec![bind(name), m::execute("", 0), bind(name), m::execute("", 0)],
            4 => vec![m::close_statement(name)],
            5 => vec![m::parse("", &text), bind(""), m::execute("", 0), m::parse(name, &other), bind(name), m::execute("", 0)],
            6 => vec![m::parse(name, &text), m::sync(), bind(name), m::execute("", 0)],
            7 => vec![m::parse("", &text), bind(""), m::flush(), m::execute("", rows)],
            _ => vec![m::parse("", &text), bind(""), m::describe_portal(""), m::execute("", 0)],
        };
        [unit.concat(), m::sync()].concat()
    }

    /// Takes bytes of the core in and judges them. `losses`: a server may have been lost, which ends the session.
    pub fn hear(&mut self, bytes: &[u8], losses: bool) -> Result<(), String> {
        self.incoming.push(bytes);
        while let Some(message) = self.incoming.next() {
            if message.tag == b'K' {
                let number =
                    |at: usize| message.body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
                self.key = number(0).zip(number(4));
                continue;
            }
            let heard = Reply::decode(&message);
            self.log.push(format!("< {heard:?}"));
            match heard {
                reply if reply.is_asynchronous() => {}
                Reply::Error { fatal: true, ref code, .. }
                    if losses && ["08006", "08007", "57P01", "53300"].contains(&&**code) =>
                {
                    self.open = false;
                    self.expected.clear();
                }
                Reply::Error { fatal: false, ref code, .. } if code == "57014" && self.cancels > 0 => {
                    self.cancels -= 1;
                    while self.expected.front().is_some_and(|reply| !matches!(reply, Reply::Ready(_))) {
                        self.expected.pop_front();
                    }
                }
                heard => {
                    let expected = self.expected.pop_front();
                    if !expected.as_ref().is_some_and(|expected| alike(expected, &heard)) {
                        return Err(format!("client {} heard {heard:?} and not {expected:?}", self.name));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether the proxy answers Parse and Bind of a statement itself.
fn is_the_proxys(text: &str) -> bool {
    let starts = ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "RESET ALL", "DEALLOCATE", "DISCARD"];
    starts.iter().any(|start| text.starts_with(start))
}

fn shown(message: &Message) -> String {
    format!("{} {}", message.tag as char, String::from_utf8_lossy(&message.body).replace('\0', "|"))
}
