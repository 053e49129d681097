//! What one does with this repository, one command a file. Continuous integration calls the same commands as a laptop.

mod bench;
mod ci;
mod demo;
mod ebpf;
mod fuzz;
mod install;
mod instructions;
mod progress;
mod show;
mod sim;
mod soak;
mod suites;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What one does with this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show Domicile at work on two real PostgreSQL servers
    Demo(demo::Options),
    /// Run everything: format, lints, tidy, unit tests, the loom model, end-to-end on real PostgreSQL
    Test {
        /// One step (fmt, clippy, tidy, unit, loom, ebpf, instructions, e2e), or a part of the names of the tests to run
        filter: Option<String>,
    },
    /// Run what continuous integration runs, and the fuzz targets for a minute each
    Ci,
    /// Check the invariants of ARCHITECTURE.md on the text of the tree
    Tidy,
    /// Run each fuzz target for a while
    Fuzz {
        /// Seconds for each target
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Build the kernel's programs, or check that what is committed is what their sources say
    Ebpf(ebpf::Options),
    Bench(bench::Options),
    Suites(suites::Options),
    Soak(soak::Options),
    Sim(sim::Options),
    /// Install the packages that the other commands need
    Install,
}

fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test { filter } => test::run(filter.as_deref()),
        Command::Ci => ci::run(),
        Command::Tidy => tidy::run(),
        Command::Fuzz { seconds } => fuzz::run(seconds),
        Command::Ebpf(options) => ebpf::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Sim(options) => sim::run(&options),
        Command::Suites(options) => suites::run(&options),
        Command::Install => install::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
