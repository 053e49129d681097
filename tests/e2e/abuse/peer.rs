//! A client that may send anything at all, and writes down what it is answered in few words.
//!
//! What is written down leaves out texts, and what a server may say at any time (notices, reports of settings): it is compared
//! between PostgreSQL itself and the proxy.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use domicile_tests::message as m;
use domicile_tests::scram::Scram;
use domicile_tests::transcript::Message;
use domicile_tests::wire::{Connect, Wire};

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long a server that waits must keep waiting to be believed.
const SILENCE: Duration = Duration::from_millis(250);
/// Bytes of an item that are written down.
const ITEM_BYTES_MAX: usize = 60;

/// Where a case is played.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub address: SocketAddr,
    pub connect: &'a Connect,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Open,
    Closed,
    /// Nothing came for as long as the client was ready to wait.
    Silent,
}

/// One connection of a case, and the notes of what came.
pub struct Peer<'a> {
    target: Target<'a>,
    wire: Box<dyn Wire>,
    received: Vec<u8>,
    line: Line,
    said: Vec<String>,
    /// What BackendKeyData told.
    pub key: (u32, Vec<u8>),
}

impl<'a> Peer<'a> {
    pub fn connect(target: Target<'a>) -> io::Result<Self> {
        let mut wire = (target.connect)(target.address)?;
        wire.set_patience(PATIENCE);
        Ok(Self { target, wire, received: Vec::new(), line: Line::Open, said: Vec::new(), key: (0, Vec::new()) })
    }

    /// Another connection to the same place.
    pub fn another(&self) -> Self {
        Self::connect(self.target).expect("another connection")
    }

    /// Sends bytes; whether anybody listens shows in what is answered.
    pub fn send(&mut self, bytes: &[u8]) {
        if self.wire.write_all(bytes).and_then(|()| self.wire.flush()).is_err() && self.line == Line::Open {
            // What was said before the end can still be read.
            self.wire.set_patience(Duration::from_secs(2));
        }
    }

    /// Sends each byte by itself.
    pub fn send_slowly(&mut self, bytes: &[u8]) {
        bytes.chunks(1).for_each(|byte| self.send(byte));
    }

    /// Sends a StartupMessage of `postgres` for database `demo`, with these parameters behind.
    pub fn startup(&mut self, parameters: &[(&str, &str)]) {
        let named = [("user", "postgres"), ("database", "demo")];
        self.send(&m::startup(m::PROTOCOL_3_0, &[&named, parameters].concat()));
    }

    /// Logs in.
    pub fn login(&mut self) {
        self.startup(&[]);
        self.authenticate();
    }

    /// Proves the password of `postgres` and reads up to ReadyForQuery; any other end of it is written down.
    pub fn authenticate(&mut self) {
        let mut exchange = None;
        while let Some(message) = self.message() {
            let code = message.body.first_chunk().map_or(0, |code| u32::from_be_bytes(*code));
            match (message.tag, code) {
                (b'R', 10) => {
                    let scram = exchange.insert(Scram::new().expect("random bytes"));
                    self.send(&sasl_initial("SCRAM-SHA-256", scram.first().as_bytes()));
                }
                (b'R', 11) => {
                    let challenge = String::from_utf8_lossy(&message.body[4..]).into_owned();
                    let proof = exchange.as_ref().and_then(|scram| scram.last("postgres", &challenge).ok());
                    self.send(&m::password(proof.expect("a challenge").message.as_bytes()));
                }
                (b'R', 0 | 12) => {}
                (b'K', _) => self.keep_key(&message.body),
                (b'Z', _) => return,
                (b'S' | b'N', _) => {}
                (b'E', _) => return self.note(&message),
                _ => self.note(&message),
            }
        }
    }

    fn keep_key(&mut self, body: &[u8]) {
        if let Some((process_id, secret)) = body.split_first_chunk::<4>() {
            self.key = (u32::from_be_bytes(*process_id), secret.to_vec());
        }
    }

    /// Reads up to and with AuthenticationSASL, which is not written down.
    pub fn until_asked(&mut self) {
        self.read_until(|message| message.tag == b'R');
    }

    /// The server-first-message, which is not written down.
    pub fn challenge(&mut self) -> String {
        let asked = self.read_until(|message| message.tag == b'R');
        asked.map_or_else(String::new, |message| String::from_utf8_lossy(message.body.get(4..).unwrap_or_default()).into_owned())
    }

    fn read_until(&mut self, wanted: impl Fn(&Message) -> bool) -> Option<Message> {
        loop {
            let message = self.message()?;
            if wanted(&message) {
                return Some(message);
            }
            self.note(&message);
        }
    }

    /// Writes down everything up to and with the next message of this type.
    pub fn until(&mut self, tag: u8) {
        while let Some(message) = self.message() {
            self.note(&message);
            if message.tag == tag {
                return;
            }
        }
    }

