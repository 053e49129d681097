//! `cargo xtask bench`: what a query costs, subjects side by side in one run. bench/README.md tells how each figure is made.

use std::process::Command;

use domicile_bench::fence;
use domicile_bench::report::Report;
use domicile_tests::proxy::{root, target_directory};

use crate::progress;

/// Measure what things cost, side by side in one run
#[derive(clap::Args)]
pub struct Options {
    /// Fewer and shorter rounds: under three minutes
    #[arg(long)]
    quick: bool,
    /// Only the workloads whose names contain this
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
}

/// Measures, prints a table and writes `target/bench/report.json`.
pub fn run(options: &Options) -> Result<(), String> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--release", "--package", "domicile", "--bin", "domicile"]).current_dir(root());
    progress::run("Building Domicile (release)", build)?;
    let program = target_directory().join("release/domicile");

    let told = |line: &str| println!("{line}");
    let (rounds, seconds) = if options.quick { (5, 4) } else { (11, 8) };
    let mut report = Report::new(commit());
    if "fence/select".contains(&options.only) {
        report.rows.extend(fence::select(&program, rounds, seconds, &told)?);
    }
    if "fence/connect".contains(&options.only) {
        report.rows.extend(fence::connect(&program, rounds, &told)?);
    }
    if report.rows.is_empty() {
        return Err(format!("No workload is named {}: there are fence/select and fence/connect.", options.only));
    }
    let file = target_directory().join("bench/report.json");
    report.write(&file)?;
    println!("\n{}\nin {}", report.table(), file.display());
    Ok(())
}

fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
