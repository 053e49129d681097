//! Nodes that come and go: a region of several servers, a region that is down, and what the users of another one notice of it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::cluster::{Cluster, Options};
use domicile_tests::process::{free_port, now, wait_for};
use domicile_tests::proxy::{Configuration, Proxy};
use rustix::process::Signal;

use crate::world::{World, start, tail, while_running, world};

const PATIENCE: Duration = Duration::from_secs(20);
/// `pools.connect_timeout` of these tests, and what it may take at most until a client has its error.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ERROR_WITHIN: Duration = Duration::from_secs(3);

/// A primary and its standby.
struct Pair {
    primary: Cluster,
    standby: Cluster,
}

impl Pair {
    fn start() -> Self {
        let options = |name| Options { name, connections_max: 50, ..Options::default() };
        let primary = Cluster::start(&options("pg-eu-a")).unwrap_or_else(|error| panic!("{error}"));
        let create = "CREATE ROLE reader LOGIN PASSWORD 'reader'; CREATE ROLE reporter LOGIN PASSWORD 'reporter'";
        for sql in ["CREATE DATABASE demo", create] {
            primary.execute("postgres", sql).unwrap_or_else(|error| panic!("{error}"));
        }
        let granted = "CREATE TABLE notes (text text); GRANT ALL ON notes TO PUBLIC";
        primary.execute("demo", granted).unwrap_or_else(|error| panic!("{error}"));
        let standby = Cluster::start_standby(&options("pg-eu-b"), &primary).unwrap_or_else(|error| panic!("{error}"));
        Self { primary, standby }
    }

    /// Three users: `postgres` writes, `reader` reads from standbys only, `reporter` rather from standbys. Both nodes have the role
    /// that `roles` says; elsewhere is the server of the other region, which none of them may reach.
    fn configuration(&self, roles: [&str; 2], elsewhere: &Cluster) -> Configuration {
        let mut configuration = Configuration::new(&[("us-east", "pg-us-east", elsewhere.address())]);
        configuration.users = ["postgres", "reader", "reporter"].map(|user| (user.to_owned(), user.to_owned())).into();
        configuration.residency = "unbound = \"block\"\n".to_owned();
        configuration.pools = "size = 5\nconnect_timeout = \"10s\"\nprobe_interval = \"1s\"\n".to_owned();
        let node = |(cluster, role): (&Cluster, &str)| {
            format!(
                "[[nodes]]\nname = \"{}\"\nregion = \"eu-west\"\naddress = \"{}\"\nrole = \"{role}\"\n",
                cluster.name(),
                cluster.address()
            )
        };
        let bind = |(user, wanted): (&str, &str)| {
            format!(
                "[[residency.bind]]\nuser = \"{user}\"\nregions = [\"eu-west\", \"us-east\"]\ntarget_session_attrs = \"{wanted}\"\n"
            )
        };
        let nodes = [(&self.primary, roles[0]), (&self.standby, roles[1])].map(node).concat();
        let binds = [("postgres", "read-write"), ("reader", "read-only"), ("reporter", "prefer-standby")].map(bind).concat();
        configuration.more = format!("[regions.eu-west]\n{nodes}{binds}[admin]\nusers = [\"postgres\"]\n");
        configuration
    }
}

fn login(proxy: &Proxy, user: &str) -> Client {
    let login = Login { user, password: user, ..Login::default() };
    proxy.login(&login).unwrap_or_else(|said| panic!("{user}: {said}"))
}

/// The server that answers, whether it is a standby; or the SQLSTATE of the error. The marker stands in the servers' logs.
fn served_by(client: &mut Client) -> String {
    let said = client.query("SELECT current_setting('cluster_name') || ' ' || pg_is_in_recovery() AS residents_of_europe");
    said.value().unwrap_or_else(|| said.replies().to_string())
}

/// A session that was served by a server that died is ended with it, so it logs in again then.
#[track_caller]
fn wait_until_served_by(client: &mut Client, expected: &str, proxy: &Proxy, again: impl Fn() -> Client) {
    let mut last = String::new();
    let found = wait_for(PATIENCE, || {
        last = served_by(client);
        if last.ends_with("closed") {
            *client = again();
        }
        last.starts_with(expected).then_some(())
    });
    assert!(found.is_some(), "{last}, not {expected}: {}", tail(&proxy.log()));
}

/// Nobody of these tests was ever served by the other region.
#[track_caller]
fn nothing_reached(elsewhere: &Cluster) {
    let reached: Vec<String> =
        elsewhere.statements().into_iter().filter(|statement| statement.contains("residents_of_europe")).collect();
    assert!(reached.is_empty(), "{reached:?}");
}