    /// Reads up to and with the next message of this type, if one comes, and writes down nothing.
    pub fn skip_one(&mut self, tag: u8) -> bool {
        loop {
            match self.message() {
                Some(message) if message.tag == tag => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Reads up to and with the notice of this text, and writes down nothing. The proxy may have one of its own to give before.
    pub fn skip_notice(&mut self, text: &str) {
        while let Some(message) = self.message() {
            if message.tag == b'N' && message.report().is_some_and(|report| report.field('M') == text) {
                return;
            }
        }
    }

    /// Sends a Query and reads its whole answer, and writes down nothing.
    pub fn quietly(&mut self, text: &str) {
        self.send(&m::query(text));
        self.skip_one(b'Z');
    }

    /// Writes down the one byte that answers a request for encryption, unless it is the first of an ErrorResponse.
    pub fn byte(&mut self) {
        while self.received.is_empty() && self.line == Line::Open {
            self.fill();
        }
        if self.received.first().is_some_and(|byte| *byte != b'E') {
            let byte = self.received.remove(0);
            self.said.push(char::from(byte).to_string());
        }
    }

    /// Writes down what the case has found out itself.
    pub fn found(&mut self, what: impl Into<String>) {
        self.said.push(what.into());
    }

    pub fn half_close(&mut self) {
        self.wire.half_close();
    }

    pub fn reset_when_dropped(&mut self) {
        self.wire.reset_when_dropped();
    }

    /// How it ends, as the last word of `expected` has it: `closed`; `dropped`, which is closed with or without FATAL 08P01;
    /// `waits`, nothing happens; `alive`, the session still serves; `gone`, the client leaves; and all that was written down
    /// before. As many items as are expected are read; what comes instead shows.
    pub fn outcome(mut self, expected: &str) -> String {
        let items: Vec<&str> = expected.split(" / ").collect();
        let Some((end, before)) = items.split_last() else { return String::new() };
        match *end {
            "gone" => {}
            "waits" => {
                self.read_items(before.len());
                self.wire.set_patience(SILENCE);
                self.read_items(usize::MAX);
                self.said.push(if self.line == Line::Silent { "waits" } else { "closed" }.to_owned());
                return self.said.join(" / ");
            }
            "alive" => {
                self.read_items(before.len());
                if self.line == Line::Open {
                    self.probe();
                }
            }
            _ => self.read_items(usize::MAX),
        }
        match (self.line, *end) {
            (Line::Closed, "dropped") => {
                self.said.pop_if(|last| *last == "F 08P01");
                self.said.push("dropped".to_owned());
            }
            (_, "gone") => self.said.push("gone".to_owned()),
            (Line::Open, _) => {}
            (Line::Closed, _) => self.said.push("closed".to_owned()),
            (Line::Silent, _) => self.said.push("silent".to_owned()),
        }
        self.said.join(" / ")
    }

    /// Whether the session is as good as any other.
    fn probe(&mut self) {
        let before = self.said.len();
        self.send(&m::query("ROLLBACK; SELECT 'alive'"));
        self.until(b'Z');
        if self.said[before..] == ["C ROLLBACK", "T ?column?", "D alive", "C SELECT 1", "Z I"] {
            self.said.truncate(before);
            self.said.push("alive".to_owned());
        }
    }

    fn read_items(&mut self, count: usize) {
        while self.said.len() < count
            && let Some(message) = self.message()
        {
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Message) {
        let item = match message.tag {
            b'N' | b'S' | b'A' => return,
            b'K' => return self.keep_key(&message.body),
            b'E' => {
                let report = message.report().unwrap_or_default();
                let severity = if report.field('V') == "ERROR" { 'E' } else { 'F' };
                format!("{severity} {}", report.sqlstate())
            }
            b'R' => format!("R {}", message.body.first_chunk().map_or(0, |code| u32::from_be_bytes(*code))),
            _ => message.to_string(),
        };
        self.said.push(item.chars().take(ITEM_BYTES_MAX).collect());
    }

    fn message(&mut self) -> Option<Message> {
        loop {
            if let Some(([tag, length @ ..], rest)) = self.received.split_first_chunk::<5>() {
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                if !(4..1 << 30).contains(&length) {
                    self.said.push(format!("a message '{}' of length {length}", tag.escape_ascii()));
                    self.line = Line::Closed;
                    return None;
                }
                if let Some(body) = rest.get(..length - 4) {
                    let message = Message { tag: *tag, body: body.to_vec() };
                    self.received.drain(..=length);
                    return Some(message);
                }
            }
            if self.line != Line::Open {
                return None;
            }
            self.fill();
        }
    }

    fn fill(&mut self) {
        let mut chunk = vec![0; 64 << 10];
        match self.wire.read(&mut chunk) {
            Ok(0) => self.line = Line::Closed,
            Ok(length) => self.received.extend_from_slice(&chunk[..length]),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.line = Line::Silent,
                _ => self.line = Line::Closed,
            },
        }
    }
}

/// SASLInitialResponse.
pub fn sasl_initial(mechanism: &str, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("a short message");
    m::password(&[mechanism.as_bytes(), &[0], &length.to_be_bytes(), data].concat())
}
