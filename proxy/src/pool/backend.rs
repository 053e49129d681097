//! One backend connection as the pool sees it.

use std::sync::Arc;
use std::time::Instant;

use super::key::{BackendInfo, NodeIdentity, Parameters, PoolKey, SessionKey};
use super::owed::OwedReplies;
use super::pools::PoolIndex;
use super::prepared::PreparedStatements;
use super::quota::Right;
use super::route::Route;
use super::tally::Tally;
use super::withheld::{CancelTarget, Cancelling};
use crate::region::RegionId;
use crate::wire::{CancelSecret, Splitter, TransactionStatus};

/// Which list a backend is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In its pool's list of idle backends.
    Idle,
    /// Lent to one session; in no list.
    Bound(SessionKey),
    /// Given back, but a cancel request is on its way to it; in no list, not to be touched before that is over.
    Withheld,
    /// Being reset (DISCARD ALL) after a session; in no list, not to be lent before the answer.
    Resetting,
    /// On its way to another worker; in no list.
    Moving,
}

/// One backend connection.
pub struct Backend {
    pub(super) generation: u32,
    pub(super) pool: PoolIndex,
    pub(super) state: State,
    pub(super) opened_at: Instant,
    /// Or, before it is idle, since it was given back.
    pub(super) idle_since: Instant,
    /// Given back, but not everything that was sent to it has left yet.
    pub(super) release_when_flushed: bool,
    node: Arc<NodeIdentity>,
    route: Arc<Route>,
    /// Its node is configured otherwise by now: closed when it is given back.
    pub(super) retired: bool,
    /// Its server has changed its role.
    has_changed_role: bool,
    /// An operator wants it closed when it is given back.
    pub(super) recalled: bool,
    /// What it has done.
    pub tally: Tally,
    /// When it was last asked for something while it owed nothing.
    pub(super) asked_at: Instant,
    /// When its transaction began.
    pub(super) xact_at: Instant,
    process_id: u32,
    secret: CancelSecret,
    /// How its connection is encrypted, if it is.
    pub(super) tls: Option<Arc<str>>,
    /// A cancel request is on its way to it.
    pub(super) cancelling: Option<Cancelling>,
    /// What the server has reported last.
    pub parameters: Arc<Parameters>,
    /// The replies it owes.
    pub owed: OwedReplies,
    /// Where its byte stream stands.
    pub splitter: Splitter,
    /// Status of its last ReadyForQuery.
    pub status: TransactionStatus,
    /// Bytes have been handed to the engine that it has not reported as sent.
    pub unflushed: bool,
    /// Extended-protocol messages were sent after the last Sync.
    pub unsynced: bool,
    /// A session has left something behind that the next one must not see.
    pub dirty: bool,
    /// It is closed when it is given back: what was left behind cannot be reset, or it is for replication.
    pub spoiled: bool,
    /// What the server reported at login: what RESET ALL goes back to.
    pub initial: Arc<Parameters>,
    /// The statements that the proxy has prepared on it for sessions to share.
    pub prepared: PreparedStatements,
}

/// A backend between two workers.
pub struct MovedBackend {
    pub(super) key: PoolKey,
    pub(super) info: BackendInfo,
    pub(super) opened_at: Instant,
    pub(super) initial: Arc<Parameters>,
    pub(super) prepared: PreparedStatements,
    pub(super) right: Right,
}

impl Backend {
    pub(super) fn new(generation: u32, pool: PoolIndex, info: BackendInfo, opened_at: Instant, now: Instant) -> Self {
        Self {
            generation,
            pool,
            state: State::Idle,
            opened_at,
            idle_since: now,
            release_when_flushed: false,
            node: info.node,
            route: info.route,
            retired: false,
            has_changed_role: false,
            recalled: false,
            tally: Tally::default(),
            asked_at: now,
            xact_at: now,
            process_id: info.process_id,
            secret: info.secret,
            tls: info.tls,
            cancelling: None,
            initial: info.parameters.clone(),
            parameters: info.parameters,
            owed: OwedReplies::default(),
            splitter: Splitter::default(),
            status: TransactionStatus::Idle,
            unflushed: false,
            unsynced: false,
            dirty: false,
            spoiled: false,
            prepared: PreparedStatements::default(),
        }
    }

    /// The region of the node it is on.
    pub fn region(&self) -> RegionId {
        self.node.region
    }

    /// The node it is on.
    pub fn node(&self) -> &Arc<NodeIdentity> {
        &self.node
    }

    /// Whether its node is configured otherwise by now, so that it is to be given back between two transactions.
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// Whether it is to be closed when it is given back: its node is configured otherwise or found elsewhere by now, or an operator
    /// wants it.
    pub(super) fn is_unwanted(&self) -> bool {
        self.retired || self.recalled || self.has_changed_role || self.route.is_left()
    }

    /// The server reports a setting. One that is a standby no more, or again, is not what its pool was opened for: it is closed when it
    /// is given back.
    pub fn is_told(&mut self, name: &str, value: &str) {
        if name == "in_hot_standby" && self.parameters.get(name).is_some_and(|known| known != value) {
            self.has_changed_role = true;
        }
    }

    /// The server's process.
    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether another session could use it as it is, apart from what a reset would clear: it said ReadyForQuery `I`, owes nothing,
    /// and is at the boundary of messages in both directions.
    pub fn is_at_rest(&self) -> bool {
        self.status == TransactionStatus::Idle
            && self.owed.is_empty()
            && !self.owed.is_skipping()
            && !self.owed.is_copying_in()
            && !self.unsynced
            && self.splitter.at_boundary()
    }

    /// Where a cancel request for it goes, if its server has given it a key.
    pub(super) fn cancel_target(&self) -> Option<CancelTarget> {
        let (node, secret) = (self.node.clone(), self.secret.clone());
        (!secret.bytes().is_empty()).then_some(CancelTarget {
            node,
            peer: self.route.address(),
            is_encrypted: self.tls.is_some(),
            process_id: self.process_id,
            secret,
        })
    }

    pub(super) fn info(&self) -> BackendInfo {
        BackendInfo {
            node: self.node.clone(),
            route: self.route.clone(),
            parameters: self.parameters.clone(),
            process_id: self.process_id,
            secret: self.secret.clone(),
            tls: self.tls.clone(),
        }
    }
}
