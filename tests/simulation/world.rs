//! The core, its clients and its servers, and everything on the way between them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domicile::policy::{BindSource, NoRegion, Policy, RegionSource, Source, Unbound};
use domicile::pool::{
    BackendInfo, BackendKey, NodeIdentity, OpenError, OpenRequest, OpenTicket, Parameters, PoolMode, Quotas, Settings,
    StatePolicy,
};
use domicile::region::RegionId;
use domicile::session::{
    Core, CoreSettings, Counters, Identity, Login, Output, Outputs, Payload, RegionPlaces, SessionKey, StatementBounds, Timeouts,
};
use domicile::table::Publisher;
use domicile::wire::CancelSecret;
use fastrand::Rng;

use crate::cancels::UnderWay;
use crate::client::{Client, SLOW};
use crate::server::{Place, Server};
use crate::wire::{Message, Stream};

const REGIONS: [&str; 2] = ["eu", "us"];
const CLIENTS: usize = 5;
/// Steps in which everything must be answered once nothing is lost any more.
const PATIENCE: usize = 200_000;

pub struct Setup {
    pub mode: PoolMode,
    pub state: StatePolicy,
    pub size: u32,
    /// Whether backends and clients are lost.
    pub losses: bool,
    pub seed: u64,
}

/// A backend: the server, and what is on its way to and from it.
pub struct Backend {
    server: Server,
    region: &'static str,
    /// Bytes of the core that the server has not got yet.
    queue: VecDeque<u8>,
    stream: Stream,
    /// The queue has become empty, which the core has not been told.
    flushed: bool,
    /// Bytes of the server that the core has not got yet.
    said: VecDeque<u8>,
    owner: Option<SessionKey>,
    /// A Query that takes its time. What is behind it waits.
    running: Option<Message>,
    /// What it was opened for.
    request: OpenRequest,
}

impl Backend {
    /// Takes in what has come, up to a Query that takes its time.
    fn work(&mut self) {
        while self.running.is_none()
            && let Some(message) = self.stream.next()
        {
            let is_slow = message.tag == b'Q' && message.body.windows(2).any(|two| two == [b'\'', SLOW as u8]);
            if is_slow {
                self.running = Some(message);
            } else {
                self.server.message(&message);
            }
        }
        for reply in self.server.take_flushed() {
            self.said.extend(reply.encode());
        }
    }

    /// What has taken its time is done.
    fn finish(&mut self) {
        if let Some(message) = self.running.take() {
            self.server.message(&message);
            self.work();
        }
    }

    /// A cancel request has come. One that comes while nothing runs changes nothing.
    pub fn is_cancelled(&mut self) {
        if self.running.take().is_some() {
            self.server.cancel();
            self.work();
        }
    }
}

pub struct World {
    setup: Setup,
    pub core: Core,
    counters: Arc<Counters>,
    publisher: Publisher<Policy>,
    source: Source,
    settings: CoreSettings,
    pub rng: Rng,
    now: Instant,
    pub out: Outputs,
    nodes: Arc<[Arc<NodeIdentity>]>,
    pub backends: BTreeMap<(u32, u32), (BackendKey, Backend)>,
    opening: Vec<(OpenTicket, OpenRequest)>,
    pub clients: Vec<Client>,
    /// Cancel requests that were sent to servers.
    pub cancels: Vec<UnderWay>,
    /// Keys of clients that are gone.
    pub gone: Vec<(u32, u32)>,
    born: usize,
    /// Servers that were opened.
    opened: u32,
    /// How often something was written, and how often clients have asked for that.
    written: HashMap<String, usize>,
    asked: HashMap<String, usize>,
    losses: bool,
    steps: usize,
}

impl World {
    /// Plays one seed: so many steps, and then what it takes until everything is answered.
    pub fn run(setup: Setup, steps: usize) {
        let mut world = Self::new(setup);
        for _ in 0..steps {
            world.step(true);
        }
        world.losses = false;
        for _ in 0..PATIENCE {
            if world.is_quiet() {
                return world.judge_the_end();
            }
            world.step(false);
        }
        let stuck: Vec<String> = world
            .clients
            .iter()
            .filter(|client| client.open && !client.is_answered())
            .map(|client| client.name.clone())
            .collect();
        world.fail(&format!("not everything is answered: {stuck:?}"), stuck.first());
    }

