//! One core, its clients and its model servers, and the scripts that are played with them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use expect_test::Expect;

use super::model::{Model, TERMINATED, open_error};
use crate::policy::{BindSource, NoRegion, Policy, RegionSource, Source, Unbound};
use crate::pool::{BackendInfo, BackendKey, NodeIdentity, Parameters, PoolMode, Quotas, SessionKey, Settings, StatePolicy};
use crate::region::RegionId;
use crate::session::{
    Cancel, Core, CoreSettings, Counters, Identity, Login, Output, Outputs, Payload, RegionPlaces, StatementBounds, Timeouts,
};
use crate::table::Publisher;
use crate::target::TargetSessionAttrs;
use crate::wire::startup::{CancelRequest, Replication};
use crate::wire::{Frame, Malformed, Mode, Splitter, SqlState, backend, frontend, parse_error};

/// How bytes are delivered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    Whole,
    OneByOne,
    At(usize),
}

/// What a script runs under.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) mode: PoolMode,
    pub(super) source: Source,
    pub(super) size: u32,
    pub(super) session_state: StatePolicy,
    pub(super) prepared_statements: usize,
    pub(super) timeouts: Timeouts,
    pub(super) clients_per_region: Option<u32>,
}

pub(super) fn transaction_mode() -> Setup {
    Setup {
        mode: PoolMode::Transaction,
        source: source(),
        size: 20,
        session_state: StatePolicy::Pin,
        prepared_statements: 200,
        timeouts: Timeouts::default(),
        clients_per_region: None,
    }
}

pub(super) fn session_mode() -> Setup {
    Setup { mode: PoolMode::Session, ..transaction_mode() }
}

/// Two regions, and clients that may choose any.
pub(super) fn source() -> Source {
    let region = |name: &str| RegionSource { name: name.into(), jurisdiction: None, has_nodes: true };
    Source {
        regions: vec![region("eu"), region("us")],
        binds: Vec::new(),
        unbound: Unbound::Client,
        no_region: NoRegion::Block,
        default_region: None,
        enforce: true,
        guards: super::guards::all_but_load(),
        block_message: "blocked: {reason}".into(),
        block_sqlstate: SqlState::try_from("42000").unwrap(),
    }
}

pub(super) fn bound_to(regions: &[&str]) -> Source {
    let regions = regions.iter().map(|name| (*name).to_owned()).collect();
    let (target, label) = (Default::default(), "residency.bind[0]".into());
    let bind = BindSource {
        user: Some("app".into()),
        database: None,
        from: None,
        proofs: Vec::new(),
        regions,
        target,
        replication: true,
        label,
    };
    Source { binds: vec![bind], ..source() }
}

/// Plays a script in every way of delivery and compares what is said with what is expected.
///
/// A line of the script is what one client sends at once, messages parted by ` | `: `Q text`, `P name:text`, `B portal:statement`,
/// `D S:name`, `D P:name`, `E portal`, `C S:name`, `S`, `H`, `F function`, `d data`, `c`, `f`, `X`. A line may begin with the client's name and
/// `> ` (default `a`). Lines that begin with `!` do something to the world, see [`World::act`].
pub(super) fn check(setup: Setup, script: &str, expect: Expect) {
    let whole = World::new(&setup).play(script, Cut::Whole);
    expect.assert_eq(&whole);
    assert_same(&whole, &World::new(&setup).play(script, Cut::OneByOne), "delivered byte by byte");
    let longest = script.lines().map(|line| encode_line(line).1.len()).max().unwrap_or(0);
    for at in 1..longest {
        assert_same(&whole, &World::new(&setup).play(script, Cut::At(at)), &format!("cut at byte {at}"));
    }
}

/// Compares what was said line by line, and shows the place where it parts.
pub(super) fn assert_same(whole: &str, cut: &str, how: &str) {
    if whole == cut {
        return;
    }
    let same = whole.lines().zip(cut.lines()).take_while(|(one, other)| one == other).count();
    let part = |said: &str| said.lines().skip(same.saturating_sub(12)).take(20).collect::<Vec<_>>().join("\n");
    panic!("{how}:\n{}\n--- but ---\n{}", part(whole), part(cut));
}

