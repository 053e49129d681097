//! The nodes as the control thread knows them: where they are, and whether they were there when last looked at.
//!
//! Which region a session may use is decided elsewhere; here a region only has nodes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use crate::config::{self, Config};
use crate::policy::Policy;
use crate::pool::{NodeIdentity, Parameters};
use crate::region::{RegionId, SessionRegion};

/// One PostgreSQL server.
pub struct Node {
    /// As configured.
    pub config: config::Node,
    /// Its name once more, to be shared.
    pub name: Arc<str>,
    /// The number of its region.
    pub region: RegionId,
    /// What tells its backends from those of the same node under another configuration.
    pub identity: Arc<NodeIdentity>,
    pub(super) state: RefCell<NodeState>,
}

/// What the last probe found.
#[derive(Debug)]
pub(super) struct NodeState {
    pub(super) health: Health,
    /// What it reported at its last login by the prober.
    pub(super) parameters: Option<Arc<Parameters>>,
    /// When it is probed next.
    pub(super) probe_at: Instant,
    pub(super) is_being_probed: bool,
}

/// Whether a node can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It has not been probed yet.
    Unknown,
    /// It took the connection, and the login if there was one.
    Up,
    /// It did not, for this reason.
    Down(String),
}

impl Node {
    /// Whether the last probe succeeded.
    pub fn is_up(&self) -> bool {
        self.state.borrow().health == Health::Up
    }

    /// Something went wrong with it: looks again without waiting for the next turn.
    pub(super) fn probe_soon(&self, now: Instant) {
        let mut state = self.state.borrow_mut();
        state.probe_at = state.probe_at.min(now);
    }
}

/// The nodes of a configuration, each with a region of `policy`. A node that has not changed since `previous` keeps its state.
pub(super) fn nodes(config: &Config, policy: &Policy, previous: &[Rc<Node>], now: Instant) -> Vec<Rc<Node>> {
    let node = |node: &config::Node| {
        let SessionRegion::Declared(region) = policy.region(&node.region) else { return None };
        let same = |known: &&Rc<Node>| known.region == region && known.config == *node;
        let fresh = || {
            let state = NodeState { health: Health::Unknown, parameters: None, probe_at: now, is_being_probed: false };
            let name: Arc<str> = node.name.as_str().into();
            let identity = Arc::new(NodeIdentity { name: name.clone(), region });
            Rc::new(Node { config: node.clone(), name, region, identity, state: RefCell::new(state) })
        };
        Some(previous.iter().find(same).cloned().unwrap_or_else(fresh))
    };
    config.nodes.iter().filter_map(node).collect()
}
