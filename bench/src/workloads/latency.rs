//! Latency at rates that are given, from the moment at which a query was to be sent.

use std::time::Duration;

use crate::answers::Work;
use crate::cell::{Cell, Sample};
use crate::outcome::Protocol;
use crate::stage::{Asked, Stage};
use crate::subjects::{Programs, Subject};

const CLIENTS: usize = 64;

/// At half of what PgBouncer can do here, and at a quarter; without PgBouncer, of what Domicile can do.
///
/// # Errors
/// A subject does not start.
pub fn run(stage: &mut Stage<'_>) -> Result<(), String> {
    let server = stage.server();
    let mut subjects = stage.everybody(server, None)?;
    let saturated = Asked {
        work: Work::Row100,
        protocol: Protocol::Simple,
        clients: CLIENTS,
        rate: None,
        window: Duration::from_millis(700),
    };
    subjects.push(Programs::direct(server));
    let subjects: Vec<&Subject> = subjects.iter().collect();
    let judge = subjects.iter().find(|subject| subject.name == "pgbouncer").copied().unwrap_or(subjects[0]);
    let outcome = stage.programs.load(judge, &saturated)?;
    let most = outcome.queries as f64 / outcome.seconds;
    let window = Duration::from_millis(stage.depth.choose(1000, 2000, 3000));
    for (name, part) in stage.depth.choose(&[("latency/half", 0.5)][..], &RATES, &RATES) {
        // Round figures, so that reports can be compared.
        let rate = (most * part / 500.0).round().max(1.0) * 500.0;
        stage
            .note(format!("{name} is {rate} queries/s: {part} of the {most:.0} that {} does with {CLIENTS} clients", judge.name));
        let asked = Asked { rate: Some(rate), window, ..saturated };
        let cell = Cell { workload: name, protocol: Some("simple"), clients: CLIENTS };
        stage.measure(&cell, &subjects, stage.depth.choose(2, 3, 5), |programs, subject| {
            let outcome = programs.load(subject, &asked)?;
            let latency = outcome.latency;
            let mut values =
                vec![("p50_us", "µs", latency.p50_us), ("p99_us", "µs", latency.p99_us), ("p999_us", "µs", latency.p999_us)];
            if subject.process.is_some() {
                values.push(("cpu_us_per_query", "µs a query", outcome.cpu_seconds * 1e6 / outcome.queries as f64));
            }
            Ok(Sample { values, curve: latency.curve })
        });
    }
    Ok(())
}

const RATES: [(&str, f64); 2] = [("latency/half", 0.5), ("latency/quarter", 0.25)];
