//! The way to the administration console: who is let in, and the databases that an operator has closed to new sessions.
//!
//! A client of the console proves who it is like any other. Then `[admin]` alone says whether it may come in; no bind rule is asked
//! and no region is given, for it will never reach a server.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::Counted;
use super::Desk;
use super::conversation::Refused;
use super::refusal::Refusal;
use crate::admin::console::{self, Client};
use crate::config::Admin;
use crate::limits::{CONSOLE_SESSIONS_MAX, OPERATED_DATABASES_MAX};
use crate::observe::LoginOutcome;
use crate::session::encode_greeting;
use crate::tls::Connection;
use crate::wire::startup::StartupMessage;
use crate::wire::{CancelSecret, SqlState};

/// Begins a session of the console on a socket whose login has been answered.
type Begin = Box<dyn Fn(Connection, Client, Counted)>;

/// What the console and the logins have to do with each other.
#[derive(Default)]
pub(super) struct Door {
    begin: OnceCell<Begin>,
    sessions: Rc<Cell<usize>>,
    disabled: RefCell<BTreeSet<Box<str>>>,
}

impl Desk {
    /// From now on there is a console: `begin` gets its clients. What comes with a client is to be kept until it has left.
    pub fn open_console(&self, begin: impl Fn(Connection, Client, Counted) + 'static) {
        let is_first = self.door.begin.set(Box::new(begin)).is_ok();
        debug_assert!(is_first, "a process has one console");
    }

    /// Sessions of the console.
    pub fn consoles(&self) -> usize {
        self.door.sessions.get()
    }

    /// Clients that are logging in.
    pub fn logging_in(&self) -> usize {
        self.in_progress.get()
    }

    /// The databases that admit no new sessions.
    pub fn disabled(&self) -> BTreeSet<Box<str>> {
        self.door.disabled.borrow().clone()
    }

    /// Admits no new sessions to a database, or admits them again. False: there are too many such databases.
    pub fn set_disabled(&self, database: &str, is_disabled: bool) -> bool {
        let mut disabled = self.door.disabled.borrow_mut();
        if is_disabled {
            if disabled.len() >= OPERATED_DATABASES_MAX && !disabled.contains(database) {
                return false;
            }
            disabled.insert(database.into());
        } else {
            disabled.remove(database);
        }
        true
    }

    /// Why no session of this database may begin, if so.
    pub(super) fn refuses_database(&self, user: &str, database: &str) -> Option<Refused> {
        self.door.disabled.borrow().contains(database).then(|| {
            let message = format!("database \"{database}\" does not accept connections now");
            let refusal = Refusal::new(LoginOutcome::Denied, SqlState::CANNOT_CONNECT_NOW, message);
            Refused { refusal, subject: Some((user.to_owned(), database.to_owned())), audit: None }
        })
    }

    /// Whether one more session of the console can begin; it is counted from here on.
    pub(super) fn claim_console(&self) -> Option<Counted> {
        let is_there = self.door.begin.get().is_some() && self.consoles() < CONSOLE_SESSIONS_MAX;
        is_there.then(|| Counted::new(&self.door.sessions))
    }

    /// Hands a client to the console.
    pub(super) fn begin_console(&self, connection: Connection, client: Client, counted: Counted) {
        if let Some(begin) = self.door.begin.get() {
            begin(connection, client, counted);
        }
    }
}

/// A client that has proved who it is wants the console: what it is told, and who it is there.
pub(super) fn admit(
    admin: &Admin,
    startup: &StartupMessage,
    before: &[u8],
    early: Bytes,
    key: &(u32, CancelSecret),
) -> Result<(Bytes, Client), Refusal> {
    let Some(rights) = console::rights(admin, &startup.user) else {
        let message = format!("user \"{}\" is not allowed to use the administration console", startup.user);
        return Err(Refusal::new(LoginOutcome::Denied, SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message));
    };
    let told = Arc::new(console::parameters());
    Ok((encode_greeting(before, &told, key.0, &key.1), Client { user: startup.user.as_str().into(), rights, early }))
}
