//! The nodes as the control thread knows them: where they are, whether they could be reached when last tried, and what they are.
//!
//! Which region a session may use is decided elsewhere; here a region only has nodes.

use std::cell::{Cell, RefCell};
use std::mem::discriminant;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::backend::describe;
use super::backoff::{Attempt, Backoff};
use super::choice::Candidate;
use super::stretch::Stretcher;
use crate::config::{self, Config};
use crate::policy::Policy;
use crate::pool::{NodeIdentity, OpenError, Parameters, Route};
use crate::region::{RegionId, SessionRegion};
use crate::target::ServerState;
use crate::wire::startup::PROTOCOL_MINOR_MAX;

/// For so long a server is taken to be what it has reported. Afterwards that says where to look first, and nothing more.
const FRESH: Duration = Duration::from_secs(3);
/// Between two probes that something has asked for.
const PROBES_APART: Duration = Duration::from_secs(1);

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
    /// Where passwords are stretched for it.
    pub(super) stretcher: Stretcher,
    /// It has refused to speak of another version than 3.0.
    speaks_only_3_0: Cell<bool>,
}

/// What the last tries have found.
#[derive(Debug)]
pub(super) struct NodeState {
    health: Health,
    backoff: Backoff,
    /// The ways by which its backends were opened, and whether only for want of a better server.
    routes: Vec<(Arc<Route>, bool)>,
    /// When a connect got no answer, if none has since.
    silent_since: Option<Instant>,
    /// When it was last connected to.
    connected_at: Option<Instant>,
    /// The last failure came after that.
    failed_at_login: bool,
    /// What it is, and when it said so.
    seen: Option<(ServerState, Instant)>,
    /// What it reported at its last login by the prober.
    pub(super) parameters: Option<Arc<Parameters>>,
    /// When it was probed, and when it is probed next.
    probed_at: Option<Instant>,
    probe_at: Instant,
    pub(super) is_being_probed: bool,
}

/// Whether a node can be used.
#[derive(Clone, Debug)]
enum Health {
    /// It has not been tried yet.
    Unknown,
    /// It took the connection, and the login if there was one.
    Up,
    /// It did not.
    Down(OpenError),
}

/// How a node could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Success {
    /// A prober without a user could connect.
    Connect,
    /// A prober could log in.
    ProbersLogin,
    /// A backend could be opened.
    ClientsLogin,
}

impl Node {
    /// The minor version of the protocol that it is asked for.
    pub(super) fn protocol_minor(&self) -> u16 {
        if self.speaks_only_3_0.get() { 0 } else { PROTOCOL_MINOR_MAX }
    }

    /// It refuses what it does not know.
    pub(super) fn does_not_negotiate(&self) {
        self.speaks_only_3_0.set(true);
    }

    /// Whether it could be used at the last try.
    pub fn is_up(&self) -> bool {
        matches!(self.state.borrow().health, Health::Up)
    }

    /// Whether it is a standby, if that is known.
    pub fn is_standby(&self) -> Option<bool> {
        self.state.borrow().seen.and_then(|(seen, _)| seen.standby)
    }

    /// Why it is down: the kind of the error and its text.
    pub fn error(&self) -> Option<(&'static str, String)> {
        match &self.state.borrow().health {
            Health::Down(error) => Some((error.kind(), describe(error))),
            Health::Unknown | Health::Up => None,
        }
    }

    /// Something went wrong with it, or with another one of its region: looks again without waiting for the next turn.
    pub(super) fn probe_soon(&self, now: Instant) {
        let mut state = self.state.borrow_mut();
        let soon = state.probed_at.map_or(now, |probed_at| now.max(probed_at + PROBES_APART));
        state.probe_at = state.probe_at.min(soon);
    }

    /// Whether a probe begins now; it has begun then.
    pub(super) fn begin_probe(&self, now: Instant) -> bool {
        let mut state = self.state.borrow_mut();
        let is_due = !state.is_being_probed && state.probe_at <= now;
        if is_due {
            state.is_being_probed = true;
            state.probed_at = Some(now);
        }
        is_due
    }

