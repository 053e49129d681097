//! Why a client is not let in: what it is told, and what only the log says.

use bytes::Bytes;

use crate::observe::LoginOutcome;
use crate::session::REPLICATION_HINT;
use crate::wire::{Report, Severity, SqlState, encode_error};

/// A FATAL error that ends a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it is counted as.
    pub outcome: LoginOutcome,
    /// Its class.
    pub sqlstate: SqlState,
    /// What the client is told.
    pub message: String,
    /// More of it.
    pub detail: Option<&'static str>,
    /// What to do.
    pub hint: Option<&'static str>,
    /// What the client must not learn; for the log.
    pub cause: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(outcome: LoginOutcome, sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self { outcome, sqlstate, message: message.into(), detail: None, hint: None, cause: None }
    }

    /// The client broke the protocol.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(LoginOutcome::Malformed, SqlState::PROTOCOL_VIOLATION, message)
    }

    /// The one answer to a wrong password and to an unknown user.
    pub(super) fn password(user: &str, cause: &'static str) -> Self {
        let message = format!("password authentication failed for user \"{user}\"");
        Self { cause: Some(cause), ..Self::new(LoginOutcome::Password, SqlState::INVALID_PASSWORD, message) }
    }

    /// There are too many clients, or too many that are just logging in.
    pub(super) fn too_many() -> Self {
        Self::new(LoginOutcome::TooMany, SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
    }

    /// No bind rule lets this login replicate.
    pub(super) fn replication() -> Self {
        let message = "replication connections are not permitted for this login";
        Self::new(LoginOutcome::Unsupported, SqlState::FEATURE_NOT_SUPPORTED, message).with_hint(REPLICATION_HINT)
    }

    pub(super) fn with_detail(self, detail: &'static str) -> Self {
        Self { detail: Some(detail), ..self }
    }

    pub(super) fn with_hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// The ErrorResponse that the client gets.
    pub fn encode(&self) -> Bytes {
        encode_error(&Report {
            severity: Severity::Fatal,
            sqlstate: self.sqlstate,
            message: &self.message,
            detail: self.detail,
            hint: self.hint,
            position: None,
        })
    }
}
