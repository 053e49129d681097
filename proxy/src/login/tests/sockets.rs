//! Logins over real sockets under tokio-uring: deadlines, hand-over, and servers that are not there.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::super::backend::describe;
use super::*;
use crate::config::{self, Address, Role};
use crate::engine::ToWorker;
use crate::observe::LoginOutcome;
use crate::pool::{OpenError, PoolKey};
use crate::wire::backend::{authentication_ok, parameter_status, ready_for_query};
use crate::wire::{TransactionStatus, startup};

type Delivered = Rc<RefCell<Vec<(usize, ToWorker)>>>;

fn desk(rules: Rules) -> (Rc<Desk>, Delivered) {
    let delivered = Delivered::default();
    let deliver = {
        let delivered = delivered.clone();
        move |worker, message| delivered.borrow_mut().push((worker, message))
    };
    (Rc::new(Desk::new(rules, deliver, Vec::new(), AuditLog::open(None).unwrap())), delivered)
}

/// Runs until `done`, for ten seconds at most.
fn run_until(start: impl FnOnce(), done: impl Fn() -> bool) {
    tokio_uring::start(async {
        start();
        for _ in 0..2000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it does not end");
    });
}

/// Both ends of a connection, and where the first comes from.
fn pair() -> (TcpStream, OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, peer) = listener.accept().unwrap();
    (client, server.into(), peer)
}

fn counted(desk: &Desk, outcome: LoginOutcome) -> u64 {
    desk.logins.all().find(|(known, _)| *known == outcome).unwrap().1
}

/// How the login of a client ends that sends `said` and then waits.
fn outcome_of(said: &[u8], expected: LoginOutcome) -> (Vec<u8>, Delivered) {
    let mut rules = rules("trust", "");
    rules.config.limits.login_timeout = Duration::from_millis(300);
    let (desk, delivered) = desk(rules);
    let (mut client, server, peer) = pair();
    client.write_all(said).unwrap();
    run_until(|| desk.accept(3, server, Some(peer)), || counted(&desk, expected) == 1);
    assert_eq!((desk.in_progress.get(), desk.authenticating.get()), (0, 0));
    // What is delivered keeps the connection open, and is greeted by its worker.
    let mut told = vec![0; if delivered.borrow().is_empty() { 4096 } else { 0 }];
    let length = client.read(&mut told).unwrap();
    told.truncate(length);
    (told, delivered)
}

#[test]
fn silence_ends_at_the_deadline() {
    for said in [&b""[..], b"\0\0\0\x20\0\x03\0\0user"] {
        let (told, delivered) = outcome_of(said, LoginOutcome::TimedOut);
        assert!(told.is_empty() && delivered.borrow().is_empty());
    }
}

#[test]
fn a_finished_login_is_handed_to_its_worker() {
    let hello = startup::encode_startup(0, "bob", "demo", &[("options", "-c helios.region=eu-west")]);
    let (told, delivered) = outcome_of(&[&hello[..], b"early"].concat(), LoginOutcome::Admitted);
    assert!(told.is_empty());
    let (worker, message) = delivered.borrow_mut().pop().unwrap();
    let ToWorker::Client { login, early, .. } = message else { panic!() };
    assert_eq!((worker, &early[..]), (3, &b"early"[..]));
    assert_eq!(login.before, authentication_ok());
    assert_eq!(login.identity.startup_region.as_deref(), Some("eu-west"));
}

/// What comes of opening a backend at a server that does `serve` with its connection.
fn open(serve: impl FnOnce(TcpStream) + Send + 'static) -> Result<(), OpenError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || serve(listener.accept().unwrap().0));
    let result = open_at(port);
    server.join().unwrap();
    result
}