#[test]
fn reads_go_to_a_standby_where_the_rule_says_so_and_never_out_of_the_region() {
    let Some(World { us, .. }) = world() else { return };
    let mut pair = Pair::start();
    let proxy = start(&pair.configuration(["primary", "replica"], us));
    let [mut writer, mut reader, mut reporter] = ["postgres", "reader", "reporter"].map(|user| login(&proxy, user));
    assert_eq!(served_by(&mut writer), "pg-eu-a false");
    assert_eq!(served_by(&mut reader), "pg-eu-b true");
    assert_eq!(served_by(&mut reporter), "pg-eu-b true");
    assert_eq!(writer.query("INSERT INTO notes VALUES ('written')").replies().to_string(), "C INSERT 0 1 / Z I");
    let refused = reader.query("INSERT INTO notes VALUES ('not written')").sqlstate();
    assert_eq!(refused, "25006");

    // The standby dies: who only wants standbys has an error, who prefers them the primary.
    pair.standby.kill();
    wait_until_served_by(&mut reader, "E 08006", &proxy, || login(&proxy, "reader"));
    wait_until_served_by(&mut reporter, "pg-eu-a false", &proxy, || login(&proxy, "reporter"));
    assert_eq!(served_by(&mut writer), "pg-eu-a false");
    let begun = now();
    let error = served_by(&mut reader);
    assert!(error.starts_with("E 08006 node \"pg-eu-b\" of region \"eu-west\""), "{error}");
    assert!(begun.elapsed() < ERROR_WITHIN, "{:?}", begun.elapsed());

    // Operators see it.
    let (_, metrics) = proxy.http("/metrics").expect("/metrics");
    for sample in [
        "domicile_node_up{node=\"pg-eu-a\",region=\"eu-west\"} 1",
        "domicile_node_up{node=\"pg-eu-b\",region=\"eu-west\"} 0",
        "domicile_node_role{node=\"pg-eu-b\",region=\"eu-west\",role=\"standby\"} 1",
        "domicile_node_error{node=\"pg-eu-b\",region=\"eu-west\",error=\"refused\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{sample} is not in {metrics}");
    }
    let mut console = proxy.login(&Login { database: "pgbouncer", ..Login::default() }).unwrap_or_else(|said| panic!("{said}"));
    let nodes = console.query("SHOW NODES");
    let row = nodes.rows().into_iter().find(|row| row[0] == "pg-eu-b").unwrap_or_else(|| panic!("{nodes}"));
    assert_eq!(row[row.len() - 2..], ["standby", "node \"pg-eu-b\" refused the connection"], "{nodes}");

    // It comes back.
    pair.standby.start_again().unwrap_or_else(|error| panic!("{error}"));
    wait_until_served_by(&mut reader, "pg-eu-b true", &proxy, || login(&proxy, "reader"));
    // And what stood in for it is left.
    wait_until_served_by(&mut reporter, "pg-eu-b true", &proxy, || login(&proxy, "reporter"));
    nothing_reached(us);
}

#[test]
fn a_standby_that_is_promoted_takes_the_writes() {
    let Some(World { us, .. }) = world() else { return };
    let mut pair = Pair::start();
    let proxy = start(&pair.configuration(["primary", "replica"], us));
    let [mut writer, mut reader] = ["postgres", "reader"].map(|user| login(&proxy, user));
    assert_eq!(served_by(&mut writer), "pg-eu-a false");
    assert_eq!(served_by(&mut reader), "pg-eu-b true");
    pair.primary.kill();
    // A standby is no place for writes, whatever has happened to the primary.
    wait_until_served_by(&mut writer, "E 08006", &proxy, || login(&proxy, "postgres"));
    assert_eq!(pair.standby.value("postgres", "SELECT pg_promote()"), "t");
    wait_until_served_by(&mut writer, "pg-eu-b false", &proxy, || login(&proxy, "postgres"));
    assert_eq!(writer.query("INSERT INTO notes VALUES ('written')").replies().to_string(), "C INSERT 0 1 / Z I");
    nothing_reached(us);
}

#[test]
fn the_server_says_what_it_is_and_not_the_configuration() {
    let Some(World { us, .. }) = world() else { return };
    let pair = Pair::start();
    // Both wrong.
    let proxy = start(&pair.configuration(["replica", "primary"], us));
    let [mut writer, mut reader] = ["postgres", "reader"].map(|user| login(&proxy, user));
    assert_eq!(served_by(&mut writer), "pg-eu-a false");
    assert_eq!(served_by(&mut reader), "pg-eu-b true");
    nothing_reached(us);
}

/// A region whose only node is at `address`, beside the European server, whose users must notice nothing of it.
fn beside(world: &World, address: SocketAddr) -> Configuration {
    let mut configuration = world.configuration();
    configuration.nodes.push(("lost".to_owned(), "pg-lost".to_owned(), address.to_string()));
    configuration.pools = "size = 5\nconnect_timeout = \"2s\"\nprobe_interval = \"1s\"\n".to_owned();
    configuration
}

