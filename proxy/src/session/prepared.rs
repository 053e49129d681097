//! Prepared statements of clients in transaction mode, where the next statement may meet a backend that has never seen them.
//!
//! The session knows its statements by the client's names, the backend by names made of what they are, so
//! that sessions share what they prepare alike. A statement that a backend lacks is prepared there just before it is used, and the
//! ParseComplete of that is dropped. The unnamed statement stays unnamed on both sides: what is used once is not worth keeping.
//!
//! What a message will do is noted here as it is sent, for the messages behind it, although an error may undo it: a server that
//! fails skips everything up to the next Sync. So each such step leaves a [`Note`], which is settled with the reply or undone with
//! the failure. A message of a later unit waits until the notes of earlier ones are settled.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use sha2::{Digest, Sha256};

use super::Refusal;
use super::client::Session;
use super::local::LocalStatement;
use super::pin::Cause;
use super::settings::{STRINGS, quoted};
use crate::pool::{Backend, Description, Parameters, PreparedStatement, StatementDigest, UnnamedStatement};
use crate::wire::SqlState;
use crate::wire::backend::row_description_columns;
use crate::wire::error::error_of_parts;

/// The reported settings that change what a text means when it is parsed: how its constants are read.
const ENVIRONMENT: [&str; 5] = ["client_encoding", "DateStyle", "IntervalStyle", "TimeZone", STRINGS];

/// What a Parse has said, without the name.
pub(super) struct Statement {
    pub(super) digest: StatementDigest,
    /// The name that it has on every backend.
    pub(super) server_name: Box<str>,
    /// The body of the Parse behind its name: text and parameter types.
    pub(super) definition: Box<[u8]>,
    /// Under which settings it was parsed.
    environment: Arc<Parameters>,
    /// What it leaves behind when it runs.
    pub(super) leaves: Option<Cause>,
}

impl Statement {
    /// What sets the settings under which it was parsed, if it could be parsed to something else under these, and what sets these back.
    pub(super) fn environment(&self, settings: &Arc<Parameters>) -> Option<Environment> {
        Environment::of(&self.definition, &self.environment, settings)
    }
}

/// How the names of shared statements begin on backends, and how many hexadecimal digits follow.
pub(super) const SERVER_NAME_PREFIX: &str = "domicile_";
const SERVER_NAME_DIGITS: usize = 32;

/// The name of a shared statement on a backend.
pub(super) fn server_name(digest: StatementDigest) -> String {
    format!("{SERVER_NAME_PREFIX}{:0SERVER_NAME_DIGITS$x}", u128::from_be_bytes(digest.0))
}

/// The unnamed statement of a session.
#[derive(Default)]
pub(super) struct Unnamed {
    pub(super) digest: Option<StatementDigest>,
    pub(super) definition: Vec<u8>,
    environment: Option<Arc<Parameters>>,
    pub(super) leaves: Option<Cause>,
}

impl Unnamed {
    /// As [`Statement::environment`].
    pub(super) fn environment(&self, settings: &Arc<Parameters>) -> Option<Environment> {
        Environment::of(&self.definition, self.environment.as_ref()?, settings)
    }
}

/// Statements that bring the settings of an earlier Parse back, to the end of the transaction at most, and the present ones again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) earlier: String,
    pub(super) present: String,
}

impl Environment {
    fn of(definition: &[u8], earlier: &Arc<Parameters>, present: &Arc<Parameters>) -> Option<Self> {
        if Arc::ptr_eq(earlier, present) || !has_constants(definition) {
            return None;
        }
        let differs = |name: &&&str| earlier.get(name) != present.get(name);
        let set = |settings: &Parameters| {
            let differing = ENVIRONMENT.iter().filter(differs);
            let calls = differing.filter_map(|name| {
                let value = quoted(settings.get(name)?);
                Some(format!("pg_catalog.set_config('{name}', {value}, true)"))
            });
            format!("SELECT {}", calls.collect::<Vec<_>>().join(", "))
        };
        let is_other = ENVIRONMENT.iter().any(|name| differs(&name));
        is_other.then(|| Self { earlier: set(earlier), present: set(present) })
    }
}

/// Whether there may be a string constant in a definition, or a letter that the encoding gives its meaning.
fn has_constants(definition: &[u8]) -> bool {
    let text = definition.split(|byte| *byte == 0).next().unwrap_or_default();
    text.iter().any(|byte| matches!(byte, b'\'' | b'$') || !byte.is_ascii())
}

