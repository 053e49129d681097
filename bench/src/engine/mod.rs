//! What the programs here run on: the product's own ring and receive buffers, and around them the least that a relay can do with.
//!
//! There are no sessions, pools or decisions in it, and no message is understood. What is received is a span of the kernel's buffer,
//! and can be sent from where it lies.

// They are formatted, and tested, where they belong.
#[rustfmt::skip]
#[allow(dead_code, reason = "a relay needs less of it than the product")]
#[path = "../../../proxy/src/engine/buffers.rs"]
mod buffers;
#[rustfmt::skip]
#[allow(dead_code, reason = "a relay needs less of it than the product")]
#[path = "../../../proxy/src/engine/ring.rs"]
mod ring;

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use io_uring::IoUring;

use buffers::{BufferMode, Groups, group};
use ring::{Completion, Operation, Ring, Token};

pub use buffers::{Side, Span};
pub use ring::open;

/// Memory for what clients and servers send, as in the product.
const FRONTEND_BYTES: usize = 4 << 20;
const BACKEND_BYTES: usize = 16 << 20;
/// After so many bytes a receive ends and is asked for anew, as in the product.
const FRONTEND_CREDIT: NonZeroU32 = NonZeroU32::new(64 << 10).unwrap();
const BACKEND_CREDIT: NonZeroU32 = NonZeroU32::new(256 << 10).unwrap();

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// Somebody has connected.
    Accepted(OwnedFd),
    /// Bytes of a socket; to be given back or sent.
    Received(usize, Span),
    /// A part of what was to be sent has been sent.
    Sent(usize),
    /// The other side is gone.
    Closed(usize),
    /// The timer that is watched has fired.
    Timer,
}

/// A part of what is to be sent.
enum Piece {
    Span(Span),
    Own(Vec<u8>),
    Lasting(&'static [u8]),
}

struct Socket {
    fd: OwnedFd,
    side: Side,
    queue: VecDeque<Piece>,
    queued_bytes: usize,
    /// What the kernel sends now, and how long it is.
    sending: Option<(Piece, usize)>,
    receiving: bool,
    held: bool,
    closing: bool,
    is_due: bool,
}

/// Sockets, and what is under way with them. Their numbers are never used again.
pub struct Engine<'uring> {
    ring: Ring<'uring>,
    groups: Groups,
    sockets: Vec<Option<Socket>>,
    /// Whether the kernel knows receives that are bounded in bytes.
    bounded: bool,
    listener: Option<OwnedFd>,
    /// Sockets with something to send.
    due: Vec<usize>,
    /// Sockets that found no buffer.
    starved: Vec<usize>,
}

impl<'uring> Engine<'uring> {
    /// An engine without sockets.
    pub fn new(uring: &'uring mut IoUring) -> io::Result<Self> {
        let ring = Ring::new(uring)?;
        let groups = Groups::new(BufferMode::Auto, FRONTEND_BYTES, BACKEND_BYTES, &ring)?;
        let sockets = Vec::new();
        Ok(Self { ring, groups, sockets, bounded: true, listener: None, due: Vec::new(), starved: Vec::new() })
    }

    /// Accepts whoever connects.
    pub fn listen(&mut self, listener: OwnedFd) {
        self.ring.accept(listener.as_fd(), Token::lone(Operation::Accept));
        self.listener = Some(listener);
    }

    /// Tells when a timer fires.
    pub fn watch(&mut self, timer: BorrowedFd<'_>) {
        self.ring.poll(timer, Token::lone(Operation::Tick));
    }

    /// Takes a socket into use and begins to receive.
    pub fn admit(&mut self, fd: OwnedFd, side: Side) -> usize {
        let index = self.sockets.len();
        let socket = Socket {
            fd,
            side,
            queue: VecDeque::new(),
            queued_bytes: 0,
            sending: None,
            receiving: false,
            held: false,
            closing: false,
            is_due: false,
        };
        self.sockets.push(Some(socket));
        self.receive(index);
        index
    }

    /// The bytes of a span.
    pub fn bytes(&self, span: &Span) -> &[u8] {
        self.groups.bytes(span)
    }

    /// Gives a span back.
    pub fn release(&mut self, span: Span) {
        self.groups.release(span);
    }