    fn new(setup: Setup) -> Self {
        let bind = |user: &str, first: &str, second: &str| BindSource {
            user: Some(user.to_owned()),
            database: None,
            from: None,
            proofs: Vec::new(),
            regions: vec![first.to_owned(), second.to_owned()],
            target: Default::default(),
            replication: false,
            label: format!("bind of {user}"),
        };
        let source = Source {
            regions: REGIONS.map(|name| RegionSource { name: name.to_owned(), jurisdiction: None, has_nodes: true }).into(),
            binds: vec![bind("eu", "eu", "us"), bind("us", "us", "eu")],
            unbound: Unbound::Block,
            no_region: NoRegion::Block,
            default_region: None,
            enforce: true,
            guards: domicile::sql::Guard::ALL.into_iter().collect(),
            block_message: "{reason}".to_owned(),
            block_sqlstate: "42000".parse().expect("a SQLSTATE"),
        };
        let policy = Arc::new(Policy::compile(&source, None).expect("a policy"));
        let publisher = Publisher::new(policy);
        let node = |index: usize| {
            let region = RegionId::new(index).expect("a region");
            Arc::new(NodeIdentity { name: format!("node-{}", REGIONS[index]).into(), region })
        };
        let nodes: Arc<[Arc<NodeIdentity>]> = [node(0), node(1)].into();
        let hours = |hours: u64| Duration::from_secs(3600 * hours);
        let pools = Settings {
            mode: setup.mode,
            size: setup.size,
            per_region_max: None,
            wait_timeout: hours(1000),
            reset_timeout: Duration::from_secs(5),
            idle_timeout: hours(1000),
            lifetime: hours(1000),
            nodes: nodes.clone(),
            prepared_statements: 2,
            reset_always: false,
            workers: 1,
        };
        let settings = CoreSettings {
            pools,
            parameters: ["domicile.region".to_owned(), "helios.region".to_owned()].into(),
            session_state: setup.state,
            pin_notice: true,
            session_statements: StatementBounds { count: 4096, bytes: 4 << 20 },
            region_places: RegionPlaces::default(),
            memory: Arc::default(),
            timeouts: Timeouts::default(),
            nodes: Arc::new([]),
        };
        let now = domicile_tests::process::now();
        let counters = Arc::new(Counters::default());
        let core = Core::new(settings.clone(), publisher.reader(), Arc::new(Quotas::default()), counters.clone(), 0, now);
        Self {
            rng: Rng::with_seed(setup.seed),
            losses: setup.losses,
            setup,
            core,
            counters,
            publisher,
            source,
            settings,
            now,
            out: Vec::new(),
            nodes,
            backends: BTreeMap::new(),
            opening: Vec::new(),
            clients: Vec::new(),
            cancels: Vec::new(),
            gone: Vec::new(),
            born: 0,
            opened: 0,
            written: HashMap::new(),
            asked: HashMap::new(),
            steps: 0,
        }
    }

    /// Ends the run with all that is known of one client.
    pub fn fail(&self, why: &str, client: Option<&String>) -> ! {
        let of_client = self.clients.iter().find(|known| Some(&known.name) == client);
        let log = of_client.map_or_else(String::new, |client| {
            let from = client.log.len().saturating_sub(60);
            client.log[from..].join("\n")
        });
        let Setup { mode, seed, .. } = &self.setup;
        panic!("seed {seed} in {mode:?} mode, step {}: {why}\n{log}", self.steps);
    }

    /// One thing happens. `talks`: clients go on saying new things.
    fn step(&mut self, talks: bool) {
        self.steps += 1;
        match self.rng.u8(..19) {
            16 if self.rng.bool() => self.finish_something(),
            17 if talks && self.rng.u8(..3) == 0 => self.ask_for_cancel(),
            18 => self.deliver_cancel(),
            0 | 1 if talks => self.talk(),
            0..=3 => self.deliver_from_client(),
            4..=6 => self.deliver_to_server(),
            7..=9 => self.deliver_from_server(),
            10 | 11 => self.tell_flushed(),
            12 => self.finish_opening(),
            13 => {
                self.now += Duration::from_millis(250);
                let now = self.now;
                self.core.tick(now, &mut self.out);
                self.carry_out(&[]);
            }
            14 if self.rng.u8(..60) == 0 => self.reload(),
            _ if self.losses && talks && self.rng.u8(..24) == 0 => self.lose_something(),
            _ if !talks => self.finish_transactions(),
            _ => {}
        }
    }

