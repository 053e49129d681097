//! What the kernel does with a group, so that the accounting can be tested without one.

use std::ptr::{self, copy_nonoverlapping};

use super::*;

impl Groups {
    /// Groups that no kernel knows.
    pub fn model(incremental: bool, bytes: usize) -> Self {
        let make = |side| Buffers::new(side, incremental, bytes, |_, _| Ok(())).unwrap();
        Self { frontends: make(Side::Frontend), backends: make(Side::Backend) }
    }
}

impl Buffers {
    /// Whether every buffer is with the kernel and nobody looks at any.
    pub fn is_at_rest(&self) -> bool {
        self.available == self.states.len() && self.states.iter().all(|state| state.spans == 0 && state.with_kernel)
    }
}

/// The kernel's place in the array of one group.
#[derive(Default)]
pub struct Kernel {
    head: u16,
}

impl Kernel {
    /// Receives as much of `bytes` as goes into one buffer; `None`: there is none (`ENOBUFS`).
    pub fn receive(&mut self, buffers: &mut Buffers, bytes: &[u8]) -> Option<Completion> {
        // SAFETY: the array is alive and initialised.
        let tail = unsafe { BufRingEntry::tail(buffers.entries.as_ptr()) };
        // SAFETY: as above.
        if self.head == unsafe { tail.read() } {
            return None;
        }
        // SAFETY: inside the array, and nobody else looks at it now.
        let entry = unsafe { &mut *buffers.entries.as_ptr().wrapping_add(usize::from(self.head % buffers.count())) };
        let length = bytes.len().min(entry.len() as usize);
        let target = ptr::with_exposed_provenance_mut(usize::try_from(entry.addr()).unwrap());
        // SAFETY: the entry describes memory that the group has given away.
        unsafe { copy_nonoverlapping(bytes.as_ptr(), target, length) };
        let rest = entry.len() - u32::try_from(length).unwrap();
        entry.set_addr(entry.addr() + length as u64);
        entry.set_len(rest);
        let goes_on = buffers.incremental && rest > 0;
        if !goes_on {
            self.head = self.head.wrapping_add(1);
        }
        Some(Completion::received(i32::try_from(length).unwrap(), entry.bid(), goes_on))
    }
}
