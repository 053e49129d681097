//! What backends have done, as plain numbers: counted while it happens, added up when somebody asks.
//!
//! Counting is an addition in memory that is in hand anyway. Times come from the clock that the core is told, which moves four
//! times a second: a single time is exact to a quarter of a second only, but since a time begins anywhere between two moves, the
//! sums come out right on the average.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::owed::Kind;
use super::pools::{Pool, PoolIndex, Pools};
use crate::limits::DATABASES_COUNTED_MAX;
use crate::region::RegionId;
use crate::wire::TransactionStatus;

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Clients that logged in.
    pub logins: u64,
    /// Backends lent.
    pub assignments: u64,
    /// Transactions that a backend ended.
    pub xacts: u64,
    /// Queries, function calls and Syncs that a backend answered.
    pub queries: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes from backends; all but a few go on to clients.
    pub sent: u64,
    /// Time that backends were in transactions.
    pub xact_time: Duration,
    /// Time that backends owed an answer.
    pub query_time: Duration,
    /// Time that clients waited for the backends that they got.
    pub wait_time: Duration,
    /// Parse messages of clients that went to a backend.
    pub client_parses: u64,
    /// Parse messages that went to a backend, those of the proxy's own included.
    pub server_parses: u64,
    /// Bind messages that went to a backend.
    pub binds: u64,
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        let Self { logins, assignments, xacts, queries, received, sent, .. } = other;
        self.logins += logins;
        self.assignments += assignments;
        self.xacts += xacts;
        self.queries += queries;
        self.received += received;
        self.sent += sent;
        self.xact_time += other.xact_time;
        self.query_time += other.query_time;
        self.wait_time += other.wait_time;
        self.client_parses += other.client_parses;
        self.server_parses += other.server_parses;
        self.binds += other.binds;
    }
}

/// The sums of pools that are no longer there, by database and region.
pub(super) type Past = HashMap<(Arc<str>, RegionId), Tally>;

impl Backend {
    /// A message went to it that asks for something. `first`: it owed nothing before; `own`: the proxy put the message in.
    pub fn was_asked(&mut self, kind: Kind, first: bool, own: bool, now: Instant) {
        match kind {
            Kind::Parse => {
                self.tally.server_parses += 1;
                self.tally.client_parses += u64::from(!own);
            }
            Kind::Bind => self.tally.binds += 1,
            Kind::Query | Kind::FunctionCall | Kind::Describe | Kind::Execute | Kind::Close | Kind::Sync => {}
            Kind::CopyEnd | Kind::Local => return,
        }
        if first {
            self.asked_at = now;
            if self.status == TransactionStatus::Idle && !self.unsynced {
                self.xact_at = now;
            }
        }
    }

    /// It has answered a Query, a FunctionCall or a Sync of a client; `status` says where that has brought it.
    pub fn has_answered(&mut self, now: Instant) {
        let is_idle = self.status == TransactionStatus::Idle;
        self.tally.queries += 1;
        self.tally.xacts += u64::from(is_idle);
        if self.owed.is_empty() {
            self.tally.query_time += now.saturating_duration_since(self.asked_at);
            if is_idle {
                self.tally.xact_time += now.saturating_duration_since(self.xact_at);
            }
        }
    }
}

impl Pools {
    /// What a client has sent since it was counted last, and its login if that was not.
    pub fn count_client(&mut self, index: PoolIndex, received: u64, logins: u64) {
        if let Some(pool) = self.pool(index) {
            pool.tally.received += received;
            pool.tally.logins += logins;
        }
    }

    /// Keeps the sums of a pool that is being forgotten. Pools that never got a backend are those of databases and users that no
    /// server knows; clients can make as many names of these as they like, so nothing is kept of them.
    pub(super) fn keep_tally(&mut self, pool: &Pool) {
        if pool.tally.assignments == 0 {
            return;
        }
        let name = (pool.key.database.clone(), pool.key.region);
        if self.past.len() < DATABASES_COUNTED_MAX || self.past.contains_key(&name) {
            *self.past.entry(name).or_default() += &pool.tally;
        }
    }
}
