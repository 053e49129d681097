//! Memory that is shared with the kernel's maps: denials that the proxy counts there, and the load of its workers.
//!
//! Writing there is no system call. Several threads do, so everything is atomic; whoever reads the maps sees it at once.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use domicile_ebpf_abi::{CONTROL, Denials, REGIONS, WORKERS, Worker};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;

use super::number::number;
use super::sys::{self, Access};
use crate::policy::Reason;
use crate::session::AuditRecord;

/// An array of the kernel's, mapped.
pub(super) struct Mapped<T> {
    base: NonNull<T>,
    count: usize,
}

// SAFETY: it is memory that is shared by its nature; what is done with it is atomic.
unsafe impl<T> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps the array that is pinned at `path` and has `count` values.
    pub(super) fn open(path: &Path, count: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "the kernel rounds values up to 8 bytes") };
        let map = sys::open(path, Access::ReadWrite)?;
        // SAFETY: a fresh mapping somewhere; the kernel refuses it if the array is shorter.
        let base = unsafe {
            mmap(std::ptr::null_mut(), Self::length(count), ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map.as_fd(), 0)
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { base, count })
    }

    fn length(count: usize) -> usize {
        (count * size_of::<T>()).next_multiple_of(page_size())
    }

    /// A value of it, of which only the parts may be touched, atomically.
    pub(super) fn at(&self, place: usize) -> Option<*mut T> {
        // SAFETY: within the mapping.
        (place < self.count).then(|| unsafe { self.base.as_ptr().add(place) })
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing that was made from it lives longer.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), Self::length(self.count)) } {
            tracing::error!(%error, "a mapping of the kernel's maps cannot be undone");
        }
    }
}

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
            let taken = (0..REGIONS).any(|place| self.take(place, region));
            if !taken {
                tracing::warn!(region, "there is no place left to count the denials of this region");
            }
        }
    }

    /// Whether this place is, or becomes, the region's.
    fn take(&self, place: usize, region: u32) -> bool {
        let Some(denials) = self.0.at(place) else { return false };
        // SAFETY: parts of a value in the mapping.
        let (of, taken) =
            unsafe { (AtomicU32::from_ptr(&raw mut (*denials).region), AtomicU32::from_ptr(&raw mut (*denials).taken)) };
        if taken.load(Ordering::Acquire) == 0 {
            of.store(region, Ordering::Relaxed);
            taken.store(1, Ordering::Release);
            return true;
        }
        of.load(Ordering::Relaxed) == region
    }

    /// Counts what a record says. What was asked for in a region that is none is counted under none: clients choose those names.
    pub fn count(&self, record: &AuditRecord) {
        let region = if record.region.is_empty() { CONTROL } else { number(&record.region) };
        let place = (0..REGIONS).find_map(|place| {
            let denials = self.0.at(place)?;
            // SAFETY: a part of a value in the mapping.
            let (of, taken) =
                unsafe { (AtomicU32::from_ptr(&raw mut (*denials).region), AtomicU32::from_ptr(&raw mut (*denials).taken)) };
            (taken.load(Ordering::Acquire) == 1 && of.load(Ordering::Relaxed) == region).then_some(denials)
        });
        let Some(denials) = place.or_else(|| self.0.at(0)) else { return };
        // SAFETY: a part of a value in the mapping.
        let counter = unsafe {
            AtomicU64::from_ptr(match record.reason {
                _ if record.would_block => &raw mut (*denials).would_block,
                Reason::NoRegion => &raw mut (*denials).no_region,
                Reason::NoNode => &raw mut (*denials).no_node,
                Reason::NotGranted => &raw mut (*denials).not_granted,
                Reason::Unbound => &raw mut (*denials).unbound,
                Reason::StaleGrant => &raw mut (*denials).stale_grant,
            })
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many clients each worker has, for the program that chooses one for the next.
pub struct Loads(Mapped<Worker>);

impl Loads {
    /// All workers without clients: those that a former process has counted are not this one's.
    pub(super) fn open(pins: &Path) -> io::Result<Arc<Self>> {
        let loads = Self(Mapped::open(&pins.join("workers"), WORKERS)?);
        for worker in 0..WORKERS {
            if let Some((sessions, steered, accepted)) = loads.of(worker) {
                sessions.store(0, Ordering::Relaxed);
                accepted.store(steered.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        Ok(Arc::new(loads))
    }

    fn of(&self, worker: usize) -> Option<(&AtomicI64, &AtomicU64, &AtomicU64)> {
        let worker = self.0.at(worker)?;
        // SAFETY: parts of a value in the mapping, which lives as long as this.
        Some(unsafe {
            (
                AtomicI64::from_ptr(&raw mut (*worker).sessions),
                AtomicU64::from_ptr(&raw mut (*worker).steered),
                AtomicU64::from_ptr(&raw mut (*worker).accepted),
            )
        })
    }

    /// A worker has accepted a client: it has one more until what this returns is dropped.
    pub fn accepted(self: &Arc<Self>, worker: usize) -> Seat {
        if let Some((sessions, _, accepted)) = self.of(worker) {
            sessions.fetch_add(1, Ordering::Relaxed);
            accepted.fetch_add(1, Ordering::Relaxed);
        }
        Seat(Some((Arc::clone(self), worker)))
    }

    /// What was steered to a worker and never came, counts no longer. For a worker that has nothing left to accept.
    pub fn forget_those_who_never_came(&self, worker: usize) {
        if let Some((_, steered, accepted)) = self.of(worker) {
            accepted.store(steered.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// One client among those of a worker.
#[derive(Default)]
pub struct Seat(Option<(Arc<Loads>, usize)>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((loads, worker)) = &self.0
            && let Some((sessions, ..)) = loads.of(*worker)
        {
            sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
