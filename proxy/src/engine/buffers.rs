//! The memory that the kernel receives into, and who still needs which part of it.
//!
//! A group is a ring of equal buffers that the kernel takes from as bytes arrive, so an idle socket holds none. What has arrived is a
//! [`Span`]; it is forwarded by sharing it, not by copying. A buffer goes back to the kernel when the kernel is done filling it and
//! the last span of it has been released. There is one group for the bytes of clients and one for those of backends, so that large
//! results cannot starve queries.
//!
//! In *incremental* mode (Linux 6.12) the kernel goes on filling a buffer behind what it has delivered: 64 KiB buffers serve a
//! 100-byte query with 100 bytes and a large result with whole segments. In *plain* mode every delivery takes a 16 KiB buffer.
//!
//! The memory is never freed: a worker lives as long as its process, and memory that the kernel may still write to must not become
//! something else, whatever way the worker ended. Nothing here knows sockets, or when a shortage should be acted upon.

#[cfg(test)]
pub mod model;
#[cfg(test)]
mod tests;

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Index, IndexMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{io, slice};

use io_uring::types::BufRingEntry;

use super::ring::{Completion, Ring};

/// Bytes of one buffer in incremental mode.
const INCREMENTAL_BYTES: u32 = 64 << 10;
/// Bytes of one buffer in plain mode.
const PLAIN_BYTES: u32 = 16 << 10;
/// Most buffers a group may have (the kernel's bound).
const BUFFERS_MAX: usize = 1 << 15;
/// The largest page of the platforms that Linux has.
const PAGE_BYTES: usize = 64 << 10;

/// How the kernel fills buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BufferMode {
    /// Incremental where the kernel can (Linux 6.12), else plain.
    #[default]
    Auto,
    /// Incremental, or the worker does not start.
    Incremental,
    /// Plain.
    Plain,
}

/// Whose bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client's.
    Frontend,
    /// A backend's.
    Backend,
}

/// A part of a buffer that has been filled, and the right to look at it. It must be given back with [`Buffers::release`].
#[derive(Debug)]
#[must_use = "a span that is lost keeps its buffer for ever"]
pub struct Span {
    start: u32,
    end: u32,
    buffer: u16,
    side: Side,
}

impl Span {
    /// Bytes in it; never 0.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whose bytes they are.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Leaves only the first `count` bytes; at least one.
    pub fn truncate(&mut self, count: u32) {
        debug_assert!(count > 0 && count <= self.end - self.start);
        self.end = self.start + count;
    }

    /// Drops the first `count` bytes; at most all but one.
    pub fn advance(&mut self, count: u32) {
        debug_assert!(count < self.end - self.start);
        self.start += count;
    }

    /// Takes in a span that lies directly behind this one. If true, `next` is to be released: its bytes are this span's now.
    pub fn extend(&mut self, next: &Self) -> bool {
        let neighbours = self.buffer == next.buffer && self.side == next.side && self.end == next.start;
        if neighbours {
            self.end = next.end;
        }
        neighbours
    }
}

/// The two groups of a worker.
pub struct Groups {
    frontends: Buffers,
    backends: Buffers,
}

impl Groups {
    /// Two groups of about so many bytes each.
    pub fn new(mode: BufferMode, frontends: usize, backends: usize, ring: &Ring<'_>) -> io::Result<Self> {
        Ok(Self {
            frontends: Buffers::provided(Side::Frontend, mode, frontends, ring)?,
            backends: Buffers::provided(Side::Backend, mode, backends, ring)?,
        })
    }

    /// The bytes of a span of either group.
    pub fn bytes(&self, span: &Span) -> &[u8] {
        self[span.side].bytes(span)
    }

    /// The bytes of a span of either group, to be written over.
    ///
    /// # Safety
    /// No other span has a part in these bytes: it has just been received.
    pub unsafe fn bytes_mut(&mut self, span: &mut Span) -> &mut [u8] {
        // SAFETY: promised by the caller.
        unsafe { self[span.side].bytes_mut(span) }
    }

    /// Gives a span of either group back.
    pub fn release(&mut self, span: Span) {
        self[span.side].release(span);
    }
}

impl Index<Side> for Groups {
    type Output = Buffers;

    fn index(&self, side: Side) -> &Buffers {
        match side {
            Side::Frontend => &self.frontends,
            Side::Backend => &self.backends,
        }
    }
}

impl IndexMut<Side> for Groups {
    fn index_mut(&mut self, side: Side) -> &mut Buffers {
        match side {
            Side::Frontend => &mut self.frontends,
            Side::Backend => &mut self.backends,
        }
    }
}

