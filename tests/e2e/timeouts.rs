//! What takes too long is ended with PostgreSQL's codes and words, and what it held is free again.

use std::time::{Duration, Instant};

use domicile_tests::client::Client;
use domicile_tests::process::{now, wait_for};
use domicile_tests::proxy::{Configuration, Proxy};

use crate::world::{World, start, world};

const PATIENCE: Duration = Duration::from_secs(10);

fn limited(world: &World, limits: &str) -> Proxy {
    let more = format!("[limits]\n{limits}\n");
    start(&Configuration { more, ..world.residency("unbound = \"eu-west\"") })
}

/// What PostgreSQL itself says when one of its own timeouts is over.
fn by_postgresql(world: &World, setting: &str, said: impl Fn(&mut Client) -> String) -> String {
    let mut client = world.eu.connect("demo").expect("a connection");
    client.query(&format!("SET {setting} = '100ms'"));
    said(&mut client)
}

fn took(since: Instant, at_least: u64, at_most: u64) {
    let took = now().duration_since(since);
    assert!((Duration::from_millis(at_least)..Duration::from_millis(at_most)).contains(&took), "after {took:?}");
}

fn metric(proxy: &Proxy, timeout: &str) -> u64 {
    let (_, text) = proxy.http("/metrics").expect("metrics");
    let name = format!("domicile_timeouts_total{{timeout=\"{timeout}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect(&name)
}

fn is_running(world: &World, text: &str) -> bool {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND query = '{text}'");
    world.eu.value("demo", &sql) != "0"
}

#[test]
fn a_statement_that_takes_too_long_is_cancelled_at_its_server() {
    let Some(world) = world() else { return };
    let proxy = limited(world, "query_timeout = \"700ms\"");
    let expected = by_postgresql(world, "statement_timeout", |client| client.query("SELECT pg_sleep(5)").replies().to_string());
    let mut client = proxy.connect();
    for ask in [Client::query, Client::extended] {
        let (text, since) = ("SELECT pg_sleep(20), 'too long'", now());
        let said = ask(&mut client, text).replies().to_string();
        took(since, 700, 2500);
        assert!(said.ends_with(expected.trim_start_matches("T pg_sleep / ")), "{said} instead of {expected}");
        assert!(!is_running(world, &text.replace('\'', "''")));
        assert_eq!(client.query("SELECT 1").value().as_deref(), Some("1"));
    }
    assert_eq!(metric(&proxy, "query"), 2);
    // Many short ones are not one long one.
    client.query("BEGIN");
    for _ in 0..20 {
        assert_eq!(client.query("SELECT pg_sleep(0.1)").status(), 'T');
    }
    assert_eq!(client.query("COMMIT").status(), 'I');
    // A reload lets it go on for as long as it likes.
    let unlimited =
        Configuration { more: "[limits]\nquery_timeout = 0\n".to_owned(), ..world.residency("unbound = \"eu-west\"") };
    proxy.configure(&unlimited).expect("a configuration");
    proxy.signal(rustix::process::Signal::HUP);
    let is_reloaded = || proxy.log().contains("the configuration has been reloaded").then_some(());
    wait_for(PATIENCE, is_reloaded).expect("a reload");
    assert!(client.query("SELECT pg_sleep(1.5)").error().is_none());
}

#[test]
fn a_transaction_that_lasts_too_long_ends_with_its_session_and_its_statement() {
    let Some(world) = world() else { return };
    let proxy = limited(world, "transaction_timeout = \"900ms\"");
    let expected = "E FATAL 25P04 terminating connection due to transaction timeout / closed";
    let text = "SELECT pg_sleep(20), 'transaction'";
    let mut client = proxy.connect();
    client.query("BEGIN");
    let since = now();
    client.query("SELECT pg_sleep(0.5)");
    let said = client.query(text).to_string();
    took(since, 400, 2500);
    assert!(said.ends_with(expected), "{said}");
    let is_over = || (!is_running(world, &text.replace('\'', "''"))).then_some(());
    wait_for(Duration::from_secs(2), is_over).expect("the server stops too");
    let mut idle = proxy.connect();
    idle.query("BEGIN; SELECT 1");
    idle.set_patience(PATIENCE);
    assert_eq!(idle.until(|_| false).to_string(), expected);
    assert_eq!(metric(&proxy, "transaction"), 2);
    assert_eq!(proxy.connect().query("SELECT 1").value().as_deref(), Some("1"));
}

#[test]
fn a_session_in_which_nothing_happens_ends_as_postgresql_ends_it() {
    let Some(world) = world() else { return };
    let proxy = limited(world, "idle_in_transaction_timeout = \"800ms\"\nclient_idle_timeout = \"1500ms\"");
    for (setting, begin, label) in [
        ("idle_in_transaction_session_timeout", "BEGIN; SELECT 1", "idle_in_transaction"),
        ("idle_session_timeout", "SELECT 1", "client_idle"),
    ] {
        let goes_idle = |client: &mut Client| {
            client.set_patience(PATIENCE);
            client.query(begin);
            client.until(|_| false).to_string()
        };
        let expected = by_postgresql(world, setting, goes_idle);
        let mut client = proxy.connect();
        // Busy is not idle.
        assert!(client.query("SELECT pg_sleep(2)").error().is_none());
        let since = now();
        assert_eq!(goes_idle(&mut client), expected, "{setting}");
        took(since, 800, 3000);
        assert_eq!(metric(&proxy, label), 1);
    }
    let left =
        || (world.eu.value("demo", "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'") == "0").then_some(());
    wait_for(PATIENCE, left).expect("no transaction is left");
}