    /// A statement that has taken its time is done.
    fn finish_something(&mut self) {
        let Some(id) = self.some_backend(|backend| backend.running.is_some()) else { return };
        if let Some((_, backend)) = self.backends.get_mut(&id) {
            backend.finish();
        }
    }

    /// The same rules once more, and another number of prepared statements that a backend keeps.
    fn reload(&mut self) {
        let policy = Policy::compile(&self.source, Some(&self.publisher.current())).expect("a policy");
        self.publisher.publish(Arc::new(policy));
        self.settings.pools.prepared_statements = self.rng.usize(1..5);
        self.core.apply(self.settings.clone(), &mut self.out);
        self.carry_out(&[]);
    }

    fn talk(&mut self) {
        if self.clients.len() < CLIENTS {
            return self.connect();
        }
        let at = self.rng.usize(..self.clients.len());
        let client = &mut self.clients[at];
        if client.may_speak() {
            client.speak(&mut self.rng);
            for tag in client.take_asked() {
                *self.asked.entry(tag).or_default() += 1;
            }
        }
    }

    fn connect(&mut self) {
        self.born += 1;
        let start = REGIONS[self.rng.usize(..REGIONS.len())];
        let startup = vec![("TimeZone".to_owned(), format!("start{}", self.rng.u8(..2)))];
        let settings: Arc<[(Box<str>, Box<str>)]> =
            startup.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
        let identity = Identity {
            user: start.into(),
            database: "demo".into(),
            address: None,
            proven: Arc::default(),
            settings,
            replication: Default::default(),
            startup_region: None,
            tls: None,
        };
        let served_by = REGIONS.iter().map(|region| ((*region).to_owned(), (*region).to_owned())).collect();
        let reference = Server::reference(start, served_by, &startup);
        let told = Arc::new(parameters(&reference));
        let secret = CancelSecret::from(&self.rng.u32(..).to_be_bytes()[..]);
        let login = Login { identity, told, before: Default::default(), secret, places: Vec::new(), region_place: None };
        let roams = self.setup.mode == PoolMode::Transaction && self.rng.bool();
        let kind = if self.rng.u8(..3) == 0 { SLOW } else { 'c' };
        let session = self.core.client_ready(login, self.now, &mut self.out);
        self.clients.push(Client::new(
            format!("{kind}{}", self.born),
            session,
            reference,
            roams,
            self.setup.mode == PoolMode::Session,
        ));
        self.carry_out(&[]);
    }

    fn deliver_from_client(&mut self) {
        let Some(at) = self.some(|client| client.open && !client.paused && !client.unsent.is_empty()) else { return };
        let (session, chunk) = {
            let count = self.rng.usize(1..=self.clients[at].unsent.len());
            let client = &mut self.clients[at];
            (client.session, client.unsent.drain(..count).collect::<Vec<u8>>())
        };
        self.core.frontend_received(session, &chunk, &mut self.out);
        self.carry_out(&chunk);
    }

