//! What the fence costs: a query, and a connection, with it and without it.

use std::net::TcpListener;
use std::thread;

use domicile_tests::gate::{Gate, number};
use domicile_tests::intruder::{Place, intrude};
use domicile_tests::proxy::{Configuration, Proxy};

use crate::answers::Work;
use crate::cell::{Cell, Sample};
use crate::outcome::Protocol;
use crate::stage::{Asked, Stage};
use crate::subjects::{Programs, REGION, Subject};
use crate::workloads::queries::of_query;

const CLIENTS: usize = 64;

/// The same query with the fence and without it.
///
/// # Errors
/// Something cannot run here.
pub fn query(stage: &mut Stage<'_>) -> Result<(), String> {
    let server = stage.server();
    let gate = Gate::named("bench")?;
    let all = [
        stage.programs.domicile("domicile, fence off", server, None, |_| {})?,
        stage.programs.domicile("domicile, fence on", server, Some(gate), |_| {})?,
    ];
    let subjects: Vec<&Subject> = all.iter().collect();
    let asked =
        Asked { work: Work::Row100, protocol: Protocol::Simple, clients: CLIENTS, rate: None, window: stage.depth.window() };
    let cell = Cell { workload: "fence/query", protocol: Some("simple"), clients: CLIENTS };
    stage.measure(&cell, &subjects, 2 * stage.depth.rounds() + 1, |programs, subject| {
        Ok(of_query(&programs.load(subject, &asked)?, subject))
    });
    Ok(())
}

/// CPU time of the one who connects, for one connection.
///
/// # Errors
/// Something cannot run here.
pub fn connect(stage: &mut Stage<'_>) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // Room for those who come while it does not run: who finds none waits for a second.
    rustix::net::listen(&listener, 4096).map_err(|error| error.to_string())?;
    // Whoever comes is let go.
    thread::spawn(move || listener.incoming().for_each(drop));
    let gate = Gate::named("bench")?;
    let configuration = Configuration::new(&[(REGION, "pg-eu-west", address)]);
    let _proxy = Proxy::start_program(&stage.programs.domicile, &gate.around(&configuration, "required"))?;
    let places = ["domicile, fence off", "domicile, fence on"].map(|name| Programs::direct(address).named(name));
    let subjects: Vec<&Subject> = places.iter().collect();
    let cell = Cell { workload: "fence/connect", protocol: None, clients: 1 };
    stage.measure(&cell, &subjects, stage.depth.rounds(), |_, subject| {
        let inside = subject.name.ends_with("on");
        let place = Place { cgroup: inside.then(|| gate.cgroup()), unprivileged: true };
        let attempt = if inside { format!("{}:cost={address}", number(REGION)) } else { format!("cost={address}") };
        let said = intrude(place, &[&attempt])?;
        let cost = said.trim_end().rsplit(' ').next().and_then(|cost| cost.parse().ok());
        let cost: f64 = cost.ok_or_else(|| format!("{attempt}: {said}"))?;
        Ok(Sample { values: vec![("cpu_ns_per_connect", "ns a connect", cost)], curve: Vec::new() })
    });
    Ok(())
}
