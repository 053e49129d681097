//! One io_uring: what can be asked of the kernel, and what it answers.
//!
//! Every request carries a [`Token`] that comes back with its completions. Asking never enters the kernel: requests gather in the
//! submission queue and leave together in [`Ring::wait`], one system call a turn. Nothing here knows sockets, sessions or whose
//! memory is sent.
//!
//! Needs Linux 6.1 (`DEFER_TASKRUN`). With it the kernel does the work of this ring, which includes every write into receive
//! buffers, only inside [`Ring::wait`].

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::{io, ptr};

use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue};

/// Requests that leave in one system call; more wait in a backlog.
const SUBMISSION_ENTRIES: u32 = 4096;
/// Completions that fit before the kernel has to keep them in a list of its own.
const COMPLETION_ENTRIES: u32 = 16_384;
/// Time between two ticks.
static TICK: Timespec = Timespec::new().nsec(250_000_000);

/// Where `struct io_uring_sqe` has `optlen` (linux/io_uring.h): for a multishot receive, the bytes after which it ends.
const SQE_OPTLEN_OFFSET: usize = 44;
const _: () = assert!(size_of::<squeue::Entry>() == 64);

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A connection was accepted.
    Accept,
    /// A client's bytes.
    ReceiveFrontend,
    /// A backend's bytes.
    ReceiveBackend,
    /// Bytes were sent.
    Send,
    /// The mailbox was written to.
    Mailbox,
    /// Time has passed.
    Tick,
    /// A cancellation found nothing to cancel.
    Cancel,
}

impl Operation {
    const ALL: [Self; 7] =
        [Self::Accept, Self::ReceiveFrontend, Self::ReceiveBackend, Self::Send, Self::Mailbox, Self::Tick, Self::Cancel];
}

/// Names one request: what it does, and the slot it does it for. The generation tells completions of a slot's former owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What was asked.
    pub operation: Operation,
    /// The slot.
    pub index: u32,
    /// Its generation, below [`Token::GENERATIONS`].
    pub generation: u32,
}

impl Token {
    /// Generations that a token can tell apart.
    pub const GENERATIONS: u32 = 1 << 24;

    /// A token for an operation that is not about one of many slots.
    pub const fn lone(operation: Operation) -> Self {
        Self { operation, index: 0, generation: 0 }
    }

    fn pack(self) -> u64 {
        (self.operation as u64) << 56 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the fields are cut out of the word they were packed into")]
    fn unpack(word: u64) -> Option<Self> {
        let operation = *Operation::ALL.get((word >> 56) as usize)?;
        Some(Self { operation, index: word as u32, generation: (word >> 32) as u32 % Self::GENERATIONS })
    }
}

/// One answer of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The token of the request.
    pub token: Token,
    /// Not negative: what was achieved; negative: an errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// Whether this is the last answer to its request.
    pub fn is_last(&self) -> bool {
        !cqueue::more(self.flags)
    }

    /// The provided buffer that the bytes are in.
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// Whether the kernel goes on filling that buffer (incremental mode only).
    pub fn goes_on_filling(&self) -> bool {
        cqueue::buffer_more(self.flags)
    }

    #[cfg(test)]
    pub fn received(result: i32, buffer: u16, goes_on_filling: bool) -> Self {
        let flags = u32::from(buffer) << 16 | 1 | u32::from(goes_on_filling) << 4;
        Self { token: Token::lone(Operation::ReceiveFrontend), result, flags }
    }
}

/// Sets up an io_uring. The thread that calls this must be the one that uses it (`SINGLE_ISSUER`).
pub fn open() -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETION_ENTRIES)
        .build(SUBMISSION_ENTRIES)
}

/// Closes the connections that the kernel has accepted and nobody has looked at. For a ring that is not used any more.
pub fn close_unseen(uring: &mut IoUring) {
    for entry in uring.completion() {
        let is_accept = Token::unpack(entry.user_data()).is_some_and(|token| matches!(token.operation, Operation::Accept));
        if is_accept && entry.result() >= 0 {
            // SAFETY: the kernel has made this descriptor for this completion, which nobody else will see.
            drop(unsafe { OwnedFd::from_raw_fd(entry.result()) });
        }
    }
}

/// The two queues of an io_uring and the way into the kernel.
pub struct Ring<'uring> {
    submitter: Submitter<'uring>,
    submission: SubmissionQueue<'uring>,
    completion: CompletionQueue<'uring>,
    /// Requests that found the submission queue full, oldest first.
    backlog: VecDeque<squeue::Entry>,
}

impl<'uring> Ring<'uring> {
    /// Takes `uring` into use.
    pub fn new(uring: &'uring mut IoUring) -> io::Result<Self> {
        let (mut submitter, submission, completion) = uring.split();
        // Saves the look-up of the descriptor in every call. Only this submitter knows of it, so it is the one that is kept.
        submitter.register_ring_fd()?;
        Ok(Self { submitter, submission, completion, backlog: VecDeque::new() })
    }

