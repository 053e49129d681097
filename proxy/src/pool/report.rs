//! What a worker's pools look like at one moment, for whoever wants to show it. Nothing here changes anything.

use std::mem::size_of;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{Backend, State};
use super::key::{BackendKey, SessionKey};
use super::pools::{PoolIndex, Pools, Slot};
use super::quota::WORKERS_MAX;
use super::tally::Tally;
use crate::region::RegionId;
use crate::wire::startup::Replication;

/// One worker's part of a pool. Pools that differ only in their startup settings are told apart here too.
#[derive(Clone, Debug)]
pub struct PoolReport {
    /// Its name in its worker.
    pub index: PoolIndex,
    /// Its region.
    pub region: RegionId,
    /// Its database.
    pub database: Arc<str>,
    /// Its user.
    pub user: Arc<str>,
    /// Backends lent to sessions.
    pub active: usize,
    /// Backends nobody uses.
    pub idle: usize,
    /// Backends being reset.
    pub resetting: usize,
    /// Backends that nobody uses while a cancel request is on its way to them.
    pub withheld: usize,
    /// Cancel requests on their way.
    pub cancelling: usize,
    /// Backends being opened.
    pub opening: usize,
    /// Sessions that wait.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub waited: Duration,
    /// Nothing is lent.
    pub paused: bool,
    /// What its backends have done.
    pub tally: Tally,
}

/// One backend.
#[derive(Clone, Debug)]
pub struct BackendReport {
    /// Its name in its worker.
    pub key: BackendKey,
    /// Its region.
    pub region: RegionId,
    /// Its node.
    pub node: Arc<str>,
    /// Its database, as clients name it.
    pub database: Arc<str>,
    /// Its user, as clients name it.
    pub user: Arc<str>,
    /// What it was opened for.
    pub replication: Replication,
    /// Where it is.
    pub state: State,
    /// When it was opened.
    pub opened_at: Instant,
    /// When it was last asked for something.
    pub asked_at: Instant,
    /// It is closed when it is given back.
    pub close_needed: bool,
    /// The server's process.
    pub process_id: u32,
    /// Named statements that it keeps for sessions to share.
    pub prepared_statements: usize,
    /// The version and cipher suite by which its connection is encrypted, if it is.
    pub tls: Option<Arc<str>>,
}

/// The sums of pools that are no longer there.
#[derive(Clone, Debug)]
pub struct PastReport {
    /// Their database.
    pub database: Arc<str>,
    /// Their region.
    pub region: RegionId,
    /// What their backends did.
    pub tally: Tally,
}

/// Places of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotReport {
    /// What one takes, in bytes, without what it points to.
    pub bytes: usize,
    /// Those that are taken.
    pub used: usize,
    /// Those that are free.
    pub free: usize,
}

impl Pools {
    /// The number of this worker.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Every pool.
    pub fn report(&self, now: Instant) -> Vec<PoolReport> {
        let mut reports: Vec<Option<PoolReport>> = self.pools.iter().map(|_| None).collect();
        for (index, (report, pool)) in (0..).zip(reports.iter_mut().zip(&self.pools)) {
            let Some(pool) = pool else { continue };
            *report = Some(PoolReport {
                index: PoolIndex(index),
                region: pool.key.region,
                database: pool.key.database.clone(),
                user: pool.key.user.clone(),
                active: 0,
                idle: 0,
                resetting: 0,
                withheld: 0,
                cancelling: 0,
                opening: pool.opening as usize,
                waiting: pool.waiting.len(),
                waited: pool.waiting.front().map_or(Duration::ZERO, |waiter| now.saturating_duration_since(waiter.since)),
                paused: pool.paused,
                tally: pool.tally,
            });
        }
        for (_, backend) in self.all_backends() {
            let Some(Some(report)) = reports.get_mut(backend.pool.0 as usize) else { continue };
            match backend.state {
                State::Idle => report.idle += 1,
                State::Bound(_) => report.active += 1,
                State::Resetting => report.resetting += 1,
                State::Withheld => report.withheld += 1,
                // It leaves the table in the same step.
                State::Moving => {}
            }
            report.cancelling += usize::from(backend.cancelling.is_some());
            report.tally += &backend.tally;
        }
        reports.into_iter().flatten().collect()
    }

    /// Every backend.
    pub fn report_backends(&self) -> Vec<BackendReport> {
        let report = |(key, backend): (BackendKey, &Backend)| {
            let pool = self.pools.get(backend.pool.0 as usize)?.as_ref()?;
            Some(BackendReport {
                key,
                region: pool.key.region,
                node: backend.node().name.clone(),
                database: pool.key.database.clone(),
                user: pool.key.user.clone(),
                replication: pool.key.replication,
                state: backend.state,
                opened_at: backend.opened_at,
                asked_at: backend.asked_at,
                close_needed: backend.is_unwanted(),
                process_id: backend.process_id(),
                prepared_statements: backend.prepared.len(),
                tls: backend.tls.clone(),
            })
        };
        self.all_backends().filter_map(report).collect()
    }

    /// The sums of pools that are no longer there.
    pub fn report_past(&self) -> Vec<PastReport> {
        let report = |((database, region), tally): (&(Arc<str>, RegionId), &Tally)| PastReport {
            database: database.clone(),
            region: *region,
            tally: *tally,
        };
        self.past.iter().map(report).collect()
    }

    /// The table of backends.
    pub fn report_slots(&self) -> SlotReport {
        let free = self.free_backends.len();
        SlotReport { bytes: size_of::<Backend>(), used: self.backends.len() - free, free }
    }

    /// The server's process behind a backend.
    pub fn process_of(&self, key: BackendKey) -> Option<u32> {
        match self.backends.get(key.index as usize)? {
            Slot::Taken(backend) if backend.generation == key.generation => Some(backend.process_id()),
            Slot::Taken(_) | Slot::Free { .. } => None,
        }
    }

    fn all_backends(&self) -> impl Iterator<Item = (BackendKey, &Backend)> {
        self.backends.iter().enumerate().filter_map(|(slot, taken)| match taken {
            Slot::Taken(backend) => {
                let index = u32::try_from(slot).unwrap_or(u32::MAX);
                Some((BackendKey { index, generation: backend.generation }, &**backend))
            }
            Slot::Free { .. } => None,
        })
    }
}

/// A number for the `serial`-th session of a worker that no other session of the process has.
pub fn session_id(serial: u64, worker: usize) -> u64 {
    serial * WORKERS_MAX as u64 + worker as u64
}

/// The worker whose session has this number.
pub fn worker_of(session_id: u64) -> usize {
    usize::try_from(session_id % WORKERS_MAX as u64).unwrap_or(0)
}

/// A session or a backend as the console names it, so that the two ends of a link can be matched.
pub fn pointer(side: char, worker: usize, index: u32, generation: u32) -> String {
    format!("{side}{worker}.{index}.{generation}")
}

impl SessionKey {
    /// The name that the console gives it.
    pub fn pointer(self, worker: usize) -> String {
        pointer('c', worker, self.index, self.generation)
    }
}

impl BackendKey {
    /// The name that the console gives it.
    pub fn pointer(self, worker: usize) -> String {
        pointer('s', worker, self.index, self.generation)
    }
}
