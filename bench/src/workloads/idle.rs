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
use crate::subjects::{Login, Programs, Subject, haproxy, pgbouncer};

/// Each time with processes that have just been started, because memory is not given back.
///
/// # Errors
/// A subject does not start.
pub fn run(stage: &mut Stage<'_>) -> Result<(), String> {
    let server = stage.server();
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    for &clients in stage.depth.choose(&[1000][..], &[1000, 5000], &[1000, 9000, 19_000]) {
        // HAProxy and the floor have two files for each client.
        if files < clients as u64 + 100 {
            stage.note(format!("idle, {clients} clients: needs as many open files, and {files} are allowed (ulimit -Hn)"));
            continue;
        }
        let mut subjects = vec![stage.domicile(server)?];
        subjects.extend(pgbouncer("pgbouncer", server, Login::Trust, "")?);
        if files > 2 * clients as u64 + 100 {
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
        Asked { work: Work::Row8192, protocol: Protocol::Extended, clients: 64, rate: None, window: Duration::from_millis(1000) };
    programs.load(subject, &asked)?;
    let before = cpu::resident_bytes(process);
    let mut command = Command::new(&programs.bench);
    command.args(["idle", &subject.address.to_string(), "--clients", &clients.to_string()]);
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
