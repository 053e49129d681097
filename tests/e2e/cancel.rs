//! Ctrl-C: what a session is doing is cancelled, wherever it is done, and nobody else's work.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::message;
use domicile_tests::process::wait_for;
use domicile_tests::program;
use domicile_tests::proxy::{Configuration, Proxy};
use rustix::process::Signal;

use crate::world::{World, start, world};

const PATIENCE: Duration = Duration::from_secs(10);

/// All users are served by the European server without having to say so.
fn european(world: &World, pool_mode: &'static str, pools: &str) -> Configuration {
    Configuration { pool_mode, pools: format!("{pools}\n"), ..world.residency("unbound = \"eu-west\"") }
}

/// Shows a key, and waits for the end of the connection as libpq does.
fn cancel(address: SocketAddr, (process_id, secret): &(u32, Vec<u8>)) {
    let mut stream = TcpStream::connect(address).expect("a connection for the request");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    std::io::Write::write_all(&mut stream, &message::cancel_request(*process_id, secret)).expect("room for the request");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("the end of the connection");
    assert!(said.is_empty(), "a request is never answered");
}

fn login(proxy: &Proxy) -> (Client, (u32, Vec<u8>)) {
    let client = proxy.login(&Login::default()).expect("a session");
    let key = client.cancel_key().expect("a key");
    (client, key)
}

/// Whether a server is running a statement with this text now.
fn is_running(world: &World, text: &str) -> bool {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{text}'");
    world.eu.value("demo", &sql) != "0"
}

