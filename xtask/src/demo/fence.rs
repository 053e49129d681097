//! The kernel's own gate, shown: what bpftool says it has counted, and what becomes of a process that tries to get around it.

use std::net::SocketAddr;
use std::path::Path;

use domicile_tests::demo::HOMES;
use domicile_tests::gate::{Gate, number};
use domicile_tests::intruder::{Place, intrude};
use serde_json::Value;

use super::stage::Stage;
use crate::show::{Screen, table};

/// Shows the maps, then the attempts, then the maps again.
pub fn show(stage: &Stage, screen: &mut Screen) -> Result<(), String> {
    screen
        .heading("11. The kernel has counted along: its fence lets no connection out of its region, even if the proxy is wrong");
    let gate = match stage.gate() {
        Ok(gate) => gate,
        Err(lacking) => {
            screen.text(&format!("Skipped: there is no fence here, because it needs {lacking}."));
            return Ok(());
        }
    };
    dump(gate, "flows", screen)?;
    dump(gate, "denials", screen)?;
    let passed = HOMES.map(|home| flows(gate, home.region, "passed"));
    screen.verdict(passed.iter().all(|passed| matches!(passed, Ok(1..))), "connections to both regions, each under its own");

    screen.heading("12. Somebody has taken over a process in the proxy's cgroup, and tries to reach the other region");
    let elsewhere: SocketAddr = stage.servers()[1].address();
    let tag = number(HOMES[0].region);
    let attempts = [
        format!("connect={elsewhere}"),
        format!("uring={elsewhere}"),
        format!("{tag}:connect={elsewhere}"),
        format!("{tag}:uring={elsewhere}"),
    ];
    let words = [
        "connect(2), saying nothing of a region",
        "io_uring, saying nothing of a region",
        "connect(2), as a connection of eu-west",
        "io_uring, as a connection of eu-west",
    ];
    let before = denied(gate)?;
    let place = Place { cgroup: Some(gate.cgroup()), unprivileged: true };
    let said = intrude(place, &attempts.each_ref().map(String::as_str))?;
    let became: Vec<&str> = said.lines().filter_map(|line| line.rsplit(": ").next()).collect();
    let rows: Vec<Vec<String>> =
        words.iter().zip(&became).map(|(word, became)| vec![(*word).to_owned(), (*became).to_owned()]).collect();
    screen.text(&format!("To {elsewhere}, which is in {}:", HOMES[1].region));
    screen.text(&table(&rows));
    let counted = denied(gate)? - before;
    screen.text(&format!("The kernel has counted {counted} more connections that were denied."));
    screen.verdict(became == ["EPERM"; 4] && counted == 4, "refused four times, and counted four times");
    Ok(())
}

const KEY: [&str; 5] = ["region", "node", "worker", "direction", "verdict"];
const COUNTS: [&str; 3] = ["flows", "packets", "bytes"];
const REASONS: [&str; 8] = ["region", "no_region", "no_node", "not_granted", "unbound", "guarded", "stale_grant", "would_block"];

/// The command as it can be typed, and what it says, a row for each entry.
fn dump(gate: &Gate, map: &str, screen: &Screen) -> Result<(), String> {
    screen.command(&format!("bpftool map dump pinned {}", gate.pins().join(map).display()));
    let entries = gate.dump(map)?;
    let (heads, mut rows): (Vec<&str>, Vec<Vec<String>>) = if map == "flows" {
        ([&KEY[..], &COUNTS].concat(), entries.iter().map(flow).collect())
    } else {
        let taken = entries.iter().map(|entry| &entry["value"]).filter(|value| value["taken"] != 0);
        (REASONS.to_vec(), taken.map(|value| REASONS.map(|name| shown(name, &value[name])).to_vec()).collect())
    };
    rows.sort();
    rows.insert(0, heads.iter().map(|head| (*head).to_owned()).collect());
    screen.text(&table(&rows));
    Ok(())
}

/// An entry of `flows`, summed up over the CPUs.
fn flow(entry: &Value) -> Vec<String> {
    let values = entry["values"].as_array().cloned().unwrap_or_default();
    let sum = |name: &str| values.iter().filter_map(|value| value["value"][name].as_u64()).sum::<u64>();
    let key = KEY.iter().map(|name| shown(name, &entry["key"][*name]));
    key.chain(COUNTS.iter().map(|name| sum(name).to_string())).collect()
}

/// A value, and the name that it stands for.
fn shown(field: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value if matches!(field, "region" | "node") => format!("{value}{}", name_of(value)),
        value => value.to_string(),
    }
}

fn name_of(number_of: &Value) -> String {
    let names = HOMES.iter().flat_map(|home| [home.region, home.node]);
    let name = names.into_iter().find(|name| *number_of == number(name));
    name.map_or_else(String::new, |name| format!(" ({name})"))
}

fn flows(gate: &Gate, region: &str, verdict: &str) -> Result<u64, String> {
    gate.flows("flows", &[("region", number(region).into()), ("direction", "connect".into()), ("verdict", verdict.into())])
}

fn denied(gate: &Gate) -> Result<u64, String> {
    gate.flows("flows", &[("direction", "connect".into()), ("verdict", "denied".into())])
}

/// The lines of the configuration that give the demo a fence of its own, so that it meets no other on this host.
pub fn lines(gate: &Gate) -> String {
    let name = gate.pins();
    let name = name.file_name().unwrap_or_default().display().to_string();
    format!("\n[kernel]\npins = \"{}\"\ncgroup = \"{name}\"\n", Path::new("/sys/fs/bpf").join(&name).display())
}