pub(super) struct World {
    core: Core,
    publisher: Arc<Publisher<Policy>>,
    source: Source,
    pub(super) servers: HashMap<BackendKey, Model>,
    clients: HashMap<String, Client>,
    names: HashMap<SessionKey, String>,
    /// Regions, and why they are down.
    down: Vec<(String, String)>,
    now: Instant,
    out: Outputs,
    said: String,
    /// Bytes on their way from servers to the core.
    replies: Vec<(BackendKey, Vec<u8>)>,
    frozen: bool,
    /// Backends that cancel requests are on their way to.
    cancels: Vec<BackendKey>,
    nodes: Arc<[Arc<NodeIdentity>]>,
    settings: CoreSettings,
}

struct Client {
    session: SessionKey,
    splitter: Splitter,
    open: bool,
    /// It is being greeted, which is not shown.
    greeting: bool,
    /// As its greeting said.
    process_id: u32,
}

impl World {
    pub(super) fn new(setup: &Setup) -> Self {
        let policy = Arc::new(Policy::compile(&setup.source, None).unwrap());
        let publisher = Arc::new(Publisher::new(policy));
        #[expect(clippy::disallowed_methods, reason = "only differences of it are used")]
        let now = Instant::now();
        let node = |index, name: &str| Arc::new(NodeIdentity { name: name.into(), region: RegionId::new(index).unwrap() });
        let nodes: Arc<[_]> = [node(0, "node-eu"), node(1, "node-us")].into();
        let pools = Settings {
            nodes: nodes.clone(),
            mode: setup.mode,
            size: setup.size,
            per_region_max: None,
            wait_timeout: Duration::from_secs(120),
            reset_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            lifetime: Duration::from_secs(3600),
            prepared_statements: setup.prepared_statements,
            reset_always: false,
            workers: 1,
        };
        let settings = CoreSettings {
            pools,
            parameters: ["domicile.region".to_owned(), "helios.region".to_owned()].into(),
            session_state: setup.session_state,
            pin_notice: true,
            session_statements: StatementBounds { count: 4096, bytes: 4 << 20 },
            region_places: RegionPlaces::default().bounded(setup.clients_per_region),
            memory: Arc::default(),
            timeouts: setup.timeouts,
            nodes: ["node-eu", "node-us"].map(|name| std::array::from_fn(|_| Some(name.into()))).into(),
        };
        let core =
            Core::new(settings.clone(), publisher.reader(), Arc::new(Quotas::default()), Arc::new(Counters::default()), 0, now);
        Self {
            core,
            publisher,
            source: setup.source.clone(),
            servers: HashMap::new(),
            clients: HashMap::new(),
            names: HashMap::new(),
            down: Vec::new(),
            now,
            out: Vec::new(),
            said: String::new(),
            replies: Vec::new(),
            frozen: false,
            cancels: Vec::new(),
            nodes,
            settings,
        }
    }