fn client_in(proxy: &Proxy, region: &str) -> Client {
    let login = Login { parameters: &[("domicile.region", region)], ..Login::default() };
    proxy.login(&login).unwrap_or_else(|said| panic!("{region}: {said}"))
}

/// Sixteen clients of the lost region, each several times: all get 08006 in time. Meanwhile the other region serves, and quickly.
fn the_lost_region_disturbs_nobody(proxy: &Proxy) {
    let others = |goes_on: &dyn Fn() -> bool| {
        let mut client = client_in(proxy, "eu-west");
        let (mut count, mut longest) = (0, Duration::ZERO);
        while goes_on() {
            let begun = now();
            // In a transaction each: another connection may have to be opened at any time.
            assert_eq!(client.query("SELECT 1").replies().to_string(), "T ?column? / D 1 / C SELECT 1 / Z I");
            longest = longest.max(begun.elapsed());
            count += 1;
        }
        (count, longest)
    };
    let suffer = || {
        thread::scope(|scope| {
            let client = |_| {
                scope.spawn(|| {
                    let mut client = client_in(proxy, "lost");
                    for _ in 0..4 {
                        let begun = now();
                        let said = client.query("SELECT 1").replies().to_string();
                        assert!(said.starts_with("E 08006 node \"pg-lost\" of region \"lost\""), "{said}");
                        assert!(begun.elapsed() < ERROR_WITHIN, "{:?}", begun.elapsed());
                        thread::sleep(Duration::from_millis(100));
                    }
                })
            };
            let clients: Vec<_> = (0..16).map(client).collect();
            clients.into_iter().for_each(|client| client.join().expect("a client of the lost region"));
        });
    };
    let ((count, longest), ()) = while_running(others, suffer);
    assert!(count > 100 && longest < CONNECT_TIMEOUT, "{count} queries, the longest took {longest:?}");
}

#[test]
fn a_region_whose_port_is_closed_disturbs_nobody_and_comes_back() {
    let Some(world) = world() else { return };
    let port = free_port();
    let proxy = start(&beside(world, SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    the_lost_region_disturbs_nobody(&proxy);
    let mut client = client_in(&proxy, "lost");
    let options = Options { name: "pg-lost", port: Some(port), connections_max: 20, ..Options::default() };
    let cluster = Cluster::start(&options).unwrap_or_else(|error| panic!("{error}"));
    cluster.execute("postgres", "CREATE DATABASE demo").unwrap_or_else(|error| panic!("{error}"));
    wait_until_served_by(&mut client, "pg-lost false", &proxy, || client_in(&proxy, "lost"));
}

#[test]
fn a_server_that_hangs_disturbs_nobody_and_comes_back() {
    let Some(world) = world() else { return };
    let cluster = Cluster::start(&Options { name: "pg-lost", connections_max: 50, ..Options::default() })
        .unwrap_or_else(|error| panic!("{error}"));
    cluster.execute("postgres", "CREATE DATABASE demo").unwrap_or_else(|error| panic!("{error}"));
    let proxy = start(&beside(world, cluster.address()));
    // The kernel goes on taking connections for it, and nobody answers them.
    cluster.signal(Signal::STOP);
    the_lost_region_disturbs_nobody(&proxy);
    let changes = proxy.log().lines().filter(|line| line.contains("node is ") && line.contains("pg-lost")).count();
    assert!(changes <= 2, "its state is told when it changes: {}", tail(&proxy.log()));
    cluster.signal(Signal::CONT);
    let mut client = client_in(&proxy, "lost");
    wait_until_served_by(&mut client, "pg-lost false", &proxy, || client_in(&proxy, "lost"));
}

/// A port that swallows what asks to be let in: the queue of its listener is full, so the kernel drops every SYN.
struct BlackHole {
    address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    fn dig() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        rustix::net::listen(&listener, 0).expect("a shorter queue");
        let address = listener.local_addr().expect("its address");
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
        let queue: Vec<TcpStream> = std::iter::from_fn(connect).take(16).collect();
        assert!(queue.len() < 16, "the queue never fills");
        Self { address, _listener: listener, _queue: queue }
    }
}

#[test]
fn a_region_that_is_silent_is_given_up_at_the_connect_timeout() {
    let Some(world) = world() else { return };
    let hole = BlackHole::dig();
    let configuration = beside(world, hole.address);
    let proxy = start(&Configuration {
        pools: configuration.pools.replace("probe_interval = \"1s\"", "probe_interval = 0"),
        ..configuration
    });
    // The first one waits for its own timeout.
    let mut client = client_in(&proxy, "lost");
    let begun = now();
    let said = client.query("SELECT 1").replies().to_string();
    assert!(said.contains("did not answer in time"), "{said}");
    assert!((CONNECT_TIMEOUT..ERROR_WITHIN).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    the_lost_region_disturbs_nobody(&proxy);
}
