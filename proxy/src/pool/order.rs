//! What a pool is told (its [`Settings`]) and what it wants done (its [`Order`]s).

use std::sync::Arc;
use std::time::Duration;

use super::backend::MovedBackend;
use super::key::{BackendKey, NodeIdentity, OpenError, OpenRequest, OpenTicket, SessionKey};

/// How long a session keeps a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// As long as the client is connected, or until it goes to another region.
    Session,
    /// Until its transaction is over.
    Transaction,
}

/// `session_state`: what a transaction pool does with a session that leaves something behind in its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatePolicy {
    /// The session keeps its backend until it ends.
    Pin,
    /// The statement is refused with 0A000.
    Refuse,
    /// The statement runs, and what it leaves behind is gone at the end of its transaction.
    Allow,
}

/// The bounds of pools, from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When a session gives its backend back.
    pub mode: PoolMode,
    /// Backends of one pool, over all workers.
    pub size: u32,
    /// Backends of one region, over all pools and workers.
    pub per_region_max: Option<u32>,
    /// How long a session waits for a backend before it gets 53300.
    pub wait_timeout: Duration,
    /// How long a backend may take to be ready again when it is given back.
    pub reset_timeout: Duration,
    /// How long a backend may be idle before it is closed; zero = for ever.
    pub idle_timeout: Duration,
    /// How old a backend may be when it is given back; zero = any age.
    pub lifetime: Duration,
    /// The nodes that backends may be on.
    pub nodes: Arc<[Arc<NodeIdentity>]>,
    /// Prepared statements that one backend keeps for transaction pooling; at least 1.
    pub prepared_statements: usize,
    /// Whether a backend is reset whenever it is given back, and not only when something is known to have been left in it.
    pub reset_always: bool,
    /// Number of workers; a worker's share of a pool is its size by this.
    pub workers: usize,
}

/// What a checkout gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkout {
    /// The backend is the session's now.
    Bound(BackendKey),
    /// The session stands in the queue; an [`Order::Bind`] or [`Order::Fail`] will name it.
    Waiting,
}

/// How a backend connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// With a Terminate message: it was at rest.
    Terminate,
    /// Just closed, so that the server rolls back.
    Abrupt,
}

/// Something the owner of the pools has to do. Orders are taken with [`Pools::take_orders`].
pub enum Order {
    /// Open a connection.
    Open(OpenTicket, OpenRequest),
    /// Close one. Its key is dead already.
    Close(BackendKey, Farewell),
    /// Send DISCARD ALL to it; the reply it owes is noted already.
    Reset(BackendKey),
    /// The backend belongs to this session now, whose turn it was.
    Bind(SessionKey, BackendKey),
    /// This session's waiting is over without a backend.
    Fail(SessionKey, WaitFailure),
    /// Stop receiving on the backend and hand it to another worker.
    Move(BackendKey, usize, Box<MovedBackend>),
    /// Tell another worker that quota has become free, or is needed.
    QuotaChanged(usize),
}

/// Why a session waited in vain.
#[derive(Clone, Debug)]
pub enum WaitFailure {
    /// `pools.wait_timeout` is over.
    TimedOut,
    /// No backend could be opened.
    Open(Arc<OpenError>),
}
