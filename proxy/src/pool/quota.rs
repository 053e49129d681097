//! How many backends may be open: the one thing that the workers' pools share.
//!
//! Each pool has one [`Quota`] for the whole process, and each region may have a bound over all its pools. Taking and giving
//! back are a few atomic operations; the map of quotas is locked only when a worker meets a pool for the first time. A worker
//! that waits for quota marks itself as hungry, so that others hand over what they do not need.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::key::PoolKey;
use super::pause::Scope;
use crate::region::RegionId;

/// Workers whose hunger fits one word.
pub const WORKERS_MAX: usize = 64;

/// All quotas of the process.
#[derive(Default)]
pub struct Quotas {
    pools: Mutex<HashMap<PoolKey, Arc<Quota>>>,
    regions: Mutex<HashMap<RegionId, Arc<RegionQuota>>>,
}

/// The backends of one pool over all workers.
pub struct Quota {
    open: AtomicU32,
    region: Arc<RegionQuota>,
    /// One bit a worker that has waiters and may not open a backend.
    hungry: AtomicU64,
    /// One bit a worker that is hungry and has no backend of this pool at all.
    starving: AtomicU64,
}

/// The backends of one region over all its pools and workers.
#[derive(Default)]
struct RegionQuota {
    open: AtomicU32,
    /// One bit a worker that could open a backend but for the bound of the region, and has no idle one there to close.
    hungry: AtomicU64,
}

/// The right to a backend that is on its way between two workers; given back if it is lost there.
pub(super) struct Right(Option<Arc<Quota>>);

impl Right {
    pub(super) fn of(quota: &Arc<Quota>) -> Self {
        Self(Some(Arc::clone(quota)))
    }

    /// The backend is there: its pool has the right from now on.
    pub(super) fn has_arrived(mut self) {
        self.0 = None;
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        self.0.iter().for_each(|quota| quota.give_back());
    }
}

impl Quotas {
    /// The quota of a pool, made at its first use. Quotas stay for the life of the process: their number is bounded by the
    /// distinct pools that were ever used.
    pub(super) fn of(&self, key: &PoolKey) -> Arc<Quota> {
        let region = {
            let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
            regions.entry(key.region).or_default().clone()
        };
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = pools.get(key) {
            return quota.clone();
        }
        let quota = Arc::new(Quota { open: AtomicU32::new(0), region, hungry: AtomicU64::new(0), starving: AtomicU64::new(0) });
        pools.insert(key.clone(), quota.clone());
        quota
    }

    /// Forgets a pool that no worker uses any more: the map holds the only reference, and no backend is between two workers.
    pub(super) fn forget(&self, key: &PoolKey) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unused = |quota: &Arc<Quota>| Arc::strong_count(quota) == 1 && quota.open.load(Ordering::Acquire) == 0;
        if pools.get(key).is_some_and(is_unused) {
            pools.remove(key);
        }
    }

    /// Backends of a database, or of all: open, being opened, and on their way between two workers.
    pub fn open_in(&self, scope: &Scope) -> u32 {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let of_scope = pools.iter().filter(|(key, _)| scope.covers(&key.database));
        of_scope.map(|(_, quota)| quota.open.load(Ordering::Acquire)).sum()
    }

    /// Backends open in each region, all pools together.
    pub fn open_by_region(&self) -> Vec<(RegionId, u32)> {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.iter().map(|(region, quota)| (*region, quota.open.load(Ordering::Relaxed))).collect()
    }
}

impl Quota {
    /// Takes the right to open one more backend.
    pub(super) fn try_take(&self, pool_max: u32, region_max: Option<u32>) -> bool {
        let below = |max: u32| move |open: u32| (open < max).then_some(open + 1);
        if self.open.fetch_update(Ordering::AcqRel, Ordering::Relaxed, below(pool_max)).is_err() {
            return false;
        }
        if self.region.open.fetch_update(Ordering::AcqRel, Ordering::Relaxed, below(region_max.unwrap_or(u32::MAX))).is_err() {
            self.open.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
        true
    }

    /// Gives one right back.
    pub(super) fn give_back(&self) {
        for open in [&self.open, &self.region.open] {
            // A worker that breaks down in the middle of something must not leave a right to four billion backends behind.
            let less = |open: u32| Some(open.saturating_sub(1));
            open.fetch_update(Ordering::AcqRel, Ordering::Relaxed, less).unwrap_or_default();
        }
    }

    /// Whether only the bound of the region keeps one more backend from being opened.
    pub(super) fn is_held_by_region(&self, pool_max: u32) -> bool {
        self.open.load(Ordering::Acquire) < pool_max
    }

    /// Says whether `worker` needs a place in the region that somebody else would have to give up. True: it has just begun to.
    pub(super) fn set_region_hungry(&self, worker: usize, hungry: bool) -> bool {
        let bit = 1u64 << (worker % WORKERS_MAX);
        let was_hungry = self.region.hungry.load(Ordering::Relaxed) & bit != 0;
        if hungry && !was_hungry {
            self.region.hungry.fetch_or(bit, Ordering::AcqRel);
        } else if was_hungry && !hungry {
            self.region.hungry.fetch_and(!bit, Ordering::AcqRel);
        }
        hungry && !was_hungry
    }

    /// Another worker that needs a place in the region.
    pub(super) fn region_hungry_other(&self, worker: usize) -> Option<usize> {
        let others = self.region.hungry.load(Ordering::Acquire) & !(1u64 << (worker % WORKERS_MAX));
        (others != 0).then(|| others.trailing_zeros() as usize)
    }

    /// Says whether `worker` waits for quota, and whether it has no backend at all. True: it has just begun to wait.
    pub(super) fn set_hungry(&self, worker: usize, hungry: bool, starving: bool) -> bool {
        let bit = 1u64 << (worker % WORKERS_MAX);
        let was_hungry = self.hungry.load(Ordering::Relaxed) & bit != 0;
        for (word, set) in [(&self.hungry, hungry), (&self.starving, hungry && starving)] {
            if set {
                word.fetch_or(bit, Ordering::AcqRel);
            } else if word.load(Ordering::Relaxed) & bit != 0 {
                word.fetch_and(!bit, Ordering::AcqRel);
            }
        }
        hungry && !was_hungry
    }

    /// Another worker than `worker` that waits; `starving`: only one that has nothing at all.
    pub(super) fn hungry_other(&self, worker: usize, starving: bool) -> Option<usize> {
        let word = if starving { &self.starving } else { &self.hungry };
        let others = word.load(Ordering::Acquire) & !(1u64 << (worker % WORKERS_MAX));
        (others != 0).then(|| others.trailing_zeros() as usize)
    }

    /// Forgets the hunger of a worker that is about to be handed a backend, so that it is not handed several.
    pub(super) fn fed(&self, worker: usize) {
        self.set_hungry(worker, false, false);
    }
}
