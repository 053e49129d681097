//! The turn of a worker: wait for the kernel, tell the core what happened, carry out what it says, and again.
//!
//! This is the only place where the core is called. Everything that can happen is one arm of [`Worker::handle`]; after each call of
//! the core all its outputs are carried out, in order, while the bytes that they may be parts of are still in hand. Neither allocates
//! for a query once the lists have grown. Nothing here looks into bytes.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;
use std::{fmt, io, mem};

use bytes::Bytes;

use super::Options;
use super::buffers::{Side, Span, UnknownBuffer};
use super::listener::Listener;
use super::mailbox::{ControlSender, Mailbox, ToControl, ToWorker};
use super::ring::{Completion, Operation, Token};
use super::sockets::{Move, Owner, Phase, SocketId};
use super::traffic::{Current, Opened, Traffic};
use crate::fence::{DenialCounters, Loads, Seat};
use crate::pool::{BackendKey, Farewell, MovedBackend};
use crate::session::{Core, Login, Output, Outputs, Payload};
use crate::tls::Connection;

/// How long a worker that is told to stop waits for the kernel to let go of its sockets: 2 s.
const STOP_TICKS_MAX: u32 = 8;
/// PostgreSQL's Terminate message.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// Why a worker cannot go on.
#[derive(Debug)]
pub enum Breakdown {
    /// The ring does not work any more.
    Ring(io::Error),
    /// The kernel and we disagree about the receive buffers.
    Buffers,
}

impl fmt::Display for Breakdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => write!(f, "io_uring_enter failed: {error}"),
            Self::Buffers => f.write_str("the kernel named a receive buffer that it did not have"),
        }
    }
}

impl From<io::Error> for Breakdown {
    fn from(error: io::Error) -> Self {
        Self::Ring(error)
    }
}

impl From<UnknownBuffer> for Breakdown {
    fn from(_: UnknownBuffer) -> Self {
        Self::Buffers
    }
}

/// A worker.
pub struct Worker<'uring> {
    number: usize,
    pub(super) traffic: Traffic<'uring>,
    pub(super) core: Core,
    /// What the core has said; empty between calls, kept for its memory.
    outputs: Outputs,
    /// Backends whose move came to nothing, of which the core has not been told yet.
    failed_moves: Vec<MovedBackend>,
    mailboxes: Arc<[Mailbox]>,
    /// Messages being handled; empty between turns, kept for its memory.
    inbox: Vec<ToWorker>,
    control: ControlSender,
    /// Where denials are counted for those who read the fence's maps.
    denials: Option<Arc<DenialCounters>>,
    /// Where clients are counted for the program that chooses their workers.
    loads: Option<Arc<Loads>>,
    /// A client has come since the last tick.
    accepted_since_tick: bool,
    listeners: Vec<Listener>,
    draining: bool,
    drained: bool,
    /// Told to stop: the ticks that are left.
    stopping: Option<u32>,
}

