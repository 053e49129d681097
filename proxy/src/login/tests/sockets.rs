//! Logins over real sockets under tokio-uring: deadlines, hand-over, and servers that are not there.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::config::Address;
use crate::engine::ToWorker;
use crate::login::connect::Asker;
use crate::observe::LoginOutcome;
use crate::pool::{OpenError, PoolKey};
use crate::wire::backend::{authentication_ok, ready_for_query};
use crate::wire::startup::Replication;
use crate::wire::{TransactionStatus, startup};

pub(super) type Delivered = Rc<RefCell<Vec<(usize, ToWorker)>>>;

pub(super) fn desk(rules: Rules) -> (Rc<Desk>, Delivered) {
    let delivered = Delivered::default();
    let deliver = {
        let delivered = delivered.clone();
        move |worker, message| delivered.borrow_mut().push((worker, message))
    };
    (
        Rc::new(Desk::new(rules, deliver, Vec::new(), AuditLog::open(None).unwrap(), Rc::new(crate::fence::Fence::off()))),
        delivered,
    )
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
    run_until(|| desk.accept(3, server, Some(peer), Default::default()), || counted(&desk, expected) == 1);
    // Who is on the way to a worker is a client.
    assert_eq!((desk.in_progress.get(), desk.clients()), (0, delivered.borrow().len() as u64));
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
    let hello = startup::encode_startup(0, "bob", "demo", Replication::None, &[("options", "-c helios.region=eu-west")]);
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
    // Should it never have connected, the server would wait for ever.
    drop(TcpStream::connect(("127.0.0.1", port)));
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
    let request = PoolKey {
        region,
        database: "demo".into(),
        user: "nobody".into(),
        settings: [].into(),
        target: Default::default(),
        replication: Replication::None,
    };
    tokio_uring::start(desk.open(&request, Asker::default())).map(drop)
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
