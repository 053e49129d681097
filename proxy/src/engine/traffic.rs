//! What goes on at the sockets of a worker: receiving, queueing, sending, holding back, closing.
//!
//! Receiving is by multishot requests that end after a credit of bytes (Linux 6.17; before, by requests for one buffer), which is how
//! a sender is held back and how one large transfer leaves room for others: a new request is made unless the bytes go where too much
//! is queued already. What arrives is queued where the core says, as a share of the very buffer it came in, and all sends of a turn
//! start at its end, so that neighbouring parts leave as one.
//!
//! Nothing here calls the core: it is told of events by [`super::worker`].

mod encrypted;
mod shortage;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use rustix::fs::OFlags;

pub use encrypted::Opened;
use encrypted::plain;

use super::buffers::{Groups, Side, Span, group};
use super::ring::{Operation, Ring, Token};
use super::sockets::{Owner, Phase, Routes, Socket, SocketId, Sockets};
use crate::pool::{BackendKey, SessionKey};
use crate::session::Payload;
use crate::tls::Connection;

/// Bytes that one receive of a client's socket may bring.
const FRONTEND_CREDIT_BYTES: NonZeroU32 = NonZeroU32::new(64 << 10).unwrap();
/// Bytes that one receive of a backend's socket may bring.
const BACKEND_CREDIT_BYTES: NonZeroU32 = NonZeroU32::new(256 << 10).unwrap();
/// A queue of this length holds back those who fill it …
const QUEUE_HIGH_BYTES: usize = 128 << 10;
/// … until it is shorter than this. A queue is thus at most QUEUE_HIGH_BYTES, a credit and a buffer long, beside what the core adds.
const QUEUE_LOW_BYTES: usize = 64 << 10;
/// How long a peer that we want to be rid of may take to read what is queued for it, and to close: 5 s.
const FLUSH_TICKS_MAX: u64 = 20;

/// What the core was told when it gave an output: the bytes that spans are parts of, and where they came from.
pub enum Current<'a> {
    /// No bytes.
    Nothing,
    /// Bytes that have arrived.
    Chunk {
        /// The bytes.
        span: &'a Span,
        /// Where.
        from: SocketId,
    },
    /// Bytes that lie elsewhere: a client's that were read together with its login, or text of many records.
    Heap {
        /// The bytes.
        bytes: &'a Bytes,
        /// Whose.
        from: SocketId,
    },
}

impl Current<'_> {
    /// Where the bytes came from.
    fn from(&self) -> Option<SocketId> {
        match self {
            Self::Nothing => None,
            Self::Chunk { from, .. } | Self::Heap { from, .. } => Some(*from),
        }
    }
}

/// The sockets of a worker and what is under way at them.
pub struct Traffic<'uring> {
    /// The way to the kernel.
    pub ring: Ring<'uring>,
    /// The memory that is received into.
    pub groups: Groups,
    /// All sockets.
    pub sockets: Sockets,
    sessions: Routes,
    backends: Routes,
    /// A receive can be given a credit.
    with_credit: bool,
    /// Text of an encrypted socket for a moment; empty otherwise, kept for its memory.
    text: Vec<u8>,
    /// Sockets whose next send has to be started at the end of the turn.
    due: Vec<SocketId>,
    /// Sockets that found no buffer, oldest first, by side.
    without_buffer: [VecDeque<SocketId>; 2],
    /// Sockets that are flushing or lingering, oldest first, and the tick at which their time is over.
    ending: VecDeque<(SocketId, u64)>,
    turn: u64,
    turn_of_tick: u64,
    ticks: u64,
    /// The next turn must not wait: there is more to do for those without a buffer, and the kernel may have nothing to say.
    look_again: bool,
}

