//! SIGHUP and SIGTERM: a policy changes between two statements, never inside one, and nothing is dropped.

use std::fs;
use std::thread;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::process::wait_for;
use domicile_tests::proxy::{Configuration, Proxy};
use rustix::process::Signal;

use crate::world::{World, pgbench, start, tail, while_running, world};

const ALICE: Login<'_> = Login { user: "alice", password: "alice", database: "demo", parameters: &[] };
const PATIENCE: Duration = Duration::from_secs(5);

/// A configuration that grants `alice` these regions.
fn granting(world: &World, regions: &str) -> Configuration {
    let more = format!("[[residency.bind]]\nuser = \"alice\"\nregions = [{regions}]\n");
    Configuration { more, ..world.residency("unbound = \"client\"") }
}

fn alice(proxy: &Proxy) -> Client {
    proxy.login(&ALICE).unwrap_or_else(|said| panic!("alice is refused: {said}"))
}

fn reload(proxy: &Proxy, configuration: &Configuration) {
    proxy.configure(configuration).expect("the configuration file");
    proxy.signal(Signal::HUP);
}

/// Asks until the answer begins like this.
#[track_caller]
fn wait_for_answer(client: &mut Client, query: &str, expected: &str) {
    let mut last = String::new();
    let found = wait_for(PATIENCE, || {
        last = client.query(query).replies().to_string();
        last.starts_with(expected).then_some(())
    });
    assert!(found.is_some(), "{query}: {last}, not {expected}");
}

#[test]
fn a_storm_of_reloads_disturbs_no_query() {
    let Some(world) = world() else { return };
    if world.pgbench().is_none() {
        return;
    }
    let configuration = |regions: &str| {
        let more = format!("[[residency.bind]]\nuser = \"bench\"\nregions = [{regions}]\n");
        Configuration { more, ..world.residency("unbound = \"block\"") }
    };
    let [one, other] = ["\"eu-west\"", "\"eu-west\", \"us-east\""].map(configuration);
    let proxy = start(&one);
    let storm = |goes_on: &dyn Fn() -> bool| {
        let mut reloads = 0;
        while goes_on() {
            reload(&proxy, if reloads % 2 == 0 { &other } else { &one });
            reloads += 1;
            thread::sleep(Duration::from_millis(100));
        }
        reloads
    };
    // 8 × 12 500 = 100 000 queries.
    let queries = || pgbench(&proxy, &["--protocol=extended", "--client=8", "--transactions=12500"]);
    let (reloads, said) = while_running(storm, queries);
    assert!(said.contains("100000/100000"), "{said}");
    assert!(reloads > 10, "only {reloads} reloads in 100 000 queries");
}

#[test]
fn a_bad_file_is_refused_whole() {
    let Some(world) = world() else { return };
    let proxy = start(&granting(world, "\"eu-west\""));
    let mut client = alice(&proxy);
    // Another grant, and one word that is none.
    let bad = Configuration { pools: "size = \"many\"\n".to_owned(), ..granting(world, "\"us-east\"") };
    reload(&proxy, &bad);
    let refused = wait_for(PATIENCE, || proxy.log().contains("size").then_some(()));
    assert!(refused.is_some(), "the log does not name the mistake: {}", tail(&proxy.log()));
    let node = "SELECT current_setting('cluster_node')";
    wait_for_answer(&mut client, node, "T current_setting / D pg-eu-west");
    wait_for_answer(&mut alice(&proxy), node, "T current_setting / D pg-eu-west");
    fs::write(proxy.file(), "no TOML at all [").expect("the configuration file");
    proxy.signal(Signal::HUP);
    thread::sleep(Duration::from_millis(500));
    wait_for_answer(&mut client, node, "T current_setting / D pg-eu-west");
    // A good one is still taken.
    reload(&proxy, &granting(world, "\"us-east\""));
    wait_for_answer(&mut client, node, "E 42501 permission denied for region \"eu-west\"");
}

#[test]
fn a_session_whose_grant_shrank_is_denied_at_its_next_statement() {
    let Some(world) = world() else { return };
    let proxy = start(&granting(world, "\"eu-west\", \"us-east\""));
    let mut idle = alice(&proxy);
    let mut busy = alice(&proxy);
    assert_eq!(idle.query("SELECT 1").status(), 'I');
    assert_eq!(busy.query("BEGIN; SELECT 1").status(), 'T');
    reload(&proxy, &granting(world, "\"us-east\""));
    wait_for_answer(&mut idle, "SELECT 'after the reload'", "E 42501 permission denied for region \"eu-west\" / Z I");
    assert_eq!(idle.query("SET helios.region = 'us-east'").replies().to_string(), "C SET / Z I");
    let node = idle.query("SELECT current_setting('cluster_node')").replies().to_string();
    assert_eq!(node, "T current_setting / D pg-us-east / C SELECT 1 / Z I");
    // COMMIT is a statement: what was done in the lost region must not become durable. Only ROLLBACK is let through.
    let said = busy.query("COMMIT").replies().to_string();
    assert_eq!(said, "E 42501 permission denied for region \"eu-west\" / Z E");
    assert_eq!(busy.query("ROLLBACK").replies().to_string(), "C ROLLBACK / Z I");
    // Nobody comes back in by logging in again.
    let login = Login { parameters: &[("helios.region", "eu-west")], ..ALICE };
    let refused = proxy.login(&login).err().map(|said| said.sqlstate());
    assert_eq!(refused.as_deref(), Some("42501"));
}

#[test]
fn sigterm_lets_transactions_end() {
    let Some(world) = world() else { return };
    let mut proxy = start(&granting(world, "\"eu-west\""));
    let mut idle = alice(&proxy);
    idle.query("SELECT 1");
    let mut busy = alice(&proxy);
    assert_eq!(busy.query("BEGIN; SELECT 1").status(), 'T');
    proxy.signal(Signal::TERM);
    let said = idle.until(|_| false).replies();
    assert!(said.to_string().ends_with("closed") && (said.messages.is_empty() || said.sqlstate() == "57P01"), "{said}");
    assert!(proxy.login(&ALICE).is_err(), "a proxy that drains admits nobody");
    assert_eq!(busy.query("SELECT 2").replies().to_string(), "T ?column? / D 2 / C SELECT 1 / Z T");
    assert_eq!(busy.query("COMMIT").replies().to_string(), "C COMMIT / Z I");
    let status = proxy.wait(PATIENCE).expect("the proxy ends when the last transaction has ended");
    assert!(status.success(), "{status}: {}", tail(&proxy.log()));
}

#[test]
fn sigterm_has_a_deadline() {
    let Some(world) = world() else { return };
    let mut configuration = granting(world, "\"eu-west\"");
    configuration.more.push_str("[limits]\ndrain_timeout = \"1s\"\n");
    let mut proxy = start(&configuration);
    let mut busy = alice(&proxy);
    assert_eq!(busy.query("BEGIN; SELECT 1").status(), 'T');
    proxy.signal(Signal::TERM);
    let status = proxy.wait(PATIENCE).expect("the proxy ends at its deadline");
    assert!(status.success(), "{status}: {}", tail(&proxy.log()));
    assert!(busy.until(|_| false).to_string().ends_with("closed"));
}