    /// Sends a copy.
    pub fn send(&mut self, index: usize, bytes: &[u8]) {
        if let Some(Some(socket)) = self.sockets.get_mut(index) {
            socket.queued_bytes += bytes.len();
            match socket.queue.back_mut() {
                Some(Piece::Own(last)) => last.extend_from_slice(bytes),
                _ => socket.queue.push_back(Piece::Own(bytes.to_vec())),
            }
        }
        self.is_due(index);
    }

    /// Sends from where it lies.
    pub fn send_lasting(&mut self, index: usize, bytes: &'static [u8]) {
        if let Some(Some(socket)) = self.sockets.get_mut(index) {
            socket.queued_bytes += bytes.len();
            socket.queue.push_back(Piece::Lasting(bytes));
        }
        self.is_due(index);
    }

    /// Sends what was received, from where it lies.
    pub fn send_span(&mut self, index: usize, span: Span) {
        let Some(Some(socket)) = self.sockets.get_mut(index) else { return self.groups.release(span) };
        if socket.closing {
            return self.groups.release(span);
        }
        socket.queued_bytes += span.len();
        if let Some(Piece::Span(last)) = socket.queue.back_mut()
            && last.extend(&span)
        {
            return self.groups.release(span);
        }
        socket.queue.push_back(Piece::Span(span));
        self.is_due(index);
    }

    /// Bytes that have not left yet.
    pub fn queued_bytes(&self, index: usize) -> usize {
        self.sockets.get(index).and_then(Option::as_ref).map_or(0, |socket| socket.queued_bytes)
    }

    /// Receives no more than what is under way.
    pub fn hold(&mut self, index: usize) {
        if let Some(Some(socket)) = self.sockets.get_mut(index) {
            socket.held = true;
        }
    }

    /// Receives again.
    pub fn resume(&mut self, index: usize) {
        if let Some(Some(socket)) = self.sockets.get_mut(index)
            && std::mem::take(&mut socket.held)
            && !socket.receiving
        {
            self.receive(index);
        }
    }

    /// Ends a connection; nothing more is heard of it.
    pub fn close(&mut self, index: usize) {
        if let Some(Some(socket)) = self.sockets.get_mut(index) {
            socket.closing = true;
            for piece in socket.queue.drain(..) {
                if let Piece::Span(span) = piece {
                    self.groups.release(span);
                }
            }
            rustix::net::shutdown(&socket.fd, rustix::net::Shutdown::Both).ok();
        }
        self.forget(index);
    }

    /// Starts what is to be sent and waits for something to happen.
    pub fn turn(&mut self) -> io::Result<()> {
        for index in std::mem::take(&mut self.due) {
            self.start_send(index);
        }
        if !self.starved.is_empty() && !self.groups[Side::Frontend].is_short() && !self.groups[Side::Backend].is_short() {
            for index in std::mem::take(&mut self.starved) {
                self.receive(index);
            }
        }
        self.groups[Side::Frontend].publish();
        self.groups[Side::Backend].publish();
        self.ring.wait(1)
    }

