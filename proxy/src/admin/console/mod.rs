//! The administration console: what operators and their tools ask over PostgreSQL's protocol, in the language of PgBouncer's.
//!
//! ```text
//!   bytes ─▶ conversation ─▶ command ─▶ Operator (the control thread: asks the workers) ─▶ facts ─▶ show ─▶ rows ─▶ bytes
//! ```
//!
//! [`command`] reads commands, [`conversation`] speaks the protocol, [`show`] makes rows of [`facts`]: none of them does I/O, so
//! whole conversations can be played in a test. [`serve`](serve()) carries the bytes of one connection. Columns stand as PgBouncer
//! 1.25 has them, in its order and with its types; ours follow at the right. What is shown never holds a statement or a secret.
//!
//! The console is a database that no server has. Who may use it is said by `[admin]` alone: no bind rule, grant or region is looked
//! at, and none is given.

pub mod averages;
pub mod command;
pub mod conversation;
pub mod facts;
mod line;
mod serve;
pub mod show;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use command::{Command, Shutdown};
pub use conversation::{Answer, Conversation, Step};
pub use facts::Facts;
pub use serve::{Client, Operator, serve};
pub use show::Show;

use crate::config::Admin;
use crate::pool::Parameters;
use crate::wire::{Report, Severity, SqlState, encode_error};

/// The databases that are the console; a server's databases of these names can not be reached.
pub const DATABASES: [&str; 2] = ["pgbouncer", "domicile"];

/// Whether a client that asks for this database wants the console.
pub fn is_console(database: &str) -> bool {
    DATABASES.contains(&database)
}

/// What a user may do on the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    Admin,
    /// Only SHOW.
    Stats,
}

/// What `user` may do; `None`: not even come in.
pub fn rights(admin: &Admin, user: &str) -> Option<Rights> {
    let has = |users: &[String]| users.iter().any(|known| known == user);
    if has(&admin.users) {
        return Some(Rights::Admin);
    }
    has(&admin.stats_users).then_some(Rights::Stats)
}

/// Whether one with these rights may give this command.
///
/// # Errors
/// 42501: he may not.
pub fn permit(rights: Option<Rights>, command: &Command) -> Result<(), Fault> {
    let refused = || Fault::new(SqlState::INSUFFICIENT_PRIVILEGE, "admin access needed").with_hint("[admin] users may do this.");
    match rights {
        Some(Rights::Admin) => Ok(()),
        Some(Rights::Stats) if command.only_looks() => Ok(()),
        Some(Rights::Stats) | None => Err(refused()),
    }
}

/// The settings that a client of the console is told at its login.
pub fn parameters() -> Parameters {
    let told = command::SETTINGS.iter().filter(|setting| setting.reported);
    told.map(|setting| (setting.column.name, setting.value)).collect()
}

/// An error that a command is answered with; the session goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its class.
    pub sqlstate: SqlState,
    /// What is wrong.
    pub message: Cow<'static, str>,
    /// What to do.
    pub hint: Option<&'static str>,
}

impl Fault {
    /// An error without a hint.
    pub fn new(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self { sqlstate, message: message.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    fn encode(&self, severity: Severity) -> bytes::Bytes {
        let Self { sqlstate, message, hint } = self;
        encode_error(&Report { severity, sqlstate: *sqlstate, message, detail: None, hint: *hint, position: None })
    }
}