    /// A probe has ended. The next one is after `interval`; of a node that cannot be had, when its time of rest is over.
    pub(super) fn end_probe(&self, now: Instant, interval: Duration) {
        let mut state = self.state.borrow_mut();
        let rested = state.backoff.until().map_or(now + interval, |until| until.max(now + PROBES_APART));
        state.probe_at = rested.min(now + interval);
        state.is_being_probed = false;
    }

    /// What the choice among the nodes of a region goes by.
    pub(super) fn candidate(&self, now: Option<Instant>) -> Candidate {
        let state = self.state.borrow();
        let is_fresh = |(_, at): (ServerState, Instant)| now.is_none_or(|now| now.saturating_duration_since(at) < FRESH);
        let (seen, fresh) = (state.seen.map(|(seen, _)| seen), state.seen.is_some_and(is_fresh));
        Candidate { role: self.config.role, seen, fresh, down: matches!(state.health, Health::Down(_)) }
    }

    /// The error of the last try, if it is too early for another one.
    pub(super) fn rests(&self, now: Instant) -> Option<OpenError> {
        let state = self.state.borrow();
        if state.backoff.is_open(now) { None } else { state.backoff.error().cloned() }
    }

    /// Begins a try that ends within `patience`.
    ///
    /// # Errors
    /// It is too early: the error of the last try.
    pub(super) fn begin(&self, now: Instant, patience: Duration) -> Result<Attempt, OpenError> {
        self.state.borrow_mut().backoff.begin(now, patience)
    }

    /// It could be had. Whether that is news.
    pub(super) fn succeeded(&self, how: Success) -> bool {
        let mut state = self.state.borrow_mut();
        // That it takes connections says nothing of a server that lets nobody in: one that is starting up, or hangs.
        if how == Success::Connect && state.failed_at_login {
            return false;
        }
        state.failed_at_login = false;
        state.backoff.succeeded();
        let is_news = match (&state.health, how) {
            (Health::Up, _) => false,
            // What is wrong for the prober only, only the prober finds to be right again.
            (Health::Down(error), Success::ClientsLogin | Success::Connect) => error.is_absence(),
            (Health::Down(_) | Health::Unknown, _) => true,
        };
        if is_news {
            info!(node = &*self.name, region = self.config.region, "node is up");
            state.health = Health::Up;
        }
        is_news
    }

    /// It could not be had. `None`: that was not because it is not there, so nobody else is kept from trying.
    pub(super) fn failed(&self, attempt: Option<Attempt>, error: &OpenError, now: Instant, chance: u8) {
        let mut state = self.state.borrow_mut();
        if let Some(attempt) = attempt {
            state.backoff.failed(attempt, error.clone(), now, chance);
            state.failed_at_login = state.connected_at.is_some_and(|at| at >= attempt.began_at);
        }
        // What the system says of one and the same fault varies.
        let is_news = match &state.health {
            Health::Down(known) => discriminant(known) != discriminant(error),
            Health::Unknown | Health::Up => true,
        };
        if is_news {
            warn!(node = &*self.name, region = self.config.region, error = describe(error), "node is down");
        }
        state.health = Health::Down(error.clone());
    }

    /// It has taken a connection.
    pub(super) fn is_connected_to(&self, now: Instant) {
        let mut state = self.state.borrow_mut();
        (state.silent_since, state.connected_at) = (None, Some(now));
    }

    /// A connect that began at `began_at` got no answer. After the second one in a row nobody shall wait for the answer of an idle
    /// connection: its other end may be gone without a word. That a login is not answered says nothing of the connections that there
    /// are; a server that is only slow needs them more than ever.
    pub(super) fn is_silent(&self, began_at: Instant, now: Instant) {
        let mut state = self.state.borrow_mut();
        match state.silent_since {
            None => state.silent_since = Some(now),
            Some(since) if since <= began_at => state.routes.drain(..).for_each(|(route, _)| route.leave()),
            // It was under way already.
            Some(_) => {}
        }
    }