    /// Hands all requests to the kernel and waits until at least `want` completions are there (it may be fewer: after a signal, or
    /// when completions have to be taken first). The caller then takes all with [`Ring::next`].
    ///
    /// # Errors
    /// What [`io_uring_enter(2)`] says beyond that; the ring cannot be used any more.
    ///
    /// [`io_uring_enter(2)`]: https://man7.org/linux/man-pages/man2/io_uring_enter.2.html
    pub fn wait(&mut self, want: usize) -> io::Result<()> {
        self.completion.sync();
        loop {
            while let Some(entry) = self.backlog.pop_front() {
                // SAFETY: the entry was made by a method below; `push` there says why its memory stays valid.
                if unsafe { self.submission.push(&entry) }.is_err() {
                    self.backlog.push_front(entry);
                    break;
                }
            }
            self.submission.sync();
            let all = self.backlog.is_empty();
            let entered = self.submitter.submit_and_wait(if all { want } else { 0 });
            self.submission.sync();
            match entered {
                Ok(count) if all || count == 0 => break,
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => break,
                Err(error) => return Err(error),
            }
        }
        self.completion.sync();
        Ok(())
    }

    /// The next completion of those that were there when [`Ring::wait`] returned.
    pub fn next(&mut self) -> Option<Completion> {
        loop {
            let entry = self.completion.next()?;
            // Every request has a token, so each unpacks.
            if let Some(token) = Token::unpack(entry.user_data()) {
                return Some(Completion { token, result: entry.result(), flags: entry.flags() });
            }
        }
    }

    /// Accepts connections until it fails (multishot).
    pub fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) {
        self.push(opcode::AcceptMulti::new(target(listener)).flags(libc::SOCK_CLOEXEC).build(), token);
    }

    /// Receives into one buffer of `group`.
    pub fn receive_once(&mut self, socket: BorrowedFd<'_>, group: u16, token: Token) {
        let entry = opcode::Recv::new(target(socket), ptr::null_mut(), 0).buf_group(group).build();
        self.push(entry.flags(squeue::Flags::BUFFER_SELECT), token);
    }

    /// Receives into buffers of `group` until it fails (multishot), or has brought at least `credit` bytes, which the kernel looks at
    /// after each buffer. Before Linux 6.17 it fails with `EINVAL`.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, group: u16, credit: NonZeroU32, token: Token) {
        let mut entry = opcode::RecvMulti::new(target(socket), group).build();
        let field = (&raw mut entry).cast::<u8>().wrapping_add(SQE_OPTLEN_OFFSET).cast::<u32>();
        // SAFETY: an entry is the 64 bytes of `struct io_uring_sqe` (asserted above), a C struct of integers aligned to 8, so the four
        // aligned bytes at 44 are inside it and any value is valid there. The binding has no way to set this field.
        unsafe { field.write(credit.get()) };
        self.push(entry, token);
    }

    /// Sends `length` bytes; the kernel goes on by itself until all are sent, it fails or it is cancelled (`MSG_WAITALL`).
    ///
    /// # Safety
    /// The bytes must stay where they are, unchanged, until this request's completion has been taken from the ring.
    pub unsafe fn send(&mut self, socket: BorrowedFd<'_>, bytes: *const u8, length: u32, token: Token) {
        let entry = opcode::Send::new(target(socket), bytes, length).flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL);
        self.push(entry.build(), token);
    }

    /// Says whenever `descriptor` becomes readable anew (multishot, edge-triggered).
    pub fn poll(&mut self, descriptor: BorrowedFd<'_>, token: Token) {
        let readable = u32::from(libc::POLLIN.unsigned_abs());
        self.push(opcode::PollAdd::new(target(descriptor), readable).multi(true).build(), token);
    }

    /// Completes in 250 ms. (A multishot timeout would need Linux 6.4 and save four requests a second.)
    pub fn tick(&mut self, token: Token) {
        self.push(opcode::Timeout::new(&raw const TICK).build(), token);
    }

    /// Ends a request early. Its last completion still comes; this one completes only if there was nothing to end.
    pub fn cancel(&mut self, request: Token) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(request.pack())).build();
        self.push(entry.flags(squeue::Flags::SKIP_SUCCESS), Token::lone(Operation::Cancel));
    }

    /// Gives the kernel a ring of provided buffers under the number `group`.
    ///
    /// # Safety
    /// `address` must be that of a page-aligned array of `entries` buffer descriptors which, like the buffers that will be described
    /// in it, stays valid until this io_uring is gone.
    pub unsafe fn provide_buffers(&self, address: u64, entries: u16, group: u16, incremental: bool) -> io::Result<()> {
        let flags = if incremental { io_uring::types::IOU_PBUF_RING_INC } else { 0 };
        #[expect(clippy::cast_possible_truncation, reason = "the flag is 2")]
        // SAFETY: the caller keeps the promise that this function asks for.
        unsafe {
            self.submitter.register_buf_ring_with_flags(address, entries, group, flags as u16)
        }
    }

    fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.pack());
        // SAFETY: only `send` and `tick` make entries that name memory. That of `send` is kept by its caller (see there), that of
        // `tick` is a static. All other entries hold descriptors and numbers.
        if !self.backlog.is_empty() || unsafe { self.submission.push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }
}

fn target(descriptor: BorrowedFd<'_>) -> Fd {
    Fd(descriptor.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_way_through_the_kernel() {
        for operation in Operation::ALL {
            for (index, generation) in [(0, 0), (7, 1), (u32::MAX, Token::GENERATIONS - 1)] {
                let token = Token { operation, index, generation };
                assert_eq!(Token::unpack(token.pack()), Some(token));
            }
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
