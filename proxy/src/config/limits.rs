//! `[limits]`: bounds of the clients.

use std::time::Duration;

use super::document::Section;
use super::read::{CONNECTIONS, LONGEST, TIMEOUT, duration};

/// Bounds of the clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a client may take to log in.
    pub login_timeout: Duration,
    /// Clients connected at once, over all workers.
    pub max_clients: Option<u32>,
    /// How long a statement may take; zero = as long as it likes, here and in the next three.
    pub query_timeout: Duration,
    /// How long a transaction may last.
    pub transaction_timeout: Duration,
    /// How long nothing may happen in a transaction.
    pub idle_in_transaction_timeout: Duration,
    /// How long a client may do nothing outside of a transaction.
    pub client_idle_timeout: Duration,
    /// How long sessions may go on after SIGTERM. Zero ends them at once.
    pub drain_timeout: Duration,
}

/// Reads them.
pub(super) fn read(section: &Section<'_>) -> Limits {
    let or_never = |key| duration(section, key, Duration::ZERO..=LONGEST, 0);
    Limits {
        login_timeout: duration(section, "login_timeout", TIMEOUT, 60),
        max_clients: section.entry("max_clients").and_then(|entry| entry.number(CONNECTIONS)),
        query_timeout: or_never("query_timeout"),
        transaction_timeout: or_never("transaction_timeout"),
        idle_in_transaction_timeout: or_never("idle_in_transaction_timeout"),
        client_idle_timeout: or_never("client_idle_timeout"),
        drain_timeout: duration(section, "drain_timeout", Duration::ZERO..=LONGEST, 60),
    }
}
