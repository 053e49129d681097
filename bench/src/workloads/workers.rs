//! One worker, and two that share the machine with the load.

use crate::answers::Work;
use crate::cell::Cell;
use crate::outcome::Protocol;
use crate::stage::{Asked, Stage};
use crate::subjects::Subject;
use crate::workloads::queries::of_query;

const CLIENTS: usize = 64;

/// Both without a core of their own. Rates can only double where the load leaves room: with four cores.
///
/// # Errors
/// A subject does not start.
pub fn run(stage: &mut Stage<'_>) -> Result<(), String> {
    let server = stage.server();
    let start = |workers: u8| {
        let name = format!("domicile, {workers} worker{}", if workers == 1 { "" } else { "s" });
        stage.programs.domicile(&name, server, None, |configuration| configuration.workers = workers)
    };
    let all = [start(1)?, start(2)?];
    let subjects: Vec<&Subject> = all.iter().collect();
    let asked =
        Asked { work: Work::Row100, protocol: Protocol::Simple, clients: CLIENTS, rate: None, window: stage.depth.window() };
    let cell = Cell { workload: "workers", protocol: Some("simple"), clients: CLIENTS };
    stage.measure(&cell, &subjects, stage.depth.rounds(), |programs, subject| {
        Ok(of_query(&programs.load(subject, &asked)?, subject))
    });
    Ok(())
}
