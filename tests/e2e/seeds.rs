//! The calls of the two residency seeds, as they are published, through psql.

use std::time::Duration;

use domicile_tests::program;
use domicile_tests::skip::available;

use crate::world::{start, world};

const BLOCKED: &str = "ERROR:  Query blocked by route plugin: no in-region replica for user\n";

/// Runs psql with these commands, each a `-c`, on one connection: what it printed, and whether it ended well.
fn psql(port: u16, commands: &[&str]) -> Option<(String, bool)> {
    let mut command = program::command(&available(program::need("psql"))?);
    command.args(["-h", "localhost", "-p", &port.to_string(), "-U", "postgres", "-d", "demo"]);
    commands.iter().for_each(|text| {
        command.args(["-c", text]);
    });
    let output = program::run(command, "", Duration::from_secs(30)).expect("psql");
    Some((program::both(&output), output.status.success()))
}

/// One call: its commands, what must stand in the output, and psql's idea of success.
fn check(commands: &[&str], expected: &[&str], success: bool) {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let Some((said, ended_well)) = psql(proxy.address().port(), commands) else { return };
    for text in expected {
        assert!(said.contains(text), "{commands:?} answered {said}");
    }
    assert_eq!(ended_well, success, "{commands:?} answered {said}");
}

#[test]
fn an_eu_session_is_served_by_the_eu_server() {
    check(&["SET helios.region = 'eu-west'; SELECT current_setting('cluster_node')"], &["\n pg-eu-west\n(1 row)\n"], true);
}

#[test]
fn a_us_session_is_served_by_the_us_server() {
    check(&["SET helios.region = 'us-east'; SELECT current_setting('cluster_node')"], &["\n pg-us-east\n(1 row)\n"], true);
}

#[test]
fn a_region_without_a_server_is_blocked() {
    check(&["SET helios.region = 'antarctica'; SELECT 1"], &[BLOCKED], false);
}

#[test]
fn a_table_is_not_read_for_a_region_without_a_server() {
    check(&["SET helios.region = 'antarctica'; SELECT * FROM users LIMIT 1"], &[BLOCKED], false);
}

#[test]
fn the_session_stays_alive_after_a_block() {
    let blocked = "SET helios.region = 'antarctica'; SELECT * FROM users LIMIT 1";
    let served = "SELECT * FROM users LIMIT 1";
    check(&[blocked, "SET helios.region = 'us-east'", served], &[BLOCKED, "  1 | Dakota | us-east\n(1 row)\n"], true);
}

#[test]
fn a_block_carries_four_fields_and_the_true_status() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let mut client = proxy.connect();
    let said = client.query("SET helios.region = 'antarctica'; SELECT 1");
    let blocked = "C SET / E 42000 Query blocked by route plugin: no in-region replica for user / Z I";
    assert_eq!(said.to_string(), blocked);
    let fields: Vec<_> = said.error().expect("an error").fields.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(fields, ['S', 'V', 'C', 'M']);
    assert_eq!(client.query("SHOW helios.region").value().as_deref(), Some(""), "a block undoes the SET of its message");
}
