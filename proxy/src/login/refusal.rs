//! Why a client is not let in: what it is told, and what only the log says.

use std::borrow::Cow;

use bytes::Bytes;

use crate::observe::{Limit, LoginOutcome};
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
    pub cause: Option<Cow<'static, str>>,
    /// The bound that it is because of.
    pub limit: Option<Limit>,
}

impl Refusal {
    pub(super) fn new(outcome: LoginOutcome, sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self { outcome, sqlstate, message: message.into(), detail: None, hint: None, cause: None, limit: None }
    }

    /// The client broke the protocol.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(LoginOutcome::Malformed, SqlState::PROTOCOL_VIOLATION, message)
    }

    /// The one answer to a wrong password and to an unknown user.
    pub(super) fn password(user: &str, cause: &'static str) -> Self {
        let message = format!("password authentication failed for user \"{user}\"");
        Self { cause: Some(cause.into()), ..Self::new(LoginOutcome::Password, SqlState::INVALID_PASSWORD, message) }
    }

    /// The same for a token by OAUTHBEARER, in PostgreSQL's words.
    pub(super) fn oauth(user: &str, cause: &'static str) -> Self {
        let message = format!("OAuth bearer authentication failed for user \"{user}\"");
        let sqlstate = SqlState::INVALID_AUTHORIZATION_SPECIFICATION;
        Self { cause: Some(cause.into()), ..Self::new(LoginOutcome::Password, sqlstate, message) }
    }

    /// There are as many as there may be; `name` says whose, if the bound is of one user, database or region.
    pub(super) fn limited(limit: Limit, name: &str) -> Self {
        let (message, hint) = match limit {
            Limit::Clients => ("sorry, too many clients already".to_owned(), "The proxy admits limits.max_clients of them."),
            Limit::ClientsPerUser => {
                (format!("too many clients of user \"{name}\" already"), "The proxy admits limits.max_clients_per_user of them.")
            }
            Limit::ClientsPerDatabase => (
                format!("too many clients of database \"{name}\" already"),
                "The proxy admits limits.max_clients_per_database of them.",
            ),
            Limit::ClientsPerRegion => (
                format!("too many clients of region \"{name}\" already"),
                "The proxy admits limits.max_clients_per_region of them.",
            ),
            Limit::Logins => {
                ("sorry, too many clients are logging in".to_owned(), "The proxy admits limits.max_logins of them at once.")
            }
            Limit::Memory => ("out of memory".to_owned(), "The proxy has used up limits.memory_limit. Try again later."),
            Limit::FailedLogins => (
                format!("too many failed logins of user \"{name}\" from this address"),
                "The next ones are delayed (limits.failed_logins), and only so many wait. Try again later.",
            ),
        };
        let is_memory = limit == Limit::Memory;
        let sqlstate = if is_memory { SqlState::OUT_OF_MEMORY } else { SqlState::TOO_MANY_CONNECTIONS };
        let refusal = Self::new(LoginOutcome::TooMany, sqlstate, message);
        Self { limit: Some(limit), ..refusal }.with_hint(hint)
    }

    /// What proves the user is not known at this moment.
    pub(super) fn no_lookup(user: &str) -> Self {
        let message = format!("the password of user \"{user}\" could not be looked up");
        let refusal = Self::new(LoginOutcome::Failed, SqlState::CONNECTION_FAILURE, message);
        refusal.with_hint("The log of the proxy says why auth.query does not work.")
    }

    /// There are too many sessions of the console.
    pub(super) fn too_many_consoles() -> Self {
        Self::new(LoginOutcome::TooMany, SqlState::TOO_MANY_CONNECTIONS, "sorry, too many sessions of the console already")
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

    /// Says to the log what the client must not learn.
    pub(super) fn because(self, cause: String) -> Self {
        Self { cause: Some(cause.into()), ..self }
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
