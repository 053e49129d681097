//! The memory of a BPF ring buffer, for looking on: Documentation/bpf/ringbuf.rst. Libraries only take things out.
//!
//! One page holds how far has been taken out, one how far has been put in, and then come the data, mapped twice in a row so that
//! nothing that wraps around has to be put together.

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use domicile_ebpf_abi::EVENTS_BYTES;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;

/// Bits and bytes of a record's header (linux/bpf.h).
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER_BYTES: usize = 8;

/// What is put into the ring.
pub(super) struct Producer {
    /// The page of the consumer, which is written to where nobody else takes things out.
    consumer: Mapping,
    /// The page of the producer, and the data behind it.
    producer: Mapping,
    at: u64,
    /// How far the consumer was at the last look.
    taken: u64,
}

struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(map: impl AsFd, length: usize, protection: ProtFlags, offset: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping somewhere.
        let base = unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, map, offset as u64) }?;
        Ok(Self { base: NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?, length })
    }

    /// The number at the beginning.
    fn position(&self) -> &AtomicU64 {
        // SAFETY: the kernel keeps it there, aligned to a page.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing made from it lives longer.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.length) } {
            tracing::error!(%error, "a mapping of the ring of events cannot be undone");
        }
    }
}

impl Producer {
    /// Begins with what comes from now on.
    pub(super) fn open(map: impl AsFd) -> io::Result<Self> {
        let page = page_size();
        let consumer = Mapping::new(&map, page, ProtFlags::READ | ProtFlags::WRITE, 0)?;
        let producer = Mapping::new(&map, page + 2 * EVENTS_BYTES, ProtFlags::READ, page)?;
        let (at, taken) = (producer.position().load(Ordering::Acquire), consumer.position().load(Ordering::Acquire));
        Ok(Self { consumer, producer, at, taken })
    }

    /// Shows what has come since the last look.
    pub(super) fn look(&mut self, mut show: impl FnMut(&[u8])) {
        let end = self.producer.position().load(Ordering::Acquire);
        // What is older than the ring is long has been written over.
        if end - self.at > EVENTS_BYTES as u64 {
            self.at = end;
        }
        while self.at < end {
            let place = usize::try_from(self.at % EVENTS_BYTES as u64).unwrap_or_default();
            // SAFETY: within the data, which are mapped twice, so a record that begins in the first half ends in the second at most.
            let record = unsafe { self.producer.base.as_ptr().add(page_size() + place) };
            // SAFETY: records are aligned to 8 bytes, and the kernel writes their headers atomically.
            let header = unsafe { AtomicU32::from_ptr(record.cast()) }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let length = header & !(BUSY | DISCARDED);
            if header & DISCARDED == 0 && length as usize <= EVENTS_BYTES {
                // SAFETY: the data follow their header, within the mapping as above.
                let data = unsafe { record.add(HEADER_BYTES) };
                // SAFETY: as above; the kernel does not write there again before they have been taken out and the ring has come
                // around, which would show nonsense and break nothing.
                show(unsafe { std::slice::from_raw_parts(data, length as usize) });
            }
            self.at += (HEADER_BYTES as u64 + u64::from(length)).next_multiple_of(8);
        }
        let taken = self.consumer.position().load(Ordering::Acquire);
        if taken == self.taken && self.at > taken {
            // Since the last look nobody has taken anything out: the proxy is not there. The ring must not stay full.
            self.consumer.position().store(self.at, Ordering::Release);
        }
        self.taken = self.consumer.position().load(Ordering::Acquire);
    }
}
