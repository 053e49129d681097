//! What a statement leaves behind in its backend, and what a transaction pool does about it.
//!
//! PostgreSQL keeps such state for as long as a session lives; a transaction pool lends the backend to somebody else before that.
//! So the session that makes some keeps its backend from then on (it is *pinned*), or is refused; and whatever happens, the backend
//! is reset and checked, or closed, before anyone else gets it. Settings that the server reports (ParameterStatus) are no reason to
//! pin: the proxy knows and restores them (`settings`).
//!
//! What functions do inside the server is not seen here.

use std::time::Instant;

use super::client::Session;
use super::output::Outputs;
use super::settings::is_restorable;
use super::{Common, Refusal};
use crate::pool::{Backend, BackendKey, Parameters, PoolMode, StatePolicy};
use crate::sql::{self, Extent, SessionState};
use crate::wire::{Report, Severity, SqlState, encode_notice};

/// Why a session keeps its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// SET of a setting that the server does not report, or reports in an encoding that is not UTF-8; `set_config`, or a `DO`.
    Setting,
    /// `SET ROLE`.
    Role,
    /// `SET SESSION AUTHORIZATION`.
    SessionAuthorization,
    /// SQL's `PREPARE` and `EXECUTE`.
    Prepare,
    /// A cursor `WITH HOLD`.
    HeldCursor,
    /// `LISTEN` and `UNLISTEN`.
    Listen,
    /// A temporary table, view or sequence.
    TemporaryTable,
    /// An advisory lock of the session.
    AdvisoryLock,
    /// `nextval` and `setval`, which `currval` and `lastval` remember.
    Sequence,
    /// `currval` and `lastval` themselves.
    SequenceRead,
    /// `LOAD`.
    Library,
}

/// The pin of a session.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    /// What pinned it first.
    pub cause: Cause,
    /// When.
    pub since: Instant,
    /// How many replies the session had asked for when something was left behind last.
    asked: u64,
}

impl Cause {
    /// Of two things that are left behind, the one that is harder to be rid of.
    pub(super) fn and(self, other: Self) -> Self {
        if other == Self::Library || self == Self::SequenceRead { other } else { self }
    }

    /// The cause in words: in the NOTICE, in the console, and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Setting => "SET",
            Self::Role => "SET ROLE",
            Self::SessionAuthorization => "SET SESSION AUTHORIZATION",
            Self::Prepare => "PREPARE",
            Self::HeldCursor => "cursor WITH HOLD",
            Self::Listen => "LISTEN",
            Self::TemporaryTable => "temporary table",
            Self::AdvisoryLock => "session-level advisory lock",
            Self::Sequence => "nextval",
            Self::SequenceRead => "currval",
            Self::Library => "LOAD",
        }
    }

    /// What a statement of this kind leaves behind in a backend that reports the settings `reported`.
    pub(super) fn of(kind: &sql::Kind, reported: &Parameters) -> Option<Self> {
        match kind {
            sql::Kind::SetOther { name, extent } => Self::of_setting(name, *extent, reported),
            sql::Kind::Other { state } => state.map(Self::of_state),
            sql::Kind::SetRegion { .. }
            | sql::Kind::ResetRegion { .. }
            | sql::Kind::ResetAll
            | sql::Kind::DiscardAll
            | sql::Kind::Deallocate { .. }
            | sql::Kind::ShowRegion { .. }
            | sql::Kind::ShowNode { .. }
            | sql::Kind::SetConfigRegion { .. }
            | sql::Kind::Begin
            | sql::Kind::Commit { .. }
            | sql::Kind::Rollback { .. }
            | sql::Kind::RollbackTo { .. }
            | sql::Kind::Savepoint { .. }
            | sql::Kind::Release { .. }
            | sql::Kind::PrepareTransaction
            | sql::Kind::SetTransaction
            | sql::Kind::Refused(_) => None,
        }
    }

    fn of_setting(name: &str, extent: Extent, reported: &Parameters) -> Option<Self> {
        match extent {
            // A session that is not pinned has nothing that a RESET would undo but what the proxy knows.
            Extent::Transaction | Extent::Start => None,
            Extent::Session if name.eq_ignore_ascii_case(sql::ROLE) => Some(Self::Role),
            Extent::Session if name.eq_ignore_ascii_case(sql::SESSION_AUTHORIZATION) => Some(Self::SessionAuthorization),
            Extent::Session => {
                let known = reported.iter().any(|(known, _)| known.eq_ignore_ascii_case(name) && is_restorable(known));
                (!known).then_some(Self::Setting)
            }
        }
    }

    fn of_state(state: SessionState) -> Self {
        match state {
            SessionState::Setting => Self::Setting,
            SessionState::Prepare => Self::Prepare,
            SessionState::HeldCursor => Self::HeldCursor,
            SessionState::Listen => Self::Listen,
            SessionState::TemporaryTable => Self::TemporaryTable,
            SessionState::AdvisoryLock => Self::AdvisoryLock,
            SessionState::Sequence => Self::Sequence,
            SessionState::SequenceRead => Self::SequenceRead,
            SessionState::Library => Self::Library,
        }
    }

    /// The refusal of a statement that would leave it behind.
    pub(super) fn refusal(self) -> Refusal {
        let what = match self {
            Self::Setting => "SET of this setting and DO are",
            Self::Role => "SET ROLE is",
            Self::SessionAuthorization => "SET SESSION AUTHORIZATION is",
            Self::Prepare => "PREPARE and EXECUTE are",
            Self::HeldCursor => "cursors WITH HOLD are",
            Self::Listen => "LISTEN and UNLISTEN are",
            Self::TemporaryTable => "temporary tables are",
            Self::AdvisoryLock => "session-level advisory locks are",
            Self::Sequence => "nextval and setval are",
            Self::SequenceRead => "currval and lastval are",
            Self::Library => "LOAD is",
        };
        Refusal::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} not supported in transaction pooling mode"))
            .with_hint("Use session_state = \"pin\" or pool_mode = \"session\".")
    }
}

