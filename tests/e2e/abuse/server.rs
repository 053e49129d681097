//! Hostile servers: everything that the server of a node can say instead of what PostgreSQL would.
//!
//! Every case has a region with a node of its own, whose server is hostile to database `hostile` until it is tamed. Its connection must
//! be closed and its client told; a session elsewhere, which asks all the time, must notice nothing; and once the server is tame, the
//! very pool of the case must serve.

mod login;
mod negotiation;
mod scram;
mod session;
mod unread;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::fake::{Conversation, FakeServer};
use domicile_tests::message as m;
use domicile_tests::process::{now, wait_for};
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::skip::{available, io_uring};
use domicile_tests::tls::Authority;
use domicile_tests::transcript::{End, Message, Transcript};
use rustls::ServerConfig;

use crate::world::{start, tail, while_running};

/// The user that all log in as; the proxy knows the password.
const USER: &str = "app";
const PASSWORD: &str = "the password";
/// How long a case may take to be over for all who take part in it.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a session that has nothing to do with any case may wait for an answer. The machine is shared.
const BYSTANDER_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a message that are compared.
const ITEM_BYTES_MAX: usize = 60;

/// What a hostile server does with a connection, from its first byte on.
type Script = Box<dyn Fn(&mut Conversation) -> io::Result<()> + Send + Sync>;

/// One case.
pub struct Case {
    name: String,
    /// What the client sends once it is logged in.
    asks: Vec<u8>,
    /// What it gets, in transaction and in session mode: of a login that fails the refusal, else all up to ReadyForQuery or the end.
    expected: [String; 2],
    /// Whether there is nothing in it for which a connection is closed.
    stays: bool,
    /// Whether the script begins where encryption is asked for, and not behind the StartupMessage.
    negotiates: bool,
    script: Script,
}

/// What a server shows to whoever asks for encryption.
type Tls = Option<Arc<ServerConfig>>;

impl Case {
    /// A case whose server lets the proxy in, and whose client asks.
    pub fn asking(
        name: &str,
        asks: impl Into<Vec<u8>>,
        expected: [&str; 2],
        script: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let expected = expected.map(str::to_owned);
        Self { name: name.to_owned(), asks: asks.into(), expected, stays: false, negotiates: false, script: Box::new(script) }
    }

    /// A case whose server does what it may, if only just; it is served by it afterwards too.
    pub fn lawful(
        name: &str,
        asks: impl Into<Vec<u8>>,
        expected: &str,
        script: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let goes_on = move |with: &mut Conversation| {
            script(with)?;
            with.serve(|_, _, _| Ok(false))
        };
        Self { stays: true, ..Self::asking(name, asks, [expected; 2], goes_on) }
    }

    /// A case whose server does not let the proxy in: an error of this SQLSTATE, which a session of transaction mode survives.
    pub fn login(
        name: &str,
        sqlstate: &str,
        script: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let expected = [format!("E {sqlstate} / Z I"), format!("F {sqlstate} / closed")];
        Self { expected, ..Self::asking(name, m::query("SELECT 1"), [""; 2], script) }
    }

    /// A case whose server is asked for encryption, and never gets so far that it could let the proxy in.
    pub fn negotiation(
        name: &str,
        sqlstate: &str,
        script: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { negotiates: true, ..Self::login(name, sqlstate, script) }
    }