pub(super) fn open_at(port: u16) -> Result<(), OpenError> {
    let mut rules = rules("trust", "");
    rules.config.pools.connect_timeout = Duration::from_millis(300);
    let region = rules.nodes[0].region;
    let mut config = rules.config.clone();
    config.nodes[0].address = Address::Tcp { host: "localhost".to_owned(), port };
    let rules = Rules::new(config, rules.policy, [0; 32], None, Instant::now());
    let (desk, _) = desk(rules);
    let request =
        PoolKey { region, database: "demo".into(), user: "nobody".into(), settings: [].into(), target: Default::default() };
    tokio_uring::start(desk.open(&request)).map(drop)
}

#[test]
fn a_server_is_logged_in_to() {
    let opened = open(|mut stream| {
        let mut hello = [0; 4096];
        let length = stream.read(&mut hello).unwrap();
        let hello = hello[..length].escape_ascii().to_string();
        assert!(hello.contains(r"options\x00-c domicile.region=eu-west -c helios.region=eu-west\x00"), "{hello}");
        stream.write_all(&authentication_ok()).unwrap();
        stream.write_all(&ready_for_query(TransactionStatus::Idle)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    assert!(opened.is_ok(), "{opened:?}");
}

/// A server of one region that says whether it is a standby, and how often it was logged in to; it serves until the test ends.
struct Server {
    port: u16,
    logins: Arc<AtomicUsize>,
}

impl Server {
    fn start(standby: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let logins = Arc::new(AtomicUsize::new(0));
        let counted = logins.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut hello = [0; 4096];
                if stream.read(&mut hello).unwrap_or(0) == 0 {
                    continue;
                }
                counted.fetch_add(1, Ordering::Relaxed);
                let said =
                    [authentication_ok(), parameter_status("in_hot_standby", standby), ready_for_query(TransactionStatus::Idle)];
                stream.write_all(&said.concat()).unwrap();
            }
        });
        Self { port, logins }
    }

    fn logins(&self) -> usize {
        self.logins.load(Ordering::Relaxed)
    }
}

/// A port at which nobody listens.
fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Rules with these nodes in the region `eu-west`, named a, b, …; `us-east` has a server that must never be asked.
fn region_of(nodes: &[(Role, u16)], elsewhere: &Server) -> (Rules, RegionId) {
    let mut rules = rules("trust", "");
    let region = rules.nodes[0].region;
    let mut config = rules.config.clone();
    let template = config.nodes[0].clone();
    config.nodes[1].address = Address::Tcp { host: "127.0.0.1".to_owned(), port: elsewhere.port };
    config.nodes[1].user = None;
    let node = |(index, (role, port)): (usize, &(Role, u16))| config::Node {
        name: ["a", "b", "c"][index].to_owned(),
        role: *role,
        address: Address::Tcp { host: "127.0.0.1".to_owned(), port: *port },
        ..template.clone()
    };
    config.nodes.splice(..1, nodes.iter().enumerate().map(node));
    config.pools.connect_timeout = Duration::from_millis(600);
    rules = Rules::new(config, rules.policy, [0; 32], None, Instant::now());
    (rules, region)
}

/// The name of the node that a backend is opened at, or the error.
async fn opened(desk: &Desk, region: RegionId, target: TargetSessionAttrs) -> String {
    let request = PoolKey { region, database: "demo".into(), user: "nobody".into(), settings: [].into(), target };
    match desk.open(&request).await {
        Ok((_, info)) => info.node.name.to_string(),
        Err(error) => describe(&error),
    }
}

