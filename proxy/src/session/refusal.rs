//! The errors that the proxy itself answers with, each with its SQLSTATE, and a hint where there is a way out.

use std::borrow::Cow;

use bytes::Bytes;

use crate::limits::REGION_NAME_BYTES_MAX;
use crate::sql::SyntaxRefusal;
use crate::wire::{Report, Severity, SqlState, encode_error};

/// An error of the proxy's own for a client.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its class.
    pub sqlstate: SqlState,
    /// What is wrong.
    pub message: Cow<'static, str>,
    /// More about it.
    pub detail: Option<&'static str>,
    /// What to do.
    pub hint: Option<&'static str>,
    /// Where in the text, in characters from 1.
    pub position: Option<usize>,
}

impl Refusal {
    pub(super) fn new(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self { sqlstate, message: message.into(), detail: None, hint: None, position: None }
    }

    pub(super) fn with_hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// As an ErrorResponse that the session survives.
    pub(super) fn error(&self) -> Bytes {
        self.encode(Severity::Error)
    }

    /// As an ErrorResponse that ends the session.
    pub(super) fn fatal(&self) -> Bytes {
        self.encode(Severity::Fatal)
    }

    fn encode(&self, severity: Severity) -> Bytes {
        encode_error(&Report {
            severity,
            sqlstate: self.sqlstate,
            message: &self.message,
            detail: self.detail,
            hint: self.hint,
            position: self.position,
        })
    }

    /// Of a text that cannot be read.
    pub(super) fn of_text(refused: SyntaxRefusal) -> Self {
        Self { position: refused.position, detail: refused.detail, ..Self::new(refused.sqlstate, refused.message) }
    }

    /// Of a text whose meaning depends on a setting that statements before it in the same pipeline may change.
    pub(super) fn ambiguous_text() -> Self {
        Self::new(SqlState::FEATURE_NOT_SUPPORTED, "the meaning of this text depends on standard_conforming_strings")
            .with_hint("Send Sync before it, so that the value of the setting is known, or write E'…' for strings with escapes.")
    }

    pub(super) fn in_failed_transaction() -> Self {
        Self::new(
            SqlState::IN_FAILED_SQL_TRANSACTION,
            "current transaction is aborted, commands ignored until end of transaction block",
        )
    }

    pub(super) fn region_changes_too_late() -> Self {
        Self::new(SqlState::ACTIVE_SQL_TRANSACTION, "the region cannot change after a statement of the transaction has run")
            .with_hint("Set the region before the first statement of a transaction, message or pipeline.")
    }

    /// In the words that a login is refused with.
    pub(super) fn region_is_full(name: &str) -> Self {
        Self::new(SqlState::TOO_MANY_CONNECTIONS, format!("too many clients of region \"{name}\" already"))
            .with_hint("The proxy admits limits.max_clients_per_region of them.")
    }

    pub(super) fn region_changes_at_end() -> Self {
        Self::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "the end of this transaction changes the region, and statements that follow it would run in another one",
        )
        .with_hint("End the transaction in a message of its own, without AND CHAIN.")
    }

    /// The name of a region that no configuration could have.
    pub(super) fn of_region_name(name: &str) -> Option<Self> {
        (name.len() > REGION_NAME_BYTES_MAX).then(|| {
            Self::new(SqlState::INVALID_PARAMETER_VALUE, format!("a region name has at most {REGION_NAME_BYTES_MAX} bytes"))
        })
    }

    pub(super) fn duplicate_statement(name: &[u8]) -> Self {
        let text = format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(name));
        Self::new(SqlState::DUPLICATE_PREPARED_STATEMENT, text)
    }

    pub(super) fn no_statement(name: &[u8]) -> Self {
        if name.is_empty() {
            return Self::new(SqlState::INVALID_SQL_STATEMENT_NAME, "unnamed prepared statement does not exist");
        }
        let text = format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name));
        Self::new(SqlState::INVALID_SQL_STATEMENT_NAME, text)
    }

    /// In PostgreSQL's words: the statement would return other columns than the client was told.
    pub(super) fn result_has_changed() -> Self {
        Self::new(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type")
    }

    /// The server of a session was lost, for the reason that `lost` tells, between a COMMIT and its answer.
    pub(super) fn commit_unknown(lost: &Self) -> Self {
        let text = format!("{}; it is not known whether the transaction was committed", lost.message);
        Self::new(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, text)
            .with_hint("Look for what the transaction was to do before doing it again.")
    }

    pub(super) fn protocol(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(SqlState::PROTOCOL_VIOLATION, message)
    }

    /// The proxy has broken a rule of its own. It ends the session.
    pub(super) fn internal(message: &'static str) -> Self {
        Self::new(SqlState::INTERNAL_ERROR, message)
    }

    pub(super) fn is_internal(&self) -> bool {
        self.sqlstate == SqlState::INTERNAL_ERROR
    }
}
