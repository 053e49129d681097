//! CPU time, system calls and rate of short queries at saturation.

use crate::answers::Work;
use crate::cell::{Cell, Sample};
use crate::outcome::{Outcome, Protocol};
use crate::stage::{Asked, Depth, Stage};
use crate::subjects::{Programs, Subject};

/// Rows of 100 bytes.
///
/// # Errors
/// A subject does not start.
pub fn small(stage: &mut Stage<'_>) -> Result<(), String> {
    let all: Vec<(Protocol, usize)> = [Protocol::Simple, Protocol::Extended, Protocol::Prepared]
        .into_iter()
        .flat_map(|protocol| [64, 256, 512, 8, 1].map(|clients| (protocol, clients)))
        .collect();
    let cells = match stage.depth {
        Depth::Quick => vec![(Protocol::Simple, 64), (Protocol::Extended, 64), (Protocol::Prepared, 64), (Protocol::Simple, 1)],
        Depth::Usual => {
            let is_usual = |cell: &(Protocol, usize)| matches!(cell, (_, 64 | 256) | (Protocol::Simple, 1 | 8));
            all.into_iter().filter(is_usual).collect()
        }
        Depth::Full => all,
    };
    run(stage, "query/row100", Work::Row100, &cells, None)
}

/// Rows of 8 KiB.
///
/// # Errors
/// A subject does not start.
pub fn wide(stage: &mut Stage<'_>) -> Result<(), String> {
    let cells: Vec<_> = match stage.depth {
        Depth::Quick => vec![(Protocol::Simple, 64)],
        Depth::Usual => vec![(Protocol::Simple, 64), (Protocol::Prepared, 64)],
        Depth::Full => [Protocol::Simple, Protocol::Extended, Protocol::Prepared]
            .into_iter()
            .flat_map(|protocol| [1, 8, 64, 512].map(|clients| (protocol, clients)))
            .collect(),
    };
    run(stage, "query/row8192", Work::Row8192, &cells, Some("pkt_buf = 65536"))
}

fn run(stage: &mut Stage<'_>, workload: &str, work: Work, cells: &[(Protocol, usize)], more: Option<&str>) -> Result<(), String> {
    let server = stage.server();
    let mut subjects = stage.everybody(server, more)?;
    subjects.push(Programs::direct(server));
    let all: Vec<&Subject> = subjects.iter().collect();
    // In a full run the large rows have many sizes, too.
    let rounds = if work == Work::Row8192 { stage.depth.choose(3, 5, 4) } else { stage.depth.rounds() };
    let window = stage.depth.window();
    for (index, &(protocol, clients)) in cells.iter().enumerate() {
        // Where time is short, the server by itself is measured once.
        let is_wanted = |subject: &&Subject| subject.process.is_some() || index == 0 || stage.depth != Depth::Quick;
        let subjects: Vec<&Subject> = all.iter().copied().filter(is_wanted).collect();
        let cell = Cell { workload, protocol: Some(protocol.name()), clients };
        let asked = Asked { work, protocol, clients, rate: None, window };
        stage.measure(&cell, &subjects, rounds, |programs, subject| Ok(of_query(&programs.load(subject, &asked)?, subject)));
        // Counting slows down what is counted, so it has a time of its own.
        if clients == 64 && (stage.depth != Depth::Quick || index == 0 && work == Work::Row100) {
            let calls = |programs: &Programs, subject: &Subject| {
                let calls = programs.system_calls(subject, &asked)?;
                Ok(Sample { values: vec![("syscalls_per_query", "calls a query", calls)], ..Sample::default() })
            };
            // Those that cannot be asked this way, or at all, have been named already.
            let has_rows = |name: &str| stage.report.has(&cell, name);
            let counted: Vec<&Subject> =
                subjects.iter().copied().filter(|subject| subject.process.is_some() && has_rows(&subject.name)).collect();
            stage.measure(&cell, &counted, 1, calls);
        }
    }
    Ok(())
}

/// The figures of a time of load.
pub fn of_query(outcome: &Outcome, subject: &Subject) -> Sample {
    let queries = outcome.queries as f64;
    let mut values = Vec::new();
    if subject.process.is_some() {
        values.push(("cpu_us_per_query", "µs a query", outcome.cpu_seconds * 1e6 / queries));
    }
    values.push(("qps", "queries/s", queries / outcome.seconds));
    values.push(("p99_us", "µs", outcome.latency.p99_us));
    Sample { values, curve: Vec::new() }
}