fn metric(proxy: &Proxy, outcome: &str) -> u64 {
    let (_, text) = proxy.http("/metrics").expect("metrics");
    let name = format!("domicile_cancels_total{{outcome=\"{outcome}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect(&name)
}

#[test]
fn a_statement_is_cancelled_and_the_session_goes_on() {
    let Some(world) = world() else { return };
    for mode in ["transaction", "session"] {
        let proxy = start(&european(world, mode, "size = 10"));
        // Several, so that both workers have some.
        for session in 0..8 {
            let (mut client, key) = login(&proxy);
            let text = format!("SELECT pg_sleep(60), {session}, 1");
            client.send(&message::query(&text));
            wait_for(PATIENCE, || is_running(world, &text).then_some(())).expect("the statement runs");
            let wrong = (key.0, key.1.iter().map(|byte| byte ^ 1).collect());
            cancel(proxy.address(), &wrong);
            assert!(is_running(world, &text), "another secret is no key");
            cancel(proxy.address(), &key);
            let said = client.until_ready();
            assert_eq!((said.sqlstate().as_str(), said.status()), ("57014", 'I'), "{said:?}");
            assert_eq!(client.query("SELECT 1").value().as_deref(), Some("1"));
        }
        assert_eq!((metric(&proxy, "sent"), metric(&proxy, "unknown")), (8, 8));
    }
}

#[test]
fn a_pipeline_in_a_transaction_is_cancelled_up_to_its_sync() {
    let Some(world) = world() else { return };
    let proxy = start(&european(world, "transaction", "size = 2"));
    let (mut client, key) = login(&proxy);
    assert_eq!(client.query("BEGIN").status(), 'T');
    client.send(&[message::prepared("", "SELECT pg_sleep(60), 2"), message::prepared("", "SELECT 3"), message::sync()].concat());
    wait_for(PATIENCE, || is_running(world, "SELECT pg_sleep(60), 2").then_some(())).expect("the statement runs");
    cancel(proxy.address(), &key);
    let said = client.until_ready();
    assert_eq!((said.sqlstate().as_str(), said.status()), ("57014", 'E'), "{said:?}");
    assert_eq!(client.query("ROLLBACK").status(), 'I');
}

#[test]
fn a_session_that_waits_for_a_backend_is_cancelled_too() {
    let Some(world) = world() else { return };
    let proxy = start(&european(world, "transaction", "size = 1"));
    let (mut holder, holders_key) = login(&proxy);
    assert_eq!(holder.query("BEGIN; SELECT 1").status(), 'T');
    let (mut waiter, key) = login(&proxy);
    for _ in 0..3 {
        waiter.send(&message::query("SELECT 2"));
        let waits = || {
            let (_, text) = proxy.http("/metrics").ok()?;
            text.lines().any(|line| line == "domicile_sessions_waiting 1").then_some(())
        };
        wait_for(PATIENCE, waits).expect("it waits");
        cancel(proxy.address(), &key);
        let said = waiter.until_ready();
        assert_eq!((said.sqlstate().as_str(), said.status()), ("57014", 'I'), "{said:?}");
    }
    // The pool is exhausted, and the one who has its backend can be cancelled.
    holder.send(&message::query("SELECT pg_sleep(60), 4"));
    wait_for(PATIENCE, || is_running(world, "SELECT pg_sleep(60), 4").then_some(())).expect("the statement runs");
    cancel(proxy.address(), &holders_key);
    assert_eq!(holder.until_ready().sqlstate(), "57014");
    assert_eq!(holder.query("ROLLBACK").status(), 'I');
    assert_eq!(waiter.query("SELECT 5").value().as_deref(), Some("5"));
}

#[test]
fn a_late_request_never_meets_the_next_user_of_the_backend() {
    let Some(world) = world() else { return };
    let proxy = start(&european(world, "transaction", "size = 1"));
    let (mut victim, _) = login(&proxy);
    let (mut other, key) = login(&proxy);
    let address = proxy.address();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let canceller = thread::spawn(move || {
        let mut sent = 0;
        while stopped.try_recv().is_err() {
            cancel(address, &key);
            sent += 1;
        }
        sent
    });
    let cancelled = thread::spawn(move || {
        let mut cancelled = 0;
        for _ in 0..400 {
            let said = other.query("SELECT pg_sleep(0.002)");
            match said.sqlstate().as_str() {
                "57014" => cancelled += 1,
                _ => assert!(said.error().is_none(), "{said:?}"),
            }
        }
        cancelled
    });
    for number in 0..400 {
        let said = victim.query(&format!("SELECT pg_sleep(0.002), {number}"));
        assert!(said.error().is_none(), "statement {number} of a session that nobody cancels: {said:?}");
    }
    let cancelled: u32 = cancelled.join().expect("the other session");
    stop.send(()).expect("the canceller");
    let sent: u32 = canceller.join().expect("the canceller");
    assert!(cancelled > 20 && sent > 100, "{cancelled} of 400 statements were cancelled by {sent} requests");
}

#[test]
fn a_key_that_nobody_has_costs_no_connection() {
    let Some(world) = world() else { return };
    let proxy = start(&european(world, "transaction", "size = 1"));
    let (mut client, (process_id, secret)) = login(&proxy);
    assert_eq!(client.query("SELECT 1").value().as_deref(), Some("1"));
    for process_id in [0, 1, 4711, process_id, process_id ^ 1, process_id ^ 1 << 24, u32::MAX] {
        for secret in [&b"four"[..], &[7; 32], &[7; 256], &secret[..3]] {
            cancel(proxy.address(), &(process_id, secret.to_vec()));
        }
    }
    assert_eq!((metric(&proxy, "sent"), metric(&proxy, "unknown")), (0, 28));
    // And the right one finds nothing to cancel.
    cancel(proxy.address(), &(process_id, secret));
    assert_eq!((metric(&proxy, "sent"), metric(&proxy, "dropped")), (0, 1));
}

#[test]
fn in_session_mode_the_process_is_the_servers() {
    let Some(world) = world() else { return };
    let proxy = start(&european(world, "session", "size = 4"));
    for _ in 0..4 {
        let (mut client, (process_id, _)) = login(&proxy);
        assert_eq!(client.query("SELECT pg_backend_pid()").value(), Some(process_id.to_string()));
        let version = client.greeting.parameter("server_version");
        assert_eq!(client.query("SHOW server_version").value(), version);
        client.query("LISTEN here");
        client.send(&message::query("NOTIFY here"));
        let said = client.until(|message| message.tag == b'A');
        let notification = said.messages.last().expect("a notification");
        assert_eq!(notification.body.get(..4), Some(&process_id.to_be_bytes()[..]));
    }
}

#[test]
fn a_client_of_protocol_3_2_cancels_with_its_long_key() {
    let Some(world) = world() else { return };
    let proxy = start(&european(world, "transaction", "size = 2"));
    let mut client = Client::connect(proxy.address()).expect("a connection");
    let login = Login::default();
    client.send(&message::startup(3 << 16 | 2, &[("user", login.user), ("database", login.database)]));
    client.authenticate(&login).expect("a session");
    let key = client.cancel_key().expect("a key");
    assert_eq!(key.1.len(), 32);
    client.send(&message::query("SELECT pg_sleep(60), 6"));
    wait_for(PATIENCE, || is_running(world, "SELECT pg_sleep(60), 6").then_some(())).expect("the statement runs");
    cancel(proxy.address(), &(key.0, key.1[..4].to_vec()));
    assert!(is_running(world, "SELECT pg_sleep(60), 6"));
    cancel(proxy.address(), &key);
    assert_eq!(client.until_ready().sqlstate(), "57014");
}

#[test]
fn ctrl_c_in_psql() {
    let Some(world) = world() else { return };
    let Some(psql) = domicile_tests::skip::available(program::need("psql")) else { return };
    let proxy = start(&european(world, "transaction", "size = 2"));
    let address = proxy.address();
    let mut command = program::command(&psql);
    let target = format!("host={} port={} user=postgres password=postgres dbname=demo", address.ip(), address.port());
    let sleeps = ["-X", "-c", "SELECT pg_sleep(60), 7", "-c", "SELECT 'went on'"];
    command.arg(target).args(sleeps).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("psql starts");
    wait_for(PATIENCE, || is_running(world, "SELECT pg_sleep(60), 7").then_some(())).expect("the statement runs");
    domicile_tests::process::signal_process(child.id(), Signal::INT);
    let said = program::both(&child.wait_with_output().expect("psql ends"));
    assert!(said.contains("canceling statement due to user request"), "{said}");
}