/// A statement by the client's name for it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) statement: Rc<Statement>,
    /// What the client was told that it returns.
    pub(super) told: Option<Description>,
}

/// A portal, and the statement that it was bound from.
pub(super) struct Bound {
    pub(super) portal: Box<[u8]>,
    pub(super) statement: Box<[u8]>,
}

/// The prepared statements of one session.
#[derive(Default)]
pub(super) struct SessionStatements {
    named: HashMap<Box<[u8]>, Entry>,
    bytes: usize,
    unnamed: Unnamed,
    /// Memory for the next unnamed statement.
    spare: Vec<u8>,
    /// The portal that was bound last and its statement, when the client is still to be told what it returns.
    pub(super) bound: Option<Bound>,
    /// A statement was made anew to see what it returns now, before its next use.
    pub(super) renewed: Option<StatementDigest>,
}

/// What one session may have of them in transaction mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementBounds {
    /// How many.
    pub count: usize,
    /// Bytes of their texts and names, together.
    pub bytes: usize,
}

impl SessionStatements {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Entry> {
        self.named.get(name)
    }

    pub(super) fn len(&self) -> usize {
        self.named.len()
    }

    /// Why one more statement of these bytes cannot be taken.
    pub(super) fn refuses(&self, bytes: usize, bounds: StatementBounds) -> Option<Refusal> {
        let StatementBounds { count, bytes: bytes_max } = bounds;
        let (text, hint) = if self.named.len() >= count {
            let text = format!("a session has at most {count} prepared statements in transaction pooling mode");
            (text, "Close what is not used any more, or raise limits.session_statements.")
        } else if self.bytes + bytes > bytes_max {
            let text = format!("the prepared statements of a session have at most {bytes_max} bytes in transaction pooling mode");
            (text, "Close what is not used any more, or raise limits.session_statement_bytes.")
        } else {
            return None;
        };
        Some(Refusal::new(SqlState::PROGRAM_LIMIT_EXCEEDED, text).with_hint(hint))
    }

    pub(super) fn insert(&mut self, name: Box<[u8]>, entry: Entry) {
        self.bytes += name.len() + entry.statement.definition.len();
        self.named.insert(name, entry);
    }

    /// The client was told what a statement returns, by the name that it had then.
    fn describe(&mut self, name: &[u8], digest: StatementDigest, description: Description) {
        if let Some(entry) = self.named.get_mut(name).filter(|entry| entry.statement.digest == digest) {
            entry.told = Some(description);
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<(Box<[u8]>, Entry)> {
        let (name, entry) = self.named.remove_entry(name)?;
        self.bytes = self.bytes.saturating_sub(name.len() + entry.statement.definition.len());
        Some((name, entry))
    }

    pub(super) fn clear(&mut self) {
        self.named = HashMap::new();
        self.bytes = 0;
    }

    /// The unnamed statement.
    pub(super) fn unnamed(&self) -> Option<&Unnamed> {
        Some(&self.unnamed).filter(|unnamed| unnamed.digest.is_some())
    }

    /// There is another unnamed statement now; the one before.
    pub(super) fn replace_unnamed(
        &mut self,
        digest: StatementDigest,
        definition: &[u8],
        environment: &Arc<Parameters>,
        leaves: Option<Cause>,
    ) -> Unnamed {
        let mut memory = std::mem::take(&mut self.spare);
        memory.clear();
        memory.extend_from_slice(definition);
        let next = Unnamed { digest: Some(digest), definition: memory, environment: Some(environment.clone()), leaves };
        std::mem::replace(&mut self.unnamed, next)
    }

    /// There is no unnamed statement any more; the one before.
    pub(super) fn drop_unnamed(&mut self) -> Unnamed {
        std::mem::take(&mut self.unnamed)
    }

    fn reuse(&mut self, unnamed: Unnamed) {
        if unnamed.definition.capacity() > self.spare.capacity() && unnamed.definition.capacity() <= SPARE_BYTES_MAX {
            self.spare = unnamed.definition;
        }
    }
}

/// Memory that a session keeps for its next unnamed statement.
const SPARE_BYTES_MAX: usize = 4 << 10;

/// The statements that the sessions of a worker have prepared, to be shared. A statement is there as long as a session has it.
#[derive(Default)]
pub(super) struct SharedStatements {
    known: HashMap<StatementDigest, Weak<Statement>>,
    /// Entries are looked through for dead ones when there are this many.
    sweep_at: usize,
    serial: u64,
}

impl SharedStatements {
    /// A number that no other statement of this worker has.
    pub(super) fn unique(&mut self) -> StatementDigest {
        self.serial += 1;
        let mut digest = [0; 16];
        let (number, _) = digest.split_at_mut(8);
        number.copy_from_slice(&self.serial.to_be_bytes());
        StatementDigest(digest)
    }

    /// A statement. `alone`: it must not be taken for one that another session has parsed.
    pub(super) fn statement(
        &mut self,
        definition: &[u8],
        environment: &Arc<Parameters>,
        leaves: Option<Cause>,
        alone: bool,
    ) -> Rc<Statement> {
        let mut hasher = Sha256::new();
        for name in ENVIRONMENT {
            hasher.update(environment.get(name).unwrap_or_default());
            hasher.update([0]);
        }
        hasher.update(definition);
        if alone {
            hasher.update(self.unique().0);
        }
        let mut digest = [0; 16];
        digest.iter_mut().zip(hasher.finalize()).for_each(|(byte, hashed)| *byte = hashed);
        let digest = StatementDigest(digest);
        if let Some(known) = self.known.get(&digest).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, statement| statement.strong_count() > 0);
            self.sweep_at = 2 * self.known.len() + 64;
        }
        let statement = Rc::new(Statement {
            digest,
            server_name: server_name(digest).into(),
            definition: definition.into(),
            environment: environment.clone(),
            leaves,
        });
        self.known.insert(digest, Rc::downgrade(&statement));
        statement
    }
}