impl<'uring> Traffic<'uring> {
    /// Traffic without sockets. Without `bounded_receive` it works as on kernels before 6.17.
    pub fn new(mut ring: Ring<'uring>, mut groups: Groups, bounded_receive: bool) -> io::Result<Self> {
        let with_credit = bounded_receive && kernel_knows_credit(&mut ring, &mut groups)?;
        Ok(Self {
            ring,
            groups,
            sockets: Sockets::default(),
            sessions: Routes::default(),
            backends: Routes::default(),
            with_credit,
            text: Vec::new(),
            due: Vec::new(),
            without_buffer: [VecDeque::new(), VecDeque::new()],
            ending: VecDeque::new(),
            turn: 0,
            turn_of_tick: 0,
            ticks: 0,
            look_again: false,
        })
    }

    /// Whether a receive can be given a credit.
    pub fn has_credit(&self) -> bool {
        self.with_credit
    }

    /// Waits for the kernel. Returns when there is something to do, and sometimes when not.
    pub fn wait(&mut self) -> io::Result<()> {
        self.ring.wait(usize::from(!mem::take(&mut self.look_again)))?;
        self.turn += 1;
        Ok(())
    }

    /// Takes a socket into use; the first receive is up to the caller.
    pub fn admit(&mut self, connection: Connection, owner: Owner) -> SocketId {
        let fd = &connection.socket;
        // On a descriptor with O_NONBLOCK a request of the ring fails where it should wait.
        if let Err(error) = rustix::fs::fcntl_getfl(fd).and_then(|flags| rustix::fs::fcntl_setfl(fd, flags - OFlags::NONBLOCK)) {
            tracing::warn!(%error, "a socket could not be made blocking");
        }
        let id = self.sockets.insert(Socket::new(connection, owner));
        match owner {
            Owner::Frontend(key) => self.sessions.insert(key.index, key.generation, id),
            Owner::Backend(key) => self.backends.insert(key.index, key.generation, id),
        }
        id
    }

    /// The socket of a client.
    pub fn frontend(&self, key: SessionKey) -> Option<SocketId> {
        self.sessions.find(key.index, key.generation)
    }

    /// The socket of a backend.
    pub fn backend(&self, key: BackendKey) -> Option<SocketId> {
        self.backends.find(key.index, key.generation)
    }

    /// Forgets a key. Its socket, unless the key was dead already.
    pub fn forget(&mut self, owner: Owner) -> Option<SocketId> {
        match owner {
            Owner::Frontend(key) => self.sessions.remove(key.index, key.generation),
            Owner::Backend(key) => self.backends.remove(key.index, key.generation),
        }
    }

    /// Starts a receive, unless there is one or a reason against it.
    pub fn receive(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        let wanted = matches!(socket.phase, Phase::Open | Phase::Flushing | Phase::Lingering)
            && !(socket.receiving || socket.paused || socket.is_held_back || socket.without_buffer);
        if !wanted || self.hold_back(id) {
            return;
        }
        let Some(socket) = self.sockets.get(id) else { return };
        socket.receiving = true;
        let side = socket.owner.side();
        let credit = match side {
            Side::Frontend => FRONTEND_CREDIT_BYTES,
            Side::Backend => BACKEND_CREDIT_BYTES,
        };
        let token = id.token(socket.receive_operation());
        if self.with_credit {
            self.ring.receive(socket.fd.as_fd(), group(side), credit, token);
        } else {
            self.ring.receive_once(socket.fd.as_fd(), group(side), token);
        }
    }

    /// The core has dealt with what a receive has brought; `ended`: it was the last.
    pub fn go_on_receiving(&mut self, id: SocketId, ended: bool) {
        if ended {
            self.receive(id);
        } else if self.sockets.get(id).is_some_and(|socket| has_too_much_itself(socket)) {
            self.cancel_receive(id);
        }
    }

    /// Ends the receive in flight; its last completion says when.
    pub fn cancel_receive(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get(id)
            && socket.receiving
        {
            self.ring.cancel(id.token(socket.receive_operation()));
        }
    }

