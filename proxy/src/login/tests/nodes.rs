//! Which node of a region a backend is opened at, over real sockets: by what the servers say, by what is down, by what a name leads to.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::super::backend::describe;
use super::super::node::Success;
use super::super::resolver::Resolver;
use super::sockets::desk;
use super::*;
use crate::config::{self, Address, Role};
use crate::login::connect::Asker;
use crate::pool::PoolKey;
use crate::wire::backend::{authentication_ok, parameter_status, ready_for_query};
use crate::wire::{Report, Severity, SqlState, TransactionStatus, encode_error};

/// A server of one region that says whether it is a standby, and how often it was logged in to; it serves until the test ends.
struct Server {
    port: u16,
    logins: Arc<AtomicUsize>,
}

impl Server {
    fn start(standby: &'static str) -> Self {
        Self::start_at([127, 0, 0, 1], standby)
    }

    fn start_at(address: [u8; 4], standby: &'static str) -> Self {
        Self::start_with(address, move |_| standby)
    }

    /// One that says something else at each login, and the last thing from then on.
    fn start_changing(address: [u8; 4], standby: &'static [&'static str]) -> Self {
        Self::start_with(address, |login| standby[login.min(standby.len() - 1)])
    }

    fn start_with(address: [u8; 4], standby: impl Fn(usize) -> &'static str + Send + 'static) -> Self {
        Self::answering(address, move |login| {
            let said = [
                authentication_ok(),
                parameter_status("in_hot_standby", standby(login)),
                ready_for_query(TransactionStatus::Idle),
            ];
            said.concat()
        })
    }

    /// One that is starting up at its first logins, and then a primary.
    fn starting_up(logins: usize) -> Self {
        Self::answering([127, 0, 0, 1], move |login| {
            let starting_up = Report {
                severity: Severity::Fatal,
                sqlstate: SqlState::CANNOT_CONNECT_NOW,
                message: "the database system is starting up",
                detail: None,
                hint: None,
                position: None,
            };
            let primary = || {
                [authentication_ok(), parameter_status("in_hot_standby", "off"), ready_for_query(TransactionStatus::Idle)]
                    .concat()
            };
            if login < logins { encode_error(&starting_up).to_vec() } else { primary() }
        })
    }

    fn answering(address: [u8; 4], answer: impl Fn(usize) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::from(address), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let logins = Arc::new(AtomicUsize::new(0));
        let counted = logins.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut hello = [0; 4096];
                // A probe that only connects says nothing.
                if stream.read(&mut hello).unwrap_or(0) > 0 {
                    stream.write_all(&answer(counted.fetch_add(1, Ordering::Relaxed))).unwrap();
                }
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
    config.pools.connect_timeout = Duration::from_secs(4);
    rules = Rules::new(config, rules.policy, [0; 32], None, Instant::now());
    (rules, region)
}

/// The name of the node that a backend is opened at, or the error.
async fn opened(desk: &Desk, region: RegionId, target: TargetSessionAttrs) -> String {
    let request = PoolKey {
        region,
        database: "demo".into(),
        user: "nobody".into(),
        settings: [].into(),
        target,
        replication: Default::default(),
    };
    match desk.open(&request, Asker::default()).await {
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
        let fail = async || {
            let error = opened(&desk, region, TargetSessionAttrs::ReadWrite).await;
            assert!(error.starts_with("node \"a\" can not be reached"), "{error}");
        };
        let begun = Instant::now();
        for _ in 0..100 {
            fail().await;
        }
        // It rests for 187 ms at least, after the second try for longer.
        let (tried, tries_max) = (accepted.load(Ordering::Relaxed), 1 + begun.elapsed().as_millis() / 187);
        assert!(tried as u128 <= tries_max, "{tried} tries: the others get the error of the first");
        for _ in 0..100 {
            fail().await;
            if accepted.load(Ordering::Relaxed) > tried {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it is never tried again");
    });
}

thread_local! {
    /// What the name server of these tests answers, by the last numbers of addresses 127.0.0.x; and how often it was asked.
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static QUESTIONS: Cell<usize> = const { Cell::new(0) };
}

/// A desk whose only node in `eu-west` is `db.example` at this port, and how it is resolved.
fn desk_with_a_name(port: u16, elsewhere: &Server) -> (Rc<Desk>, RegionId) {
    let (rules, region) = region_of(&[(Role::Primary, port)], elsewhere);
    let mut config = rules.config.clone();
    config.nodes[0].address = Address::Tcp { host: "db.example".to_owned(), port };
    let rules = Rules::new(config, rules.policy, [0; 32], None, Instant::now());
    let (desk, _) = desk(rules);
    let mut desk = Rc::into_inner(desk).unwrap();
    desk.resolver = Rc::new(Resolver::new(|host, port| {
        Box::pin(async move {
            assert_eq!(host, "db.example");
            QUESTIONS.set(QUESTIONS.get() + 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let address = |last: &u8| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, *last)), port);
            let found: Vec<SocketAddr> = ANSWER.with_borrow(|answer| answer.iter().map(address).collect());
            if found.is_empty() { Err(std::io::Error::other("no such name")) } else { Ok(found) }
        })
    }));
    (Rc::new(desk), region)
}

