//! Publication of whole snapshots: writers replace, readers never wait.
//!
//! A worker looks at the published value before every decision, so a look must cost one atomic load and must never meet a lock.
//! Each [`Reader`] therefore has a mailbox of its own for one snapshot, its slot: the [`Publisher`] swaps the newest snapshot
//! into every slot, the reader swaps it out. Whoever takes a pointer out of a slot owns it, so nothing has to find out when the
//! others have stopped reading (no epochs, no hazard pointers).
//!
//! ```text
//!   publish(next)  ──swap──▶  slot of reader 1  ──swap──▶  its snapshot
//!                  ──swap──▶  slot of reader 2  ──swap──▶  its snapshot
//! ```
//!
//! A reader sees snapshots in the order in which they were published and may miss some; it never goes back. What is replaced is
//! freed by the publisher, not by the last reader: a table of a million rules takes a worker longer to free than many queries.
//!
//! This module knows nothing about what is published, changes nothing in a snapshot, and tells nobody that there is a new one.

mod slot;
mod sync;

#[cfg(all(loom, test))]
mod model;
#[cfg(all(not(loom), test))]
mod tests;

use std::fmt;
use std::sync::{Arc, PoisonError, Weak};

use slot::Slot;
use sync::{Mutex, MutexGuard};

/// The writing side: holds the current snapshot and the addresses of all readers.
///
/// Writers wait for each other; no reader is ever among those who wait.
pub struct Publisher<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    current: Arc<T>,
    /// Earlier snapshots that a reader may still hold; the publisher keeps each until it is the last holder.
    retired: Vec<Arc<T>>,
    /// A slot belongs to its reader: one that no longer upgrades was given up.
    slots: Vec<Weak<Slot<T>>>,
}

impl<T: Send + Sync + 'static> Publisher<T> {
    /// Starts with `first` as the current snapshot.
    pub fn new(first: Arc<T>) -> Self {
        Self { state: Mutex::new(State { current: first, retired: Vec::new(), slots: Vec::new() }) }
    }

    /// Makes `next` the current snapshot; every reader has it at its next [`Reader::get`] or [`Reader::refresh`].
    pub fn publish(&self, next: Arc<T>) {
        let mut state = self.lock();
        let previous = std::mem::replace(&mut state.current, Arc::clone(&next));
        state.retired.push(previous);
        state.slots.retain(|slot| match slot.upgrade() {
            Some(slot) => {
                slot.put(Arc::clone(&next));
                true
            }
            None => false,
        });
        state.free_retired();
    }

    /// The current snapshot.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.lock().current)
    }

    /// A new reader, which starts with the current snapshot.
    pub fn reader(&self) -> Reader<T> {
        let mut state = self.lock();
        state.slots.retain(|slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot::empty());
        state.slots.push(Arc::downgrade(&slot));
        Reader { snapshot: Arc::clone(&state.current), slot }
    }

    /// Frees the replaced snapshots that no reader holds any more. [`Self::publish`] does it too; calling it some time after a
    /// publication keeps a replaced snapshot from staying in memory until the next one.
    pub fn free_retired(&self) {
        self.lock().free_retired();
    }

    /// A panic inside the lock can only come from dropping a `T`, where the state is whole; so a poisoned lock is taken too.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn free_retired(&mut self) {
        // Only the current snapshot is handed out anew: a count of one stays one.
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}

impl<T> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

/// The reading side, for one owner. It goes on with its last snapshot when the publisher is gone.
pub struct Reader<T> {
    snapshot: Arc<T>,
    slot: Arc<Slot<T>>,
}

impl<T> Reader<T> {
    /// The newest snapshot; one atomic load when there is nothing new. Never blocks.
    pub fn get(&mut self) -> &Arc<T> {
        self.refresh();
        &self.snapshot
    }

    /// Takes the newest snapshot if there is one that this reader has not seen, and says whether there was. Never blocks.
    pub fn refresh(&mut self) -> bool {
        match self.slot.take() {
            Some(next) => {
                self.snapshot = next;
                true
            }
            None => false,
        }
    }

    /// The snapshot taken last, without looking for a newer one.
    pub fn snapshot(&self) -> &Arc<T> {
        &self.snapshot
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}