impl<'uring> Worker<'uring> {
    /// A worker that has not begun to accept. `number` is its place among all workers.
    pub fn new(
        number: usize,
        traffic: Traffic<'uring>,
        core: Core,
        options: &Options,
        control: ControlSender,
        listeners: Vec<OwnedFd>,
    ) -> Self {
        Self {
            number,
            traffic,
            core,
            outputs: Vec::new(),
            failed_moves: Vec::new(),
            mailboxes: options.mailboxes.clone(),
            inbox: Vec::new(),
            control,
            denials: options.denials.clone(),
            loads: options.loads.clone(),
            accepted_since_tick: false,
            listeners: (0..).zip(listeners).map(|(index, fd)| Listener::new(index, fd)).collect(),
            draining: false,
            drained: false,
            stopping: None,
        }
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// The ring cannot be used any more.
    pub fn run(&mut self) -> Result<(), Breakdown> {
        self.watch_mailbox();
        self.traffic.ring.tick(Token::lone(Operation::Tick));
        for listener in &mut self.listeners {
            listener.accept(&mut self.traffic.ring);
        }
        loop {
            self.traffic.wait()?;
            while let Some(completion) = self.traffic.ring.next() {
                self.handle(&completion)?;
            }
            if self.draining && !self.drained && self.core.is_drained() && !self.traffic.is_flushing() {
                self.drained = true;
                self.tell_control(ToControl::Drained { worker: self.number });
            }
            if self.stopping.is_some_and(|ticks| ticks == 0 || self.traffic.sockets.is_empty()) {
                return Ok(());
            }
            self.traffic.end_turn();
        }
    }

    fn handle(&mut self, completion: &Completion) -> Result<(), Breakdown> {
        let token = completion.token;
        match token.operation {
            Operation::ReceiveFrontend => self.received(Side::Frontend, completion)?,
            Operation::ReceiveBackend => self.received(Side::Backend, completion)?,
            Operation::Send => self.sent(SocketId::of(token), completion.result),
            Operation::Mailbox => {
                if completion.is_last() {
                    self.watch_mailbox();
                }
                self.take_mail();
            }
            Operation::Accept => self.accepted(completion),
            Operation::Tick => self.tick(),
            // What was to be ended had ended by itself.
            Operation::Cancel => {}
        }
        Ok(())
    }

    fn received(&mut self, side: Side, completion: &Completion) -> Result<(), Breakdown> {
        let id = SocketId::of(completion.token);
        let span = self.traffic.groups[side].received(completion)?;
        let phase = self.traffic.sockets.get(id).map(|socket| {
            if completion.is_last() {
                socket.receiving = false;
            }
            (matches!(socket.phase, Phase::Open), socket.owner)
        });
        match (phase, span) {
            (Some((true, owner)), Some(span)) => {
                let over = if self.traffic.is_encrypted(id) {
                    self.open(owner, id, span)
                } else {
                    self.take(owner, id, span);
                    None
                };
                // A backend that has given its whole answer is not held back by the client that reads it slowly.
                if let Owner::Backend(backend) = owner
                    && let Some(client) = self.traffic.full_client(id)
                    && !self.core.is_serving(backend, client)
                {
                    self.traffic.forget_full_destination(id);
                }
                if let Some(broken) = over {
                    self.peer_is_gone(id, broken);
                }
                self.traffic.go_on_receiving(id, completion.is_last());
            }
            (Some((true, _)), None) => match -completion.result {
                libc::ENOBUFS => self.traffic.wait_for_buffer(id),
                libc::ECANCELED | libc::EINTR => self.traffic.receive(id),
                0 => self.peer_is_gone(id, false),
                _ => self.peer_is_gone(id, true),
            },
            (None | Some((false, _)), span) => {
                let arrived = span.is_some();
                if let Some(span) = span {
                    self.traffic.groups.release(span);
                }
                self.received_in_vain(id, completion, arrived);
            }
        }
        Ok(())
    }

    /// Tells the core of bytes that have arrived.
    fn take(&mut self, owner: Owner, id: SocketId, span: Span) {
        let bytes = self.traffic.groups.bytes(&span);
        match owner {
            Owner::Frontend(key) => self.core.frontend_received(key, bytes, &mut self.outputs),
            Owner::Backend(key) => self.core.backend_received(key, bytes, &mut self.outputs),
        }
        self.carry_out(&Current::Chunk { span: &span, from: id });
        self.traffic.groups.release(span);
    }

    /// The same of bytes that lie elsewhere.
    fn take_heap(&mut self, owner: Owner, id: SocketId, bytes: &Bytes) {
        match owner {
            Owner::Frontend(key) => self.core.frontend_received(key, bytes, &mut self.outputs),
            Owner::Backend(key) => self.core.backend_received(key, bytes, &mut self.outputs),
        }
        self.carry_out(&Current::Heap { bytes, from: id });
    }

    /// Tells the core of the text in what has arrived at an encrypted socket. Whether the connection is over behind it, and if so
    /// whether it has been broken.
    fn open(&mut self, owner: Owner, id: SocketId, span: Span) -> Option<bool> {
        let (opened, over) = self.traffic.open(id, span);
        match opened {
            Opened::Nothing => {}
            Opened::InPlace(span) => self.take(owner, id, span),
            Opened::Elsewhere(bytes) => self.take_heap(owner, id, &bytes),
        }
        over
    }

    /// Something came for a socket that is being closed or moved: its bytes, if any, have been dropped.
    fn received_in_vain(&mut self, id: SocketId, completion: &Completion, arrived: bool) {
        let Some(socket) = self.traffic.sockets.get(id) else { return };
        let is_over = !arrived && !matches!(-completion.result, libc::ECANCELED | libc::ENOBUFS);
        match socket.phase {
            Phase::Closing => self.traffic.close_if_idle(id),
            Phase::Moving(_) => {
                if arrived || is_over {
                    self.give_up_move(id);
                } else if completion.is_last() {
                    self.hand_over(id);
                }
                self.tell_failed_moves();
            }
            Phase::Lingering if is_over => self.traffic.close(id),
            // A client that has only closed its own side may still be reading.
            Phase::Flushing if is_over => {}
            Phase::Flushing | Phase::Lingering if completion.result == -libc::ENOBUFS => self.traffic.wait_for_buffer(id),
            Phase::Flushing | Phase::Lingering if completion.is_last() => self.traffic.receive(id),
            Phase::Open | Phase::Flushing | Phase::Lingering => {}
        }
    }

    fn sent(&mut self, id: SocketId, result: i32) {
        let failed = result <= 0 && result != -libc::ECANCELED;
        self.traffic.sent(id, u32::try_from(result).unwrap_or(0));
        let Some(socket) = self.traffic.sockets.get(id) else { return };
        let is_empty = socket.queue.is_empty();
        match (&socket.phase, socket.owner) {
            (Phase::Closing, _) => self.traffic.close_if_idle(id),
            (Phase::Open, _) if failed => {
                if !self.traffic.break_off(id) {
                    self.peer_is_gone(id, true);
                }
            }
            (Phase::Flushing, _) if failed => self.traffic.close(id),
            (Phase::Flushing, _) if is_empty => self.traffic.linger(id),
            (Phase::Open, Owner::Backend(key)) if is_empty => {
                self.core.backend_flushed(key, &mut self.outputs);
                self.carry_out(&Current::Nothing);
            }
            // A socket that lingers or moves has nothing to send.
            (Phase::Open | Phase::Flushing | Phase::Lingering | Phase::Moving(_), _) => {}
        }
    }

    /// The other end has closed the connection, or it is broken.
    fn peer_is_gone(&mut self, id: SocketId, broken: bool) {
        let Some(owner) = self.traffic.sockets.get(id).map(|socket| socket.owner) else { return };
        match owner {
            Owner::Frontend(key) => self.core.frontend_closed(key, &mut self.outputs),
            Owner::Backend(key) => self.core.backend_closed(key, &mut self.outputs),
        }
        self.carry_out(&Current::Nothing);
        // The core may have closed it among its outputs; then its key is forgotten already, and this changes nothing.
        if self.traffic.forget(owner).is_some() {
            match owner {
                Owner::Frontend(_) if !broken => self.traffic.flush_and_close(id),
                Owner::Frontend(_) | Owner::Backend(_) => self.traffic.close(id),
            }
        }
    }

    fn accepted(&mut self, completion: &Completion) {
        let Some(listener) = self.listeners.get_mut(completion.token.index as usize) else { return };
        if let Some((socket, peer)) = listener.accepted(completion, &mut self.traffic.ring) {
            // Clients of Unix sockets are not steered; the control thread finds them a worker.
            let loads = self.loads.as_ref().filter(|_| peer.is_some());
            let seat = loads.map_or_else(Seat::default, |loads| loads.accepted(self.number));
            self.accepted_since_tick = true;
            self.tell_control(ToControl::Accepted { worker: self.number, socket, peer, seat });
        }
    }

    fn tick(&mut self) {
        self.traffic.ring.tick(Token::lone(Operation::Tick));
        self.core.tick(now(), &mut self.outputs);
        self.carry_out(&Current::Nothing);
        self.traffic.tick();
        for listener in &mut self.listeners {
            listener.try_again(&mut self.traffic.ring);
        }
        // What has not come within a tick does not come any more, or it counts when it does.
        if !mem::take(&mut self.accepted_since_tick)
            && let Some(loads) = &self.loads
        {
            loads.forget_those_who_never_came(self.number);
        }
        if let Some(ticks) = &mut self.stopping {
            *ticks = ticks.saturating_sub(1);
        }
    }

    fn watch_mailbox(&mut self) {
        if let Some(mailbox) = self.mailboxes.get(self.number) {
            self.traffic.ring.poll(mailbox.event(), Token::lone(Operation::Mailbox));
        }
    }

    fn take_mail(&mut self) {
        let mut inbox = mem::take(&mut self.inbox);
        if let Some(mailbox) = self.mailboxes.get(self.number) {
            mailbox.take(&mut inbox);
        }
        for message in inbox.drain(..) {
            self.hear(message);
        }
        self.inbox = inbox;
    }

    fn hear(&mut self, message: ToWorker) {
        if self.stopping.is_some() {
            return;
        }
        match message {
            ToWorker::Client { connection, login, early, seat } => return self.admit_client(connection, login, &early, seat),
            ToWorker::BackendOpened { ticket, connection, info } => {
                let key = self.core.backend_opened(ticket, info, &mut self.outputs);
                return self.admit_backend(key, connection);
            }
            ToWorker::BackendMoved { connection, moved } => {
                let key = self.core.backend_arrived(*moved, &mut self.outputs);
                return self.admit_backend(key, connection);
            }
            ToWorker::BackendFailed { ticket, error } => self.core.backend_failed(ticket, error, &mut self.outputs),
            ToWorker::QuotaChanged => self.core.quota_changed(&mut self.outputs),
            ToWorker::Reload(settings) => self.core.apply(settings, &mut self.outputs),
            ToWorker::Report(detail, reply) => return self.report(detail, reply),
            ToWorker::Operate(operation, reply) => {
                let found = self.core.operate(&operation, now(), &mut self.outputs);
                self.carry_out(&Current::Nothing);
                return super::report::answer(reply, found);
            }
            ToWorker::Cancel(request, reply) => {
                let answer = self.core.cancel(&request, &mut self.outputs);
                self.carry_out(&Current::Nothing);
                return super::report::answer(reply, answer);
            }
            ToWorker::CancelOver(backend, is_over, reply) => {
                let next = self.core.cancel_over(backend, is_over, &mut self.outputs);
                self.carry_out(&Current::Nothing);
                return super::report::answer(reply, next);
            }
            ToWorker::StopAccepting => self.stop_accepting(),
            ToWorker::Drain => {
                self.draining = true;
                self.stop_accepting();
                self.core.drain(&mut self.outputs);
            }
            ToWorker::Stop => {
                self.stop_accepting();
                self.traffic.close_all();
                self.stopping = Some(STOP_TICKS_MAX);
            }
        }
        self.carry_out(&Current::Nothing);
    }

    fn admit_client(&mut self, connection: Connection, login: Login, early: &Bytes, seat: Seat) {
        let key = self.core.client_ready(login, now(), &mut self.outputs);
        let id = self.traffic.admit(connection, Owner::Frontend(key));
        if let Some(socket) = self.traffic.sockets.get(id) {
            socket.seat = seat;
        }
        self.carry_out(&Current::Nothing);
        if !early.is_empty() && self.traffic.frontend(key).is_some() {
            self.take_heap(Owner::Frontend(key), id, early);
        }
        self.traffic.receive(id);
    }

    /// A backend is there; without a key the core does not want it any more.
    fn admit_backend(&mut self, key: Option<BackendKey>, connection: Connection) {
        // The outputs may already be for it.
        let id = key.map(|key| self.traffic.admit(connection, Owner::Backend(key)));
        self.carry_out(&Current::Nothing);
        if let Some(id) = id {
            self.traffic.receive(id);
        }
    }

    fn stop_accepting(&mut self) {
        for listener in &mut self.listeners {
            listener.stop(&mut self.traffic.ring);
        }
    }

    /// Carries out what the core has said. `current` are the bytes that it was given.
    fn carry_out(&mut self, current: &Current<'_>) {
        let mut outputs = mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            self.carry_out_one(output, current);
        }
        self.outputs = outputs;
        self.tell_failed_moves();
    }