    pub(super) fn play(&mut self, script: &str, cut: Cut) -> String {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            // A line that is long on purpose is shown by its beginning.
            let (shown, rest) = line.split_at(line.len().min(200));
            writeln!(self.said, "{shown}{}", if rest.is_empty() { "" } else { " …" }).unwrap();
            if let Some(act) = line.strip_prefix('!') {
                self.act(act, cut);
                self.log_servers();
                continue;
            }
            let (client, bytes) = encode_line(line);
            let session = self.client(client);
            for piece in pieces(&bytes, cut) {
                if self.clients[client].open {
                    self.core.frontend_received(session, piece, &mut self.out);
                    self.carry_out(piece);
                    self.deliver(cut);
                }
            }
            self.log_servers();
        }
        std::mem::take(&mut self.said)
    }

    /// `kill eu`: every backend there breaks; `terminate eu`: it says so first. `down eu`, `down eu silent` / `up eu`. `tick 130`: seconds pass. `freeze` / `thaw`: servers keep their answers.
    /// `leave`: client a is gone. `policy …`: the same source with one change.
    fn act(&mut self, act: &str, cut: Cut) {
        let (verb, rest) = act.split_once(' ').unwrap_or((act, ""));
        match verb {
            "kill" | "terminate" => {
                let dead = self.servers.iter().filter(|(_, model)| model.region == rest);
                let mut dead: Vec<BackendKey> = dead.map(|(key, _)| *key).collect();
                dead.sort_by_key(|key| key.index);
                for key in dead {
                    self.servers.remove(&key);
                    if verb == "terminate" {
                        let last = bytes::Bytes::from_static(TERMINATED);
                        self.core.backend_received(key, &last, &mut self.out);
                        self.carry_out(&last);
                    }
                    self.core.backend_closed(key, &mut self.out);
                    self.carry_out(&[]);
                }
            }
            "down" => {
                let (region, why) = rest.split_once(' ').unwrap_or((rest, "refuses"));
                self.down.push((region.to_owned(), why.to_owned()));
            }
            "up" => self.down.retain(|(region, _)| region != rest),
            "tick" => {
                self.now += Duration::from_secs(rest.parse().unwrap());
                self.core.tick(self.now, &mut self.out);
                self.carry_out(&[]);
            }
            "memory" => self.settings.memory.set(super::memory::pressure(rest), 0),
            "freeze" => self.frozen = true,
            "thaw" => {
                self.frozen = false;
                self.deliver(cut);
            }
            // `replicate a physical eu`: client a is one for replication.
            "replicate" => {
                let words: Vec<&str> = rest.split(' ').collect();
                let replication = if words[1] == "physical" { Replication::Physical } else { Replication::Database };
                self.log_in(words[0], replication, words.get(2).map(|region| (*region).into()));
            }
            "leave" => {
                let session = self.clients[rest].session;
                self.core.frontend_closed(session, &mut self.out);
                self.carry_out(&[]);
                self.deliver(cut);
            }
            "grant" | "grant-only-queries" => {
                self.source = bound_to(&rest.split(' ').collect::<Vec<_>>());
                self.source.binds.iter_mut().for_each(|bind| bind.replication = verb == "grant");
                let next = Policy::compile(&self.source, Some(&self.publisher.current())).unwrap();
                self.publisher.publish(Arc::new(next));
            }
            // `target standby`: what the bind rules say about the servers of a region, after a reload.
            "target" => {
                let wanted = TargetSessionAttrs::ALL.iter().find(|(name, _)| *name == rest);
                self.source.binds.iter_mut().for_each(|bind| bind.target = wanted.unwrap().1);
                let next = Policy::compile(&self.source, Some(&self.publisher.current())).unwrap();
                self.publisher.publish(Arc::new(next));
            }
            // `nodes moved`: the two nodes have changed places; `nodes changed`: they are reached in another way.
            "nodes" => {
                let name = |node: &Arc<NodeIdentity>| node.name.clone();
                let [eu, us] = &self.nodes[..] else { panic!("two nodes") };
                let (first, second) = if rest == "moved" { (name(us), name(eu)) } else { (name(eu), name(us)) };
                let node = |name, index| Arc::new(NodeIdentity { name, region: RegionId::new(index).unwrap() });
                self.nodes = [node(first, 0), node(second, 1)].into();
                self.settings.pools.nodes = self.nodes.clone();
                self.core.apply(self.settings.clone(), &mut self.out);
                self.carry_out(&[]);
            }
            // `operate pause`, `operate kill demo` …: what an operator asks for.
            "operate" => {
                let operation = super::operating::operation(rest);
                self.core.operate(&operation, self.now, &mut self.out);
                self.carry_out(&[]);
                self.deliver(cut);
            }
            // `cancel a`: its key is shown; `cancel a wrong`: with another secret. `cancelled`: the server has closed the oldest of the
            // connections that were made for it; `cancelled badly`: nobody knows what became of it.
            "cancel" => {
                let (name, secret) =
                    rest.split_once(" ").map_or((rest, rest.repeat(4)), |(name, secret)| (name, secret.to_owned()));
                let process_id = self.clients[name].process_id;
                let request = CancelRequest { process_id, secret: secret.as_bytes().into() };
                let answer = self.core.cancel(&request, &mut self.out);
                self.note_cancel(answer);
                self.carry_out(&[]);
                self.deliver(cut);
            }
            "cancelled" => {
                let backend = self.cancels.remove(0);
                let next = self.core.cancel_over(backend, rest != "badly", &mut self.out);
                self.note_cancel(next.map_or(Cancel::Done, Cancel::Send));
                self.carry_out(&[]);
                self.deliver(cut);
            }
            "drain" => {
                self.core.drain(&mut self.out);
                self.carry_out(&[]);
                self.deliver(cut);
            }
            "server" => {
                // Bytes that a server sends on its own.
                let (region, what) = rest.split_once(' ').unwrap();
                let key = *self.servers.iter().find(|(_, model)| model.region == region).unwrap().0;
                if what == "timezone" {
                    self.servers.get_mut(&key).unwrap().reads_configuration("Mars");
                }
                let bytes = super::model::unasked(what);
                // Who answers has got what it answers.
                self.core.backend_flushed(key, &mut self.out);
                self.carry_out(&[]);
                self.core.backend_received(key, &bytes, &mut self.out);
                self.carry_out(&bytes);
                self.deliver(cut);
            }
            other => panic!("unknown act {other}"),
        }
    }

    fn note_cancel(&mut self, answer: Cancel) {
        let said = match answer {
            Cancel::Unknown => "unknown".to_owned(),
            Cancel::Done => "done".to_owned(),
            Cancel::Send(order) => {
                self.cancels.push(order.backend);
                format!("{:?}", order.target)
            }
        };
        writeln!(self.said, "  cancel: {said}").unwrap();
    }

    pub(super) fn everyone_leaves(&mut self) {
        let clients: Vec<SessionKey> = self.clients.values().filter(|client| client.open).map(|client| client.session).collect();
        for session in clients {
            self.core.frontend_closed(session, &mut self.out);
            self.carry_out(&[]);
            self.deliver(Cut::Whole);
        }
    }

    fn client(&mut self, name: &str) -> SessionKey {
        match self.clients.get(name) {
            Some(client) => client.session,
            None => self.log_in(name, Replication::None, None),
        }
    }

    fn log_in(&mut self, name: &str, replication: Replication, startup_region: Option<Box<str>>) -> SessionKey {
        let (user, database, settings) = ("app".into(), "demo".into(), Arc::new([]));
        let proven = Arc::default();
        let identity = Identity { user, database, address: None, proven, settings, replication, startup_region, tls: None };
        let login = Login {
            identity,
            told: parameters(TargetSessionAttrs::default()),
            before: backend::authentication_ok(),
            secret: name.repeat(4).as_bytes().into(),
            places: Vec::new(),
            region_place: None,
        };
        let session = self.core.client_ready(login, self.now, &mut self.out);
        self.names.insert(session, name.to_owned());
        self.clients.insert(
            name.to_owned(),
            Client { session, splitter: Splitter::default(), open: true, greeting: true, process_id: 0 },
        );
        self.carry_out(&[]);
        session
    }

    /// Does what the core wants done; what is opened is opened at once.
    fn carry_out(&mut self, chunk: &[u8]) {
        let mut chunk = chunk;
        loop {
            let outputs = std::mem::take(&mut self.out);
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::ToFrontend(session, payload) => self.show(session, &resolve(payload, chunk)),
                    Output::ToBackend(key, payload) => {
                        let bytes = resolve(payload, chunk);
                        if let Some(model) = self.servers.get_mut(&key) {
                            let answer = model.receive(&bytes);
                            self.replies.push((key, answer));
                        }
                    }
                    Output::CloseFrontend(session) => {
                        let name = self.names[&session].clone();
                        writeln!(self.said, "  {}closed", prefix(&name)).unwrap();
                        self.clients.get_mut(&name).unwrap().open = false;
                    }
                    Output::CloseBackend(key, farewell) => {
                        if let Some(mut model) = self.servers.remove(&key) {
                            model.log.push(format!("closed: {farewell:?}"));
                            self.log_server(&mut model);
                        }
                    }
                    Output::OpenBackend(ticket, request) => {
                        let region = self.publisher.current().name(request.region).to_owned();
                        if let Some((_, why)) = self.down.iter().find(|(down, _)| *down == region) {
                            let node = format!("node-{region}").into();
                            self.core.backend_failed(ticket, open_error(why, node, request.target), &mut self.out);
                            continue;
                        }
                        if request.replication != Replication::None {
                            writeln!(self.said, "  open: {region}, for {} replication", request.replication.as_str()).unwrap();
                        }
                        if request.target != TargetSessionAttrs::default() {
                            writeln!(self.said, "  open: {region}, {}", request.target).unwrap();
                        }
                        let info = BackendInfo {
                            node: self.nodes[request.region.index()].clone(),
                            route: Arc::default(),
                            parameters: parameters(request.target),
                            process_id: 1,
                            secret: (&b"key!"[..]).into(),
                            tls: None,
                        };
                        if let Some(key) = self.core.backend_opened(ticket, info, &mut self.out) {
                            let star = self.servers.values().find(|model| model.region == region).map(|model| model.star.clone());
                            let mut model = Model::new(&region);
                            model.star = star.unwrap_or_default();
                            self.servers.insert(key, model);
                        }
                    }
                    Output::Cancel(order) => self.note_cancel(Cancel::Send(*order)),
                    Output::Audit(record) => {
                        let what = if record.would_block { "would block" } else { "denied" };
                        writeln!(self.said, "  audit: {what} {:?} at {} by {}", &*record.region, record.message, record.rule)
                            .unwrap();
                    }
                    Output::PauseFrontend(_)
                    | Output::ResumeFrontend(_)
                    | Output::MoveBackend { .. }
                    | Output::QuotaChanged { .. } => {}
                }
            }
            chunk = &[];
        }
    }

    /// Delivers what servers have answered, until nothing is on its way.
    fn deliver(&mut self, cut: Cut) {
        if self.frozen {
            return;
        }
        while !self.replies.is_empty() {
            let (key, bytes) = self.replies.remove(0);
            self.core.backend_flushed(key, &mut self.out);
            self.carry_out(&[]);
            for piece in pieces(&bytes, cut) {
                self.core.backend_received(key, piece, &mut self.out);
                self.carry_out(piece);
            }
        }
    }

    fn show(&mut self, session: SessionKey, bytes: &[u8]) {
        let name = self.names.get(&session).cloned().unwrap_or_default();
        let Some(client) = self.clients.get_mut(&name) else { return };
        let mut at = 0;
        let mode = |_: u8, _: usize| Ok::<_, Malformed>(Mode::Gather);
        while let Some(frame) = client.splitter.next(bytes, &mut at, mode).expect("clients get proper messages") {
            let (tag, body) = match &frame {
                Frame::Whole { tag, range } => (*tag, &bytes[range.start + 5..range.end]),
                Frame::Gathered { tag, bytes } => (*tag, &bytes[5..]),
                Frame::Head { .. } | Frame::GatheredHead { .. } | Frame::Body { .. } => unreachable!("everything is gathered"),
            };
            if client.greeting {
                if tag == b'K' {
                    client.process_id = backend::backend_key_data_fields(body).unwrap().0;
                }
                client.greeting = tag != b'Z';
                if tag != b'E' {
                    continue;
                }
            }
            let line = describe(tag, body);
            writeln!(self.said, "  {}{line}", prefix(&name)).unwrap();
        }
    }

    fn log_servers(&mut self) {
        let mut keys: Vec<BackendKey> = self.servers.keys().copied().collect();
        keys.sort_by_key(|key| key.index);
        for key in keys {
            let mut model = self.servers.remove(&key).unwrap();
            self.log_server(&mut model);
            self.servers.insert(key, model);
        }
    }

    fn log_server(&mut self, model: &mut Model) {
        for line in model.log.drain(..) {
            writeln!(self.said, "    {}: {line}", model.region).unwrap();
        }
    }
}