/// The last number of the address that a backend is opened at, and whether it may be used again; or the error.
async fn opened_by_name(desk: &Desk, region: RegionId) -> Result<(u8, Arc<crate::pool::Route>), String> {
    let target = TargetSessionAttrs::default();
    let request = PoolKey {
        region,
        database: "demo".into(),
        user: "nobody".into(),
        settings: [].into(),
        target,
        replication: Default::default(),
    };
    let (_, info) = desk.open(&request, Asker::default()).await.map_err(|error| describe(&error))?;
    match info.route.address().map(|address| address.ip()) {
        Some(IpAddr::V4(address)) => Ok((address.octets()[3], info.route)),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_name_is_resolved_for_each_connection_and_all_of_its_addresses_are_tried() {
    let elsewhere = Server::start("off");
    // Listens at 127.0.0.3 only; the same port of the other addresses is closed.
    let server = Server::start_at([127, 0, 0, 3], "off");
    let (desk, region) = desk_with_a_name(server.port, &elsewhere);
    tokio_uring::start(async {
        ANSWER.set(vec![2, 3]);
        let (address, first) = opened_by_name(&desk, region).await.unwrap();
        assert_eq!((address, QUESTIONS.get()), (3, 1));
        let (_, second) = opened_by_name(&desk, region).await.unwrap();
        assert!(Arc::ptr_eq(&first, &second) && QUESTIONS.get() == 2);

        // The name goes elsewhere: what was opened before is not used again, and nothing is opened there.
        ANSWER.set(vec![4]);
        assert!(opened_by_name(&desk, region).await.unwrap_err().contains("refused"));
        assert!(first.is_left());
        ANSWER.set(vec![3]);
        let back = loop {
            match opened_by_name(&desk, region).await {
                Ok((_, route)) => break route,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        assert!(!back.is_left() && first.is_left());

        // A name server that knows nothing for a moment takes nothing away.
        ANSWER.set(vec![]);
        let error = opened_by_name(&desk, region).await.unwrap_err();
        assert!(error.contains("no such name") && !back.is_left(), "{error}");
    });
    assert_eq!(elsewhere.logins(), 0);
}

#[test]
fn look_ups_of_one_moment_are_one() {
    let elsewhere = Server::start("off");
    let server = Server::start_at([127, 0, 0, 3], "off");
    let (desk, region) = desk_with_a_name(server.port, &elsewhere);
    tokio_uring::start(async {
        ANSWER.set(vec![3]);
        let one = || opened_by_name(&desk, region);
        let all = tokio::join!(one(), one(), one(), one());
        assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok() && all.3.is_ok());
        assert_eq!(QUESTIONS.get(), 1);
    });
}

#[test]
fn an_address_that_is_silent_leaves_time_for_the_next() {
    let elsewhere = Server::start("off");
    let server = Server::start_at([127, 0, 0, 3], "off");
    // Its queue is full, so the kernel drops every SYN.
    let hole = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), server.port)).unwrap();
    rustix::net::listen(&hole, 0).unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&hole.local_addr().unwrap(), Duration::from_millis(200)).ok();
    let queue: Vec<_> = std::iter::from_fn(connect).take(16).collect();
    assert!(queue.len() < 16);
    let (desk, region) = desk_with_a_name(server.port, &elsewhere);
    tokio_uring::start(async {
        ANSWER.set(vec![2, 3]);
        assert_eq!(opened_by_name(&desk, region).await.unwrap().0, 3);
    });
}

#[test]
fn a_server_that_has_changed_its_role_loses_the_backends_that_asked_for_the_old_one() {
    static STANDBY: [&str; 2] = ["on", "off"];
    let elsewhere = Server::start("off");
    let server = Server::start_changing([127, 0, 0, 1], &STANDBY);
    let (rules, region) = region_of(&[(Role::Replica, server.port)], &elsewhere);
    let (desk, _) = desk(rules);
    tokio_uring::start(async {
        let open = async |target| {
            let request = PoolKey {
                region,
                database: "demo".into(),
                user: "nobody".into(),
                settings: [].into(),
                target,
                replication: Default::default(),
            };
            desk.open(&request, Asker::default()).await.unwrap().1.route
        };
        let as_standby = open(TargetSessionAttrs::Any).await;
        assert!(!as_standby.is_left());
        let as_primary = open(TargetSessionAttrs::Any).await;
        assert!(as_standby.is_left() && !as_primary.is_left());
    });
}

