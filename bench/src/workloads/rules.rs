//! What a long list of bind rules costs a query: it should be nothing.

use std::fmt::Write;
use std::time::Duration;

use crate::answers::Work;
use crate::cell::{Cell, Sample};
use crate::outcome::Protocol;
use crate::stage::{Asked, Stage, Watch};
use crate::subjects::{REGION, Subject};
use crate::workloads::queries::of_query;

const CLIENTS: usize = 64;

/// One rule, and many, of which the last one is that of the load.
///
/// # Errors
/// A subject does not start.
pub fn run(stage: &mut Stage<'_>) -> Result<(), String> {
    let server = stage.server();
    let mut all = Vec::new();
    for &rules in stage.depth.choose(&[1, 1000][..], &[1, 1000, 10_000], &[1, 1000, 100_000]) {
        let watch = Watch::start();
        let mut text = String::new();
        for rule in 1..=rules {
            let user = if rule == rules { "postgres".to_owned() } else { format!("user{rule}") };
            writeln!(text, "[[residency.bind]]\nuser = \"{user}\"\nregions = [\"{REGION}\"]")
                .map_err(|error| error.to_string())?;
        }
        let name = format!("domicile, {rules} rules");
        all.push(stage.programs.domicile(&name, server, None, |configuration| {
            configuration.residency = "unbound = \"block\"\n".to_owned();
            configuration.more = text;
        })?);
        stage.note(format!("{name}: started in {:.1} s", watch.seconds()));
    }
    let subjects: Vec<&Subject> = all.iter().collect();
    let asked = Asked {
        work: Work::Row100,
        protocol: Protocol::Simple,
        clients: CLIENTS,
        rate: None,
        window: Duration::from_millis(stage.depth.choose(350, 800, 1500)),
    };
    let cell = Cell { workload: "rules", protocol: Some("simple"), clients: CLIENTS };
    stage.measure(&cell, &subjects, stage.depth.choose(3, 7, 11), |programs, subject| -> Result<Sample, String> {
        Ok(of_query(&programs.load(subject, &asked)?, subject))
    });
    Ok(())
}
