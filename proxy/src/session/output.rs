//! What goes into the core and what comes out of it.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{CancelOrder, Memory, Place, Refusal, RegionPlace, RegionPlaces, StatementBounds, Timeouts};
use crate::policy::{Proven, Reason};
use crate::pool::{self, BackendKey, Farewell, MovedBackend, OpenRequest, OpenTicket, Parameters, SessionKey, StartupSettings};
use crate::region::RegionId;
use crate::target::TargetSessionAttrs;
use crate::wire::startup::Replication;
use crate::wire::{CancelSecret, SqlState};

/// What the core is told about its surroundings; a reload brings a new one.
#[derive(Clone, Debug)]
pub struct CoreSettings {
    /// Bounds and mode of the pools.
    pub pools: pool::Settings,
    /// Names of the setting that is the session region, all of them one value.
    pub parameters: Arc<[String]>,
    /// What a transaction pool does with a session that leaves something behind in its backend.
    pub session_state: pool::StatePolicy,
    /// Whether a client is told when its session begins to keep its backend.
    pub pin_notice: bool,
    /// Prepared statements of one session in transaction mode.
    pub session_statements: StatementBounds,
    /// How much memory there is.
    pub memory: Arc<Memory>,
    /// How many clients each region has, and may have.
    pub region_places: RegionPlaces,
    /// What ends by time.
    pub timeouts: Timeouts,
    /// The nodes that serve each region first, by [`RegionId::index`]; for `SHOW domicile.node`.
    pub nodes: Arc<[FirstNodes]>,
}

/// The node of a region that serves first, by [`TargetSessionAttrs::index`].
pub type FirstNodes = [Option<Arc<str>>; TargetSessionAttrs::ALL.len()];

/// Who a client is, as its login has established.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user it authenticated as.
    pub user: Arc<str>,
    /// The database it asked for.
    pub database: Arc<str>,
    /// Where it comes from; `None` for a Unix socket.
    pub address: Option<IpAddr>,
    /// What else it has proved.
    pub proven: Arc<Proven>,
    /// The settings of its StartupMessage, those of residency left out.
    pub settings: StartupSettings,
    /// Whether it is for replication.
    pub replication: Replication,
    /// The region its StartupMessage named; the login has checked it against the grant.
    pub startup_region: Option<Box<str>>,
    /// The version and cipher suite by which its connection is encrypted, if it is.
    pub tls: Option<Arc<str>>,
}

/// A client that has proved who it is, and has not been told so yet.
#[derive(Debug)]
pub struct Login {
    /// Who it is.
    pub identity: Identity,
    /// The settings that it is told with ParameterStatus if no backend is asked.
    pub told: Arc<Parameters>,
    /// What it is told before that: the last word of its authentication, and AuthenticationOk.
    pub before: Bytes,
    /// The secret of the key by which its statements are cancelled.
    pub secret: CancelSecret,
    /// Where it is counted.
    pub places: Vec<Place>,
    /// Where it is counted by the region that it starts in.
    pub region_place: Option<RegionPlace>,
}

/// What the engine has to do, in order. It drains the list after every call of the core.
pub type Outputs = Vec<Output>;

/// One thing to do.
pub enum Output {
    /// Send to a client.
    ToFrontend(SessionKey, Payload),
    /// Send to a backend.
    ToBackend(BackendKey, Payload),
    /// Stop reading a client; it may take effect late by one receive.
    PauseFrontend(SessionKey),
    /// Read it again.
    ResumeFrontend(SessionKey),
    /// Send what is queued, then close. The key is dead for the core.
    CloseFrontend(SessionKey),
    /// Close a backend. The key is dead for the core.
    CloseBackend(BackendKey, Farewell),
    /// Have a backend opened; answer with `backend_opened` or `backend_failed`.
    OpenBackend(OpenTicket, OpenRequest),
    /// Stop receiving on a backend and hand it to another worker's `backend_arrived`. When bytes came in between, or it broke, close
    /// it and call `move_failed`. The key is dead for the core.
    MoveBackend {
        /// Which.
        backend: BackendKey,
        /// Where to.
        to_worker: usize,
        /// What travels with the socket.
        moved: Box<MovedBackend>,
    },
    /// Call another worker's `quota_changed`.
    QuotaChanged {
        /// Which.
        to_worker: usize,
    },
    /// Cancel what a backend is doing; answer with `cancel_over`. The key may be dead by then.
    Cancel(Box<CancelOrder>),
    /// Write a record of a denial.
    Audit(Box<AuditRecord>),
}