    /// What has happened, one by one.
    pub fn next(&mut self) -> io::Result<Option<Event>> {
        while let Some(completion) = self.ring.next() {
            let index = completion.token.index as usize;
            let event = match completion.token.operation {
                Operation::Accept => self.accepted(&completion)?,
                Operation::ReceiveFrontend | Operation::ReceiveBackend => self.received(index, &completion)?,
                Operation::Send => self.sent(index, &completion),
                Operation::Tick => Some(Event::Timer),
                Operation::Mailbox | Operation::Cancel => None,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn accepted(&mut self, completion: &Completion) -> io::Result<Option<Event>> {
        if completion.is_last()
            && let Some(listener) = &self.listener
        {
            self.ring.accept(listener.as_fd(), Token::lone(Operation::Accept));
        }
        if completion.result < 0 {
            return Err(io::Error::from_raw_os_error(-completion.result));
        }
        // SAFETY: the kernel has made this descriptor for this completion, which is handled once: nobody else owns it.
        let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(completion.result) };
        rustix::net::sockopt::set_tcp_nodelay(&fd, true)?;
        Ok(Some(Event::Accepted(fd)))
    }

    fn received(&mut self, index: usize, completion: &Completion) -> io::Result<Option<Event>> {
        let side = if completion.token.operation == Operation::ReceiveFrontend { Side::Frontend } else { Side::Backend };
        let span = self.groups[side].received(completion);
        let span = span.map_err(|_| io::Error::other("the kernel names a buffer that it does not have"))?;
        let Some(Some(socket)) = self.sockets.get_mut(index) else {
            span.into_iter().for_each(|span| self.groups.release(span));
            return Ok(None);
        };
        socket.receiving &= !completion.is_last();
        if socket.closing {
            span.into_iter().for_each(|span| self.groups.release(span));
            self.forget(index);
            return Ok(None);
        }
        let again = !socket.receiving && !socket.held;
        match (span, completion.result) {
            (Some(span), _) => {
                if again {
                    self.receive(index);
                }
                Ok(Some(Event::Received(index, span)))
            }
            (None, result) if result == -libc::ENOBUFS => {
                self.starved.push(index);
                Ok(None)
            }
            (None, result) if result == -libc::EINVAL && self.bounded => {
                self.bounded = false;
                self.receive(index);
                Ok(None)
            }
            (None, _) => Ok(Some(Event::Closed(index))),
        }
    }

    fn sent(&mut self, index: usize, completion: &Completion) -> Option<Event> {
        let Some(Some(socket)) = self.sockets.get_mut(index) else { return None };
        let (piece, length) = socket.sending.take()?;
        if let Piece::Span(span) = piece {
            self.groups.release(span);
        }
        socket.queued_bytes -= length;
        if socket.closing {
            self.forget(index);
            return None;
        }
        if usize::try_from(completion.result).ok() != Some(length) {
            return Some(Event::Closed(index));
        }
        if !socket.queue.is_empty() {
            self.is_due(index);
        }
        Some(Event::Sent(index))
    }

    fn is_due(&mut self, index: usize) {
        if let Some(Some(socket)) = self.sockets.get_mut(index)
            && socket.sending.is_none()
            && !std::mem::replace(&mut socket.is_due, true)
        {
            self.due.push(index);
        }
    }

    fn start_send(&mut self, index: usize) {
        let Some(Some(socket)) = self.sockets.get_mut(index) else { return };
        socket.is_due = false;
        let Some(piece) = socket.queue.pop_front() else { return };
        let (address, length) = match &piece {
            Piece::Span(span) => (self.groups[span.side()].address(span), span.len()),
            Piece::Own(bytes) => (bytes.as_ptr(), bytes.len()),
            Piece::Lasting(bytes) => (bytes.as_ptr(), bytes.len()),
        };
        socket.sending = Some((piece, length));
        let token = token(Operation::Send, index);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        // SAFETY: the piece stays in `sending` until the completion of this send has been taken (`sent`): a socket is forgotten only
        // when nothing is being sent. Neither a span's bytes nor a vector's move when they are.
        unsafe { self.ring.send(socket.fd.as_fd(), address, length, token) };
    }

    fn receive(&mut self, index: usize) {
        let Some(Some(socket)) = self.sockets.get_mut(index) else { return };
        socket.receiving = true;
        let (operation, credit) = match socket.side {
            Side::Frontend => (Operation::ReceiveFrontend, FRONTEND_CREDIT),
            Side::Backend => (Operation::ReceiveBackend, BACKEND_CREDIT),
        };
        let (fd, group, token) = (socket.fd.as_fd(), group(socket.side), token(operation, index));
        if self.bounded {
            self.ring.receive(fd, group, credit, token);
        } else {
            self.ring.receive_once(fd, group, token);
        }
    }

    /// Drops a socket that is closing, if nothing of it is under way.
    fn forget(&mut self, index: usize) {
        if self.sockets[index].as_ref().is_some_and(|socket| socket.closing && !socket.receiving && socket.sending.is_none()) {
            self.sockets[index] = None;
        }
    }
}

impl Drop for Engine<'_> {
    /// The kernel may still look at what is being sent: it is left where it is.
    fn drop(&mut self) {
        for piece in self.sockets.iter_mut().flatten().filter_map(|socket| socket.sending.take()) {
            std::mem::forget(piece);
        }
    }
}

fn token(operation: Operation, index: usize) -> Token {
    Token { operation, index: u32::try_from(index).unwrap_or(u32::MAX), generation: 0 }
}
