//! What a decision takes, by itself, under policies with few and with very many logins: it should not grow.

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
    let logins = [1, 1000, 1_000_000];
    let subjects = logins.map(|logins| Programs::direct(server).named(&format!("{logins} logins")));
    let subjects: Vec<_> = subjects.iter().collect();
    let cell = Cell { workload: "decision", protocol: None, clients: 1 };
    stage.measure(&cell, &subjects, stage.depth.choose(3, 7, 11), |programs, subject| {
        let logins = subject.name.split(' ').next().unwrap_or_default();
        let mut command = Command::new(&programs.steps);
        command.args(["policy::Policy::decide", TIMES, logins]);
        let output = program::run(command, "", Duration::from_secs(60)).map_err(|error| error.to_string())?;
        let said = program::both(&output);
        let time: f64 = said.trim().parse().map_err(|_| said.clone())?;
        Ok(Sample { values: vec![("decision_ns", "ns", time)], curve: Vec::new() })
    });
    Ok(())
}
