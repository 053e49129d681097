//! Many clients over few backends: no errors, no growth, and what breaks breaks for one client only.

use std::thread;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::demo::{self, HOMES};
use domicile_tests::process::wait_for;
use domicile_tests::proxy::{Configuration, Proxy};
use rustix::process::Signal;

use crate::world::{World, application, pgbench, start, while_running, world};

/// A configuration where all users are served by the European server without having to say so.
fn european(world: &World, pool_mode: &'static str, pools: &str) -> Configuration {
    Configuration { pool_mode, pools: format!("{pools}\n"), ..world.residency("unbound = \"eu-west\"") }
}

#[test]
fn pgbench_in_every_protocol() {
    let Some(world) = world() else { return };
    if world.pgbench().is_none() {
        return;
    }
    for (mode, size) in [("session", "size = 64"), ("transaction", "size = 8")] {
        let proxy = start(&european(world, mode, size));
        for protocol in ["simple", "extended", "prepared"] {
            pgbench(&proxy, &["--protocol", protocol, "--client=64", "--time=3"]);
        }
    }
}

/// The high-water mark of resident memory is compared between rounds of the same work, each with logins of all clients anew: the first
/// brings what so many clients need, and those after it nothing more. How fast the machine is does not matter. The rings of receive
/// buffers are small here, because their memory counts as resident only once bytes have come into it.
#[test]
fn five_hundred_clients_over_ten_backends() {
    let Some(world) = world() else { return };
    if world.pgbench().is_none() {
        return;
    }
    let more = "[engine]\nreceive_buffers = 64\n".to_owned();
    let proxy = start(&Configuration { more, ..european(world, "transaction", "size = 10") });
    let backends = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'", application(&proxy));
    let watch = |goes_on: &dyn Fn() -> bool| {
        let mut observer = world.eu.connect("demo").expect("a connection to the server");
        let mut backends_max = 0;
        while goes_on() {
            let count = observer.query(&backends).value().and_then(|count| count.parse().ok()).unwrap_or(0);
            backends_max = backends_max.max(count);
            thread::sleep(Duration::from_millis(250));
        }
        backends_max
    };
    let rounds = || {
        [(); 4].map(|()| {
            for protocol in ["simple", "extended", "prepared"] {
                pgbench(&proxy, &["--protocol", protocol, "--client=500", "--transactions=30"]);
            }
            proxy.memory_peak_kib()
        })
    };
    let (backends_max, peaks) = while_running(watch, rounds);
    assert!((1..=10).contains(&backends_max), "{backends_max} backends");
    let [first, .., last] = peaks;
    assert!(last - first <= 2 << 10, "the most resident memory after each round, in KiB: {peaks:?}");
}

#[test]
fn a_session_that_waits_too_long_is_told() {
    let Some(world) = world() else { return };
    let proxy = start(&european(world, "transaction", "size = 1\nwait_timeout = \"1s\""));
    let mut first = proxy.connect();
    let mut second = proxy.connect();
    assert_eq!(first.query("BEGIN; SELECT 1").status(), 'T');
    let said = second.query("SELECT 2").replies();
    assert_eq!((said.sqlstate().as_str(), said.status()), ("53300", 'I'), "{said}");
    first.query("COMMIT");
    assert_eq!(second.query("SELECT 2").replies().to_string(), "T ?column? / D 2 / C SELECT 1 / Z I");
}

/// The kernel spreads clients over the workers, and each worker has its own share of a pool: the only backend must reach them all.
#[test]
fn an_idle_backend_serves_the_clients_of_every_worker() {
    let Some(world) = world() else { return };
    for mode in ["transaction", "session"] {
        let proxy = start(&european(world, mode, "size = 1\nwait_timeout = \"2s\""));
        let mut still_there = Vec::new();
        for number in 0..12 {
            let mut client = proxy.connect();
            let said = client.query("SELECT 1").replies();
            assert_eq!(said.to_string(), "T ?column? / D 1 / C SELECT 1 / Z I", "client {number} in {mode} mode");
            // In session mode the backend is the client's until it leaves.
            if mode == "transaction" {
                still_there.push(client);
            }
        }
    }
}

