//! What the proxy writes into the kernel's maps: what it has denied by itself, and the load of its workers.
//!
//! Writing there is no system call, and whoever reads the maps sees it at once.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use domicile_ebpf_abi::{CONTROL, REGIONS, WORKERS};

use super::mapped::{Denials, Mapped, Worker};
use super::number::number;
use crate::policy::Reason;
use crate::session::AuditRecord;

/// What the proxy has denied by itself, told in the same place in which the kernel tells what it has denied.
pub struct DenialCounters(Mapped<Denials>);

impl DenialCounters {
    pub(super) fn open(pins: &Path) -> io::Result<Self> {
        let counters = Self(Mapped::open(&pins.join("denials"), REGIONS)?);
        counters.declare([]);
        Ok(counters)
    }

    /// Gives each of these regions a place, and those that are none the first.
    pub(super) fn declare<'n>(&self, regions: impl IntoIterator<Item = &'n str>) {
        for region in std::iter::once(CONTROL).chain(regions.into_iter().map(number)) {
            if !self.0.iter().any(|place| place.is_or_becomes(region)) {
                tracing::warn!(region, "there is no place left to count the denials of this region");
            }
        }
    }

    /// Counts what a record says. What was asked for in a region that is none is counted under none: clients choose those names.
    pub fn count(&self, record: &AuditRecord) {
        let region = if record.region.is_empty() { CONTROL } else { number(&record.region) };
        let Some(denials) = self.0.iter().find(|place| place.is(region)).or_else(|| self.0.get(0)) else { return };
        let counter = match record.reason {
            _ if record.would_block => &denials.would_block,
            Reason::NoRegion => &denials.no_region,
            Reason::NoNode => &denials.no_node,
            Reason::NotGranted => &denials.not_granted,
            Reason::Unbound => &denials.unbound,
            Reason::Guarded => &denials.guarded,
            Reason::StaleGrant => &denials.stale_grant,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Denials {
    fn is(&self, region: u32) -> bool {
        self.taken.load(Ordering::Acquire) == 1 && self.region.load(Ordering::Relaxed) == region
    }

    /// Only the control thread gives places away.
    fn is_or_becomes(&self, region: u32) -> bool {
        if self.taken.load(Ordering::Acquire) == 0 {
            self.region.store(region, Ordering::Relaxed);
            self.taken.store(1, Ordering::Release);
        }
        self.is(region)
    }
}

/// How many clients each worker has, for the program that chooses one for the next.
pub struct Loads(Mapped<Worker>);

impl Loads {
    /// All workers without clients: those that a former process has counted are not this one's.
    pub(super) fn open(pins: &Path) -> io::Result<Arc<Self>> {
        let loads = Self(Mapped::open(&pins.join("workers"), WORKERS)?);
        for worker in loads.0.iter() {
            worker.sessions.store(0, Ordering::Relaxed);
            worker.forget_those_who_never_came();
        }
        Ok(Arc::new(loads))
    }

    /// A worker has accepted a client: it has one more until what this returns is dropped.
    pub fn accepted(self: &Arc<Self>, worker: usize) -> Seat {
        if let Some(worker) = self.0.get(worker) {
            worker.sessions.fetch_add(1, Ordering::Relaxed);
            worker.accepted.fetch_add(1, Ordering::Relaxed);
        }
        Seat(Some((Arc::clone(self), worker)))
    }

    /// A worker gets a client that the program has not steered: it has one more until what this returns is dropped.
    pub fn given(self: &Arc<Self>, worker: usize) -> Seat {
        if let Some(worker) = self.0.get(worker) {
            worker.sessions.fetch_add(1, Ordering::Relaxed);
        }
        Seat(Some((Arc::clone(self), worker)))
    }

    /// What was steered to a worker and never came, counts no longer. For a worker that has nothing left to accept.
    pub fn forget_those_who_never_came(&self, worker: usize) {
        if let Some(worker) = self.0.get(worker) {
            worker.forget_those_who_never_came();
        }
    }
}

impl Worker {
    fn forget_those_who_never_came(&self) {
        self.accepted.store(self.steered.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// One client among those of a worker.
#[derive(Default)]
pub struct Seat(Option<(Arc<Loads>, usize)>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((loads, worker)) = &self.0
            && let Some(worker) = loads.0.get(*worker)
        {
            worker.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
