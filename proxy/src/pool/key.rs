//! The names of things in a pool: keys of sessions and backends, what a pool is known by, what opening a backend needs and gives.

use std::sync::Arc;

use bytes::Bytes;

use super::route::Route;
use crate::limits::{REPORTED_SETTINGS_BYTES_MAX, REPORTED_SETTINGS_MAX};
use crate::region::RegionId;
use crate::target::TargetSessionAttrs;
use crate::wire::startup::Replication;
use crate::wire::{CancelSecret, SqlState};

/// Names one session of one worker. The generation tells a session from a former one in the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// Slot in the worker's table.
    pub index: u32,
    /// How often the slot had been taken before.
    pub generation: u32,
}

/// Names one backend of one worker, like [`SessionKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendKey {
    /// Slot in the worker's table.
    pub index: u32,
    /// How often the slot had been taken before.
    pub generation: u32,
}

/// What a client asked for in its StartupMessage beside user and database: sorted by name, so that equal wishes are equal values.
pub type StartupSettings = Arc<[(Box<str>, Box<str>)]>;

/// What a pool is known by. Two sessions share backends only when all of it is equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The region every backend of the pool is in.
    pub region: RegionId,
    /// The database as the client named it.
    pub database: Arc<str>,
    /// The user as the client named it.
    pub user: Arc<str>,
    /// The settings that the backends are opened with, and fall back to on `RESET`.
    pub settings: StartupSettings,
    /// Which servers of the region its backends are on.
    pub target: TargetSessionAttrs,
    /// What its backends are opened for. Those for replication serve one session each.
    pub replication: Replication,
}

/// Asks for one new backend of a pool.
pub type OpenRequest = PoolKey;

/// Names one [`OpenRequest`] of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenTicket(pub(super) u64);

/// The settings that a server has reported with ParameterStatus, in the order of their first report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parameters(Vec<(Arc<str>, Arc<str>)>);

impl Parameters {
    /// The value reported last.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| &**known == name).map(|(_, value)| &**value)
    }

    /// Takes a report in.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| &**known == name) {
            Some((_, known)) => *known = value.into(),
            None => self.0.push((name.into(), value.into())),
        }
    }

    /// Whether they are no more than a server has to report; one that goes on for ever would have us keep it all.
    pub fn are_within_bounds(&self) -> bool {
        let bytes: usize = self.0.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.0.len() <= REPORTED_SETTINGS_MAX && bytes <= REPORTED_SETTINGS_BYTES_MAX
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

impl<N: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(N, V)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// One node as one configuration has it. Whether a backend's node is still configured as it was is a question of whether this is
/// the same *object* as one of [`Settings::nodes`](super::Settings::nodes): a node that a reload does not touch keeps it.
#[derive(Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its name.
    pub name: Arc<str>,
    /// Its region.
    pub region: RegionId,
}

/// What is known of a backend once its login is over.
#[derive(Clone, Debug)]
pub struct BackendInfo {
    /// The node it is on; its region is asserted against the pool's.
    pub node: Arc<NodeIdentity>,
    /// The way it was opened by.
    pub route: Arc<Route>,
    /// What it reported during login.
    pub parameters: Arc<Parameters>,
    /// Process ID of its BackendKeyData.
    pub process_id: u32,
    /// Secret key of its BackendKeyData; up to 256 bytes in protocol 3.2.
    pub secret: CancelSecret,
    /// The version and cipher suite by which its connection is encrypted, if it is.
    pub tls: Option<Arc<str>>,
}

/// Why a backend could not be opened.
#[derive(Clone, Debug)]
pub enum OpenError {
    /// The region has no node any more.
    NoNode,
    /// The region has nodes, and none of them is what the session may have.
    NoneFits {
        /// What it may have.
        wanted: TargetSessionAttrs,
    },
    /// The node refused the connection, also at a second try.
    Refused {
        /// The node's name.
        node: Arc<str>,
    },
    /// The node did not answer within `pools.connect_timeout`.
    TimedOut {
        /// The node's name.
        node: Arc<str>,
    },
    /// The connection failed in another way.
    Unreachable {
        /// The node's name.
        node: Arc<str>,
        /// What the operating system said.
        text: String,
    },
    /// The server ended the login with an ErrorResponse.
    LoginFailed {
        /// The server's whole message, header included.
        error: Bytes,
        /// Its SQLSTATE, if it had one.
        sqlstate: Option<SqlState>,
        /// Whether the client's own startup values are the cause, so that no retry can help: the session ends with this error.
        fatal_for_client: bool,
    },
    /// The server did not keep to the protocol, or asked for what is not configured.
    Protocol {
        /// The node's name.
        node: Arc<str>,
        /// What was wrong, for the log and the client.
        text: String,
    },
    /// The connection is not encrypted as it has to be, or the server's certificate is not the right one.
    Insecure {
        /// The node's name.
        node: Arc<str>,
        /// What was wrong, for the log and the client.
        text: String,
    },
}

impl OpenError {
    /// Whether it says that the node is not there, or not yet, or not any more; so that another one may serve, this one is left alone for
    /// a while, and nobody need wait for it.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::TimedOut { .. } | Self::Unreachable { .. } | Self::Insecure { .. } => true,
            // 57P01 to 57P03: it shuts down, has crashed, or starts up.
            Self::LoginFailed { sqlstate, .. } => sqlstate.is_some_and(|state| state.as_str().starts_with("57P0")),
            Self::NoNode | Self::NoneFits { .. } | Self::Protocol { .. } => false,
        }
    }

    /// What kind of error it is, in a word for a metric's label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoNode => "no_node",
            Self::NoneFits { .. } => "none_fits",
            Self::Refused { .. } => "refused",
            Self::TimedOut { .. } => "timed_out",
            Self::Unreachable { .. } => "unreachable",
            Self::LoginFailed { .. } => "login_failed",
            Self::Protocol { .. } => "protocol",
            Self::Insecure { .. } => "insecure",
        }
    }
}

/// A decision that permits the use of a region's pool. Only the policy makes values of the implementing type, and a checkout
/// consumes one.
pub trait Proof {
    /// The region that the decision permits.
    fn region(&self) -> RegionId;
}