/// What is known of one buffer.
#[derive(Clone, Copy, Default)]
struct State {
    /// Bytes the kernel has put into it since it got it.
    filled: u32,
    /// Spans of it that have not been released.
    spans: u32,
    /// The kernel may still put bytes into it.
    with_kernel: bool,
}

/// One group of buffers.
pub struct Buffers {
    side: Side,
    incremental: bool,
    buffer_bytes: u32,
    states: Box<[State]>,
    /// Buffers that the kernel has, or gets with the next [`Buffers::publish`].
    available: usize,
    /// The buffers' memory, one behind the other.
    memory: NonNull<u8>,
    /// The array through which the kernel gets buffers: as many entries as there are buffers, used round and round.
    entries: NonNull<BufRingEntry>,
    /// Entries written since the start, modulo 2¹⁶.
    written: u16,
    /// What the kernel has been told of it.
    published: u16,
}

impl Buffers {
    /// A group of about `bytes` bytes that the kernel knows.
    fn provided(side: Side, mode: BufferMode, bytes: usize, ring: &Ring<'_>) -> io::Result<Self> {
        let make = |incremental| {
            Self::new(side, incremental, bytes, |entries, count| {
                // SAFETY: `entries` has `count` entries and is aligned to pages. It is never freed once this has succeeded, and neither
                // are the buffers that `new` will describe in it.
                unsafe { ring.provide_buffers(entries, count, group(side), incremental) }
            })
        };
        match mode {
            BufferMode::Plain => make(false),
            BufferMode::Incremental => make(true),
            // Before Linux 6.12 the flag is unknown.
            BufferMode::Auto => match make(true) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => make(false),
                other => other,
            },
        }
    }

    /// `provide` makes the array of entries, whose address and number it gets, known to the kernel.
    fn new(side: Side, incremental: bool, bytes: usize, provide: impl FnOnce(u64, u16) -> io::Result<()>) -> io::Result<Self> {
        let buffer_bytes = if incremental { INCREMENTAL_BYTES } else { PLAIN_BYTES };
        let count = (bytes / buffer_bytes as usize).next_power_of_two().clamp(2, BUFFERS_MAX);
        let layout = page_aligned(count * size_of::<BufRingEntry>());
        // SAFETY: the layout is not empty, as there are at least two buffers.
        let entries = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        let mut buffers = Self {
            side,
            incremental,
            buffer_bytes,
            states: vec![State::default(); count].into_boxed_slice(),
            available: 0,
            memory: NonNull::dangling(),
            entries: entries.cast(),
            written: 0,
            published: 0,
        };
        if let Err(error) = provide(entries.expose_provenance().get() as u64, buffers.count()) {
            // SAFETY: allocated above with this layout, and the kernel has refused it.
            unsafe { dealloc(entries.as_ptr(), layout) };
            return Err(error);
        }
        let layout = page_aligned(count * buffer_bytes as usize);
        // SAFETY: not empty, as above. It is not initialised here: only bytes that the kernel has written are ever looked at.
        buffers.memory = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        for buffer in 0..buffers.count() {
            buffers.give_to_kernel(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Whether the kernel fills buffers incrementally.
    pub fn is_incremental(&self) -> bool {
        self.incremental
    }

    /// Buffers that the kernel can still put bytes into.
    pub fn available(&self) -> usize {
        self.available
    }

    /// Whether less than a quarter of the buffers is available.
    pub fn is_short(&self) -> bool {
        self.available < self.states.len().div_ceil(4)
    }

    /// The bytes that a completed receive has brought; `Ok(None)` if it brought none.
    ///
    /// # Errors
    /// The kernel names a buffer that it does not have: nothing about this ring can be relied on any more.
    pub fn received(&mut self, completion: &Completion) -> Result<Option<Span>, UnknownBuffer> {
        let Some(buffer) = completion.buffer() else { return Ok(None) };
        let Ok(length) = u32::try_from(completion.result) else { return Ok(None) };
        // At the end of the stream kernels up to 6.19 name an incremental buffer without saying that they go on filling it, yet they
        // do (liburing issues 1545 and 1553). Nothing was put into it, so nothing about it has changed.
        if self.incremental && length == 0 {
            return Ok(None);
        }
        let Some(state) = self.states.get_mut(usize::from(buffer)) else { return Err(UnknownBuffer) };
        let start = state.filled;
        if !state.with_kernel || length > self.buffer_bytes - start {
            return Err(UnknownBuffer);
        }
        state.filled = start + length;
        state.spans += 1;
        if !(self.incremental && completion.goes_on_filling()) {
            state.with_kernel = false;
            self.available -= 1;
        }
        let span = Span { start, end: start + length, buffer, side: self.side };
        if length == 0 {
            self.release(span);
            return Ok(None);
        }
        Ok(Some(span))
    }

    /// The bytes of a span.
    pub fn bytes(&self, span: &Span) -> &[u8] {
        let offset = self.offset(span);
        // SAFETY: a span lies inside its buffer, which `received` checked, and buffers lie one behind the other in `memory`.
        let start = unsafe { self.memory.add(offset) };
        // SAFETY: the kernel has written these bytes (`received`), and writes to them again only after the buffer was given back to it,
        // which `release` does when no span of it is left: not while `span` is borrowed. They are never freed.
        unsafe { slice::from_raw_parts(start.as_ptr(), span.len()) }
    }

    /// The bytes of a span, to be written over.
    ///
    /// # Safety
    /// No other span has a part in these bytes.
    unsafe fn bytes_mut(&mut self, span: &mut Span) -> &mut [u8] {
        let offset = self.offset(span);
        // SAFETY: as in `bytes`.
        let start = unsafe { self.memory.add(offset) };
        // SAFETY: as in `bytes`; and nobody else reads them, neither we, because no other span has a part in them, nor the kernel, which
        // is given only what spans hold.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), span.len()) }
    }

    /// Where the bytes of a span are, for a send; they stay there until the span is released.
    pub fn address(&self, span: &Span) -> *const u8 {
        self.memory.as_ptr().wrapping_add(self.offset(span))
    }

    /// A span of its own for the part `start..end` of `whole`; `None` if that is empty or not inside it.
    pub fn share(&mut self, whole: &Span, start: u32, end: u32) -> Option<Span> {
        if start >= end || end > whole.end - whole.start {
            return None;
        }
        self.states[usize::from(whole.buffer)].spans += 1;
        Some(Span { start: whole.start + start, end: whole.start + end, ..*whole })
    }

    /// Gives a span back. The kernel gets the buffer again when it was the last one.
    pub fn release(&mut self, span: Span) {
        let state = &mut self.states[usize::from(span.buffer)];
        debug_assert!(state.spans > 0);
        state.spans -= 1;
        if state.spans == 0 && !state.with_kernel {
            self.give_to_kernel(span.buffer);
        }
    }

    /// Lets the kernel see the buffers that have been given back. Once a turn.
    pub fn publish(&mut self) {
        if self.published == self.written {
            return;
        }
        self.published = self.written;
        // SAFETY: `entries` is the first entry of the array, initialised with zeros when it was made.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is a `u16` inside that entry, aligned as a C struct has it; it is only ever accessed atomically, here.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.written, Ordering::Release);
    }

    fn give_to_kernel(&mut self, buffer: u16) {
        self.states[usize::from(buffer)] = State { filled: 0, spans: 0, with_kernel: true };
        self.available += 1;
        let address = self.memory.as_ptr().wrapping_add(usize::from(buffer) * self.buffer_bytes as usize);
        let slot = self.written % self.count();
        // SAFETY: `slot` is below the number of entries.
        let mut entry = unsafe { self.entries.add(usize::from(slot)) };
        // SAFETY: the array was initialised with zeros and nobody else looks at this entry now: the kernel, which does so only in system
        // calls of this thread, has at most `count - 1` other buffers, and their entries are the ones before this. (The first entry
        // also holds the tail. It is not touched by the three calls below, and no other reference to it is alive.)
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address.expose_provenance() as u64);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(buffer);
        self.written = self.written.wrapping_add(1);
    }

    fn offset(&self, span: &Span) -> usize {
        usize::from(span.buffer) * self.buffer_bytes as usize + span.start as usize
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most BUFFERS_MAX")]
    fn count(&self) -> u16 {
        self.states.len() as u16
    }
}

/// The kernel named a buffer that it does not have.
#[derive(Debug)]
pub struct UnknownBuffer;

/// The number under which the kernel knows the group of a side.
pub fn group(side: Side) -> u16 {
    match side {
        Side::Frontend => 0,
        Side::Backend => 1,
    }
}

fn page_aligned(bytes: usize) -> Layout {
    match Layout::from_size_align(bytes, PAGE_BYTES) {
        Ok(layout) => layout,
        // Only beyond the address space.
        Err(_) => handle_alloc_error(Layout::new::<u8>()),
    }
}
