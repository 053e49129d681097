//! A model of one PostgreSQL server process: the protocol, transactions, and everything a session leaves in its process.
//!
//! The same model plays two parts. As a *server* it stands in one region and is talked to by the proxy. As a *reference* it is what
//! one client would have been answered on a connection of its own: there it also knows the region as an ordinary setting, and its
//! rows come from wherever that setting says.

mod execute;
mod state;
pub mod text;

use std::collections::{BTreeMap, VecDeque};

use super::wire::{Message, Reply, texts};
use state::{Session, Undo};
use text::Statement;

pub use state::REPORTED;

/// Where rows come from.
#[derive(Clone, Debug)]
pub enum Place {
    /// A server of this region. It knows no setting of the region's.
    In(String),
    /// A reference: the region that serves a session whose setting has the value.
    Asked(BTreeMap<String, String>),
}

/// The transaction status as ReadyForQuery says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Idle,
    Block,
    Failed,
}

impl Status {
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Block => b'T',
            Self::Failed => b'E',
        }
    }
}

#[derive(Clone, Debug)]
struct Portal {
    statement: Option<Statement>,
    /// Rows given so far.
    given: usize,
}

/// A COPY FROM STDIN that has begun.
#[derive(Clone, Debug)]
struct Copying {
    extended: bool,
    tag: String,
}

/// One server process.
#[derive(Clone, Debug)]
pub struct Server {
    pub place: Place,
    pub status: Status,
    /// A transaction was begun without BEGIN.
    implicit: bool,
    skipping: bool,
    copying: Option<Copying>,
    /// The rest of a Query behind a COPY.
    rest: VecDeque<Statement>,
    /// How many statements the Query had.
    count: usize,
    pub session: Session,
    undo: Option<Undo>,
    statements: BTreeMap<String, Option<Statement>>,
    portals: BTreeMap<String, Portal>,
    locks: BTreeMap<String, usize>,
    sequences: BTreeMap<String, usize>,
    reported: BTreeMap<String, String>,
    pending_notifications: Vec<(String, String)>,
    out: Vec<Reply>,
    /// How many of them have left the server's buffer.
    flushed: usize,
    /// The process has ended.
    pub closed: bool,
    /// Tags of the writes that were carried out since somebody last looked.
    pub written: Vec<String>,
}