    /// Plays it: what is wrong, if anything.
    fn play(&self, proxy: &Proxy, region: &str, stage: &Stage, mode: usize) -> Option<String> {
        let parameters = [("helios.region", region)];
        let login = Login { user: USER, password: PASSWORD, database: "hostile", parameters: &parameters };
        let said = match proxy.login(&login) {
            Ok(mut client) => {
                client.set_patience(PATIENCE);
                client.ask(&self.asks)
            }
            Err(said) => said,
        };
        let said = brief(&said);
        if said != self.expected[mode] {
            return Some(format!("{}: expected {:?}, was {said:?}", self.name, self.expected[mode]));
        }
        if !self.stays && wait_for(PATIENCE, || (stage.open.load(Ordering::Relaxed) == 0).then_some(())).is_none() {
            return Some(format!("{}: the connection to the server stays open", self.name));
        }
        if stage.played.load(Ordering::Relaxed) == 0 {
            return Some(format!("{}: the server was never asked", self.name));
        }
        stage.tame.store(true, Ordering::Relaxed);
        // Its node may be left alone for a while.
        let served = wait_for(PATIENCE, || {
            let mut client = proxy.login(&login).ok()?;
            is_good(&client.query("SELECT 2")).then_some(())
        });
        served.is_none().then(|| format!("{}: its pool does not serve when its server is tame", self.name))
    }
}

/// Whether a session was answered as by a server in order.
fn is_good(said: &Transcript) -> bool {
    said.replies().to_string() == "T answer / D good / C SELECT 1 / Z I"
}

/// What a client got: SQLSTATEs instead of texts, and nothing of what a server may say at any time or of a challenge.
fn brief(said: &Transcript) -> String {
    let item = |message: &Message| match message.tag {
        b'N' | b'S' | b'A' | b'R' | b'K' => None,
        b'E' => {
            let report = message.report().unwrap_or_default();
            Some(format!("{} {}", if report.field('V') == "ERROR" { 'E' } else { 'F' }, report.sqlstate()))
        }
        _ => Some(message.to_string().chars().take(ITEM_BYTES_MAX).collect()),
    };
    let end = match &said.end {
        End::Reached => None,
        End::Closed => Some("closed".to_owned()),
        End::Silent => Some("silent".to_owned()),
        End::Broken(why) => Some(format!("broken: {why}")),
    };
    said.messages.iter().filter_map(item).chain(end).collect::<Vec<_>>().join(" / ")
}

/// What becomes of a case.
#[derive(Default)]
struct Stage {
    tame: AtomicBool,
    /// Connections that were treated badly, and those of them that the proxy has not closed.
    played: AtomicU32,
    open: AtomicU32,
}

/// A server in order for everybody but the client of its case.
fn server(case: Arc<Case>, stage: Arc<Stage>, tls: Tls) -> FakeServer {
    let conversation = move |with: &mut Conversation| {
        let is_tame = || stage.tame.load(Ordering::Relaxed);
        if is_tame() || !case.negotiates {
            with.begin_as(tls.as_ref())?;
            if is_tame() || with.startup.get("database").is_none_or(|name| name != "hostile") {
                with.admit()?;
                return with.serve(|_, _, _| Ok(false));
            }
        }
        stage.played.fetch_add(1, Ordering::Relaxed);
        stage.open.fetch_add(1, Ordering::Relaxed);
        let played = (case.script)(with).and_then(|()| with.until_closed());
        stage.open.fetch_sub(1, Ordering::Relaxed);
        played
    };
    FakeServer::start(conversation).expect("a listening socket")
}

/// A server in order.
fn good_server(tls: Tls) -> FakeServer {
    let conversation = move |with: &mut Conversation| {
        with.begin_as(tls.as_ref())?;
        with.admit()?;
        with.serve(|_, _, _| Ok(false))
    };
    FakeServer::start(conversation).expect("a listening socket")
}

/// A proxy before these servers, each with its region. The lines are those of every node.
fn configuration(pool_mode: &'static str, node: &str, servers: &[(String, &FakeServer)]) -> Configuration {
    let nodes: Vec<_> = servers.iter().map(|(region, server)| (region.as_str(), region.as_str(), server.address())).collect();
    let configuration = Configuration::new(&nodes);
    Configuration {
        pool_mode,
        method: "trust",
        node: node.to_owned(),
        pools: "size = 10\nconnect_timeout = \"2s\"\n".to_owned(),
        users: vec![(USER.to_owned(), PASSWORD.to_owned())],
        ..configuration
    }
}

