//! Who may come in, and how backends are entered: everything between a connected socket and ReadyForQuery, on both sides.
//!
//! ```text
//!   client:  socket ─▶ StartupMessage ─▶ authentication ─▶ admission ─▶ worker, which greets it
//!   backend: request ─▶ node ─▶ connect ─▶ StartupMessage ─▶ authentication ─▶ ReadyForQuery ─▶ worker
//! ```
//!
//! It runs on the control thread under tokio-uring. What is said is decided without I/O (`conversation`, `authentication`,
//! `admission`, `greeting`, `hba`, `token`, `oauth`, `backend_login`, `scram`); `client`, `backend`, `probe` and `socket` carry it, and
//! `stretch` does for them what takes long. No backend is
//! touched for a client here: a finished socket is handed to its worker, which greets the client (`session::greeting`), and is
//! forgotten. A cancel request goes to the worker whose session it names, and from there to the server by a connection of its own
//! (`cancel`).

mod admission;
mod attempts;
mod authentication;
mod backend;
mod backend_login;
mod backoff;
mod cancel;
mod census;
mod choice;
mod client;
mod connect;
mod console;
mod conversation;
pub mod fuzz;
mod greeting;
mod hba;
mod intern;
mod known;
mod lookup;
mod md5;
mod message;
mod node;
mod oauth;
mod probe;
mod random;
mod refusal;
mod resolver;
mod scram;
mod secure;
mod socket;
mod stretch;
#[cfg(test)]
mod tests;
mod token;
mod transport;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

pub use node::Node;
pub use random::bytes as random_bytes;
pub use transport::{CertificateNames, TlsPeer, Transport};

use crate::config::Config;
use crate::engine::ToWorker;
use crate::fence::Fence;
use crate::observe::{AuditLog, LoginCounters};
use crate::policy::{Grant, Policy, Proven};
use crate::pool::{OpenError, OpenRequest, Parameters};
use crate::region::{RegionId, SessionRegion};
use crate::session::{Counters, Identity, Login, Memory, RegionPlaces};
use crate::target::TargetSessionAttrs;
use attempts::Attempts;
use authentication::Authenticator;
use census::Census;
use choice::Candidate;
use intern::Interner;
use known::KnownUsers;
use lookup::Lookup;
use resolver::Resolver;
use stretch::Stretcher;

/// Passwords of clients that are stretched at once: those who come all together may take this many cores from the workers.
const STRETCHED_AT_ONCE: usize = 2;

/// What logins go by: one configuration and all that follows from it. A reload makes a new one.
pub struct Rules {
    /// The configuration.
    pub config: Config,
    /// The policy compiled from it.
    pub policy: Arc<Policy>,
    /// How much memory the process has; the same for the life of the process.
    pub memory: Arc<Memory>,
    /// How many clients each region has, which is counted for the life of the process, and may have.
    pub region_places: RegionPlaces,
    /// The nodes it names, in its order.
    pub nodes: Vec<Rc<Node>>,
    authenticator: Authenticator,
    lookup: Lookup,
    /// What a client is told while no node of its grant has been asked.
    told_by_default: Arc<Parameters>,
}

impl Rules {
    /// The rules of `config`, from which `policy` was compiled. Nodes that `previous` has too keep what is known of them;
    /// `process_secret` is random and stays the same while the process lives.
    pub fn new(config: Config, policy: Arc<Policy>, process_secret: [u8; 32], previous: Option<&Self>, now: Instant) -> Self {
        let memory = previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.memory));
        let region_places = previous.map_or_else(RegionPlaces::default, |previous| previous.region_places.clone());
        let region_places = region_places.bounded(config.limits.max_clients_per_region);
        let nodes = node::nodes(&config, &policy, previous.map_or(&[], |previous| &previous.nodes), now);
        let told_by_default = config.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let authenticator = Authenticator::new(process_secret, &config.auth.users);
        let lookup = Lookup::new(config.auth.query.as_ref());
        Self { policy, memory, region_places, nodes, authenticator, lookup, told_by_default: Arc::new(told_by_default), config }
    }

    /// The nodes of a region that come in question, in the order in which they are tried. What is known of them goes for true until
    /// it is too old at `now`; without a time, whatever its age.
    pub fn serving(&self, region: RegionId, wanted: TargetSessionAttrs, now: Option<Instant>) -> Vec<&Rc<Node>> {
        let nodes: Vec<&Rc<Node>> = self.nodes.iter().filter(|node| node.region == region).collect();
        let candidates: Vec<Candidate> = nodes.iter().map(|node| node.candidate(now)).collect();
        choice::order(&candidates, wanted).into_iter().filter_map(|place| nodes.get(place).copied()).collect()
    }

    /// Why a request finds no node that comes in question. Those that there are may not be any more what they were.
    fn nothing_fits(&self, request: &OpenRequest, now: Instant) -> OpenError {
        if self.probe_soon(request.region, now) { OpenError::NoneFits { wanted: request.target } } else { OpenError::NoNode }
    }

    /// Looks at the nodes of a region again soon, if it has any.
    fn probe_soon(&self, region: RegionId, now: Instant) -> bool {
        let nodes = || self.nodes.iter().filter(|node| node.region == region);
        nodes().for_each(|node| node.probe_soon(now));
        nodes().next().is_some()
    }

    /// Something is new about a node: another one of its region may have stood in for it.
    fn has_news_of(&self, node: &Node) {
        self.nodes.iter().filter(|other| other.region == node.region).for_each(|other| other.leave_makeshift_routes());
    }

    /// What a server would report to a session that starts in `start`, and the user it was reported to: from a node of the grant,
    /// best of that region, or the configured values.
    fn reported(&self, grant: &Grant, start: &SessionRegion) -> (Arc<Parameters>, Option<&str>) {
        let granted = self.policy.granted(grant);
        let there = match start {
            SessionRegion::Declared(region) => self.serving(*region, grant.target(), None),
            SessionRegion::None | SessionRegion::Undeclared(_) => Vec::new(),
        };
        let nodes = there.into_iter().chain(self.nodes.iter().filter(|node| granted.contains(node.region)));
        let mut reported = nodes.filter_map(|node| Some((node.state.borrow().parameters.clone()?, node.config.user.as_deref())));
        reported.next().unwrap_or_else(|| (self.told_by_default.clone(), None))
    }
}