    /// Telling the core of one may lead to the next.
    fn tell_failed_moves(&mut self) {
        while let Some(moved) = self.failed_moves.pop() {
            self.core.move_failed(moved, &mut self.outputs);
            self.carry_out(&Current::Nothing);
        }
    }

    fn carry_out_one(&mut self, output: Output, current: &Current<'_>) {
        match output {
            Output::ToFrontend(key, payload) => {
                if let Some(id) = self.traffic.frontend(key) {
                    self.traffic.send(id, payload, current);
                }
            }
            Output::ToBackend(key, payload) => {
                if let Some(id) = self.traffic.backend(key) {
                    self.traffic.send(id, payload, current);
                }
            }
            Output::PauseFrontend(key) => {
                if let Some(id) = self.traffic.frontend(key) {
                    self.traffic.set_paused(id, true);
                }
            }
            Output::ResumeFrontend(key) => {
                if let Some(id) = self.traffic.frontend(key) {
                    self.traffic.set_paused(id, false);
                }
            }
            Output::CloseFrontend(key) => {
                if let Some(id) = self.traffic.forget(Owner::Frontend(key)) {
                    self.traffic.flush_and_close(id);
                }
            }
            Output::CloseBackend(key, farewell) => {
                if let Some(id) = self.traffic.forget(Owner::Backend(key)) {
                    self.close_backend(id, farewell);
                }
            }
            Output::OpenBackend(ticket, request) => {
                let session = self.core.session_behind(ticket);
                self.tell_control(ToControl::OpenBackend { worker: self.number, ticket, request, session });
            }
            Output::MoveBackend { backend, to_worker, moved } => self.move_backend(backend, Move { to_worker, moved }),
            Output::QuotaChanged { to_worker } => {
                if let Some(mailbox) = self.mailboxes.get(to_worker) {
                    mailbox.send(ToWorker::QuotaChanged);
                }
            }
            Output::Cancel(order) => self.tell_control(ToControl::Cancel { worker: self.number, order }),
            Output::Audit(record) => {
                if let Some(denials) = &self.denials {
                    denials.count(&record);
                }
                self.tell_control(ToControl::Audit(record));
            }
        }
    }