#[test]
fn a_region_serves_with_what_the_servers_are() {
    let [elsewhere, first, second] = ["off", "on", "off"].map(Server::start);
    // After a switchover: the configured roles are wrong by now.
    let nodes = [(Role::Primary, first.port), (Role::Replica, second.port), (Role::Primary, closed())];
    let (rules, region) = region_of(&nodes, &elsewhere);
    let (desk, _) = desk(rules);
    tokio_uring::start(async {
        assert_eq!(opened(&desk, region, TargetSessionAttrs::ReadWrite).await, "b");
        assert_eq!((first.logins(), second.logins()), (1, 1), "the first was asked, and was none");
        assert_eq!(opened(&desk, region, TargetSessionAttrs::Primary).await, "b");
        assert_eq!(first.logins(), 1, "what it is has been remembered");
        for wanted in [TargetSessionAttrs::ReadOnly, TargetSessionAttrs::Standby, TargetSessionAttrs::PreferStandby] {
            assert_eq!(opened(&desk, region, wanted).await, "a", "{wanted}");
        }
    });
    assert_eq!(elsewhere.logins(), 0);
}

#[test]
fn a_region_that_has_no_fitting_server_is_not_served_by_another() {
    let [elsewhere, standby] = ["off", "on"].map(Server::start);
    let (rules, region) = region_of(&[(Role::Primary, closed()), (Role::Replica, standby.port)], &elsewhere);
    let (desk, _) = desk(rules);
    tokio_uring::start(async {
        let refused = "node \"a\" refused the connection";
        assert_eq!(opened(&desk, region, TargetSessionAttrs::ReadWrite).await, refused);
        assert_eq!(opened(&desk, region, TargetSessionAttrs::ReadWrite).await, refused);
        assert_eq!(standby.logins(), 1, "it is known now not to be one");
        assert_eq!(opened(&desk, region, TargetSessionAttrs::PreferStandby).await, "b");
    });
    let (rules, region) = region_of(&[(Role::Primary, standby.port)], &elsewhere);
    let (desk, _) = self::desk(rules);
    tokio_uring::start(async {
        let none = "no node of the region fits target_session_attrs = \"read-write\"";
        assert_eq!(opened(&desk, region, TargetSessionAttrs::ReadWrite).await, none);
        assert_eq!(opened(&desk, region, TargetSessionAttrs::ReadWrite).await, none);
    });
    assert_eq!(elsewhere.logins(), 0);
}

#[test]
fn a_node_that_cannot_be_had_is_left_alone_for_a_while() {
    let elsewhere = Server::start("off");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    // One that takes connections and closes them.
    thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (rules, region) = region_of(&[(Role::Primary, port)], &elsewhere);
    let (desk, _) = desk(rules);
    tokio_uring::start(async {
        let errors = async || opened(&desk, region, TargetSessionAttrs::ReadWrite).await;
        // How the end of the connection is met, by end of stream or by a reset, is a matter of time.
        let is_gone = |error: &str| error.contains("can not be reached");
        let first = errors().await;
        assert!(is_gone(&first), "{first}");
        for _ in 0..100 {
            assert_eq!(errors().await, first);
        }
        assert_eq!(accepted.load(Ordering::Relaxed), 1, "the others got the error of the first");
        tokio::time::sleep(Duration::from_millis(320)).await;
        assert!(is_gone(&errors().await));
        assert_eq!(accepted.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn servers_that_are_not_there_are_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(matches!(open_at(closed), Err(OpenError::Refused { .. })));
    let silent = |_stream: TcpStream| thread::sleep(Duration::from_millis(600));
    assert!(matches!(open(silent), Err(OpenError::TimedOut { .. })));
    assert!(matches!(open(drop), Err(OpenError::Unreachable { .. })));
    // Reads first and last, so that closing does not take back what was written.
    let write = |bytes: &'static [u8]| {
        move |mut stream: TcpStream| {
            let mut hello = [0; 4096];
            assert!(stream.read(&mut hello).unwrap() > 0);
            stream.write_all(bytes).unwrap();
            drop(stream.read(&mut hello));
        }
    };
    assert!(matches!(open(write(b"HTTP/1.1 400 Bad Request\r\n\r\n")), Err(OpenError::Protocol { .. })));
    // Something behind ReadyForQuery.
    assert!(matches!(open(write(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05IZ")), Err(OpenError::Protocol { .. })));
}