/// A client of region `good`, or of another one.
fn client_of(proxy: &Proxy, region: &str, database: &str) -> Client {
    let parameters = [("helios.region", region)];
    let login = Login { user: USER, password: PASSWORD, database, parameters: &parameters };
    proxy.login(&login).unwrap_or_else(|said| panic!("{said}"))
}

/// A session that has nothing to do with anything asks until it is told to stop; the longest wait for an answer.
fn bystander(proxy: &Proxy, goes_on: &dyn Fn() -> bool) -> Result<Duration, String> {
    let mut client = client_of(proxy, "good", "demo");
    let mut longest = Duration::ZERO;
    while goes_on() {
        let asked = now();
        let said = client.query("SELECT 'bystander'");
        if !is_good(&said) {
            return Err(format!("a session that has nothing to do with it was answered {said}"));
        }
        longest = longest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(longest)
}

/// Plays the cases through a proxy: only those who take part in one notice. The lines are those of every node.
fn play_through(pool_mode: &'static str, cases: Vec<Case>, tls: &Tls, node: &str) {
    if available(io_uring()).is_none() {
        return;
    }
    let mode = usize::from(pool_mode == "session");
    let cases: Vec<(Arc<Case>, Arc<Stage>)> = cases.into_iter().map(|case| (Arc::new(case), Arc::default())).collect();
    let good = good_server(tls.clone());
    let server = |(case, stage): &(Arc<Case>, Arc<Stage>)| server(case.clone(), stage.clone(), tls.clone());
    let servers: Vec<FakeServer> = cases.iter().map(server).collect();
    let mut regions: Vec<_> = servers.iter().enumerate().map(|(index, server)| (format!("r{index}"), server)).collect();
    regions.push(("good".to_owned(), &good));
    let mut proxy = start(&configuration(pool_mode, node, &regions));
    let (beside, wrong) = while_running(
        |goes_on| bystander(&proxy, goes_on),
        || {
            let indices: Vec<usize> = (0..cases.len()).collect();
            super::play_all(&indices, |index| {
                let (case, stage) = &cases[*index];
                case.play(&proxy, &regions[*index].0, stage, mode)
            })
        },
    );
    let ended = proxy.wait(Duration::ZERO);
    assert!(wrong.is_empty() && ended.is_none(), "{}\n{ended:?}\n{}", wrong.join("\n"), tail(&proxy.log()));
    assert!(!proxy.log().contains("panic"), "{}", tail(&proxy.log()));
    let longest = beside.unwrap_or_else(|fault| panic!("{fault}\n{}", tail(&proxy.log())));
    assert!(longest < BYSTANDER_PATIENCE, "a session that has nothing to do with it waited for {longest:?}");
    let memory = proxy.memory_peak_kib();
    assert!(memory < 300 << 10, "{memory} KiB of resident memory");
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = [login::cases(), scram::cases(), session::cases()].into_iter().flatten().collect();
    let names: std::collections::BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert!(names.len() == cases.len() && names.len() >= 40, "{} names of {} cases", names.len(), cases.len());
    cases
}

#[test]
fn hostile_servers_in_transaction_mode_harm_nobody_else() {
    play_through("transaction", cases(), &None, "");
}

#[test]
fn hostile_servers_in_session_mode_harm_nobody_else() {
    play_through("session", cases(), &None, "");
}

/// All of it again inside of TLS, and what can be said instead of beginning it.
#[test]
fn hostile_servers_that_encrypt_harm_nobody_else() {
    let authority = Authority::new();
    let tls = Some(authority.issue("server", &[], &["127.0.0.1"]).server());
    let ca = authority.certificate().display().to_string();
    let node = format!("tls = {{ mode = \"verify-full\", ca = \"{ca}\" }}\n");
    play_through("transaction", cases().into_iter().chain(negotiation::cases(&tls)).collect(), &tls, &node);
}
