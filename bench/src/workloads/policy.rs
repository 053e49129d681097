//! What a policy of many logins and regions costs: a query nothing, and a reload its time, during which queries go on.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use domicile_tests::process::wait_for;
use domicile_tests::proxy::Configuration;
use rustix::process::Signal;

use crate::answers::Work;
use crate::cell::{Cell, Sample};
use crate::outcome::Protocol;
use crate::stage::{Asked, Stage, Watch};
use crate::subjects::Subject;
use crate::workloads::queries::of_query;

const CLIENTS: usize = 64;

/// Few logins and many, in one region and in 64; the load is the last of them.
///
/// # Errors
/// A subject does not start.
pub fn query(stage: &mut Stage<'_>) -> Result<(), String> {
    let all = stage.depth.choose(
        &[(1, 1), (1000, 1), (1000, 64)][..],
        &[(1, 1), (1000, 1), (1, 64), (1_000_000, 64)],
        &[(1, 1), (1000, 1), (1_000_000, 1), (1, 64), (1000, 64), (1_000_000, 64)],
    );
    let all: Result<Vec<_>, _> = all.iter().map(|&(logins, regions)| start(stage, logins, regions)).collect();
    let all = all?;
    let subjects: Vec<&Subject> = all.iter().collect();
    let asked =
        Asked { work: Work::Row100, protocol: Protocol::Simple, clients: CLIENTS, rate: None, window: stage.depth.window() };
    let cell = Cell { workload: "policy/query", protocol: Some("simple"), clients: CLIENTS };
    stage.measure(&cell, &subjects, stage.depth.rounds(), |programs, subject| {
        Ok(of_query(&programs.load(subject, &asked)?, subject))
    });
    Ok(())
}

/// A reload of a million logins under a light load in an open loop, and the same load without it. All threads share one core.
///
/// # Errors
/// A subject does not start.
pub fn reload(stage: &mut Stage<'_>) -> Result<(), String> {
    let logins = stage.depth.choose(10_000, 1_000_000, 1_000_000);
    let subject = start(stage, logins, 64)?;
    // How long to look, roughly.
    let watch = Watch::start();
    reload_once(&subject, 1)?;
    let window = Duration::from_secs_f64(watch.seconds() * 1.3 + 0.5);
    let quiet = subject.again(&format!("{}, no reload", subject.name));
    let asked = Asked { work: Work::Row100, protocol: Protocol::Simple, clients: CLIENTS, rate: Some(2000.0), window };
    let cell = Cell { workload: "policy/reload", protocol: Some("simple"), clients: CLIENTS };
    let mut reloads = 1;
    stage.measure(&cell, &[&quiet, &subject], stage.depth.choose(2, 3, 5), |programs, who| {
        let mut values = Vec::new();
        let outcome = thread::scope(|scope| {
            let load = scope.spawn(|| programs.load(who, &asked));
            if who.proxy().is_some() {
                thread::sleep(Duration::from_millis(400));
                reloads += 1;
                values.push(("reload_s", "s", reload_once(who, reloads)?));
            }
            load.join().map_err(|_| "the load panicked".to_owned())?
        })?;
        let latency = outcome.latency;
        values.extend([
            ("p50_us", "µs", latency.p50_us),
            ("p99_us", "µs", latency.p99_us),
            ("longest_ms", "ms", latency.max_us / 1000.0),
        ]);
        Ok(Sample { values, curve: latency.curve })
    });
    Ok(())
}

/// Has the file read once more, for the `count`th time, and waits until the log says so; the seconds it took.
fn reload_once(subject: &Subject, count: usize) -> Result<f64, String> {
    let proxy = subject.proxy().ok_or("no proxy")?;
    let watch = Watch::start();
    proxy.signal(Signal::HUP);
    let is_done = || (proxy.log().matches("the configuration has been reloaded").count() >= count).then_some(());
    wait_for(Duration::from_secs(120), is_done).ok_or("the reload was not done within two minutes")?;
    Ok(watch.seconds())
}

/// Domicile without a fence, under a policy of so many logins that are spread over so many regions. The load's own, the last one, is
/// granted all of them.
fn start(stage: &mut Stage<'_>, logins: usize, regions: usize) -> Result<Subject, String> {
    let watch = Watch::start();
    let name = format!("domicile, {logins} logins, {regions} regions")
        .replace(" 1 logins", " 1 login")
        .replace(" 1 regions", " 1 region");
    let server = stage.server();
    let subject = stage.programs.domicile(&name, server, None, |configuration| govern(configuration, logins, regions))?;
    stage.note(format!("{name}: started in {:.1} s", watch.seconds()));
    Ok(subject)
}

fn govern(configuration: &mut Configuration, logins: usize, regions: usize) {
    let Some((_, _, address)) = configuration.nodes.first().cloned() else { return };
    let region = |number: usize| format!("region{}", number % regions);
    configuration.nodes = (0..regions).map(|number| (region(number), format!("node{number}"), address.clone())).collect();
    configuration.residency = "unbound = \"block\"\n".to_owned();
    let mut text = String::new();
    for login in 1..logins {
        // Writing to a String does not fail.
        writeln!(text, "[[residency.bind]]\nuser = \"user{login}\"\nregions = [\"{}\"]", region(login)).ok();
    }
    let all: Vec<String> = (0..regions).map(region).collect();
    writeln!(text, "[[residency.bind]]\nuser = \"postgres\"\nregions = {all:?}").ok();
    configuration.more = text;
}
