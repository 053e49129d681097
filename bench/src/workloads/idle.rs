//! Memory for clients that have logged in, have asked once, and are silent.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use domicile_tests::process::Process;
use rustix::process::{Resource, Signal, getrlimit};

use crate::answers::Work;
use crate::cell::{Cell, Sample};
use crate::cpu;
use crate::outcome::Protocol;
use crate::stage::{Asked, Stage};
use crate::subjects::{Login, Programs, Subject, haproxy};
use crate::workloads::tls::{Certificates, Sides};

/// The same for clients that encrypt.
///
/// # Errors
/// A subject does not start.
pub fn tls(stage: &mut Stage<'_>) -> Result<(), String> {
    let server = stage.server();
    let certificates = Certificates::issue();
    let subjects = certificates.poolers(stage, server, Sides { client: true, server: false })?;
    let subjects: Vec<&Subject> = subjects.iter().collect();
    let clients = 1000;
    let cell = Cell { workload: "idle/tls", protocol: Some("simple"), clients };
    stage.measure(&cell, &subjects, 1, |programs, subject| measure(programs, subject, clients));
    Ok(())
}

/// Each time with processes that have just been started, because memory is not given back.
///
/// # Errors
/// A subject does not start.
pub fn run(stage: &mut Stage<'_>) -> Result<(), String> {
    let server = stage.server();
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    for &clients in stage.depth.choose(&[1000][..], &[1000, 10_000], &[1000, 10_000, 20_000]) {
        let most = usize::try_from(files.saturating_sub(200)).unwrap_or(usize::MAX);
        if most < clients {
            stage.note(format!(
                "idle: {most} clients in the place of {clients}, because {files} open files are allowed (ulimit -Hn)"
            ));
        }
        let clients = clients.min(most);
        let mut subjects = vec![stage.domicile(server)?];
        subjects.extend(stage.pgbouncers(server, Login::Trust, "")?);
        // It has two files for each client.
        if most >= 2 * clients {
            subjects.extend(haproxy(server)?);
        }
        let subjects: Vec<&Subject> = subjects.iter().collect();
        let cell = Cell { workload: "idle", protocol: Some("simple"), clients };
        stage.measure(&cell, &subjects, 1, |programs, subject| measure(programs, subject, clients));
    }
    Ok(())
}

fn measure(programs: &Programs, subject: &Subject, clients: usize) -> Result<Sample, String> {
    let process = subject.process.ok_or("no process")?;
    // Buffers that all clients share have been used once when it begins.
    let asked =
        Asked { work: Work::Row8192, protocol: Protocol::Extended, clients: 4, rate: None, window: Duration::from_millis(1000) };
    programs.load(subject, &asked)?;
    let before = cpu::resident_bytes(process);
    let mut command = Command::new(&programs.bench);
    command.args(["idle", &subject.address.to_string(), "--clients", &clients.to_string()]);
    if let Some(authority) = &subject.authority {
        command.arg("--authority").arg(authority);
    }
    let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let (input, keep) = std::io::pipe().map_err(|error| error.to_string())?;
    command.stdin(Stdio::from(input)).stdout(Stdio::from(writer.try_clone().map_err(|error| error.to_string())?));
    command.stderr(Stdio::from(writer));
    let held = Process::start(command, Signal::TERM).map_err(|error| error.to_string())?;
    let mut said = String::new();
    BufReader::new(reader).read_line(&mut said).map_err(|error| error.to_string())?;
    if said.trim() != "idle" {
        return Err(said);
    }
    let grown = cpu::resident_bytes(process).saturating_sub(before);
    let quiet = Duration::from_secs(1);
    let used_before = cpu::of_tree(process);
    std::thread::sleep(quiet);
    let used = (cpu::of_tree(process) - used_before).as_secs_f64();
    drop((keep, held));
    Ok(Sample {
        values: vec![
            ("rss_bytes_per_client", "bytes", grown as f64 / clients as f64),
            ("rss_mb", "MB", cpu::resident_bytes(process) as f64 / 1e6),
            ("idle_cpu_percent", "% of a core", used / quiet.as_secs_f64() * 100.0),
        ],
        curve: Vec::new(),
    })
}