#[test]
fn a_server_that_starts_up_is_passed_over_and_left_alone() {
    let [elsewhere, other] = ["off", "off"].map(Server::start);
    let starting = Server::starting_up(1);
    let (rules, region) = region_of(&[(Role::Primary, starting.port), (Role::Primary, other.port)], &elsewhere);
    let node = rules.nodes[0].clone();
    let (desk, _) = desk(rules);
    tokio_uring::start(async {
        for _ in 0..3 {
            assert_eq!(opened(&desk, region, TargetSessionAttrs::ReadWrite).await, "b");
        }
        assert_eq!(starting.logins(), 1);
        // That it can be connected to is not the question.
        node.succeeded(Success::Connect);
        assert!(!node.is_up() && node.rests(Instant::now()).is_some());
        node.succeeded(Success::ClientsLogin);
        assert_eq!(opened(&desk, region, TargetSessionAttrs::ReadWrite).await, "a");
    });
    let starting = Server::starting_up(1);
    let (rules, region) = region_of(&[(Role::Primary, starting.port)], &elsewhere);
    let (desk, _) = self::desk(rules);
    tokio_uring::start(async {
        let said = "the server refused the login: the database system is starting up (57P03)";
        assert_eq!(opened(&desk, region, TargetSessionAttrs::ReadWrite).await, said);
        assert_eq!(opened(&desk, region, TargetSessionAttrs::ReadWrite).await, said);
    });
    assert_eq!(elsewhere.logins(), 0);
}

#[test]
fn probes_find_out_what_a_server_is_and_that_it_is_back() {
    let elsewhere = Server::start("off");
    let starting = Server::starting_up(2);
    let (rules, region) = region_of(&[(Role::Replica, starting.port)], &elsewhere);
    let mut config = rules.config.clone();
    let mine = &mut config.nodes[0];
    (mine.user, mine.password, mine.database) =
        (Some("prober".to_owned()), Some(config::Password::new("secret".to_owned())), Some("postgres".to_owned()));
    config.pools.probe_interval = Duration::from_secs(1);
    let rules = Rules::new(config, rules.policy, [0; 32], None, Instant::now());
    let node = rules.nodes[0].clone();
    let (desk, _) = desk(rules);
    tokio_uring::start(async {
        tokio_uring::spawn(Rc::clone(&desk).probe_nodes());
        let until = async |done: &dyn Fn() -> bool| {
            for _ in 0..1000 {
                if done() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{:?}", node.error());
        };
        until(&|| node.error().is_some_and(|(kind, _)| kind == "login_failed")).await;
        assert!(!node.is_up());
        until(&|| node.is_up()).await;
        assert_eq!((node.is_standby(), node.error()), (Some(false), None));
        assert_eq!(opened(&desk, region, TargetSessionAttrs::ReadWrite).await, "a");
    });
}

#[test]
fn idle_connections_to_a_server_that_is_silent_are_not_used_any_more() {
    let elsewhere = Server::start("off");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Serves one login.
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(&[authentication_ok(), ready_for_query(TransactionStatus::Idle)].concat()).unwrap();
        (listener, stream)
    });
    let (mut rules, region) = region_of(&[(Role::Primary, port)], &elsewhere);
    rules.config.pools.connect_timeout = Duration::from_millis(500);
    rules.config.pools.tcp_user_timeout = Duration::from_secs(77);
    let (desk, _) = desk(rules);
    tokio_uring::start(async {
        let target = TargetSessionAttrs::default();
        let request = PoolKey {
            region,
            database: "demo".into(),
            user: "nobody".into(),
            settings: [].into(),
            target,
            replication: Default::default(),
        };
        let (socket, info) = desk.open(&request, Asker::default()).await.unwrap();
        let timeout = socket2::SockRef::from(&socket.socket).tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(Duration::from_secs(77)));
        // From now on the kernel drops every SYN.
        let (listener, _connection) = served.join().unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let connect = || std::net::TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_millis(200)).ok();
        let queue: Vec<_> = std::iter::from_fn(connect).take(16).collect();
        assert!(queue.len() < 16);
        let silence = "node \"a\" did not answer in time";
        assert_eq!(opened(&desk, region, target).await, silence);
        assert!(!info.route.is_left(), "once may be chance");
        for _ in 0..100 {
            assert_eq!(opened(&desk, region, target).await, silence);
            if info.route.is_left() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it is still used");
    });
}

#[test]
fn a_server_that_hangs_is_not_up_because_it_can_be_connected_to() {
    let elsewhere = Server::start("off");
    // The kernel takes connections for it.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut rules, region) = region_of(&[(Role::Primary, hangs.local_addr().unwrap().port())], &elsewhere);
    rules.config.pools.connect_timeout = Duration::from_millis(100);
    let node = rules.nodes[0].clone();
    let (desk, _) = desk(rules);
    tokio_uring::start(async {
        assert_eq!(opened(&desk, region, TargetSessionAttrs::Any).await, "node \"a\" did not answer in time");
        desk.connect(&desk.rules(), &node, Asker::default(), Instant::now() + Duration::from_secs(1)).await.unwrap();
        assert!(!node.succeeded(Success::Connect) && !node.is_up() && node.rests(Instant::now()).is_some());
    });
}
