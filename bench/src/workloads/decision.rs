//! What a decision takes, by itself, under policies with few and with very many logins and regions: it should not grow. And which part
//! of a query's cost that is.

use std::process::Command;
use std::time::Duration;

use domicile_tests::program;

use crate::cell::{Cell, Sample};
use crate::stage::Stage;
use crate::subjects::Programs;

const TIMES: &str = "2000000";

/// In this process's own loop, without a client or a server.
///
/// # Errors
/// None; what cannot be measured is a note.
pub fn run(stage: &mut Stage<'_>) -> Result<(), String> {
    let server = stage.server();
    let all = [(1, 1), (1000, 1), (1_000_000, 1), (1, 64), (1000, 64), (1_000_000, 64)];
    let policies = stage.depth.choose(&[(1, 1), (1_000_000, 64)][..], &all, &all);
    let subjects: Vec<_> = policies
        .iter()
        .map(|(logins, regions)| Programs::direct(server).named(&format!("logins: {logins}, regions: {regions}")))
        .collect();
    let subjects: Vec<_> = subjects.iter().collect();
    // What a query of 64 clients costs, if that was measured in this run.
    let query = Cell { workload: "query/row100", protocol: Some("simple"), clients: 64 };
    let query = stage.report.median(&query, "domicile", "cpu_us_per_query");
    let cell = Cell { workload: "decision", protocol: None, clients: 1 };
    stage.measure(&cell, &subjects, stage.depth.rounds(), |programs, subject| {
        let policy = subject.name.split([':', ',', ' ']).filter(|word| word.parse::<usize>().is_ok());
        let mut command = Command::new(&programs.steps);
        command.args(["policy::Policy::decide", TIMES]).args(policy);
        let output = program::run(command, "", Duration::from_secs(60)).map_err(|error| error.to_string())?;
        let said = program::both(&output);
        let time: f64 = said.trim().parse().map_err(|_| said.clone())?;
        let mut values = vec![("decision_ns", "ns", time)];
        values.extend(query.map(|query| ("share_of_query_percent", "% of a query", time / query / 10.0)));
        Ok(Sample { values, curve: Vec::new() })
    });
    Ok(())
}
