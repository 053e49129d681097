//! `pgbench --select-only` against a real PostgreSQL.

use std::process::Command;
use std::time::Duration;

use domicile_tests::cluster::{Cluster, Options};
use domicile_tests::program;

use crate::cell::{Cell, Sample};
use crate::cpu;
use crate::stage::Stage;
use crate::subjects::{Programs, Subject, server_core};
use crate::workloads::tls::{Certificates, Sides};

const CLIENTS: usize = 16;

/// A cluster with pgbench's tables; its server processes stay off the core of whoever is measured.
///
/// # Errors
/// It does not start, or there is no PostgreSQL here.
pub fn cluster(more: &[(&str, &str)]) -> Result<Cluster, String> {
    let settings = [&QUIET, more].concat();
    let options = Options { name: "bench", connections_max: 200, settings: &settings, ..Default::default() };
    let cluster = Cluster::start(&options)?;
    cluster.execute("postgres", "CREATE DATABASE demo")?;
    pgbench(&cluster.address().port().to_string(), "disable", &["-i", "-q"])?;
    cpu::pin(cluster.process_id(), server_core());
    Ok(cluster)
}

/// Nothing of a statement is logged: that would be measured too.
const QUIET: [(&str, &str); 2] = [("log_statement", "none"), ("log_min_duration_statement", "-1")];

/// Runs pgbench; what it says.
fn pgbench(port: &str, sslmode: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program::need("pgbench")?);
    command.args(arguments).args(["-h", "127.0.0.1", "-U", "postgres", "-p", port, "demo"]).env("PGPASSWORD", "postgres");
    command.env("PGSSLMODE", sslmode);
    let output = program::run(command, "", Duration::from_secs(60)).map_err(|error| error.to_string())?;
    let said = program::both(&output);
    // Each of its clients says the same.
    let error = || said.lines().find(|line| line.contains("error:")).unwrap_or(&said).to_owned();
    if output.status.success() { Ok(said) } else { Err(error()) }
}

/// Everybody, in the ways of asking that pgbench has.
///
/// # Errors
/// A subject does not start.
pub fn select(stage: &mut Stage<'_>) -> Result<(), String> {
    let cluster = cluster(&[])?;
    let mut subjects = stage.everybody(cluster.address(), None)?;
    subjects.push(Programs::direct(cluster.address()));
    run(stage, "postgres/select", &subjects);
    Ok(())
}

/// The same over TLS to who is measured.
///
/// # Errors
/// A subject does not start.
pub fn tls(stage: &mut Stage<'_>) -> Result<(), String> {
    let certificates = Certificates::issue();
    let [certificate, key] =
        [&certificates.files().certificate, &certificates.files().key].map(|file| file.display().to_string());
    let cluster = cluster(&[("ssl", "on"), ("ssl_cert_file", &certificate), ("ssl_key_file", &key)])?;
    let sides = Sides { client: true, server: false };
    let mut subjects = certificates.poolers(stage, cluster.address(), sides)?;
    subjects.push(certificates.asked(Programs::direct(cluster.address()), sides));
    run(stage, "postgres/tls", &subjects);
    Ok(())
}

fn run(stage: &mut Stage<'_>, workload: &str, subjects: &[Subject]) {
    let subjects: Vec<&Subject> = subjects.iter().collect();
    for protocol in stage.depth.choose(&["simple"][..], &["simple", "prepared"], &["simple", "extended", "prepared"]) {
        let cell = Cell { workload, protocol: Some(protocol), clients: CLIENTS };
        let seconds = stage.depth.choose("1", "2", "2");
        stage.measure(&cell, &subjects, stage.depth.choose(2, 3, 5), |_, subject| measure(subject, protocol, seconds));
    }
}

/// One run of pgbench.
///
/// # Errors
/// It failed.
pub fn measure(subject: &Subject, protocol: &str, seconds: &str) -> Result<Sample, String> {
    let used = || subject.process.map(cpu::of_tree);
    let before = used();
    let clients = CLIENTS.to_string();
    let port = subject.address.port().to_string();
    let sslmode = if subject.authority.is_some() { "require" } else { "disable" };
    let said = pgbench(&port, sslmode, &["-S", "-n", "-M", protocol, "-c", &clients, "-j", "1", "-T", seconds])?;
    let queries = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let queries = queries.and_then(|count| count.trim().parse::<f64>().ok()).filter(|count| *count > 0.0);
    let queries = queries.ok_or_else(|| format!("pgbench has done nothing: {said}"))?;
    let mut values = Vec::new();
    if let (Some(before), Some(after)) = (before, used()) {
        values.push(("cpu_us_per_query", "µs a query", (after - before).as_secs_f64() * 1e6 / queries));
    }
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    values.push(("qps", "queries/s", rate.unwrap_or_default()));
    Ok(Sample { values, curve: Vec::new() })
}