/// A step that is taken as sent and stands or falls with its reply.
pub(super) enum Note {
    /// A Parse of a shared statement; with the client's name for it, if it is the client's own.
    Parse(StatementDigest, Option<Box<[u8]>>),
    /// The client's name is gone.
    Closed(Box<[u8]>, Entry),
    /// A statement is closed on the backend, to make room or to be made anew.
    Evicted(StatementDigest, PreparedStatement),
    /// The client's Parse of the unnamed statement, in place of an earlier one.
    Unnamed(StatementDigest, Unnamed, Option<UnnamedStatement>, Option<Rc<LocalStatement>>),
    /// The same statement once more, because the backend had another.
    UnnamedAgain(StatementDigest, Option<UnnamedStatement>),
    /// The client has closed the unnamed statement.
    UnnamedClosed(Unnamed),
    /// A statement of the proxy's own has got this name, or has lost it to another: what the name stood for before.
    Local(Box<[u8]>, Before),
    /// A Describe of a shared statement or of its portal; with the client's name for the statement, if the client is told.
    Described(StatementDigest, Option<Box<[u8]>>),
}

/// What a name stood for.
pub(super) struct Before {
    pub(super) local: Option<Rc<LocalStatement>>,
    /// For the empty name.
    pub(super) unnamed: Unnamed,
    pub(super) unnamed_ended: bool,
    /// [`Session::unnamed_serial`] before the change; it is one more after.
    pub(super) serial: u64,
}

impl Note {
    fn is_named(&self) -> bool {
        match self {
            Self::Local(name, _) => !name.is_empty(),
            _ => matches!(self, Self::Parse(..) | Self::Closed(..) | Self::Evicted(..)),
        }
    }

    fn is_unnamed(&self) -> bool {
        match self {
            Self::Local(name, _) => name.is_empty(),
            _ => matches!(self, Self::Unnamed(..) | Self::UnnamedAgain(..) | Self::UnnamedClosed(_)),
        }
    }
}

impl Session {
    /// The session's statements, where the proxy keeps them.
    pub(super) fn statements(&mut self) -> &mut SessionStatements {
        self.statements.get_or_insert_default()
    }

    /// Notes of earlier units decide what the names mean.
    pub(super) fn names_are_unsettled(&self) -> bool {
        self.clearing && !self.is_quiet() || !self.unit.named && self.notes.iter().any(Note::is_named)
    }

    /// Notes of earlier units decide what the unnamed statement is.
    pub(super) fn unnamed_is_unsettled(&self) -> bool {
        !self.unit.unnamed && self.notes.iter().any(Note::is_unnamed)
    }

