//! 64 MiB at once: as a result, by COPY out, and by COPY in.

use crate::answers::{LARGE_BYTES, Work};
use crate::cell::{Cell, Sample};
use crate::outcome::Protocol;
use crate::stage::{Asked, Stage};
use crate::subjects::{Programs, Subject};

/// A result of 65 536 rows of 1 KiB.
///
/// # Errors
/// A subject does not start.
pub fn select(stage: &mut Stage<'_>) -> Result<(), String> {
    run(stage, "large/select", Work::Rows64m)
}

/// The same by COPY TO STDOUT.
///
/// # Errors
/// A subject does not start.
pub fn copy_out(stage: &mut Stage<'_>) -> Result<(), String> {
    run(stage, "large/copy-out", Work::CopyOut)
}

/// COPY FROM STDIN, in messages of 8 KiB.
///
/// # Errors
/// A subject does not start.
pub fn copy_in(stage: &mut Stage<'_>) -> Result<(), String> {
    run(stage, "large/copy-in", Work::CopyIn)
}

fn run(stage: &mut Stage<'_>, workload: &str, work: Work) -> Result<(), String> {
    let server = stage.server();
    let mut subjects = stage.everybody(server, Some("pkt_buf = 65536"))?;
    subjects.push(Programs::direct(server));
    let subjects: Vec<&Subject> = subjects.iter().collect();
    let window = stage.depth.window();
    let asked = Asked { work, protocol: Protocol::Simple, clients: 1, rate: None, window };
    let cell = Cell { workload, protocol: Some("simple"), clients: 1 };
    stage.measure(&cell, &subjects, stage.depth.choose(2, 5, 6), |programs, subject| {
        let outcome = programs.load(subject, &asked)?;
        let bytes = outcome.queries as f64 * LARGE_BYTES as f64;
        let mut values = Vec::new();
        if subject.process.is_some() {
            values.push(("cpu_s_per_gb", "s/GB", outcome.cpu_seconds * 1e9 / bytes));
        }
        values.push(("mb_per_s", "MB/s", bytes / outcome.seconds / 1e6));
        Ok(Sample { values, curve: Vec::new() })
    });
    Ok(())
}