#[test]
fn nothing_of_one_session_is_left_for_the_next() {
    let Some(world) = world() else { return };
    let proxy = start(&european(world, "session", "size = 1"));
    let mut first = proxy.connect();
    for text in [
        "SET work_mem = '77MB'",
        "PREPARE left_behind AS SELECT 1",
        "CREATE TEMPORARY TABLE left_behind (a int)",
        "SELECT pg_advisory_lock(77)",
        "LISTEN left_behind",
        "DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1",
    ] {
        let said = first.query(text);
        assert!(said.error().is_none(), "{text}: {said}");
    }
    let process = first.query("SELECT pg_backend_pid()").value();
    drop(first);
    let mut second = proxy.connect();
    let left = "SELECT pg_backend_pid(), current_setting('work_mem') = '77MB',
        (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_class WHERE relname = 'left_behind'),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND pid = pg_backend_pid()),
        (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors WHERE name = 'left_behind')";
    let said = second.query(left).replies();
    let row = said.rows().pop().unwrap_or_else(|| panic!("{said}"));
    assert_eq!(row[1..], ["f", "0", "0", "0", "0", "0"], "{row:?}, before {process:?}");
}

#[test]
fn a_client_that_leaves_in_a_transaction_leaves_nothing_open() {
    let Some(world) = world() else { return };
    let proxy = start(&european(world, "transaction", "size = 1"));
    let mut first = proxy.connect();
    assert_eq!(first.query("BEGIN; SELECT pg_advisory_xact_lock(78)").status(), 'T');
    drop(first);
    let mut second = proxy.connect();
    assert_eq!(second.query("SELECT 1").replies().to_string(), "T ?column? / D 1 / C SELECT 1 / Z I");
    let free = wait_for(Duration::from_secs(5), || {
        let held = world.eu.value("demo", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 78");
        (held == "0").then_some(())
    });
    assert!(free.is_some(), "the lock of a client that has left is still held");
}

/// Starts a statement that takes long and returns its client and the server process that runs it.
fn long_statement(proxy: &Proxy) -> (Client, u32) {
    let mut client = proxy.connect();
    let process = client.query("BEGIN; SELECT pg_backend_pid()").value().and_then(|process| process.parse().ok());
    client.send(&domicile_tests::message::query("SELECT pg_sleep(60)"));
    (client, process.expect("a process id"))
}

#[test]
fn a_terminated_backend_is_one_clients_error() {
    let Some(world) = world() else { return };
    let proxy = start(&european(world, "transaction", "size = 10"));
    let mut others: Vec<Client> = (0..4).map(|_| proxy.connect()).collect();
    others.iter_mut().for_each(|client| drop(client.query("BEGIN; SELECT 1")));
    let (mut victim, process) = long_statement(&proxy);
    world.eu.execute("demo", &format!("SELECT pg_terminate_backend({process})")).expect("the backend is terminated");
    let said = victim.until(|_| false).replies();
    assert_eq!(said.sqlstate(), "57P01", "{said}");
    for client in &mut others {
        let said = client.query("SELECT 1; COMMIT").replies();
        assert_eq!(said.to_string(), "T ?column? / D 1 / C SELECT 1 / C COMMIT / Z I");
    }
    assert_eq!(proxy.connect().query("SELECT 1").status(), 'I');
}

/// `kill -9` of one server process makes PostgreSQL close all of its connections and start anew: so these servers are the
/// test's own.
#[test]
fn a_killed_backend_is_one_clients_error_and_the_region_recovers() {
    let Some(_) = world() else { return };
    let [eu, us] = HOMES.map(|home| demo::start(&home, None, 50).unwrap_or_else(|error| panic!("{error}")));
    let nodes = [("eu-west", "pg-eu-west", eu.address()), ("us-east", "pg-us-east", us.address())];
    let proxy = start(&Configuration::new(&nodes));
    let in_region = |region: &str| {
        let login = Login { parameters: &[("helios.region", region)], ..Login::default() };
        proxy.login(&login).unwrap_or_else(|said| panic!("{said}"))
    };
    let mut idle = in_region("eu-west");
    assert_eq!(idle.query("SELECT 1").status(), 'I');
    let mut elsewhere = in_region("us-east");
    assert_eq!(elsewhere.query("BEGIN; SELECT 1").status(), 'T');

    let mut victim = in_region("eu-west");
    let process = victim.query("SELECT pg_backend_pid(); ").value().and_then(|process| process.parse().ok());
    victim.send(&domicile_tests::message::query("SELECT pg_sleep(60)"));
    thread::sleep(Duration::from_millis(300));
    eu.signal_backend(process.expect("a process id"), Signal::KILL);
    let said = victim.until(|message| matches!(message.tag, b'Z')).replies();
    assert!(!said.sqlstate().is_empty(), "a client whose backend was killed is told so: {said}");

    assert_eq!(elsewhere.query("SELECT 1; COMMIT").replies().to_string(), "T ?column? / D 1 / C SELECT 1 / C COMMIT / Z I");
    let recovered = wait_for(Duration::from_secs(20), || {
        let said = idle.query("SELECT 1").replies();
        (said.error().is_none()).then_some(said.to_string())
    });
    assert_eq!(recovered.as_deref(), Some("T ?column? / D 1 / C SELECT 1 / Z I"));
}