    /// An ErrorResponse that names one of the session's statements as the server knows it, with the client's name in its place.
    pub(super) fn in_its_words(&self, error: &[u8]) -> Option<Bytes> {
        let statements = self.statements.as_ref()?;
        let start = memmem::find(error, SERVER_NAME_PREFIX.as_bytes())?;
        let end = start + SERVER_NAME_PREFIX.len() + SERVER_NAME_DIGITS;
        let (before, named, after) = (error.get(..start)?, error.get(start..end)?, error.get(end..)?);
        let (name, _) = statements.named.iter().find(|(_, entry)| entry.statement.server_name.as_bytes() == named)?;
        Some(error_of_parts(&[before, name, after]))
    }

    /// What a name stands for now, before that changes.
    pub(super) fn before(&mut self, name: &[u8]) -> Before {
        let local = self.local.as_mut().and_then(|local| local.statements.remove(name));
        let unnamed = self.statements.as_mut().filter(|_| name.is_empty()).map(|statements| statements.drop_unnamed());
        let serial = self.unnamed_serial;
        self.unnamed_serial += u64::from(name.is_empty());
        Before { local, unnamed: unnamed.unwrap_or_default(), unnamed_ended: self.unnamed_ended, serial }
    }

    fn restore_name(&mut self, name: Box<[u8]>, before: Before) {
        let Before { local, unnamed, unnamed_ended, serial } = before;
        if name.is_empty() {
            if self.unnamed_serial != serial + 1 {
                // A later unit has changed it since.
                return;
            }
            self.unnamed_serial = serial;
            self.unnamed_ended = unnamed_ended;
            if unnamed.digest.is_some() {
                self.statements().unnamed = unnamed;
            }
        }
        let statements = &mut self.local.get_or_insert_default().statements;
        match local {
            Some(statement) => drop(statements.insert(name, statement)),
            None => drop(statements.remove(&name)),
        }
    }

    /// Whether steps of earlier units decide what a name means.
    pub(super) fn is_unsettled(&self, name: &[u8]) -> bool {
        if name.is_empty() { self.unnamed_is_unsettled() } else { self.names_are_unsettled() }
    }

    /// Makes a note for a reply that is owed from now on.
    pub(super) fn note(&mut self, note: Note) {
        self.unit.named |= note.is_named();
        self.unit.unnamed |= note.is_unnamed();
        self.notes.push_back(note);
    }

    /// The reply to the oldest note has come: it stands. `reply` is the message that ends it, without its header.
    pub(super) fn settle_note(&mut self, backend: &mut Backend, reply: &[u8]) {
        match self.notes.pop_front() {
            Some(Note::Parse(digest, _)) => backend.prepared.parsed(digest),
            Some(Note::Unnamed(digest, previous, ..)) => {
                backend.prepared.parsed_unnamed(digest);
                self.statements().reuse(previous);
            }
            Some(Note::UnnamedAgain(digest, _)) => backend.prepared.parsed_unnamed(digest),
            Some(Note::Described(digest, name)) => {
                let description = description(reply);
                if let Some(statement) = backend.prepared.get(digest) {
                    statement.description = Some(description);
                }
                if let Some(name) = name {
                    self.statements().describe(&name, digest, description);
                }
            }
            Some(Note::Local(..) | Note::Closed(..) | Note::Evicted(..) | Note::UnnamedClosed(_)) | None => {}
        }
    }

    /// The replies to the oldest notes will not come: the steps have not been taken, but for the `first_failed`, which was tried.
    pub(super) fn undo_notes(&mut self, backend: &mut Backend, count: usize, first_failed: bool) {
        let undone: Vec<Note> = self.notes.drain(..count.min(self.notes.len())).collect();
        for (place, note) in undone.into_iter().enumerate().rev() {
            let was_tried = first_failed && place == 0;
            match note {
                Note::Parse(digest, name) => {
                    backend.prepared.forget(digest);
                    name.and_then(|name| self.statements().remove(&name));
                }
                Note::Closed(name, entry) => self.statements().insert(name, entry),
                Note::Evicted(digest, statement) => backend.prepared.restore(digest, statement),
                Note::Unnamed(digest, previous, there, local) => {
                    backend.prepared.restore_unnamed(there.filter(|_| !was_tried));
                    let statements = self.statements();
                    // A later unit may have parsed another one since.
                    if statements.unnamed.digest == Some(digest) {
                        statements.unnamed = if was_tried { Unnamed::default() } else { previous };
                        if let Some(local) = local.filter(|_| !was_tried) {
                            self.local.get_or_insert_default().statements.insert((&b""[..]).into(), local);
                        }
                    }
                }
                Note::UnnamedAgain(_, there) => backend.prepared.restore_unnamed(there.filter(|_| !was_tried)),
                Note::Described(..) => {}
                Note::Local(name, Before { serial, .. }) if was_tried && name.is_empty() => {
                    // The Parse has ended the one before all the same.
                    let ended = Before { local: None, unnamed: Unnamed::default(), unnamed_ended: true, serial };
                    self.restore_name(name, ended);
                }
                Note::Local(name, before) => self.restore_name(name, before),
                Note::UnnamedClosed(previous) => {
                    let statements = self.statements();
                    if statements.unnamed.digest.is_none() {
                        statements.unnamed = previous;
                    }
                }
            }
        }
    }
}