fn prefix(name: &str) -> String {
    if name == "a" { String::new() } else { format!("{name}: ") }
}

fn parameters(target: TargetSessionAttrs) -> Arc<Parameters> {
    let standby = target.is_for_standbys().then_some(("in_hot_standby", "on"));
    Arc::new([("TimeZone", "UTC"), ("standard_conforming_strings", "on")].into_iter().chain(standby).collect())
}

fn resolve(payload: Payload, chunk: &[u8]) -> Vec<u8> {
    match payload {
        Payload::Span { start, end } => chunk[start as usize..end as usize].to_vec(),
        Payload::Owned(bytes) => bytes.to_vec(),
    }
}

fn pieces(bytes: &[u8], cut: Cut) -> Vec<&[u8]> {
    match cut {
        Cut::Whole => vec![bytes],
        Cut::OneByOne => bytes.chunks(1).collect(),
        Cut::At(at) => {
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            [head, tail].into_iter().filter(|piece| !piece.is_empty()).collect()
        }
    }
}

fn encode_line(line: &str) -> (&str, Vec<u8>) {
    let (client, messages) = match line.split_once("> ") {
        Some((client, rest)) if client.len() == 1 => (client, rest),
        _ => ("a", line),
    };
    (client, messages.split(" | ").flat_map(encode).collect())
}