    fn close_backend(&mut self, id: SocketId, farewell: Farewell) {
        let Some(socket) = self.traffic.sockets.get(id) else { return };
        match farewell {
            Farewell::Terminate if socket.queue.is_empty() => {
                let terminate = Payload::Owned(Bytes::from_static(TERMINATE));
                self.traffic.send(id, terminate, &Current::Nothing);
                self.traffic.flush_and_close(id);
            }
            Farewell::Terminate | Farewell::Abrupt => self.traffic.close(id),
        }
    }

    fn move_backend(&mut self, key: BackendKey, target: Move) {
        let Some(id) = self.traffic.forget(Owner::Backend(key)) else { return self.failed_moves.push(*target.moved) };
        let Some(socket) = self.traffic.sockets.get(id) else { return self.failed_moves.push(*target.moved) };
        let is_at_rest = socket.queue.is_empty();
        socket.phase = Phase::Moving(Box::new(target));
        if !is_at_rest {
            self.give_up_move(id);
        } else if socket.receiving {
            self.traffic.cancel_receive(id);
        } else {
            self.hand_over(id);
        }
    }

    /// Nothing of a moving socket is in flight any more, and nothing has been read from it that the other worker would miss.
    fn hand_over(&mut self, id: SocketId) {
        let Some(socket) = self.traffic.sockets.remove(id) else { return };
        let Phase::Moving(target) = socket.phase else { return };
        let Move { to_worker, moved } = *target;
        match self.mailboxes.get(to_worker) {
            Some(mailbox) => {
                mailbox.send(ToWorker::BackendMoved { connection: Connection { socket: socket.fd, session: socket.tls }, moved })
            }
            None => self.failed_moves.push(*moved),
        }
    }

    fn give_up_move(&mut self, id: SocketId) {
        let Some(socket) = self.traffic.sockets.get(id) else { return };
        if let Phase::Moving(target) = mem::replace(&mut socket.phase, Phase::Open) {
            self.failed_moves.push(*target.moved);
        }
        self.traffic.close(id);
    }

    fn tell_control(&self, message: ToControl) {
        if self.control.send(message).is_err() {
            tracing::debug!("the control thread is gone");
        }
    }
}

/// Read where a wait begins, and four times a second.
#[expect(clippy::disallowed_methods, reason = "the engine is where the core's time comes from")]
fn now() -> Instant {
    Instant::now()
}
