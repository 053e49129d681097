//! A worker that panics takes its own sessions along and nothing else: another one is in its place at once.

use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::intruder;
use domicile_tests::process::{now, wait_for};
use domicile_tests::proxy::{Configuration, Proxy};

use crate::world::{tail, world};

const PATIENCE: Duration = Duration::from_secs(10);

/// The worker of a session in transaction mode, as its key tells (ARCHITECTURE.md, "A cancel key names a session").
fn worker_of(client: &Client) -> u32 {
    client.cancel_key().expect("a key").0 >> 24 & 0x3f
}

/// Logs in until the session is on this worker.
fn on_worker(proxy: &Proxy, worker: u32) -> Client {
    wait_for(PATIENCE, || proxy.login(&Login::default()).ok().filter(|client| worker_of(client) == worker))
        .unwrap_or_else(|| panic!("no session is on worker {worker}: {}", tail(&proxy.log())))
}

/// Has the worker of this client panic.
fn panic_by(mut client: Client) {
    client.set_patience(PATIENCE);
    client.send(&domicile_tests::message::query("SELECT 'domicile_panic'"));
    assert_eq!(client.until(|_| false).to_string(), "closed");
}

fn metric(proxy: &Proxy, name: &str) -> u64 {
    let (_, text) = proxy.http("/metrics").expect("metrics");
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).expect(name)
}

fn start(configuration: &Configuration) -> Proxy {
    let program = intruder::panicking().unwrap_or_else(|error| panic!("{error}"));
    Proxy::start_program(&program, configuration).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_worker_that_panics_is_replaced_and_the_others_go_on() {
    let Some(world) = world() else { return };
    let mut configuration = Configuration { pools: "size = 2\n".to_owned(), ..world.residency("unbound = \"eu-west\"") };
    configuration.more = "[limits]\nmax_clients = 12\n[admin]\nusers = [\"postgres\"]\n".to_owned();
    let proxy = start(&configuration);
    let mut other = on_worker(&proxy, 1);
    other.query("BEGIN");
    let process = other.query("SELECT pg_backend_pid()").value().expect("a process");
    let mut lost = on_worker(&proxy, 0);
    lost.query("BEGIN; SELECT 1");
    let before = proxy.descriptors();
    for round in 1..=3 {
        panic_by(on_worker(&proxy, 0));
        // The address answers at once, and both workers take clients.
        let since = now();
        let served = proxy.connect();
        drop(served);
        let mut next = on_worker(&proxy, 0);
        assert!(now().duration_since(since) < Duration::from_secs(1), "{:?}", now().duration_since(since));
        // The pool has two backends: the other worker has one, and the one that was lost can be had again.
        assert_eq!(next.query("BEGIN; SELECT 1").status(), 'T', "round {round}");
        next.query("ROLLBACK");
        assert_eq!(other.query("SELECT pg_backend_pid()").value().as_ref(), Some(&process), "round {round}");
        assert_eq!(metric(&proxy, "domicile_worker_restarts_total"), round);
    }
    assert_eq!(lost.until(|_| false).to_string(), "closed");
    assert_eq!(other.query("COMMIT").status(), 'I');
    // Clients that were lost are not counted any more: there is room for as many as there may be.
    let is_alone = || (metric(&proxy, "domicile_sessions") == 1).then_some(());
    wait_for(PATIENCE, is_alone).expect("the sessions are counted anew");
    let many: Vec<Client> = (0..11).map(|_| proxy.connect()).collect();
    assert_eq!(proxy.login(&Login::default()).err().map(|said| said.sqlstate()).as_deref(), Some("53300"));
    drop(many);
    let fewer = || (proxy.descriptors() <= before + 4).then_some(());
    assert!(wait_for(PATIENCE, fewer).is_some(), "{} descriptors, {before} before", proxy.descriptors());
    let log = proxy.log();
    assert!(log.contains("a worker has broken down") && log.contains("a client has asked for it"), "{}", tail(&log));
}

#[test]
fn a_pause_and_a_reload_hold_for_the_worker_that_follows() {
    let Some(world) = world() else { return };
    let mut configuration = world.residency("unbound = \"eu-west\"");
    configuration.more = "[admin]\nusers = [\"postgres\"]\n".to_owned();
    let proxy = start(&configuration);
    let mut console = proxy.login(&Login { database: "pgbouncer", ..Login::default() }).expect("a console");
    configuration.more += "[limits]\nclient_idle_timeout = \"1s\"\n";
    proxy.configure(&configuration).expect("a configuration");
    assert!(console.query("RELOAD").error().is_none());
    assert!(console.query("PAUSE demo").error().is_none());
    panic_by(on_worker(&proxy, 0));
    let mut client = on_worker(&proxy, 0);
    client.set_patience(Duration::from_millis(300));
    client.send(&domicile_tests::message::query("SELECT 1"));
    assert_eq!(client.byte(), None, "the database is paused");
    assert!(console.query("RESUME demo").error().is_none());
    client.set_patience(PATIENCE);
    let said = client.until(|_| false).to_string();
    assert!(said.contains("C SELECT 1") && said.contains("57P05"), "{said}");
}

#[test]
fn workers_that_panic_again_and_again_end_the_process() {
    let Some(world) = world() else { return };
    let mut proxy = start(&world.residency("unbound = \"eu-west\""));
    for _ in 0..5 {
        panic_by(on_worker(&proxy, 1));
    }
    panic_by(on_worker(&proxy, 0));
    let status = proxy.wait(PATIENCE).expect("it ends");
    assert!(!status.success() && proxy.log().contains("6 workers have broken down within a minute"), "{}", tail(&proxy.log()));
}

#[test]
fn a_worker_that_panics_while_the_process_drains_is_not_waited_for() {
    let Some(world) = world() else { return };
    let mut proxy = start(&world.residency("unbound = \"eu-west\""));
    let mut client = on_worker(&proxy, 0);
    client.query("BEGIN; SELECT 1");
    proxy.signal(rustix::process::Signal::TERM);
    wait_for(PATIENCE, || proxy.log().contains("draining").then_some(())).expect("it drains");
    panic_by(client);
    assert!(proxy.wait(PATIENCE).expect("it ends").success(), "{}", tail(&proxy.log()));
}
