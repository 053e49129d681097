//! One reader's mailbox: room for one snapshot, which a publisher puts in and the reader takes out.
//!
//! All unsafe code of the table stands in this file. It is needed because the standard library has no atomic `Option<Arc<T>>`.
//! A slot never waits, and it never hands out a reference to what lies in it, only the thing itself.

use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use super::sync::{AtomicPtr, Ordering};

/// Holds at most one `Arc<T>`, as the pointer that `Arc::into_raw` gave; null is "nothing there".
///
/// Invariant: a pointer in `unread` that is not null owns one count of its `Arc<T>`. It is written and read by `swap` alone, so
/// each pointer that goes in comes out exactly once, and the count goes with it.
pub(super) struct Slot<T> {
    unread: AtomicPtr<T>,
    /// `AtomicPtr` may cross threads whatever `T` is; a slot may only where the `Arc<T>` that it owns may.
    owned: PhantomData<Arc<T>>,
}

impl<T> Slot<T> {
    pub(super) fn empty() -> Self {
        Self { unread: AtomicPtr::new(ptr::null_mut()), owned: PhantomData }
    }

    /// Puts a snapshot in; one that was not taken yet is dropped here.
    pub(super) fn put(&self, snapshot: Arc<T>) {
        drop(self.exchange(Arc::into_raw(snapshot).cast_mut()));
    }

    /// Takes the snapshot out, if there is one.
    pub(super) fn take(&self) -> Option<Arc<T>> {
        // The pointer read here is only compared with null, so it needs no ordering: the swap below brings it.
        if self.unread.load(Ordering::Relaxed).is_null() {
            return None;
        }
        self.exchange(ptr::null_mut())
    }

    /// Swaps `incoming`, which is null or comes from `Arc::into_raw` and gives its count to the slot, for what lies in the slot.
    fn exchange(&self, incoming: *mut T) -> Option<Arc<T>> {
        // Release: who takes `incoming` sees the snapshot as its writer left it. Acquire: the same for us and what comes out.
        let outgoing = self.unread.swap(incoming, Ordering::AcqRel);
        if outgoing.is_null() {
            return None;
        }
        // SAFETY: `outgoing` is not null, so an earlier `exchange` swapped it in, and by the contract of that call it came from
        // `Arc::<T>::into_raw` of the same `T` with one count for the slot. The swap above took it out of the slot; a swap is
        // one indivisible step and nothing else reads the pointer to follow it, so no other call gets it and the count is
        // turned back into an `Arc` once only. The Acquire above pairs with the Release of the swap that put it in.
        Some(unsafe { Arc::from_raw(outgoing) })
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        drop(self.exchange(ptr::null_mut()));
    }
}