/// Why a statement fails.
type Failure = (&'static str, String);

impl Server {
    pub fn new(place: Place, startup: &[(String, String)]) -> Self {
        let session = Session::new(startup);
        let reported = REPORTED.iter().filter_map(|name| Some(((*name).to_owned(), session.setting(name)?.current.clone())));
        Self {
            place,
            status: Status::Idle,
            implicit: false,
            skipping: false,
            copying: None,
            rest: VecDeque::new(),
            count: 0,
            reported: reported.collect(),
            session,
            undo: None,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            locks: BTreeMap::new(),
            sequences: BTreeMap::new(),
            pending_notifications: Vec::new(),
            out: Vec::new(),
            flushed: 0,
            closed: false,
            written: Vec::new(),
        }
    }

    /// A reference: it knows the region as a setting.
    pub fn reference(start: &str, served_by: BTreeMap<String, String>, startup: &[(String, String)]) -> Self {
        let mut server = Self::new(Place::Asked(served_by), startup);
        server.session.declare("domicile.region", start);
        server
    }

    /// What has been reported with ParameterStatus last.
    pub fn reported(&self) -> &BTreeMap<String, String> {
        &self.reported
    }

    /// The value of the region's setting, if this is a reference.
    pub fn region(&self) -> &str {
        self.session.setting("domicile.region").map_or("", |setting| &setting.current)
    }

    /// Whether nothing has begun that has not ended: the process could serve another session.
    pub fn is_at_rest(&self) -> bool {
        self.status == Status::Idle && !self.implicit && !self.skipping && self.copying.is_none() && self.out.is_empty()
    }

    /// What a session has left behind.
    pub fn residue(&self) -> Vec<String> {
        let mut residue = self.session.residue();
        residue.extend(self.statements.keys().filter(|name| !name.is_empty()).map(|name| format!("statement {name}")));
        residue.extend(self.portals.keys().map(|name| format!("portal {name:?}")));
        residue.extend(self.locks.keys().map(|key| format!("advisory lock {key}")));
        residue.extend(self.sequences.keys().map(|name| format!("currval of {name}")));
        residue
    }

    /// Replies that have left the server.
    pub fn take_flushed(&mut self) -> Vec<Reply> {
        let count = std::mem::take(&mut self.flushed);
        self.out.drain(..count).collect()
    }

    /// All replies, also those that a server would keep back until it is asked for them.
    pub fn take_all(&mut self) -> Vec<Reply> {
        self.flushed = 0;
        std::mem::take(&mut self.out)
    }

    /// Takes a message in.
    pub fn message(&mut self, message: &Message) {
        let texts = texts(&message.body);
        let text = |at: usize| texts.get(at).map_or("", String::as_str);
        if self.copying.is_some() {
            return self.copy_message(message.tag);
        }
        match message.tag {
            b'X' => self.closed = true,
            b'H' => self.flushed = self.out.len(),
            // COPY data that nobody waits for.
            b'd' | b'c' | b'f' => {}
            b'S' => self.sync(),
            _ if self.skipping => {}
            b'Q' => self.query(text(0)),
            b'F' => self.function_call(&message.body),
            tag => {
                self.begin_implicit();
                let kind = message.body.first().copied().unwrap_or_default();
                let done = match tag {
                    b'P' => self.parse(text(0), text(1)),
                    b'B' => self.bind(text(0), text(1)),
                    b'D' => self.describe(kind, &text(0)[1..]),
                    b'E' => self.execute(text(0), rows_of(&message.body)),
                    b'C' => {
                        self.close(kind, &text(0)[1..]);
                        Ok(())
                    }
                    other => panic!("a server got a message of type {:?}", other as char),
                };
                if let Err((code, text)) = done {
                    self.fail_unit(Reply::error(code, text));
                }
            }
        }
    }

    /// The Query that is running is cancelled.
    pub fn cancel(&mut self) {
        self.fail(Reply::error("57014", "canceling statement due to user request"));
        self.ready();
    }

    fn say(&mut self, reply: Reply) {
        self.out.push(reply);
    }

    fn begin_implicit(&mut self) {
        if self.status == Status::Idle && !self.implicit {
            self.implicit = true;
            self.undo = Some(Undo { before: self.session.clone(), savepoints: Vec::new() });
        }
    }

    fn commit(&mut self) {
        let heard = self.session.commit();
        self.transaction_is_over();
        // A server tells its own notifications before it is ready again.
        self.session.notifies = Vec::new();
        self.pending_notifications.extend(heard);
    }

    fn rollback(&mut self) {
        if let Some(undo) = self.undo.take() {
            self.session = undo.before;
        }
        self.transaction_is_over();
    }

    fn transaction_is_over(&mut self) {
        self.undo = None;
        self.implicit = false;
        self.status = Status::Idle;
        self.portals.clear();
    }

    /// An error: the transaction fails, or is rolled back if it was an implicit one.
    fn fail(&mut self, error: Reply) {
        match self.status {
            Status::Idle => self.rollback(),
            Status::Block | Status::Failed => {
                self.status = Status::Failed;
                self.portals.clear();
                if let Some(undo) = &self.undo {
                    self.session = undo.savepoints.last().map_or(&undo.before, |(_, session)| session).clone();
                }
            }
        }
        self.rest.clear();
        self.say(error);
        // An error never stays in a server's buffer.
        self.flushed = self.out.len();
    }

    fn fail_unit(&mut self, error: Reply) {
        self.fail(error);
        self.skipping = true;
    }

    fn ready(&mut self) {
        for (channel, payload) in std::mem::take(&mut self.pending_notifications) {
            self.say(Reply::Notification { channel, payload });
        }
        for name in REPORTED {
            let value = self.session.setting(name).map_or_else(String::new, |setting| setting.current.clone());
            if self.reported.get(name) != Some(&value) {
                self.reported.insert(name.to_owned(), value.clone());
                self.say(Reply::Setting { name: name.to_owned(), value });
            }
        }
        self.say(Reply::Ready(self.status.byte()));
        self.flushed = self.out.len();
    }

    fn sync(&mut self) {
        self.skipping = false;
        if self.implicit {
            self.commit();
        }
        self.ready();
    }

    fn copy_message(&mut self, tag: u8) {
        let Some(copying) = self.copying.clone() else { return };
        let failure = match tag {
            b'd' | b'S' | b'H' => return,
            b'c' => {
                self.written.push(copying.tag);
                self.say(Reply::Complete("COPY 1".to_owned()));
                None
            }
            b'f' => Some(Reply::error("57014", "COPY from stdin failed")),
            _ => Some(Reply::error("08P01", "unexpected message type during COPY from stdin")),
        };
        self.copying = None;
        match (failure, copying.extended) {
            (None, true) => {}
            (Some(error), true) => self.fail_unit(error),
            (None, false) => self.run_rest(),
            (Some(error), false) => {
                self.fail(error);
                self.ready();
            }
        }
    }
}

/// The bound of an Execute.
fn rows_of(body: &[u8]) -> usize {
    let rows: [u8; 4] = body[body.len() - 4..].try_into().expect("four bytes");
    u32::from_be_bytes(rows) as usize
}