/// What many sessions have in common.
#[derive(Default)]
struct Shared {
    parameters: Interner<Parameters>,
    settings: Interner<[(Box<str>, Box<str>)]>,
    names: Interner<str>,
    proven: Interner<Proven>,
}

impl Shared {
    /// A login that has in common with others what is equal.
    fn share(&mut self, login: Login) -> Login {
        let Identity { user, database, proven, settings, .. } = login.identity;
        let identity = Identity {
            user: self.names.share(user),
            database: self.names.share(database),
            proven: self.proven.share(proven),
            settings: self.settings.share(settings),
            ..login.identity
        };
        Login { identity, told: self.parameters.share(login.told), ..login }
    }
}

/// Where clients and backends are logged in.
pub struct Desk {
    rules: RefCell<Rc<Rules>>,
    /// Hands a finished socket, or the reason why there is none, to a worker.
    deliver: Box<dyn Fn(usize, ToWorker)>,
    /// The workers' counters.
    sessions: Vec<Arc<Counters>>,
    /// What became of the logins.
    pub logins: LoginCounters,
    /// Where denials are recorded.
    pub audit: AuditLog,
    /// The kernel's own gate, which is told what each connection is for.
    pub fence: Rc<Fence>,
    shared: RefCell<Shared>,
    known: RefCell<KnownUsers>,
    /// Where clients' passwords are stretched.
    stretcher: Stretcher,
    resolver: Rc<Resolver>,
    /// Connections whose login is not over.
    in_progress: Rc<Cell<usize>>,
    /// The clients there are.
    census: Census,
    /// Wrong passwords.
    attempts: RefCell<Attempts>,
    draining: Cell<bool>,
    /// The worker that got the last client of a Unix socket.
    last_by_unix_socket: Cell<usize>,
    door: console::Door,
}

impl Desk {
    /// A desk that hands what is finished to `deliver`, with the number of the worker it is for. `sessions` are the workers'
    /// counters.
    pub fn new(
        rules: Rules,
        deliver: impl Fn(usize, ToWorker) + 'static,
        sessions: Vec<Arc<Counters>>,
        audit: AuditLog,
        fence: Rc<Fence>,
    ) -> Self {
        Self {
            rules: RefCell::new(Rc::new(rules)),
            deliver: Box::new(deliver),
            sessions,
            logins: LoginCounters::default(),
            audit,
            fence,
            shared: RefCell::default(),
            known: RefCell::default(),
            stretcher: Stretcher::new(STRETCHED_AT_ONCE),
            resolver: Rc::default(),
            in_progress: Rc::default(),
            census: Census::default(),
            attempts: RefCell::default(),
            draining: Cell::new(false),
            last_by_unix_socket: Cell::new(0),
            door: console::Door::default(),
        }
    }

    /// Takes no more clients. Backends are still opened: transactions that have begun may need them.
    pub fn drain(&self) {
        self.draining.set(true);
    }

    /// Whether clients are no longer taken.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// The rules in force.
    pub fn rules(&self) -> Rc<Rules> {
        self.rules.borrow().clone()
    }

    /// Puts other rules in force; logins under way go on under them.
    pub fn replace_rules(&self, rules: Rules) {
        self.rules.replace(Rc::new(rules));
    }

    /// The workers' counters.
    pub fn sessions(&self) -> &[Arc<Counters>] {
        &self.sessions
    }

    /// Clients there are: sessions, those on their way to a worker, and those that are proving who they are.
    pub fn clients(&self) -> u64 {
        self.census.clients()
    }
}

/// One of the things that a cell counts; counted for as long as this lives.
pub struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