    /// Stops or goes on reading a client. It stops when the receive in flight has ended.
    pub fn set_paused(&mut self, id: SocketId, paused: bool) {
        let Some(socket) = self.sockets.get(id) else { return };
        socket.paused = paused;
        if !paused {
            self.receive(id);
        }
    }

    /// Queues bytes to be sent. If that makes the queue too long, the socket they came from is held back.
    pub fn send(&mut self, to: SocketId, payload: Payload, current: &Current<'_>) {
        let Some(socket) = self.sockets.get(to) else { return };
        let known = match (payload, current) {
            (payload, current) if socket.tls.is_some() => match plain(&payload, current, &self.groups) {
                Some(text) => {
                    socket.queue.push_text(text);
                    true
                }
                None => false,
            },
            (Payload::Owned(bytes), _) => {
                socket.queue.push_bytes(bytes);
                true
            }
            (Payload::Span { start, end }, Current::Chunk { span, .. }) => {
                socket.queue.push_part(span, start, end, &mut self.groups)
            }
            (Payload::Span { start, end }, Current::Heap { bytes, .. }) => {
                let (start, end) = (start as usize, end as usize);
                let inside = start <= end && end <= bytes.len();
                if inside {
                    socket.queue.push_bytes(bytes.slice(start..end));
                }
                inside
            }
            (Payload::Span { .. }, Current::Nothing) => false,
        };
        if !known {
            // The stream would have a hole, so it ends here; the receive at this socket tells the core.
            tracing::error!("an output names bytes that are not part of what arrived; its connection is closed");
            shutdown(socket);
            return;
        }
        if !mem::replace(&mut socket.send_is_due, true) {
            self.due.push(to);
        }
        let (is_full, side) = (socket.queue.bytes() >= QUEUE_HIGH_BYTES, socket.owner.side());
        if is_full && let Some(from) = current.from() {
            self.note_full(from, to, side);
        }
    }

    /// Bytes from `from` have gone to `to`, a socket of `side`, which has too much in its queue.
    fn note_full(&mut self, from: SocketId, to: SocketId, side: Side) {
        let Some(socket) = self.sockets.get(from) else { return };
        match (socket.owner.side(), side) {
            (Side::Frontend, Side::Backend) | (Side::Backend, Side::Frontend) => socket.full_destination = Some(to),
            // What a client sends led to something for another, or for itself (see `has_too_much_itself`).
            (Side::Frontend, Side::Frontend) => {}
            // A backend's answer made the core send to a backend what it had held back. Not reading the one until the other has read
            // could stop both for ever.
            (Side::Backend, Side::Backend) => {}
        }
    }

    /// The client whose full queue would hold `id` back from being read.
    pub fn full_client(&mut self, id: SocketId) -> Option<SessionKey> {
        let destination = self.sockets.get(id)?.full_destination?;
        match self.sockets.get(destination)?.owner {
            Owner::Frontend(key) => Some(key),
            Owner::Backend(_) => None,
        }
    }

    /// `id` is read again whatever the last queue was that its bytes went to.
    pub fn forget_full_destination(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get(id) {
            socket.full_destination = None;
        }
    }

    /// If what `id` brings goes where too much is queued, notes that it is not read until that has changed. False: it may be read.
    fn hold_back(&mut self, id: SocketId) -> bool {
        let Some(socket) = self.sockets.get(id) else { return false };
        let destination = if has_too_much_itself(socket) { Some(id) } else { socket.full_destination.take() };
        let Some(destination) = destination else { return false };
        match self.sockets.get(destination) {
            Some(full) if matches!(full.phase, Phase::Open) && full.queue.bytes() >= QUEUE_HIGH_BYTES => full.held_back.push(id),
            Some(_) | None => return false,
        }
        if let Some(socket) = self.sockets.get(id) {
            socket.full_destination = Some(destination);
            socket.is_held_back = true;
        }
        true
    }