fn encode(message: &str) -> Vec<u8> {
    let (verb, rest) = message.split_once(' ').unwrap_or((message, ""));
    let named = || rest.split_once(':').unwrap_or(("", rest));
    match verb {
        "Q" => frontend::query(rest.as_bytes()).to_vec(),
        "P" => frontend::parse(named().0.as_bytes(), named().1.as_bytes(), &[]).to_vec(),
        "B" => frontend::bind(named().0.as_bytes(), named().1.as_bytes()).to_vec(),
        "D" if rest.starts_with('S') => frontend::describe_statement(named().1.as_bytes()).to_vec(),
        "D" => frontend::describe_portal(named().1.as_bytes()).to_vec(),
        "E" => frontend::execute(rest.as_bytes(), 0).to_vec(),
        "C" => frontend::close_statement(named().1.as_bytes()).to_vec(),
        "S" => frontend::sync().to_vec(),
        "begin" => super::memory::begin(rest),
        "H" => frontend::flush().to_vec(),
        "F" => [b"F\0\0\0\x0e", &rest.parse().unwrap_or(1_u32).to_be_bytes()[..], &[0; 6]].concat(),
        "X" => frontend::terminate().to_vec(),
        "d" | "c" | "f" => {
            let body = if verb == "f" { format!("{rest}\0") } else { rest.to_owned() };
            [verb.as_bytes(), &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body.as_bytes()].concat()
        }
        "raw" => rest.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect(),
        _ => Vec::new(),
    }
}

fn describe(tag: u8, body: &[u8]) -> String {
    let name = tag as char;
    match tag {
        b'Z' | b'C' | b'S' => format!("{name} {}", String::from_utf8_lossy(body).trim_end_matches('\0').replace('\0', "=")),
        b'E' | b'N' => {
            let fields = parse_error(body).expect("a proper error");
            let hint = if body.windows(2).any(|pair| pair == b"\0H") { " (HINT)" } else { "" };
            format!("{name} {} {}: {}{hint}", fields.severity, fields.sqlstate.unwrap(), fields.message)
        }
        b'D' => format!("D {}", String::from_utf8_lossy(body.get(6..).unwrap_or_default())),
        _ => name.to_string(),
    }
}