/// Bytes to send.
pub enum Payload {
    /// A part of the chunk that the call was given.
    Span {
        /// First byte.
        start: u32,
        /// Behind the last byte.
        end: u32,
    },
    /// Bytes of the core's own.
    Owned(Bytes),
}

/// One denial, or what would have been one.
#[derive(Clone, Debug)]
pub struct AuditRecord {
    /// The user.
    pub user: Arc<str>,
    /// The database.
    pub database: Arc<str>,
    /// The client's address; `None` for a Unix socket.
    pub address: Option<IpAddr>,
    /// The region the session was in or wanted to go to; empty for none.
    pub region: Box<str>,
    /// Why.
    pub reason: Reason,
    /// The rule that gave the grant.
    pub rule: Box<str>,
    /// What the client got.
    pub sqlstate: SqlState,
    /// The statement was served all the same (`enforce = false`).
    pub would_block: bool,
    /// Served by this region, if it was.
    pub served_by: Option<RegionId>,
    /// The message it happened at: `Query`, `Parse`, …
    pub message: &'static str,
}

/// The bytes that a call works on: the chunk that has just arrived, or bytes that were held back.
pub(super) enum Feed<'a> {
    Chunk(&'a [u8]),
    Held(Bytes),
}

impl Feed<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Chunk(bytes) => bytes,
            Self::Held(bytes) => bytes,
        }
    }

    fn payload(&self, range: Range<usize>) -> Payload {
        match self {
            // A chunk is a part of a receive buffer of some KiB, so its offsets fit.
            Self::Chunk(_) => Payload::Span {
                start: u32::try_from(range.start).unwrap_or(u32::MAX),
                end: u32::try_from(range.end).unwrap_or(u32::MAX),
            },
            Self::Held(bytes) => Payload::Owned(bytes.slice(range)),
        }
    }

    /// Sends a part on to a backend; neighbouring parts become one.
    pub(super) fn to_backend(&self, backend: BackendKey, range: Range<usize>, out: &mut Outputs) {
        if let (Payload::Span { start, end }, Some(Output::ToBackend(last, Payload::Span { end: last_end, .. }))) =
            (self.payload(range.clone()), out.last_mut())
            && *last == backend
            && *last_end == start
        {
            *last_end = end;
            return;
        }
        out.push(Output::ToBackend(backend, self.payload(range)));
    }

    /// Sends a part on to a client; neighbouring parts become one.
    pub(super) fn to_frontend(&self, session: SessionKey, range: Range<usize>, out: &mut Outputs) {
        if let (Payload::Span { start, end }, Some(Output::ToFrontend(last, Payload::Span { end: last_end, .. }))) =
            (self.payload(range.clone()), out.last_mut())
            && *last == session
            && *last_end == start
        {
            *last_end = end;
            return;
        }
        out.push(Output::ToFrontend(session, self.payload(range)));
    }
}

/// Sends bytes of the core's own to a client.
pub(super) fn tell(session: SessionKey, bytes: Bytes, out: &mut Outputs) {
    out.push(Output::ToFrontend(session, Payload::Owned(bytes)));
}

/// Ends a client with a FATAL error.
pub(super) fn farewell(session: SessionKey, refusal: &Refusal, out: &mut Outputs) {
    tell(session, refusal.fatal(), out);
    out.push(Output::CloseFrontend(session));
}
