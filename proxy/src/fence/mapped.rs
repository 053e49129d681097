//! An array of the kernel's in the memory of this process.
//!
//! Whoever else has it mapped, and the kernel's programs, write to it at any time, so it is seen as atomics and as nothing else.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

use domicile_ebpf_abi as abi;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;

use super::sys::{self, Access};

/// A value of a map as others may write to it.
///
/// # Safety
/// It has the layout of the value, and nothing but atomics.
pub(super) unsafe trait Shared {}

/// [`abi::Denials`].
#[repr(C)]
pub(super) struct Denials {
    pub(super) region: AtomicU32,
    pub(super) taken: AtomicU32,
    pub(super) no_region: AtomicU64,
    pub(super) no_node: AtomicU64,
    pub(super) not_granted: AtomicU64,
    pub(super) unbound: AtomicU64,
    pub(super) guarded: AtomicU64,
    pub(super) stale_grant: AtomicU64,
    pub(super) would_block: AtomicU64,
}

/// [`abi::Worker`].
#[repr(C)]
pub(super) struct Worker {
    pub(super) sessions: AtomicI64,
    pub(super) steered: AtomicU64,
    pub(super) accepted: AtomicU64,
}

/// [`abi::Steering`].
#[repr(C)]
pub(super) struct Steering {
    pub(super) by: AtomicU32,
    pub(super) workers: AtomicU32,
    pub(super) addresses: AtomicU32,
    reserved: AtomicU32,
}

// SAFETY: as is asserted below, field by field in the same order.
unsafe impl Shared for Denials {}
// SAFETY: as above.
unsafe impl Shared for Worker {}
// SAFETY: as above.
unsafe impl Shared for Steering {}

const _: () = {
    assert!(size_of::<Denials>() == size_of::<abi::Denials>());
    assert!(std::mem::offset_of!(Denials, would_block) == std::mem::offset_of!(abi::Denials, would_block));
    assert!(size_of::<Worker>() == size_of::<abi::Worker>());
    assert!(std::mem::offset_of!(Worker, accepted) == std::mem::offset_of!(abi::Worker, accepted));
    assert!(size_of::<Steering>() == size_of::<abi::Steering>());
    assert!(std::mem::offset_of!(Steering, addresses) == std::mem::offset_of!(abi::Steering, addresses));
};

/// The array.
pub(super) struct Mapped<T> {
    base: NonNull<T>,
    count: usize,
}

// SAFETY: it is memory that is shared by its nature, and only atomics in it.
unsafe impl<T: Shared> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Shared> Sync for Mapped<T> {}

impl<T: Shared> Mapped<T> {
    /// Maps the array that is pinned at `path` and has `count` values.
    pub(super) fn open(path: &Path, count: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "the kernel rounds values up to 8 bytes") };
        let map = sys::open(path, Access::ReadWrite)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping somewhere; the kernel refuses it if the array is shorter.
        let base = unsafe { mmap(std::ptr::null_mut(), length::<T>(count), protection, MapFlags::SHARED, map.as_fd(), 0) }?;
        Ok(Self { base: NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?, count })
    }

    /// A value of it.
    pub(super) fn get(&self, place: usize) -> Option<&T> {
        // SAFETY: within the mapping.
        let value = (place < self.count).then(|| unsafe { self.base.add(place) })?;
        // SAFETY: mapped for as long as this lives, aligned like its page, and atomics have no value that is none.
        Some(unsafe { value.as_ref() })
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.count).filter_map(|place| self.get(place))
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing that was borrowed from it lives longer.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), length::<T>(self.count)) } {
            tracing::error!(%error, "a mapping of the kernel's maps cannot be undone");
        }
    }
}

fn length<T>(count: usize) -> usize {
    (count * size_of::<T>()).next_multiple_of(page_size())
}
