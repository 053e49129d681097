//! `[limits]`: bounds of the clients.

use std::time::Duration;

use super::document::Section;
use super::read::{CONNECTIONS, LONGEST, TIMEOUT, duration};

/// Bounds of the clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How long a client may take to log in.
    pub login_timeout: Duration,
    /// Clients connected at once, over all workers.
    pub max_clients: Option<u32>,
    /// Of those, of one user.
    pub max_clients_per_user: Option<u32>,
    /// Of one database.
    pub max_clients_per_database: Option<u32>,
    /// That have started in one region.
    pub max_clients_per_region: Option<u32>,
    /// Logins at once. Each holds two descriptors and a few KiB until its deadline, whether or not the client ever speaks.
    pub max_logins: u32,
    /// Wrong passwords in a row, of one address and user, that are not delayed; zero = none ever is.
    pub failed_logins: u32,
    /// The longest delay of the next.
    pub failed_login_delay: Duration,
    /// Prepared statements of one session in transaction mode.
    pub session_statements: u32,
    /// Bytes of their texts and names, together.
    pub session_statement_bytes: usize,
    /// Memory of the process.
    pub memory_limit: Option<usize>,
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
    let clients = |key| section.entry(key).and_then(|entry| entry.number(CONNECTIONS));
    Limits {
        login_timeout: duration(section, "login_timeout", TIMEOUT, 60),
        max_clients: clients("max_clients"),
        max_clients_per_user: clients("max_clients_per_user"),
        max_clients_per_database: clients("max_clients_per_database"),
        max_clients_per_region: clients("max_clients_per_region"),
        max_logins: section.entry("max_logins").and_then(|entry| entry.number(CONNECTIONS)).unwrap_or(1024),
        failed_logins: section.entry("failed_logins").and_then(|entry| entry.number(0..=1_000_000)).unwrap_or(5),
        failed_login_delay: duration(section, "failed_login_delay", TIMEOUT, 10),
        session_statements: section.entry("session_statements").and_then(|entry| entry.number(1..=1_000_000)).unwrap_or(4096),
        session_statement_bytes: section
            .entry("session_statement_bytes")
            .and_then(|entry| entry.bytes(1 << 10..=1 << 30))
            .unwrap_or(4 << 20),
        memory_limit: section.entry("memory_limit").and_then(|entry| entry.bytes(128 << 20..=1 << 44)),
        query_timeout: or_never("query_timeout"),
        transaction_timeout: or_never("transaction_timeout"),
        idle_in_transaction_timeout: or_never("idle_in_transaction_timeout"),
        client_idle_timeout: or_never("client_idle_timeout"),
        drain_timeout: duration(section, "drain_timeout", Duration::ZERO..=LONGEST, 60),
    }
}