    /// Reads those again that were held back by `holder`, whose queue is shorter now, or that is going away.
    fn let_go(&mut self, holder: SocketId, held_back: Vec<SocketId>) {
        for id in held_back {
            if let Some(socket) = self.sockets.get(id)
                && socket.full_destination == Some(holder)
            {
                socket.full_destination = None;
                socket.is_held_back = false;
                self.receive(id);
            }
        }
    }

    /// Nothing can be sent to this peer any more. True: what it has sent last may still be on its way to us (a backend tells why it
    /// closes), and the end of that will say that it is gone.
    pub fn break_off(&mut self, id: SocketId) -> bool {
        let Some(socket) = self.sockets.get(id) else { return false };
        socket.queue.clear(&mut self.groups);
        shutdown(socket);
        let receiving = socket.receiving;
        let held_back = mem::take(&mut socket.held_back);
        self.let_go(id, held_back);
        receiving
    }

    /// A send has completed, with so many bytes of it sent.
    pub fn sent(&mut self, id: SocketId, count: u32) {
        let Some(socket) = self.sockets.get(id) else { return };
        socket.queue.sent(count, &mut self.groups);
        if !socket.queue.is_empty() && !mem::replace(&mut socket.send_is_due, true) {
            self.due.push(id);
        }
        if socket.queue.bytes() < QUEUE_LOW_BYTES && !socket.held_back.is_empty() {
            let held_back = mem::take(&mut socket.held_back);
            self.let_go(id, held_back);
        }
    }

    /// Sends what is queued, then closes; at once if nothing is. Its key is to be forgotten before.
    pub fn flush_and_close(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        if !matches!(socket.phase, Phase::Open) {
            return;
        }
        seal(socket, true);
        if socket.queue.is_empty() {
            self.close(id);
            return;
        }
        if !mem::replace(&mut socket.send_is_due, true) {
            self.due.push(id);
        }
        socket.phase = Phase::Flushing;
        socket.paused = false;
        socket.is_held_back = false;
        socket.full_destination = None;
        let held_back = mem::take(&mut socket.held_back);
        self.ending.push_back((id, self.ticks + FLUSH_TICKS_MAX));
        self.receive(id);
        self.let_go(id, held_back);
    }

    /// A socket that was flushed has nothing left to send.
    pub fn linger(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        socket.phase = Phase::Lingering;
        match rustix::net::shutdown(&socket.fd, rustix::net::Shutdown::Write) {
            Ok(()) => self.receive(id),
            Err(_) => self.close(id),
        }
    }

    /// Closes without sending what is queued. Its key is to be forgotten before.
    pub fn close(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        if matches!(socket.phase, Phase::Closing) {
            return;
        }
        socket.phase = Phase::Closing;
        let held_back = mem::take(&mut socket.held_back);
        if socket.queue.is_in_flight() {
            self.ring.cancel(id.token(Operation::Send));
        }
        self.cancel_receive(id);
        self.let_go(id, held_back);
        self.close_if_idle(id);
    }

    /// Closes a socket that was waiting for its last completion, if that was it.
    pub fn close_if_idle(&mut self, id: SocketId) {
        if self.sockets.get(id).is_some_and(|socket| matches!(socket.phase, Phase::Closing) && socket.is_idle())
            && let Some(mut socket) = self.sockets.remove(id)
        {
            socket.queue.clear(&mut self.groups);
        }
    }

    /// Closes every socket.
    pub fn close_all(&mut self) {
        let all: Vec<_> = self.sockets.iter().map(|(id, _)| id).collect();
        for id in all {
            self.close(id);
        }
    }

    /// Whether something is still being sent to peers that the core is done with.
    pub fn is_flushing(&mut self) -> bool {
        let sockets = &mut self.sockets;
        self.ending.iter().any(|(id, _)| sockets.get(*id).is_some_and(|socket| matches!(socket.phase, Phase::Flushing)))
    }

