//! What the fence costs: a query, and a connection, with it and without it.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use domicile_tests::cluster::Cluster;
use domicile_tests::gate::{Gate, number};
use domicile_tests::intruder::{Place, intrude};
use domicile_tests::program;
use domicile_tests::proxy::{Configuration, Proxy};

use crate::cpu;
use crate::report::{Measured, Row};
use crate::rounds::in_turns;

const SUBJECTS: [&str; 2] = ["domicile, fence off", "domicile, fence on"];
const CLIENTS: u32 = 64;
const REGION: &str = "eu-west";

/// CPU of the proxy for a query of `pgbench --select-only`, in rounds of `seconds`.
///
/// # Errors
/// Something cannot run here.
pub fn select(proxy: &Path, rounds: usize, seconds: u32, told: &dyn Fn(&str)) -> Result<Vec<Row>, String> {
    let pgbench = program::need("pgbench")?;
    let options =
        domicile_tests::cluster::Options { name: "bench", connections_max: 200, settings: &QUIET, ..Default::default() };
    let cluster = Cluster::start(&options)?;
    cluster.execute("postgres", "CREATE DATABASE demo")?;
    let mut fill = Command::new(&pgbench);
    fill.args(["-i", "-q", "-h", "127.0.0.1", "-U", "postgres", "-p", &cluster.address().port().to_string(), "demo"]);
    run(fill)?;
    let gate = Gate::new()?;
    let mut configuration = Configuration::new(&[(REGION, "pg-eu-west", cluster.address())]);
    configuration.residency = format!("unbound = \"{REGION}\"\n");
    (configuration.workers, configuration.pool_mode, configuration.pools) = (1, "session", "size = 100\n".to_owned());
    let proxies =
        [Proxy::start_program(proxy, &configuration)?, Proxy::start_program(proxy, &gate.around(&configuration, "required"))?];
    let figures: [_; 2] = in_turns(rounds, |subject, round| {
        let proxy = &proxies[subject];
        let before = cpu::of_process(proxy.id());
        let mut load = Command::new(&pgbench);
        load.args(["-S", "-n", "-M", "simple", "-h", "127.0.0.1", "-U", "postgres"]);
        load.args(["-c", &CLIENTS.to_string(), "-j", "1", "-T", &seconds.to_string()]);
        load.args(["-p", &proxy.address().port().to_string(), "demo"]);
        let said = run(load)?;
        let used = cpu::of_process(proxy.id()) - before;
        let queries = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
        let queries: f64 = queries.and_then(|count| count.parse().ok()).ok_or("pgbench does not say what it has done")?;
        let cost = used.as_secs_f64() * 1e6 / queries;
        told(&format!("fence/select {} of {rounds}: {}: {cost:.2} µs of CPU a query", round + 1, SUBJECTS[subject]));
        Ok(cost)
    })?;
    let of = Measured {
        workload: "fence/select",
        protocol: Some("simple"),
        clients: CLIENTS,
        metric: "cpu_us_per_query",
        unit: "µs a query",
    };
    Ok(Row::each(&of, &SUBJECTS, &figures))
}

/// Nothing of a statement is logged: that would be measured too.
const QUIET: [(&str, &str); 2] = [("log_statement", "none"), ("log_min_duration_statement", "-1")];

fn run(mut command: Command) -> Result<String, String> {
    command.env("PGPASSWORD", "postgres");
    let output = command.output().map_err(|error| error.to_string())?;
    let said = program::both(&output);
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// CPU of the one who connects, for one connection.
///
/// # Errors
/// Something cannot run here.
pub fn connect(proxy: &Path, rounds: usize, told: &dyn Fn(&str)) -> Result<Vec<Row>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    // Whoever comes is let go.
    thread::spawn(move || listener.incoming().for_each(drop));
    let gate = Gate::new()?;
    let configuration = Configuration::new(&[(REGION, "pg-eu-west", address)]);
    let _proxy = Proxy::start_program(proxy, &gate.around(&configuration, "required"))?;
    let figures: [_; 2] = in_turns(rounds, |subject, round| {
        let inside = subject == 1;
        let place = Place { cgroup: inside.then(|| gate.cgroup()), unprivileged: true };
        let attempt = if inside { format!("{}:cost={address}", number(REGION)) } else { format!("cost={address}") };
        let said = intrude(place, &[&attempt])?;
        let cost = said.trim_end().rsplit(' ').next().and_then(|cost| cost.parse().ok());
        let cost: f64 = cost.ok_or_else(|| format!("{attempt}: {said}"))?;
        told(&format!("fence/connect {} of {rounds}: {}: {cost:.0} ns of CPU a connection", round + 1, SUBJECTS[subject]));
        Ok(cost)
    })?;
    let of =
        Measured { workload: "fence/connect", protocol: None, clients: 1, metric: "cpu_ns_per_connect", unit: "ns a connect" };
    Ok(Row::each(&of, &SUBJECTS, &figures))
}