    /// A login has shown what it is. Whether that is something else than before.
    pub(super) fn see(&self, now: Instant, said: ServerState, by_probe: bool) -> bool {
        let mut state = self.state.borrow_mut();
        let known = state.seen.map(|(seen, _)| seen).unwrap_or_default();
        let has_changed = known.standby.is_some() && said.standby.is_some() && known.standby != said.standby;
        if has_changed {
            info!(node = &*self.name, region = self.config.region, standby = said.standby, "node has changed its role");
            // Those who have its backends asked for what it was.
            state.routes.drain(..).for_each(|(route, _)| route.leave());
        }
        // That transactions are read-only by default may be so for this user or database only: the prober's is taken for the node's.
        let read_only = if by_probe { said.read_only } else { known.read_only };
        state.seen = Some((ServerState { standby: said.standby.or(known.standby), read_only }, now));
        has_changed
    }

    /// Its name leads to these addresses now, and to no others: what was opened elsewhere is not used any more.
    pub(super) fn resolved(&self, addresses: &[SocketAddr]) {
        self.state.borrow_mut().routes.retain(|(route, _)| {
            let stays = route.address().is_none_or(|address| addresses.contains(&address));
            if !stays {
                info!(node = &*self.name, region = self.config.region, address = ?route.address(), "node has left an address");
                route.leave();
            }
            stays
        });
    }

    /// The way to one of its addresses; `makeshift`: it is only used for want of a better server.
    pub(super) fn route(&self, address: Option<SocketAddr>, makeshift: bool) -> Arc<Route> {
        let routes = &mut self.state.borrow_mut().routes;
        let mut known = routes.iter().filter(|(route, of)| route.address() == address && *of == makeshift);
        if let Some((route, _)) = known.next() {
            return Arc::clone(route);
        }
        let route = Arc::new(Route::new(address));
        routes.push((Arc::clone(&route), makeshift));
        route
    }

    /// There may be a better server in the region: what was opened here for want of one is not used any more.
    pub(super) fn leave_makeshift_routes(&self) {
        self.state.borrow_mut().routes.retain(|(route, makeshift)| {
            if *makeshift {
                route.leave();
            }
            !*makeshift
        });
    }
}

/// What a server has told of itself during a login for which a client asked for `asked`.
pub(super) fn state_of(reported: &Parameters, asked: &[(Box<str>, Box<str>)]) -> ServerState {
    let is_on = |name: &str| reported.get(name).map(|value| value == "on");
    let asked_for = |name: &str| asked.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let read_only = "default_transaction_read_only";
    ServerState { standby: is_on("in_hot_standby"), read_only: is_on(read_only) == Some(true) && !asked_for(read_only) }
}

/// The nodes of a configuration, each with a region of `policy`. A node that has not changed since `previous` keeps its state.
pub(super) fn nodes(config: &Config, policy: &Policy, previous: &[Rc<Node>], now: Instant) -> Vec<Rc<Node>> {
    let node = |node: &config::Node| {
        let SessionRegion::Declared(region) = policy.region(&node.region) else { return None };
        let same = |known: &&Rc<Node>| known.region == region && known.config == *node;
        let fresh = || {
            let state = NodeState {
                // Without probes nothing would ever say that it is up.
                health: if config.pools.probe_interval.is_zero() { Health::Up } else { Health::Unknown },
                backoff: Backoff::default(),
                routes: Vec::new(),
                silent_since: None,
                connected_at: None,
                failed_at_login: false,
                seen: None,
                parameters: None,
                probed_at: None,
                probe_at: now,
                is_being_probed: false,
            };
            let name: Arc<str> = node.name.as_str().into();
            let identity = Arc::new(NodeIdentity { name: name.clone(), region });
            Rc::new(Node {
                config: node.clone(),
                name,
                region,
                identity,
                state: RefCell::new(state),
                stretcher: Stretcher::new(1),
                speaks_only_3_0: Cell::new(false),
            })
        };
        Some(previous.iter().find(same).cloned().unwrap_or_else(fresh))
    };
    config.nodes.iter().filter_map(node).collect()
}
