//! What waits to be sent on one socket, in order.
//!
//! One send is in flight at a time: that of the first chunk. What the kernel reads from stays in place until the send has completed;
//! everything else of the queue may be moved to the heap when receive buffers are short. An empty queue holds little memory or none.
//!
//! On an encrypted connection text is gathered until it is sent, and becomes records then: one for what would otherwise be many.

use std::collections::VecDeque;
use std::mem;

use bytes::{Buf, Bytes};

use super::buffers::{Groups, Side, Span};
use crate::tls::Session;

/// Chunks for which an empty queue keeps room.
const KEPT_CHUNKS: usize = 8;

/// Neighbours that are together no longer than this leave as one. A send costs the kernel some microseconds, a copy of this much a few
/// hundred nanoseconds.
const GATHERED_BYTES_MAX: usize = 8 << 10;

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
    /// What is not encrypted yet; it goes behind the chunks. Empty on connections that are not encrypted at all.
    text: Vec<u8>,
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
        self.chunks.is_empty() && self.text.is_empty()
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

    /// Appends text that is encrypted before it is sent.
    pub fn push_text(&mut self, text: &[u8]) {
        self.bytes += text.len();
        self.text.extend_from_slice(text);
    }

    /// Encrypts the text there is by `session`; with `is_last`, nothing comes behind it.
    ///
    /// # Errors
    /// It cannot be encrypted any more; it is lost.
    pub fn seal(&mut self, session: &mut Session, is_last: bool) -> Result<(), String> {
        let mut records = Vec::new();
        let text = mem::take(&mut self.text);
        self.bytes -= text.len();
        let sealed = if text.is_empty() { Ok(()) } else { session.seal(&text, &mut records) };
        if is_last {
            session.seal_end(&mut records);
        }
        self.push_bytes(records.into());
        sealed
    }

    /// The address and length of what is to be sent next, which from now on is in flight: it stays where it is until
    /// [`SendQueue::sent`], or for ever if the queue is dropped before. `None` if nothing waits or a send is in flight already.
    pub fn start(&mut self, groups: &mut Groups) -> Option<(*const u8, u32)> {
        if self.in_flight {
            return None;
        }
        self.gather(groups);
        let (address, length) = match self.chunks.front()? {
            Chunk::Ring(span) => (groups[span.side()].address(span), span.len()),
            Chunk::Heap(bytes) => (bytes.as_ptr(), bytes.len()),
        };
        self.in_flight = true;
        Some((address, u32::try_from(length).unwrap_or(u32::MAX).min(SEND_BYTES_MAX)))
    }

    /// Makes one chunk of the first ones, if they are short: the messages of a reply that are not the server's own stand between its
    /// spans, and each would be a send and a turn of its own.
    fn gather(&mut self, groups: &mut Groups) {
        let mut length = 0;
        let fits = |chunk: &&Chunk| {
            length += chunk.len();
            length <= GATHERED_BYTES_MAX
        };
        let count = self.chunks.iter().take_while(fits).count();
        if count < 2 {
            return;
        }
        let length = self.chunks.iter().take(count).map(Chunk::len).sum();
        let mut gathered = Vec::with_capacity(length);
        for chunk in self.chunks.drain(..count) {
            match chunk {
                Chunk::Ring(span) => {
                    gathered.extend_from_slice(groups.bytes(&span));
                    groups.release(span);
                }
                Chunk::Heap(bytes) => gathered.extend_from_slice(&bytes),
            }
        }
        self.chunks.push_front(Chunk::Heap(gathered.into()));
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
        let waiting = self.chunks.iter().filter(|chunk| matches!(chunk, Chunk::Ring(_))).map(Chunk::len).sum();
        let mut copied = Vec::with_capacity(waiting);
        for chunk in mem::take(&mut self.chunks) {
            match chunk {
                Chunk::Ring(span) => {
                    copied.extend_from_slice(groups.bytes(&span));
                    groups.release(span);
                }
                Chunk::Heap(bytes) => {
                    if !copied.is_empty() {
                        self.chunks.push_back(Chunk::Heap(mem::take(&mut copied).into_boxed_slice().into()));
                    }
                    self.chunks.push_back(Chunk::Heap(bytes));
                }
            }
        }
        if !copied.is_empty() {
            self.chunks.push_back(Chunk::Heap(copied.into_boxed_slice().into()));
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
        self.text = Vec::new();
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

#[cfg(test)]
mod tests {
    use std::slice;

    use proptest::prelude::*;

    use super::super::buffers::model::Kernel;
    use super::*;

    /// A queue beside what it should send.
    struct Pair {
        groups: Groups,
        kernel: Kernel,
        queue: SendQueue,
        expected: Vec<u8>,
        sent: Vec<u8>,
        in_flight: Option<(*const u8, u32)>,
    }

    impl Pair {
        fn new(incremental: bool, bytes: usize) -> Self {
            Self {
                groups: Groups::model(incremental, bytes),
                kernel: Kernel::default(),
                queue: SendQueue::default(),
                expected: Vec::new(),
                sent: Vec::new(),
                in_flight: None,
            }
        }

        /// Receives `bytes` and forwards them in parts of `part` bytes. False: no buffer.
        fn forward(&mut self, bytes: &[u8], part: usize) -> bool {
            self.groups[Side::Backend].publish();
            let Some(completion) = self.kernel.receive(&mut self.groups[Side::Backend], bytes) else { return false };
            let span = self.groups[Side::Backend].received(&completion).unwrap().unwrap();
            let mut start = 0;
            while start < span.len() {
                let end = span.len().min(start + part);
                let part = [start, end].map(|offset| u32::try_from(offset).unwrap());
                assert!(self.queue.push_part(&span, part[0], part[1], &mut self.groups));
                start = end;
            }
            self.expected.extend_from_slice(&bytes[..span.len()]);
            self.groups.release(span);
            true
        }

        fn own(&mut self, bytes: Vec<u8>) {
            self.expected.extend_from_slice(&bytes);
            self.queue.push_bytes(bytes.into());
        }

        fn start(&mut self) -> bool {
            let started = self.queue.start(&mut self.groups);
            assert!(started.is_none() || self.in_flight.is_none(), "one send at a time");
            self.in_flight = self.in_flight.or(started);
            started.is_some()
        }

        /// The kernel has read `count` bytes of what is in flight, at most all.
        fn complete(&mut self, count: u32) {
            let Some((bytes, length)) = self.in_flight.take() else { return };
            let count = count.min(length);
            // SAFETY: in flight, so the queue keeps these bytes where they are.
            self.sent.extend_from_slice(unsafe { slice::from_raw_parts(bytes, count as usize) });
            self.queue.sent(count, &mut self.groups);
        }

        fn finish(mut self) {
            self.complete(u32::MAX);
            while self.start() {
                self.complete(u32::MAX);
            }
            assert!(self.sent == self.expected, "the stream is not what was queued");
            assert_eq!(self.queue.bytes(), 0);
            assert!(self.queue.is_empty());
            self.groups[Side::Backend].publish();
            let count = self.groups[Side::Backend].available();
            for _ in 0..count {
                assert!(self.forward(&[0; 1 << 20], 1 << 20), "a buffer has been lost");
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Forward { length: usize, part: usize },
        Own(usize),
        Start,
        Complete(u32),
        Evacuate,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..50_000usize, 1..20_000usize).prop_map(|(length, part)| Step::Forward { length, part }),
            2 => (0..3000usize).prop_map(Step::Own),
            4 => Just(Step::Start),
            4 => prop_oneof![Just(0), 1..40_000u32, Just(u32::MAX)].prop_map(Step::Complete),
            1 => Just(Step::Evacuate),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 200 }))]
        #[test]
        fn what_is_queued_is_sent_in_order_whatever_happens(incremental: bool, steps in prop::collection::vec(step(), 1..100)) {
            let mut pair = Pair::new(incremental, 256 << 10);
            let mut next = 0u8;
            for step in steps {
                next = next.wrapping_add(1);
                let bytes = |length| (0..length).map(|at: usize| next ^ at.to_le_bytes()[0]).collect::<Vec<_>>();
                match step {
                    Step::Forward { length, part } => {
                        pair.forward(&bytes(length), part);
                    }
                    Step::Own(length) => pair.own(bytes(length)),
                    Step::Start => {
                        pair.start();
                    }
                    Step::Complete(count) => pair.complete(count),
                    Step::Evacuate => {
                        pair.queue.evacuate(&mut pair.groups);
                        prop_assert!(!pair.queue.holds(Side::Backend));
                    }
                }
                prop_assert_eq!(pair.queue.bytes(), pair.expected.len() - pair.sent.len());
            }
            pair.finish();
        }
    }

    #[test]
    fn neighbouring_parts_leave_as_one() {
        let mut pair = Pair::new(true, 1);
        assert!(pair.forward(b"ParseBindExecuteSync", 5));
        assert!(pair.forward(b", and what came next into the same buffer", 100));
        assert!(pair.start());
        assert_eq!(pair.in_flight.map(|(_, length)| length), Some(61));
        pair.finish();
    }

    #[test]
    fn short_neighbours_leave_as_one_wherever_they_lie() {
        let mut pair = Pair::new(true, 1);
        assert!(pair.forward(b"ParseComplete", 13));
        pair.own(b"BindComplete of the proxy's own".to_vec());
        assert!(pair.forward(b"DataRow", 7));
        assert!(pair.start());
        assert_eq!(pair.in_flight.map(|(_, length)| length), Some(51));
        pair.finish();
    }

    #[test]
    fn long_neighbours_are_not_copied() {
        let mut pair = Pair::new(true, 1 << 20);
        pair.own(b"short".to_vec());
        assert!(pair.forward(&[7; 20_000], 20_000));
        assert!(pair.start());
        assert_eq!(pair.in_flight.map(|(_, length)| length), Some(5));
        pair.finish();
    }

    #[test]
    fn what_is_in_flight_is_moved_when_it_has_come_back() {
        let mut pair = Pair::new(false, 1);
        assert!(pair.forward(b"first", 5));
        assert!(pair.start());
        assert!(pair.forward(b"second", 6));
        assert_eq!(pair.groups[Side::Backend].available(), 0);
        assert!(pair.queue.evacuate(&mut pair.groups), "the send has to be cancelled");
        assert!(!pair.queue.evacuate(&mut pair.groups), "once");
        assert_eq!(pair.groups[Side::Backend].available(), 1);
        pair.complete(2);
        assert_eq!(pair.groups[Side::Backend].available(), 2);
        pair.finish();
    }

    #[test]
    fn parts_that_are_not_there_are_refused() {
        let mut pair = Pair::new(true, 1);
        let completion = pair.kernel.receive(&mut pair.groups[Side::Backend], b"12345").unwrap();
        let span = pair.groups[Side::Backend].received(&completion).unwrap().unwrap();
        assert!(!pair.queue.push_part(&span, 0, 6, &mut pair.groups));
        assert!(!pair.queue.push_part(&span, 4, 3, &mut pair.groups));
        assert!(pair.queue.push_part(&span, 3, 3, &mut pair.groups), "nothing is no mistake");
        assert!(pair.queue.is_empty());
        pair.groups.release(span);
    }
}
