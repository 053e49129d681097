//! CPU time of a login, one query and the end of the connection.

use std::process::Command;
use std::time::Duration;

use crate::cell::{Cell, Sample};
use crate::stage::{Stage, outcome};
use crate::subjects::{self, Login, Subject, haproxy, verifier};
use crate::workloads::tls::{Certificates, Sides};

const CLIENTS: usize = 8;

/// Everybody is let in.
///
/// # Errors
/// A subject does not start.
pub fn trust(stage: &mut Stage<'_>) -> Result<(), String> {
    run(stage, "login/trust", Login::Trust)
}

/// SCRAM-SHA-256 against a stored verifier.
///
/// # Errors
/// A subject does not start.
pub fn scram(stage: &mut Stage<'_>) -> Result<(), String> {
    run(stage, "login/scram", Login::Scram)
}

/// Everybody is let in who encrypts, each time with a whole handshake.
///
/// # Errors
/// A subject does not start.
pub fn tls(stage: &mut Stage<'_>) -> Result<(), String> {
    let certificates = Certificates::issue();
    let all = certificates.poolers(stage, stage.server(), Sides { client: true, server: false })?;
    measure(stage, "login/tls", &all);
    Ok(())
}

fn run(stage: &mut Stage<'_>, workload: &str, login: Login) -> Result<(), String> {
    let server = stage.server();
    let mut all = Vec::new();
    all.extend(match login {
        Login::Trust => vec![stage.domicile(server)?],
        Login::Scram => vec![stage.programs.domicile("domicile", server, None, |configuration| {
            configuration.method = "scram-sha-256";
            configuration.users = vec![("postgres".to_owned(), verifier())];
        })?],
    });
    all.extend(stage.pgbouncers(server, login, "")?);
    if login == Login::Trust {
        all.push(stage.programs.floor(server)?);
        all.extend(haproxy(server)?);
    }
    measure(stage, workload, &all);
    Ok(())
}

fn measure(stage: &mut Stage<'_>, workload: &str, all: &[Subject]) {
    let subjects: Vec<&Subject> = all.iter().collect();
    let window = Duration::from_millis(stage.depth.choose(600, 1000, 1500));
    let cell = Cell { workload, protocol: None, clients: CLIENTS };
    stage.measure(&cell, &subjects, stage.depth.choose(2, 3, 5), |programs, subject| {
        let process = subject.process.ok_or("no process")?;
        let mut command = Command::new(&programs.bench);
        command.args(["--core", &subjects::load_core().to_string(), "logins", &subject.address.to_string()]);
        command.args(["--clients", &CLIENTS.to_string(), "--window", &window.as_millis().to_string()]);
        command.args(["--process", &process.to_string()]);
        if let Some(authority) = &subject.authority {
            command.arg("--authority").arg(authority);
        }
        let outcome = outcome(command, window)?;
        let logins = outcome.queries as f64;
        Ok(Sample {
            values: vec![
                ("cpu_us_per_login", "µs a login", outcome.cpu_seconds * 1e6 / logins),
                ("logins_per_s", "logins/s", logins / outcome.seconds),
            ],
            curve: Vec::new(),
        })
    });
}
