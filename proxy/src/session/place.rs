//! A client's place among those that are counted: of all, of its user, of its database, of its region.
//!
//! Who may have one more is decided where clients log in, and for a region where the session goes to another one. A place goes along
//! with its session to another thread and is given back when it is dropped, whatever way the session ends.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::limits::REGIONS_MAX;
use crate::region::RegionId;

/// What is counted of one kind: clients of one user, say.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicU32>);

impl Count {
    /// How many there are.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, for as long as what this returns lives.
    pub fn take(&self) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place(self.clone())
    }

    /// Whether nobody else can count here.
    pub fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// One of those that are counted, until it is dropped.
pub struct Place(Count);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

/// The clients of each region, and how many there may be: the counts are the process's, the bound that of a configuration.
#[derive(Clone)]
pub struct RegionPlaces {
    counts: Arc<[AtomicU32]>,
    max: Option<u32>,
}

impl Default for RegionPlaces {
    fn default() -> Self {
        Self { counts: (0..REGIONS_MAX).map(|_| AtomicU32::new(0)).collect(), max: None }
    }
}

impl RegionPlaces {
    /// The same counts under another bound.
    #[must_use]
    pub fn bounded(&self, max: Option<u32>) -> Self {
        Self { counts: Arc::clone(&self.counts), max }
    }

    /// One more, if there may be one more. Two who ask at once do not both get the last place.
    pub fn take(&self, region: RegionId) -> Option<RegionPlace> {
        let max = self.max.unwrap_or(u32::MAX);
        let one_more = |count: u32| (count < max).then(|| count.saturating_add(1));
        self.counts.get(region.index())?.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(RegionPlace { counts: Arc::clone(&self.counts), region })
    }

    /// One more, whether or not there may be: it is there already.
    pub(super) fn take_anyway(&self, region: RegionId) -> Option<RegionPlace> {
        self.bounded(None).take(region)
    }
}

impl fmt::Debug for RegionPlaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionPlaces").field("max", &self.max).finish_non_exhaustive()
    }
}

/// One of those in a region, until it is dropped.
pub struct RegionPlace {
    counts: Arc<[AtomicU32]>,
    region: RegionId,
}

impl RegionPlace {
    /// Where it is.
    pub fn region(&self) -> RegionId {
        self.region
    }
}

impl Drop for RegionPlace {
    fn drop(&mut self) {
        if let Some(count) = self.counts.get(self.region.index()) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for RegionPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionPlace({:?})", self.region)
    }
}
