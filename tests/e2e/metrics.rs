//! What an operator sees: health, counters, audit records; and that none of it repeats what clients sent.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use domicile_tests::client::Login;
use domicile_tests::process::{Scratch, free_port, wait_for};
use domicile_tests::proxy::{Configuration, Proxy};
use rustix::process::Signal;

use crate::world::{start, world};

const PATIENCE: Duration = Duration::from_secs(5);

/// The counters of decisions, by outcome, region and reason.
fn decisions(proxy: &Proxy) -> BTreeMap<[String; 3], u64> {
    let (status, text) = proxy.http("/metrics").expect("/metrics");
    assert_eq!(status, 200);
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("decisions_total{")) {
        let (labels, value) = line.rsplit_once("} ").unwrap_or((line, "0"));
        let label = |name: &str| {
            let value = labels.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
            value.unwrap_or_else(|| panic!("{line} has no {name}")).to_owned()
        };
        let key = [label("outcome"), label("region"), label("reason")];
        *found.entry(key).or_default() += value.parse::<u64>().unwrap_or_else(|_| panic!("{line}"));
    }
    found
}

#[test]
fn every_decision_is_counted_by_outcome_region_and_reason() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let mut client = proxy.connect();
    client.query("SELECT 'no region'");
    client.query("SET helios.region = 'eu-west'");
    (0..3).for_each(|_| drop(client.query("SELECT 1")));
    client.query("SET helios.region = 'antarctica'");
    (0..2).for_each(|_| drop(client.query("SELECT 1")));
    let expected = [("permit", "eu-west", "", 3), ("deny", "", "no_region", 1), ("deny", "undeclared", "no_node", 2)];
    let counted = wait_for(PATIENCE, || {
        let counted = decisions(&proxy);
        let right = expected.iter().all(|(outcome, region, reason, count)| {
            counted.get(&[outcome, region, reason].map(|label| (*label).to_owned())) == Some(count)
        });
        right.then_some(())
    });
    assert!(counted.is_some(), "{:?}", decisions(&proxy));
}

#[test]
fn metrics_are_in_the_text_format_of_prometheus() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let (status, text) = proxy.http("/metrics").expect("/metrics");
    assert_eq!(status, 200);
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert!(!samples.is_empty() && text.contains("# TYPE domicile_"), "{text}");
    for sample in samples {
        let value = sample.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
        assert!(sample.starts_with("domicile_") && value.is_some(), "{sample}");
    }
}

#[test]
fn health_is_told() {
    let Some(world) = world() else { return };
    let mut proxy = start(&world.configuration());
    let status = |path: &str| proxy.http(path).map(|(status, _)| status);
    assert_eq!(status("/healthz"), Ok(200));
    assert_eq!(wait_for(PATIENCE, || (status("/readyz") == Ok(200)).then_some(())), Some(()), "{:?}", proxy.http("/readyz"));
    assert_eq!(status("/nothing"), Ok(404));
    let mut client = proxy.connect();
    client.query("SET helios.region = 'eu-west'");
    client.query("BEGIN; SELECT 1");
    proxy.signal(Signal::TERM);
    let drains = wait_for(PATIENCE, || (status("/readyz") == Ok(503)).then_some(()));
    assert!(drains.is_some(), "a proxy that drains is not ready: {:?}", proxy.http("/readyz"));
    client.query("COMMIT");
    assert!(proxy.wait(PATIENCE).is_some());
}

#[test]
fn a_denial_is_one_audit_record_without_the_statement() {
    let Some(world) = world() else { return };
    let directory = Scratch::new().expect("a directory");
    let file = directory.path().join("audit.jsonl");
    let mut configuration = world.residency("unbound = \"block\"");
    configuration.more = format!(
        "[[residency.bind]]\nuser = \"alice\"\nregions = [\"eu-west\"]\n[regions.empty]\n[audit]\nfile = \"{}\"\n\
         [[residency.bind]]\nuser = \"bench\"\nregions = [\"empty\"]\n",
        file.display()
    );
    let proxy = start(&configuration);
    let login = |user| Login { user, password: user, ..Login::default() };
    let mut alice = proxy.login(&login("alice")).unwrap_or_else(|said| panic!("{said}"));
    alice.query("SELECT 'secret permitted'");
    alice.query("SET helios.region = 'us-east'; SELECT 'secret one'");
    let mut bench = proxy.login(&login("bench")).unwrap_or_else(|said| panic!("{said}"));
    bench.query("SELECT 'secret two'");
    proxy.login(&login("postgres")).err().expect("nobody is admitted without a rule");

    let records = || fs::read_to_string(&file).unwrap_or_default();
    wait_for(PATIENCE, || (records().lines().count() >= 3).then_some(()));
    let written = records();
    let lines: Vec<&str> = written.lines().collect();
    assert_eq!(lines.len(), 3, "{written}");
    for (line, parts) in lines.iter().zip([
        ["alice", "us-east", "not_granted", "residency.bind[0]", "42501"],
        ["bench", "empty", "no_node", "residency.bind[1]", "42000"],
        ["postgres", "", "unbound", "residency.unbound", "28000"],
    ]) {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        for part in parts {
            assert!(line.contains(&format!("\"{part}\"")) || part.is_empty(), "{line} does not name {part}");
        }
    }
    let told = format!("{written}{}", proxy.log());
    assert!(!told.contains("secret"), "the audit or the log repeats a statement: {told}");
}

#[test]
fn the_log_repeats_no_statement_and_no_password() {
    let Some(world) = world() else { return };
    for format in ["text", "json"] {
        let more = format!("[log]\nformat = \"{format}\"\nlevel = \"trace\"\n");
        let proxy = start(&Configuration { more, ..world.configuration() });
        let mut client = proxy.connect();
        client.query("SELECT 'top secret'; SET helios.region = 'antarctica'");
        client.query("SET helios.region = 'eu-west'");
        client.extended("SELECT 'top secret'");
        client.query("SELECT 'top secret' FROM nowhere");
        proxy.login(&Login { password: "also secret", ..Login::default() }).err().expect("a wrong password");
        let log = proxy.log();
        assert!(!log.is_empty() && !log.contains("secret"), "{log}");
    }
}

#[test]
fn a_port_that_is_taken_is_one_clear_line() {
    let Some(world) = world() else { return };
    let first = start(&world.configuration());
    let text = fs::read_to_string(first.file()).expect("the configuration file");
    let directory = Scratch::new().expect("a directory");
    let file = directory.path().join("domicile.toml");
    fs::write(directory.path().join("users.txt"), "\"postgres\" \"postgres\"\n").expect("the users file");
    // Its HTTP port may be the trouble, or its port for clients: both are taken.
    fs::write(&file, text).expect("the configuration file");
    let second = Proxy::start_file(
        &domicile_tests::proxy::binary().expect("the program"),
        &file,
        ([127, 0, 0, 1], free_port()).into(),
        ([127, 0, 0, 1], free_port()).into(),
    );
    let error = second.err().expect("two proxies cannot have one port");
    assert!(error.contains("127.0.0.1:") && error.to_lowercase().contains("address"), "{error}");
}