impl Pin {
    /// The refusal of a statement in another region than the one that the session keeps a backend of.
    pub(super) fn refuses_to_move(self) -> Refusal {
        let text = format!("the session keeps its server connection and cannot leave its region: {}", self.cause.as_str());
        Refusal::new(SqlState::OBJECT_IN_USE, text)
            .with_hint("Set the region back, or give the connection back with DISCARD ALL and set the region then.")
    }
}

impl Session {
    /// Whether the session keeps its backend from one transaction to the next.
    pub(super) fn keeps_backend(&self) -> bool {
        self.mode == PoolMode::Session || self.pin.is_some()
    }
}

impl Common {
    /// Whether a statement that leaves something behind is refused to this session.
    pub(super) fn refuses_state(&self, session: &Session) -> bool {
        !session.keeps_backend() && self.settings.session_state == StatePolicy::Refuse
    }

    /// A statement of the session is about to leave something behind in its backend.
    pub(super) fn leaves_behind(&mut self, session: &mut Session, key: BackendKey, cause: Cause, out: &mut Outputs) {
        if let Some(backend) = self.pools.get(key) {
            backend.dirty = true;
            // DISCARD ALL unloads no library, and leaves the schema of temporary tables behind, by which PostgreSQL judges whether a
            // transaction may be prepared (`PREPARE TRANSACTION`).
            backend.spoiled |= matches!(cause, Cause::Library | Cause::TemporaryTable);
        }
        // What was left behind before a DISCARD ALL that is under way, keeps nothing any more.
        let is_first = session.pin.is_none_or(|pin| pin.asked < session.discarded_at);
        if let Some(pin) = &mut session.pin {
            pin.asked = session.asked;
        }
        if session.mode == PoolMode::Session || !is_first || self.settings.session_state != StatePolicy::Pin {
            return;
        }
        session.pin = Some(Pin { cause, since: self.now, asked: session.asked });
        self.counters.pins_total.add(1);
        if self.settings.pin_notice {
            let message = format!("this session keeps its server connection from now on: {}", cause.as_str());
            let report = Report {
                severity: Severity::Notice,
                sqlstate: SqlState::SUCCESSFUL_COMPLETION,
                message: &message,
                detail: None,
                hint: Some("DISCARD ALL gives it back. The setting pin_notice turns this message off."),
                position: None,
            };
            self.answer(session, encode_notice(&report), out);
        }
    }

    /// A backend has been lent to the session. One that keeps it is not watched in what it does there.
    pub(super) fn lent(&mut self, session: &Session, key: BackendKey) {
        if session.mode == PoolMode::Session
            && let Some(backend) = self.pools.get(key)
        {
            backend.dirty = true;
        }
    }

    /// DISCARD ALL of a session whose backend need not run it: nothing that was made there is kept.
    pub(super) fn discard_all(&mut self, session: &mut Session) {
        session.pin = None;
        session.deallocate(None);
        if let Some(key) = session.backend.take() {
            self.pools.release(key, self.now);
        }
    }

    /// Before a statement that reads what the session has left behind, and that has no backend yet: what others have left behind in
    /// the backend that it gets must be gone first.
    pub(super) fn reads_sequence(&self, session: &mut Session, cause: Option<Cause>) {
        let is_first = session.backend.is_none() && !session.keeps_backend();
        session.forgets_sequences |= is_first && cause == Some(Cause::SequenceRead);
    }
}

/// A backend has said that it has carried out a statement. Two of them are for the proxy too, however they came about.
pub(super) fn completed(found: &mut Backend, session: &mut Session, tag: &[u8]) {
    let discards = tag == b"DISCARD ALL";
    if discards || tag == b"DEALLOCATE ALL" {
        found.prepared.clear();
        session.deallocate(None);
    }
    if discards {
        // What was sent behind it has not been discarded.
        let asked = (session.asked + 1).saturating_sub(session.owed as u64);
        session.pin = session.pin.filter(|pin| pin.asked >= asked);
    }
}
