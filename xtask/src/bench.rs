//! `cargo xtask bench`: what a query costs, subjects side by side in one run. bench/README.md tells how each figure is made.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::Command;

use domicile_bench::report::Report;
use domicile_bench::stage::{Depth, Stage, Watch};
use domicile_bench::subjects::{Peer, PgBouncer, Programs};
use domicile_bench::workloads::{self, Workload};
use domicile_tests::process::exit_when_signalled;
use domicile_tests::proxy::{root, target_directory};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{install, progress};

/// Measure what things cost, side by side in one run
#[derive(clap::Args)]
pub struct Options {
    /// Fewer and shorter rounds: under three minutes
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// More and longer rounds, and more sizes: under 40 minutes
    #[arg(long)]
    full: bool,
    /// Only the workloads whose names contain this
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Install Debian's PgBouncer and HAProxy, to be compared with
    #[arg(long)]
    install_peers: bool,
    /// A further one to be compared with: a command that listens at PORT of 127.0.0.1; {server} in it becomes the port of its server
    #[arg(long, value_name = "NAME=COMMAND,PORT")]
    peer: Vec<Peer>,
    /// A further PgBouncer to be compared with, wherever PgBouncer is: its program
    #[arg(long, value_name = "PROGRAM")]
    pgbouncer: Vec<PgBouncer>,
    /// An earlier report.json: says what has moved since
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
}

/// Measures, prints a table and writes `target/bench/report.json` and `report.html`.
pub fn run(options: &Options) -> Result<(), String> {
    exit_when_signalled().map_err(|error| error.to_string())?;
    let baseline = options.baseline.as_deref().map(Report::read).transpose()?;
    let is_asked_for = |workload: &&Workload| {
        let is_in_time = workload.is_quick || !options.quick || !options.only.is_empty();
        is_in_time && workload.name.contains(&options.only)
    };
    let asked_for = || workloads::ALL.iter().filter(is_asked_for);
    if asked_for().next().is_none() {
        let names: Vec<&str> = workloads::ALL.iter().map(|workload| workload.name).collect();
        return Err(format!("No workload is named {}: there are {}.", options.only, names.join(", ")));
    }
    if options.install_peers {
        install::peers()?;
    }
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--release", "--package", "domicile", "--bin", "domicile"]);
    build.args(["--package", "domicile-bench", "--bin", "domicile-bench", "--example", "domicile-steps"]).current_dir(root());
    progress::run("Building Domicile and the load (release)", build)?;
    if asked_for().any(|workload| workload.name == "fence/connect") {
        println!("Building what connects inside the fence");
        domicile_tests::intruder::program()?;
    }
    let [domicile, bench, steps] =
        ["domicile", "domicile-bench", "examples/domicile-steps"].map(|name| target_directory().join("release").join(name));

    raise_file_limit();
    let watch = Watch::start();
    let terminal = std::io::stdout().is_terminal();
    let told = |line: &str| tell(&format!("{:>4.0} s  {line}", watch.seconds()), terminal);
    let depth = match (options.quick, options.full) {
        (true, _) => Depth::Quick,
        (_, true) => Depth::Full,
        _ => Depth::Usual,
    };
    let programs = Programs { domicile, bench, steps };
    let (pgbouncers, peers) = (options.pgbouncer.clone(), options.peer.clone());
    let mut stage = Stage::set(programs, depth, pgbouncers, peers, Report::new(commit()), &told)?;
    stage.note(load_average("before"));
    let directory = target_directory().join("bench");
    let count = asked_for().count();
    for (done, workload) in asked_for().enumerate() {
        tell("", terminal);
        println!("{:>4.0} s  {} ({} of {count})", watch.seconds(), workload.name, done + 1);
        if let Err(error) = (workload.run)(&mut stage) {
            stage.note(format!("{}: {error}", workload.name));
        }
        // What there is after each workload is kept, whatever becomes of the next.
        stage.report.write(&directory)?;
    }
    stage.note(load_average("after"));
    stage.report.write(&directory)?;
    tell("", terminal);
    println!("{}", stage.report.table());
    if let Some(before) = baseline {
        println!("\n{}", stage.report.since(&before));
    }
    println!("\nin {} and report.html, after {:.0} s", directory.join("report.json").display(), watch.seconds());
    Ok(())
}

/// On a terminal one line that is written over and over; elsewhere nothing, because workloads have a line of their own.
fn tell(line: &str, terminal: bool) {
    if terminal {
        let line: String = line.chars().take(100).collect();
        print!("\r\x1b[K{line}");
        std::io::stdout().flush().ok();
    }
}

/// Every client is a file, and a relay has two for each. What cannot be had is noted by who needs it.
fn raise_file_limit() {
    let before = getrlimit(Resource::Nofile).maximum;
    for maximum in [before.map(|before| before.max(65_536)), before] {
        if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
            return;
        }
    }
}

/// How many wanted to run, which tells how far the figures can be trusted.
fn load_average(when: &str) -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load average {when} the run: {}", text.split(' ').next().unwrap_or_default())
}

fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
