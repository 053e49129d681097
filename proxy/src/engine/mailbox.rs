//! What workers and the control thread have to say to each other.
//!
//! A worker sleeps in its ring, so its mailbox is a queue and an eventfd that the ring watches; the eventfd is written only when the
//! worker has taken everything since the last time. The control thread has a channel. Nothing here waits.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::event::{EventfdFlags, eventfd};

use crate::fence::Seat;
use crate::pool::{BackendInfo, BackendKey, MovedBackend, OpenError, OpenRequest, OpenTicket};
use crate::session::{AuditRecord, Cancel, CancelOrder, CoreSettings, Detail, Login, Operation, Report};
use crate::tls::Connection;
use crate::wire::startup::CancelRequest;

/// What a worker is told.
pub enum ToWorker {
    /// A client whose login is over. `early`: bytes that it sent behind its login.
    Client {
        /// Its connection.
        connection: Connection,
        /// Who it is.
        login: Login,
        /// What was read from the connection too much.
        early: Bytes,
        /// Its place among the worker's clients.
        seat: Seat,
    },
    /// A backend that was asked for with [`ToControl::OpenBackend`], logged in and idle.
    BackendOpened {
        /// The request.
        ticket: OpenTicket,
        /// Its connection; nothing has been read from it too much.
        connection: Connection,
        /// What is known of it.
        info: BackendInfo,
    },
    /// A backend that was asked for is not to be had.
    BackendFailed {
        /// The request.
        ticket: OpenTicket,
        /// Why.
        error: OpenError,
    },
    /// A backend from another worker.
    BackendMoved {
        /// Its connection.
        connection: Connection,
        /// What is known of it.
        moved: Box<MovedBackend>,
    },
    /// Another worker has given quota back, or has run out of it.
    QuotaChanged,
    /// New settings.
    Reload(CoreSettings),
    /// Tell what there is. A worker that has stopped drops the question.
    Report(Detail, Reply<Report>),
    /// Carry an operator's command out, and say whether what it is about was there.
    Operate(Operation, Reply<bool>),
    /// Somebody has shown a key and wants what its session is doing to be cancelled.
    Cancel(Arc<CancelRequest>, Reply<Cancel>),
    /// A cancel request that was sent to a server is over. Whether that is certain; the answer is what is to be sent next.
    CancelOver(BackendKey, bool, Reply<Option<CancelOrder>>),
    /// Accept no more; sessions go on as long as their clients like.
    StopAccepting,
    /// Accept no more, and let clients go when their transactions are over; [`ToControl::Drained`] says when all are gone.
    Drain,
    /// Close everything and end the thread.
    Stop,
}

/// What the control thread is told.
pub enum ToControl {
    /// A client has connected. Once it is logged in, it goes to the same worker.
    Accepted {
        /// The worker that accepted it.
        worker: usize,
        /// The connection.
        socket: OwnedFd,
        /// Where it comes from; `None` for a Unix socket.
        peer: Option<SocketAddr>,
        /// Its place among the worker's clients.
        seat: Seat,
    },
    /// A worker needs a backend.
    OpenBackend {
        /// Which worker.
        worker: usize,
        /// To be named in the answer.
        ticket: OpenTicket,
        /// What is needed.
        request: OpenRequest,
        /// The session because of which it is needed, by the number that SHOW CLIENTS shows; 0 for none.
        session: u64,
    },
    /// What a backend is doing takes too long. [`ToWorker::CancelOver`] says what became of it.
    Cancel {
        /// Which worker.
        worker: usize,
        /// Where the request goes.
        order: Box<CancelOrder>,
    },
    /// A record to be written.
    Audit(Box<AuditRecord>),
    /// All clients of a worker that was told to drain are gone.
    Drained {
        /// Which worker.
        worker: usize,
    },
    /// A worker has broken down. Its connections are closed, and it takes no messages.
    Failed {
        /// Which worker.
        worker: usize,
        /// Why, for the log.
        error: String,
    },
}

/// Where the one who asked waits for the answer.
pub type Reply<T> = tokio::sync::oneshot::Sender<T>;

/// The way to the control thread.
pub type ControlSender = tokio::sync::mpsc::UnboundedSender<ToControl>;

/// The way to a worker; any thread may send.
#[derive(Clone)]
pub struct Mailbox(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    event: OwnedFd,
}

#[derive(Default)]
struct Queue {
    messages: Vec<ToWorker>,
    /// The eventfd has been written since the worker last took messages.
    notified: bool,
    /// The worker is gone: what is sent is dropped, and the sockets in it are closed.
    closed: bool,
}

impl Mailbox {
    /// A mailbox, to be put into [`super::Options::mailboxes`].
    ///
    /// # Errors
    /// There is no descriptor left for its eventfd.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Shared { queue: Mutex::default(), event })))
    }

    /// Sends a message; dropped if the worker is gone.
    pub fn send(&self, message: ToWorker) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        queue.messages.push(message);
        let wake = !mem::replace(&mut queue.notified, true);
        drop(queue);
        if wake && let Err(error) = rustix::io::write(&self.0.event, &1u64.to_ne_bytes()) {
            // Only a full counter can be the reason, and then the worker is being woken already.
            tracing::debug!(%error, "the mailbox's eventfd could not be written");
        }
    }

    /// Moves all messages to `taken`, which is empty. Messages sent from now on wake the worker again.
    pub(super) fn take(&self, taken: &mut Vec<ToWorker>) {
        let mut queue = self.lock();
        mem::swap(&mut queue.messages, taken);
        queue.notified = false;
    }

    /// There is a worker again, which has not been told anything.
    pub(super) fn open(&self) {
        let mut queue = self.lock();
        (queue.closed, queue.notified) = (false, false);
    }

    /// The worker is gone.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let messages = mem::take(&mut queue.messages);
        drop(queue);
        drop(messages);
    }

    /// What the ring watches. It is never read: each write is an edge that the ring sees.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing between lock and unlock can panic half-way.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