/// A number for what a RowDescription says of names and types, so that two that differ have different numbers; NoData has one too.
fn description(body: &[u8]) -> Description {
    let mut hasher = DefaultHasher::new();
    match row_description_columns(body) {
        Some(columns) => columns.hash(&mut hasher),
        // NoData, or a description too long to be looked at whole: all that was seen of it.
        None => body.hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(date_style: &str) -> Arc<Parameters> {
        Arc::new([("DateStyle", date_style), ("application_name", date_style)].into_iter().collect())
    }

    #[test]
    fn a_statement_is_what_was_said_and_under_which_settings() {
        let mut shared = SharedStatements::default();
        let mut digest =
            |definition: &[u8], date_style, alone| shared.statement(definition, &settings(date_style), None, alone).digest;
        let one = digest(b"SELECT 1\0\0\0", "ISO", false);
        assert_eq!(digest(b"SELECT 1\0\0\0", "ISO", false), one);
        assert_ne!(digest(b"SELECT 1\0\0\x01\0\0\0\x17", "ISO", false), one);
        assert_ne!(digest(b"SELECT 1\0\0\0", "German", false), one);
        assert_ne!(digest(b"SELECT 1\0\0\0", "ISO", true), one);
        assert_ne!(digest(b"SELECT 1\0\0\0", "ISO", true), digest(b"SELECT 1\0\0\0", "ISO", true));
    }

    #[test]
    fn only_a_text_with_constants_depends_on_settings() {
        let mut shared = SharedStatements::default();
        let mut depends = |definition: &[u8], date_style| {
            shared.statement(definition, &settings("ISO"), None, false).environment(&settings(date_style))
        };
        let expected = Environment {
            earlier: "SELECT pg_catalog.set_config('DateStyle', 'ISO', true)".into(),
            present: "SELECT pg_catalog.set_config('DateStyle', 'German', true)".into(),
        };
        assert_eq!(depends(b"SELECT '1/2/2000'::date\0\0\0", "German"), Some(expected));
        assert_eq!(depends(b"SELECT '1/2/2000'::date\0\0\0", "ISO"), None);
        assert_eq!(depends(b"SELECT a FROM t WHERE b = 1\0\0\x01\xff\xff\xff\xff", "German"), None);
    }

    #[test]
    fn what_no_session_has_is_forgotten() {
        let mut shared = SharedStatements::default();
        for number in 0..1000 {
            shared.statement(format!("SELECT {number}\0\0\0").as_bytes(), &settings("ISO"), None, false);
        }
        assert!(shared.known.len() <= 65, "{}", shared.known.len());
    }

    #[test]
    fn a_session_has_so_many_statements() {
        let mut shared = SharedStatements::default();
        let mut statements = SessionStatements::default();
        let bounds = StatementBounds { count: 3, bytes: 2000 };
        let statement = shared.statement(&[b'x'; 1000], &settings("ISO"), None, false);
        statements.insert(b"a".as_slice().into(), Entry { statement: statement.clone(), told: None });
        assert!(statements.refuses(1, bounds).is_none());
        assert!(statements.refuses(statement.definition.len(), bounds).is_some());
        statements.remove(b"a");
        assert_eq!(statements.bytes, 0);
        for number in 0..bounds.count {
            assert!(statements.refuses(1, bounds).is_none());
            let statement = shared.statement(b"SELECT 1\0\0\0", &settings("ISO"), None, false);
            statements.insert(number.to_string().into_bytes().into(), Entry { statement, told: None });
        }
        assert!(statements.refuses(1, bounds).is_some());
    }
}
