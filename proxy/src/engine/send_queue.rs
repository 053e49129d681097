//! What waits to be sent on one socket, in order.
//!
//! One send is in flight at a time: that of the first chunk. What the kernel reads from stays in place until the send has completed;
//! everything else of the queue may be moved to the heap when receive buffers are short. An empty queue holds little memory or none.

use std::collections::VecDeque;
use std::mem;

use bytes::{Buf, Bytes};

use super::buffers::{Groups, Side, Span};

/// Chunks for which an empty queue keeps room.
const KEPT_CHUNKS: usize = 8;

/// Bytes that one send may carry, below what the kernel cuts a request to.
const SEND_BYTES_MAX: u32 = 1 << 30;

/// Bytes to send.
#[derive(Debug)]
pub enum Chunk {
    /// A part of a receive buffer.
    Ring(Span),
    /// Bytes of our own.
    Heap(Bytes),
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Self::Ring(span) => span.len(),
            Self::Heap(bytes) => bytes.len(),
        }
    }
}

/// The queue.
#[derive(Default)]
pub struct SendQueue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// The kernel reads from the first chunk.
    in_flight: bool,
    /// The first chunk goes to the heap as soon as the send in flight has completed.
    evacuate_first: bool,
}

impl SendQueue {
    /// Bytes that have not been sent.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether a send is in flight.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// Whether a span of that side waits that could be moved to the heap.
    pub fn holds(&self, side: Side) -> bool {
        let skipped = usize::from(self.evacuate_first);
        self.chunks.iter().skip(skipped).any(|chunk| matches!(chunk, Chunk::Ring(span) if span.side() == side))
    }

    /// Appends the part `start..end` of a span, in one chunk with the last one if they are neighbours. False: there is no such part.
    pub fn push_part(&mut self, whole: &Span, start: u32, end: u32, groups: &mut Groups) -> bool {
        let Some(part) = groups[whole.side()].share(whole, start, end) else { return start == end };
        self.bytes += part.len();
        // A chunk in flight may grow too: what the kernel was told of it stays as it is, and the rest is sent afterwards.
        if let Some(Chunk::Ring(last)) = self.chunks.back_mut()
            && last.extend(&part)
        {
            groups.release(part);
        } else {
            self.chunks.push_back(Chunk::Ring(part));
        }
        true
    }

    /// Appends bytes of our own.
    pub fn push_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.chunks.push_back(Chunk::Heap(bytes));
        }
    }

    /// The address and length of what is to be sent next, which from now on is in flight: it stays where it is until
    /// [`SendQueue::sent`], or for ever if the queue is dropped before. `None` if nothing waits or a send is in flight already.
    pub fn start(&mut self, groups: &Groups) -> Option<(*const u8, u32)> {
        if self.in_flight {
            return None;
        }
        let (address, length) = match self.chunks.front()? {
            Chunk::Ring(span) => (groups[span.side()].address(span), span.len()),
            Chunk::Heap(bytes) => (bytes.as_ptr(), bytes.len()),
        };
        self.in_flight = true;
        Some((address, u32::try_from(length).unwrap_or(u32::MAX).min(SEND_BYTES_MAX)))
    }

    /// The send in flight has completed, with so many bytes of it sent.
    pub fn sent(&mut self, count: u32, groups: &mut Groups) {
        self.in_flight = false;
        let evacuate = mem::take(&mut self.evacuate_first);
        let Some(first) = self.chunks.front_mut() else { return };
        let count_bytes = first.len().min(count as usize);
        self.bytes -= count_bytes;
        if count_bytes == first.len() {
            if let Some(Chunk::Ring(span)) = self.chunks.pop_front() {
                groups.release(span);
            }
            if self.chunks.is_empty() && self.chunks.capacity() > KEPT_CHUNKS {
                self.chunks = VecDeque::new();
            }
            return;
        }
        match first {
            Chunk::Ring(span) => span.advance(count),
            Chunk::Heap(bytes) => bytes.advance(count_bytes),
        }
        if evacuate {
            self.evacuate(groups);
        }
    }

    /// Moves what waits in receive buffers to the heap. True: the first chunk is in flight and must be got back for that, by
    /// cancelling its send; it is moved when that has completed.
    pub fn evacuate(&mut self, groups: &mut Groups) -> bool {
        let first = if self.in_flight { self.chunks.pop_front() } else { None };
        let mut copied = Vec::new();
        for chunk in mem::take(&mut self.chunks) {
            match chunk {
                Chunk::Ring(span) => {
                    copied.extend_from_slice(groups.bytes(&span));
                    groups.release(span);
                }
                Chunk::Heap(bytes) => {
                    if !copied.is_empty() {
                        self.chunks.push_back(Chunk::Heap(mem::take(&mut copied).into()));
                    }
                    self.chunks.push_back(Chunk::Heap(bytes));
                }
            }
        }
        if !copied.is_empty() {
            self.chunks.push_back(Chunk::Heap(copied.into()));
        }
        let Some(first) = first else { return false };
        let get_back = matches!(first, Chunk::Ring(_)) && !self.evacuate_first;
        self.evacuate_first |= get_back;
        self.chunks.push_front(first);
        get_back
    }

    /// Drops everything. No send may be in flight.
    pub fn clear(&mut self, groups: &mut Groups) {
        debug_assert!(!self.in_flight);
        for chunk in mem::take(&mut self.chunks) {
            if let Chunk::Ring(span) = chunk {
                groups.release(span);
            }
        }
        self.bytes = 0;
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        if self.in_flight {
            // The kernel may still read the first chunk: it must stay. Happens only when a worker breaks down.
            mem::forget(mem::take(&mut self.chunks));
        }
    }
}