    fn some(&mut self, fits: impl Fn(&Client) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.clients.len()).filter(|at| fits(&self.clients[*at])).collect();
        (!fitting.is_empty()).then(|| fitting[self.rng.usize(..fitting.len())])
    }

    fn some_backend(&mut self, fits: impl Fn(&Backend) -> bool) -> Option<(u32, u32)> {
        let fitting: Vec<(u32, u32)> =
            self.backends.iter().filter(|(_, (_, backend))| fits(backend)).map(|(id, _)| *id).collect();
        (!fitting.is_empty()).then(|| fitting[self.rng.usize(..fitting.len())])
    }

    fn deliver_to_server(&mut self) {
        let Some(id) = self.some_backend(|backend| !backend.queue.is_empty()) else { return };
        let Some((_, backend)) = self.backends.get_mut(&id) else { return };
        let count = self.rng.usize(1..=backend.queue.len());
        let bytes: Vec<u8> = backend.queue.drain(..count).collect();
        backend.flushed = backend.queue.is_empty();
        backend.stream.push(&bytes);
        backend.work();
        let written = std::mem::take(&mut backend.server.written);
        for tag in written {
            let written = self.written.entry(tag.clone()).or_default();
            *written += 1;
            if *written > self.asked.get(&tag).copied().unwrap_or_default() {
                self.fail(&format!("{tag} was written more often than it was asked for"), None);
            }
        }
    }

    fn deliver_from_server(&mut self) {
        let Some(id) = self.some_backend(|backend| !backend.said.is_empty()) else { return };
        let Some((key, backend)) = self.backends.get_mut(&id) else { return };
        let (key, count) = (*key, self.rng.usize(1..=backend.said.len()));
        let chunk: Vec<u8> = backend.said.drain(..count).collect();
        self.core.backend_received(key, &chunk, &mut self.out);
        self.carry_out(&chunk);
    }

    fn tell_flushed(&mut self) {
        let Some(id) = self.some_backend(|backend| backend.flushed) else { return };
        let Some((key, backend)) = self.backends.get_mut(&id) else { return };
        backend.flushed = false;
        let key = *key;
        self.core.backend_flushed(key, &mut self.out);
        self.carry_out(&[]);
    }

    fn finish_opening(&mut self) {
        if self.opening.is_empty() {
            return;
        }
        let (ticket, request) = self.opening.swap_remove(self.rng.usize(..self.opening.len()));
        // A connection that cannot be opened is noticed by nobody as long as there is another one to wait for.
        let has_others = self.backends.values().any(|(_, backend)| backend.request == request);
        if has_others && self.rng.u8(..4) == 0 {
            let node = self.nodes[request.region.index()].name.clone();
            let error = OpenError::Protocol { node, text: "it fails".to_owned() };
            self.core.backend_failed(ticket, error, &mut self.out);
            return self.carry_out(&[]);
        }
        self.opened += 1;
        let region = REGIONS[request.region.index()];
        let startup: Vec<(String, String)> =
            request.settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let server = Server::new(Place::In(region.to_owned()), &startup);
        let info = BackendInfo {
            node: self.nodes[request.region.index()].clone(),
            route: Arc::default(),
            parameters: Arc::new(parameters(&server)),
            process_id: 1000 + self.opened,
            secret: CancelSecret::from(&[1, 2, 3, 4][..]),
            tls: None,
        };
        if let Some(key) = self.core.backend_opened(ticket, info, &mut self.out) {
            let backend = Backend {
                server,
                region,
                queue: VecDeque::new(),
                stream: Stream::default(),
                flushed: false,
                said: VecDeque::new(),
                owner: None,
                running: None,
                request,
            };
            self.backends.insert((key.index, key.generation), (key, backend));
        }
        self.carry_out(&[]);
    }

    fn lose_something(&mut self) {
        if self.rng.bool() {
            let Some(id) = self.some_backend(|_| true) else { return };
            let Some((key, _)) = self.backends.remove(&id) else { return };
            self.core.backend_closed(key, &mut self.out);
        } else {
            let Some(at) = self.some(|client| client.open) else { return };
            let client = self.clients.swap_remove(at);
            self.gone.extend(client.key());
            self.core.frontend_closed(client.session, &mut self.out);
        }
        self.carry_out(&[]);
    }

    fn finish_transactions(&mut self) {
        if let Some(at) = self.some(|client| client.open && client.is_answered()) {
            self.clients[at].finish();
        }
    }

    /// Does what the core wants done.
    pub fn carry_out(&mut self, chunk: &[u8]) {
        let mut chunk = chunk;
        while !self.out.is_empty() {
            for output in std::mem::take(&mut self.out) {
                self.carry_out_one(output, chunk);
            }
            chunk = &[];
        }
        self.clients.retain(|client| client.open);
    }

    fn carry_out_one(&mut self, output: Output, chunk: &[u8]) {
        match output {
            Output::ToFrontend(session, payload) => {
                let bytes = resolve(payload, chunk);
                let losses = self.setup.losses;
                let Some(client) = self.clients.iter_mut().find(|client| client.session == session) else { return };
                if let Err(why) = client.hear(&bytes, losses) {
                    let name = client.name.clone();
                    self.fail(&why, Some(&name));
                }
            }
            Output::ToBackend(key, payload) => self.send(key, &resolve(payload, chunk)),
            Output::CloseFrontend(session) => {
                let losses = self.setup.losses;
                if let Some(client) = self.clients.iter_mut().find(|client| client.session == session) {
                    if client.open && !(losses && client.is_cut_off()) {
                        let name = client.name.clone();
                        self.fail("a client is closed without a word", Some(&name));
                    }
                    client.open = false;
                }
            }
            Output::CloseBackend(key, _) => drop(self.backends.remove(&(key.index, key.generation))),
            Output::OpenBackend(ticket, request) => {
                self.opening.push((ticket, request));
            }
            Output::PauseFrontend(session) => self.pause(session, true),
            Output::ResumeFrontend(session) => self.pause(session, false),
            Output::Audit(_) | Output::QuotaChanged { .. } => {}
            Output::Cancel(_) => self.fail("something is cancelled, and nothing has a timeout", None),
            Output::MoveBackend { .. } => self.fail("a backend is to move, and there is one worker", None),
        }
    }

    fn pause(&mut self, session: SessionKey, paused: bool) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.session == session) {
            client.paused = paused;
        }
    }

    fn send(&mut self, key: BackendKey, bytes: &[u8]) {
        let id = (key.index, key.generation);
        let owner = self.clients.iter().map(|client| client.session).find(|session| self.core.is_serving(key, *session));
        if let Some(owner) = owner {
            self.judge_loan(key, owner);
        }
        let Some((_, backend)) = self.backends.get_mut(&id) else { return };
        if owner.is_some() && owner != backend.owner {
            let server = &backend.server;
            let left: Vec<String> = server.residue().into_iter().filter(|what| is_anothers(what)).collect();
            let at_rest =
                server.is_at_rest() && backend.queue.is_empty() && backend.said.is_empty() && backend.stream.at_boundary();
            if !at_rest || !left.is_empty() {
                let region = backend.region;
                self.fail(&format!("a server of {region} is lent with {left:?}, at rest: {at_rest}"), None);
            }
            backend.owner = owner;
        }
        backend.queue.extend(bytes);
        backend.flushed = false;
    }

    /// Whether everything that was said has been answered, and every transaction has ended.
    fn is_quiet(&mut self) -> bool {
        for client in &mut self.clients {
            if client.is_answered() {
                client.finish();
            }
        }
        self.opening.is_empty()
            && self.cancels.is_empty()
            && self.backends.values().all(|(_, backend)| backend.running.is_none())
            && self.clients.iter().all(Client::is_answered)
            && self.backends.values().all(|(_, backend)| backend.queue.is_empty() && backend.said.is_empty() && !backend.flushed)
    }

    fn judge_the_end(&mut self) {
        let clients = std::mem::take(&mut self.clients);
        for client in clients {
            self.core.frontend_closed(client.session, &mut self.out);
            self.carry_out(&[]);
        }
        for _ in 0..PATIENCE {
            if self.is_quiet() {
                break;
            }
            self.step(false);
        }
        let left: Vec<String> =
            self.backends.values().flat_map(|(_, backend)| backend.server.residue()).filter(|what| is_anothers(what)).collect();
        let at_rest = self.backends.values().all(|(_, backend)| backend.server.is_at_rest());
        if !left.is_empty() || !at_rest {
            self.fail(&format!("at the end servers have {left:?}, at rest: {at_rest}"), None);
        }
        let open = self.counters.backends_opened_total.get() - self.counters.backends_closed_total.get();
        if open != self.backends.len() as u64 {
            self.fail(&format!("{open} backends are counted, and {} are there", self.backends.len()), None);
        }
    }
}

/// Whether something that a server remembers is more than the next session may meet: settings that are reported are restored, and
/// statements under the proxy's own names are shared.
fn is_anothers(what: &str) -> bool {
    let is_restored = what.starts_with("setting TimeZone") || what.starts_with("setting application_name");
    !is_restored && !what.starts_with("statement domicile")
}

fn parameters(server: &Server) -> Parameters {
    server.reported().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn resolve(payload: Payload, chunk: &[u8]) -> Vec<u8> {
    match payload {
        Payload::Span { start, end } => chunk[start as usize..end as usize].to_vec(),
        Payload::Owned(bytes) => bytes.to_vec(),
    }
}
