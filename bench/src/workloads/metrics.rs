//! What it costs to be watched: the same query while metrics are scraped, and while they are not.

use std::thread;
use std::time::Duration;

use crate::answers::Work;
use crate::cell::Cell;
use crate::outcome::Protocol;
use crate::stage::{Asked, Stage};
use crate::workloads::queries::of_query;

const CLIENTS: usize = 64;

/// Scraped once a second, which is fifteen times as often as by Prometheus's default.
///
/// # Errors
/// A subject does not start.
pub fn query(stage: &mut Stage<'_>) -> Result<(), String> {
    let scraped = stage.domicile(stage.server())?.named("domicile, scraped each second");
    let quiet = scraped.again("domicile, not scraped");
    let seconds = 1;
    let window = Duration::from_secs(seconds);
    let asked = Asked { work: Work::Row100, protocol: Protocol::Simple, clients: CLIENTS, rate: None, window };
    let cell = Cell { workload: "metrics/query", protocol: Some("simple"), clients: CLIENTS };
    stage.measure(&cell, &[&quiet, &scraped], 2 * stage.depth.rounds() + 1, |programs, subject| {
        thread::scope(|scope| {
            let load = scope.spawn(|| programs.load(subject, &asked));
            if let Some(proxy) = subject.proxy() {
                // In the middle of each second that counts.
                thread::sleep(Duration::from_millis(700));
                for second in 0..seconds {
                    thread::sleep(Duration::from_secs(second.min(1)));
                    proxy.http("/metrics")?;
                }
            }
            let outcome = load.join().map_err(|_| "the load panicked".to_owned())??;
            Ok(of_query(&outcome, subject))
        })
    });
    Ok(())
}
