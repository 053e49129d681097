//! What a statement text says, as far as the session, the pool and the policy ask for it.
//!
//! Plain values without behaviour. They are read from the text once and then shared, so nothing in here depends on the
//! session that sent the text, and nothing in here decides anything.

use std::ops::Range;
use std::rc::Rc;

use super::guard::GuardSet;
use crate::wire::SqlState;

/// What [`Reader::read`](crate::sql::Reader::read) found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// One statement that can only be [`Kind::Other`] and leaves nothing in its session. The text was not parsed: whether the
    /// grammar accepts it is for the backend to say.
    Plain,
    /// The grammar has read the text.
    Known(Rc<Facts>),
    /// The text can not be read and must be run nowhere.
    Refused(SyntaxRefusal),
}

/// Why a text can not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxRefusal {
    /// 42601 where PostgreSQL's grammar refuses the text (0A000 for a constant that a setting forbids), 54001 where reading it would
    /// take more than this module gives.
    pub sqlstate: SqlState,
    /// PostgreSQL's own words in the first case.
    pub message: String,
    /// More of them.
    pub detail: Option<&'static str>,
    /// Where, in characters from 1, if the grammar says so.
    pub position: Option<usize>,
}

/// The statements of a text, in order. Empty statements are left out, so a text of white space, comments and `;` has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// In the order of the text; their ranges do not overlap.
    pub statements: Box<[Statement]>,
}

/// One statement of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its bytes in the text: from its first token to its `;` (which is not part of it) or to the end of the text.
    pub range: Range<usize>,
    /// What it does.
    pub kind: Kind,
    /// By which ways it could have its server move data elsewhere.
    pub guards: GuardSet,
}

/// What a statement does to the session's region, to its transaction and to what a backend remembers.
///
/// "Of ours" below means: of one of the configured region parameters, whatever the spelling. Names compare as PostgreSQL
/// compares the names of settings, so `SET Helios.Region` and `SET "helios.region"` are both of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `SET`, `SET SESSION` or `SET LOCAL` of ours. The value is what PostgreSQL would store: identifiers folded, numbers as text;
    /// the empty string is a value.
    SetRegion { value: Box<str>, local: bool },
    /// `RESET` of ours, or `SET … TO DEFAULT`; only the latter can be local.
    ResetRegion { local: bool },
    /// `RESET ALL`.
    ResetAll,
    /// `DISCARD ALL`.
    DiscardAll,
    /// `SHOW` of ours. The column is named as the configuration spells the parameter: so does PostgreSQL name it.
    ShowRegion { column: Box<str> },
    /// `SHOW domicile.node`.
    ShowNode { column: Box<str> },
    /// `SELECT set_config('ours', 'literal', true | false) [AS column]` and nothing beside it. A value of `NULL` (`None`) resets.
    SetConfigRegion { value: Option<Box<str>>, local: bool, column: Box<str> },
    /// `BEGIN` or `START TRANSACTION`, with whatever modes.
    Begin,
    /// `COMMIT` or `END`.
    Commit { chain: bool },
    /// `ROLLBACK` or `ABORT`.
    Rollback { chain: bool },
    /// `ROLLBACK TO SAVEPOINT`.
    RollbackTo { name: Box<str> },
    /// `SAVEPOINT`.
    Savepoint { name: Box<str> },
    /// `RELEASE SAVEPOINT`.
    Release { name: Box<str> },
    /// `PREPARE TRANSACTION`.
    PrepareTransaction,
    /// `SET TRANSACTION` with modes; `SET TRANSACTION SNAPSHOT` is [`Kind::Other`].
    SetTransaction,
    /// `SET` or `RESET` of any other setting, by its name as it was written; `SET ROLE`, `SET SESSION AUTHORIZATION` and
    /// `SET SESSION CHARACTERISTICS` are named [`ROLE`], [`SESSION_AUTHORIZATION`] and by an empty name.
    SetOther { name: Box<str>, extent: Extent },
    /// `DEALLOCATE name`, or `DEALLOCATE ALL` (`None`).
    Deallocate { name: Option<Box<str>> },
    /// Must not run, although the grammar accepts it.
    Refused(Refusal),
    /// All else.
    Other { state: Option<SessionState> },
}

/// How far a SET reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// To the end of the session.
    Session,
    /// To the end of the transaction (`SET LOCAL`).
    Transaction,
    /// Back to what the session began with (`RESET`, `SET … TO DEFAULT`).
    Start,
}

/// The setting of `SET ROLE`, as the grammar names it.
pub const ROLE: &str = "role";
/// The setting of `SET SESSION AUTHORIZATION`, as the grammar names it.
pub const SESSION_AUTHORIZATION: &str = "session_authorization";

/// The answer to a statement that must not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 0A000 or 22023 (22021 for bytes that are not UTF-8 in a name or value that the proxy would have to understand).
    pub sqlstate: SqlState,
    /// For the client.
    pub message: Box<str>,
    /// What to do instead.
    pub hint: Option<&'static str>,
}

/// What a statement may leave behind in the session of the backend that runs it.
///
/// As far as the text shows it: what a function does inside the backend can not be seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// A setting, by a call of `set_config` that is not of ours, or by whatever `DO` runs.
    Setting,
    /// A prepared statement: SQL's `PREPARE` and `EXECUTE`.
    Prepare,
    /// A cursor that outlives its transaction.
    HeldCursor,
    /// `LISTEN` and `UNLISTEN`.
    Listen,
    /// A temporary table, view or sequence, or anything else that is named in `pg_temp`.
    TemporaryTable,
    /// An advisory lock of the session, not of the transaction.
    AdvisoryLock,
    /// What `currval` and `lastval` will say, by a call of `nextval` or `setval`.
    Sequence,
    /// A call of `currval` or `lastval`, which asks for what the session has left behind before.
    SequenceRead,
    /// A library that is loaded into the backend, which nothing unloads.
    Library,
}