    /// 250 ms have passed: cuts off those who do not read what they are sent last, and gets buffers back from those who do not read.
    pub fn tick(&mut self) {
        self.ticks += 1;
        while let Some((id, end)) = self.ending.front().copied() {
            let socket = self.sockets.get(id);
            if socket.is_some_and(|socket| matches!(socket.phase, Phase::Flushing | Phase::Lingering)) {
                if end > self.ticks {
                    break;
                }
                self.close(id);
            }
            self.ending.pop_front();
        }
        for side in [Side::Frontend, Side::Backend] {
            if self.groups[side].is_short() {
                self.evacuate(side, self.turn_of_tick);
            }
        }
        self.turn_of_tick = self.turn;
    }

    /// Everything that happened in this turn has been handled: starts the sends, and gives buffers to those who wait for them.
    pub fn end_turn(&mut self) {
        let started = self.start_sends();
        for side in [Side::Frontend, Side::Backend] {
            self.serve_waiting(side, started);
            self.groups[side].publish();
        }
    }

    /// True: there was one.
    fn start_sends(&mut self) -> bool {
        let mut started = false;
        for id in self.due.drain(..) {
            let Some(socket) = self.sockets.get(id) else { continue };
            socket.send_is_due = false;
            if matches!(socket.phase, Phase::Closing) {
                continue;
            }
            if !socket.queue.is_in_flight() {
                seal(socket, false);
            }
            if let Some((bytes, length)) = socket.queue.start(&mut self.groups) {
                socket.sending_since_turn = self.turn;
                started = true;
                // SAFETY: the queue keeps the bytes where they are until `sent`, which is called only for this send's completion. A socket
                // is removed, and its queue dropped, only when nothing of it is in flight; if the whole worker goes before, the queue
                // leaks them.
                unsafe { self.ring.send(socket.fd.as_fd(), bytes, length, id.token(Operation::Send)) };
            }
        }
        started
    }
}

/// Whether this is a client that does not read what it is sent: then it is not read either.
fn has_too_much_itself(socket: &Socket) -> bool {
    matches!((&socket.phase, socket.owner), (Phase::Open, Owner::Frontend(_))) && socket.queue.bytes() >= QUEUE_HIGH_BYTES
}

/// Encrypts what waits, if the socket is encrypted; with `is_last`, says that nothing follows.
fn seal(socket: &mut Socket, is_last: bool) {
    if let Some(session) = &mut socket.tls
        && let Err(error) = socket.queue.seal(session, is_last)
    {
        // The stream would have a hole, so it ends here.
        tracing::debug!(error, "a connection could not be encrypted any more");
        shutdown(socket);
    }
}

/// Makes a connection end as if its peer had closed it.
fn shutdown(socket: &Socket) {
    if let Err(error) = rustix::net::shutdown(&socket.fd, rustix::net::Shutdown::Both) {
        tracing::debug!(%error, "a connection was over before it could be ended");
    }
}

/// Receives one byte with a credit of one byte: kernels before 6.17 answer `EINVAL`, others end the request after it.
fn kernel_knows_credit(ring: &mut Ring<'_>, groups: &mut Groups) -> io::Result<bool> {
    let (mut near, far) = UnixStream::pair()?;
    near.write_all(b"?")?;
    ring.receive(far.as_fd(), group(Side::Frontend), NonZeroU32::MIN, Token::lone(Operation::ReceiveFrontend));
    let completion = loop {
        ring.wait(1)?;
        if let Some(completion) = ring.next() {
            break completion;
        }
    };
    let bounded = completion.is_last();
    match groups[Side::Frontend].received(&completion) {
        Ok(Some(span)) if bounded => {
            groups.release(span);
            Ok(true)
        }
        Ok(None) if completion.result == -libc::EINVAL => Ok(false),
        Ok(_) | Err(_) => Err(io::Error::other(format!("a first receive gave {completion:?}"))),
    }
}
