//! A core with one client and one backend that have met, and the steps that are counted: what happens to a query, without a kernel.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domicile::policy::{BindSource, Grant, NoRegion, Policy, Proven, RegionSource, Source, Subject, Unbound};
use domicile::pool::{
    BackendInfo, BackendKey, NodeIdentity, Order, Parameters, PoolIndex, PoolKey, PoolMode, Pools, Quotas, Settings, StatePolicy,
};
use domicile::region::{RegionId, SessionRegion};
use domicile::session::{
    Core, CoreSettings, Counters, Identity, Login, Output, Outputs, Payload, RegionPlaces, SessionKey, StatementBounds, Timeouts,
};
use domicile::sql::{self, Guard, GuardSet, StringConstants};
use domicile::table::Publisher;
use domicile::wire::{CancelSecret, Malformed, Mode, Splitter};
use domicile_bench::answers::{Answers, Work};
use domicile_tests::fake::ready;
use domicile_tests::message::{bind, describe_portal, execute, message, parse, query, sync};

/// A step: its name, which is that of the function it is about, and what it does once.
pub type Step = (&'static str, fn(&mut World));

/// All of them.
pub const STEPS: [Step; 7] = [
    ("wire::Splitter::next", World::framing),
    ("sql::Reader::read", World::lookup),
    ("policy::Policy::decide", World::decision),
    ("pool::Pools::checkout", World::checkout),
    ("session::Core, simple", World::simple),
    ("session::Core, extended", World::extended),
    ("session::Core, prepared", World::prepared),
];

/// All that a step needs, made before it is counted.
pub struct World {
    core: Core,
    out: Outputs,
    session: SessionKey,
    policy: Arc<Policy>,
    grant: Grant,
    region: SessionRegion,
    _publisher: Publisher<Policy>,
    splitter: Splitter,
    reader: sql::Reader,
    pools: Pools,
    pool: PoolIndex,
    now: Instant,
    requests: [Vec<u8>; 3],
    answers: [Vec<u8>; 3],
}

impl World {
    /// A world whose policy knows so many logins, of which the client's is the last, and regions, all of which that one is granted.
    pub fn new(principals: usize, regions: usize) -> Self {
        let now = domicile_tests::process::now();
        let policy = Arc::new(Policy::compile(&source(principals, regions), None).expect("a policy"));
        let grant =
            policy.grant(&Subject { user: "app", database: "demo", address: None, proven: Proven::NOTHING }).expect("a grant");
        let publisher = Publisher::new(policy.clone());
        let settings = settings();
        let quotas = || Arc::new(Quotas::default());
        let counters = Arc::new(Counters::default());
        let core = Core::new(settings.clone(), publisher.reader(), quotas(), counters, 0, now);
        let mut pools = Pools::new(settings.pools.clone(), quotas(), 0);
        let pool = pools.enter(&pool_key());
        let text = Work::Row100.statement();
        let run = |name| [bind("", name, &[]), describe_portal(""), execute("", 0), sync()].concat();
        let answer = Answers::make();
        let answer = answer.of(Work::Row100);
        let rows = [answer.description, answer.rows, answer.complete, &ready(b'I')].concat();
        let bound = [message(b'2', b""), rows.clone()].concat();
        let mut world = Self {
            core,
            out: Vec::new(),
            session: SessionKey { index: 0, generation: 0 },
            policy,
            region: grant.start(),
            grant,
            _publisher: publisher,
            splitter: Splitter::default(),
            reader: sql::Reader::new(&settings.parameters),
            pools,
            pool,
            now,
            requests: [query(text), [parse("", text), run("")].concat(), run("known")],
            answers: [rows, [message(b'1', b""), bound.clone()].concat(), bound],
        };
        world.log_in();
        world.open_pool();
        let prepare = [parse("known", text), sync()].concat();
        world.ask(&prepare, &[message(b'1', b""), ready(b'I')].concat());
        world
    }

    fn log_in(&mut self) {
        let identity = Identity {
            user: "app".into(),
            database: "demo".into(),
            address: None,
            settings: Arc::new([]),
            replication: Default::default(),
            startup_region: None,
            tls: None,
            proven: Arc::default(),
        };
        let secret = CancelSecret::from(&[1, 2, 3, 4][..]);
        let told = Arc::new(parameters());
        let login = Login { identity, told, before: Default::default(), secret, places: Vec::new(), region_place: None };
        self.session = self.core.client_ready(login, self.now, &mut self.out);
        self.out.clear();
    }

    fn open_pool(&mut self) {
        let decided = self.decide();
        self.pools.checkout(decided, self.pool, self.session, self.now);
        for order in self.pools.take_orders() {
            if let Order::Open(ticket, _) = order {
                self.pools.opened(ticket, info(), self.now);
            }
        }
        let bound = self.pools.take_orders().into_iter().find_map(|order| match order {
            Order::Bind(_, backend) => Some(backend),
            _ => None,
        });
        self.pools.release(bound.expect("a backend"), self.now);
    }

    fn decide(&self) -> domicile::policy::Permit {
        self.policy.decide(&self.grant, &self.region, GuardSet::NONE).expect("a permit")
    }

    /// Finds the messages of an answer.
    fn framing(&mut self) {
        let mut at = 0;
        let input = black_box(&self.answers[0]);
        while let Ok(Some(frame)) = self.splitter.next::<Malformed>(input, &mut at, |_, _| Ok(Mode::Stream)) {
            black_box(frame);
        }
    }

    /// Reads a text that needs no parser.
    fn lookup(&mut self) {
        let text = black_box(Work::Row100.statement().as_bytes());
        black_box(self.reader.read(text, StringConstants::of(Some("on"))));
    }

    /// Decides for a message.
    fn decision(&mut self) {
        drop(black_box(self.decide()));
    }

    /// Decides, lends a backend and gives it back.
    fn checkout(&mut self) {
        let permit = self.decide();
        if let Some(domicile::pool::Checkout::Bound(backend)) =
            black_box(self.pools.checkout(permit, self.pool, self.session, self.now))
        {
            self.pools.release(backend, self.now);
        }
    }

    /// A Query and its answer.
    fn simple(&mut self) {
        self.round_trip(0);
    }

    /// Parse, Bind, Describe, Execute and Sync, and their answers.
    fn extended(&mut self) {
        self.round_trip(1);
    }

    /// The same without Parse, of a statement that the backend knows.
    fn prepared(&mut self) {
        self.round_trip(2);
    }

    fn round_trip(&mut self, which: usize) {
        let [request, answer] = [&mut self.requests[which], &mut self.answers[which]].map(std::mem::take);
        self.ask(&request, &answer);
        (self.requests[which], self.answers[which]) = (request, answer);
    }

    /// A client's bytes go in, the backend's answer comes back. What is not awaited is a broken step.
    fn ask(&mut self, request: &[u8], answer: &[u8]) {
        self.core.frontend_received(self.session, request, &mut self.out);
        let mut backend = self.carry_out();
        if backend.is_none() {
            // Only the first time: the backend is still to be opened.
            backend = self.carry_out();
        }
        let backend = backend.expect("something for a backend");
        self.core.backend_flushed(backend, &mut self.out);
        self.core.backend_received(backend, answer, &mut self.out);
        let told = self.out.iter().any(|output| matches!(output, Output::ToFrontend(..)));
        assert!(told, "the client is told nothing");
        self.out.clear();
    }

    /// Opens what is to be opened; the backend that something is sent to.
    fn carry_out(&mut self) -> Option<BackendKey> {
        let mut backend = None;
        for at in 0..self.out.len() {
            match &self.out[at] {
                Output::ToBackend(key, Payload::Span { .. } | Payload::Owned(_)) => backend = Some(*key),
                Output::OpenBackend(ticket, _) => {
                    let (ticket, mut out) = (*ticket, Vec::new());
                    self.core.backend_opened(ticket, info(), &mut out);
                    self.out = out;
                    return None;
                }
                _ => {}
            }
        }
        self.out.clear();
        backend
    }
}

fn source(principals: usize, regions: usize) -> Source {
    let region = |number: usize| format!("region{}", number % regions);
    let bind = |number: usize| BindSource {
        user: Some(if number == principals { "app".to_owned() } else { format!("user{number}") }),
        database: None,
        from: None,
        proofs: Vec::new(),
        regions: if number == principals { (0..regions).map(region).collect() } else { vec![region(number)] },
        target: Default::default(),
        replication: false,
        label: format!("residency.bind[{number}]"),
    };
    Source {
        regions: (0..regions).map(|number| RegionSource { name: region(number), jurisdiction: None, has_nodes: true }).collect(),
        binds: (1..=principals).map(bind).collect(),
        unbound: Unbound::Block,
        no_region: NoRegion::Block,
        default_region: None,
        enforce: true,
        guards: Guard::ALL.into_iter().collect(),
        block_message: "{reason}".to_owned(),
        block_sqlstate: "42000".parse().expect("a SQLSTATE"),
    }
}

fn settings() -> CoreSettings {
    let hour = Duration::from_secs(3600);
    let pools = Settings {
        mode: PoolMode::Transaction,
        size: 1,
        per_region_max: None,
        wait_timeout: hour,
        idle_timeout: hour,
        lifetime: hour,
        nodes: [node()].into(),
        prepared_statements: 200,
        reset_always: false,
        reset_timeout: hour,
        workers: 1,
    };
    CoreSettings {
        pools,
        parameters: ["domicile.region".to_owned()].into(),
        session_state: StatePolicy::Pin,
        pin_notice: true,
        session_statements: StatementBounds { count: 4096, bytes: 4 << 20 },
        timeouts: Timeouts::default(),
        nodes: Arc::new([]),
        region_places: RegionPlaces::default(),
        memory: Arc::default(),
    }
}

fn node() -> Arc<NodeIdentity> {
    thread_local! {
        static NODE: Arc<NodeIdentity> =
            Arc::new(NodeIdentity { name: "node".into(), region: RegionId::new(0).expect("a region") });
    }
    NODE.with(Arc::clone)
}

fn info() -> BackendInfo {
    BackendInfo {
        node: node(),
        route: Arc::default(),
        parameters: Arc::new(parameters()),
        process_id: 1,
        secret: CancelSecret::from(&[1, 2, 3, 4][..]),
        tls: None,
    }
}

fn parameters() -> Parameters {
    [("client_encoding", "UTF8"), ("server_version", "15.0"), ("standard_conforming_strings", "on")].into_iter().collect()
}

fn pool_key() -> PoolKey {
    PoolKey {
        region: RegionId::new(0).expect("a region"),
        database: "demo".into(),
        user: "app".into(),
        settings: Arc::new([]),
        target: Default::default(),
        replication: Default::default(),
    }
}
