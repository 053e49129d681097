//! `cargo xtask test`: everything, fast things first. Every step runs even if an earlier one failed; the last line counts.
//!
//! The steps name the whole workspace, so that cargo chooses the same features for all of them and builds every dependency once.
//! The end-to-end tests drive the release build, which is what is shipped.

use std::fs;
use std::process::Command;
use std::time::Duration;

use domicile_tests::process::{Scratch, now};
use domicile_tests::proxy::{root, target_directory};
use domicile_tests::skip;

use crate::ebpf::{self, Checked};
use crate::instructions;
use crate::progress::{Outcome, seconds, watch};
use crate::tidy;

type Step = fn(&str) -> Result<Report, String>;

const STEPS: [(&str, Step); 8] = [
    ("fmt", fmt),
    ("clippy", clippy),
    ("tidy", check_tidy),
    ("unit", unit),
    ("loom", loom),
    ("ebpf", check_ebpf),
    ("instructions", check_instructions),
    ("e2e", e2e),
];

/// What a step found.
#[derive(Default)]
struct Report {
    passed: usize,
    failed: usize,
    skipped: Vec<String>,
    took: Duration,
    /// What explains the failures.
    output: String,
}

/// Runs all steps, one step, or the tests with a name that contains `filter`.
pub fn run(filter: Option<&str>) -> Result<(), String> {
    let step_asked_for = filter.is_some_and(|filter| STEPS.iter().any(|(name, _)| *name == filter));
    let is_asked_for = |name: &str| match filter {
        None => true,
        Some(filter) if step_asked_for => name == filter,
        Some(_) => matches!(name, "unit" | "e2e"),
    };
    let names = filter.filter(|_| !step_asked_for).unwrap_or("");

    let mut total = Report::default();
    for (name, step) in STEPS.iter().filter(|(name, _)| is_asked_for(name)) {
        let report = step(names).unwrap_or_else(|error| Report { failed: 1, output: error, ..Report::default() });
        if report.failed > 0 {
            println!("{}", report.output.trim_end());
        }
        let Report { passed, failed, skipped, took, .. } = report;
        println!("{name:<12} {passed:>4} passed {failed:>3} failed {:>3} skipped  {:>6}", skipped.len(), seconds(took));
        total.passed += passed;
        total.failed += failed;
        total.skipped.extend(skipped);
    }
    total.skipped.iter().for_each(|line| println!("{line}"));
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped.len());
    if total.failed > 0 { std::process::exit(1) } else { Ok(()) }
}

/// A step that passes or fails as a whole.
fn one(outcome: Outcome) -> Report {
    let passed = usize::from(outcome.success);
    Report { passed, failed: 1 - passed, took: outcome.took, output: outcome.output, ..Report::default() }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root()).env("CARGO_TERM_COLOR", "never");
    command
}

fn fmt(_: &str) -> Result<Report, String> {
    let product = watch("fmt", cargo(&["fmt", "--all", "--check"]))?;
    if !product.success {
        return Ok(one(product));
    }
    watch("fmt", cargo(&["fmt", "--all", "--check", "--manifest-path", "ebpf/Cargo.toml"])).map(one)
}

fn clippy(_: &str) -> Result<Report, String> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    watch("clippy", cargo(&arguments)).map(one)
}

fn check_tidy(_: &str) -> Result<Report, String> {
    tidy::run().map(|()| Report { passed: 1, ..Report::default() })
}

fn check_ebpf(_: &str) -> Result<Report, String> {
    let started = now();
    let mut report = match ebpf::check()? {
        Checked::Same | Checked::Works(_) => Report { passed: 1, ..Report::default() },
        Checked::Lacking(needs) => {
            let line = format!("skipped: ebpf --check: needs {}", needs.split_whitespace().collect::<Vec<_>>().join(" "));
            Report { skipped: vec![line], ..Report::default() }
        }
    };
    report.took = now() - started;
    Ok(report)
}

fn check_instructions(_: &str) -> Result<Report, String> {
    let started = now();
    let mut report = match instructions::check()? {
        Some(_) => Report { passed: 1, ..Report::default() },
        None => Report {
            skipped: vec!["skipped: instructions: needs valgrind (Debian: apt-get install valgrind)".to_owned()],
            ..Report::default()
        },
    };
    report.took = now() - started;
    Ok(report)
}

fn unit(names: &str) -> Result<Report, String> {
    let nextest = cargo(&["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut command = if nextest {
        cargo(&[
            "nextest",
            "run",
            "--workspace",
            "--lib",
            "--bins",
            "--test",
            "simulation",
            "--test",
            "allocations",
            "--no-fail-fast",
            "--no-tests=pass",
        ])
    } else {
        cargo(&["test", "--workspace", "--lib", "--bins", "--test", "simulation", "--test", "allocations", "--no-fail-fast"])
    };
    if !names.is_empty() {
        command.arg(names);
    }
    run_tests("unit", command)
}

fn loom(_: &str) -> Result<Report, String> {
    let mut command = cargo(&["test", "--release", "--package", "domicile-tests", "--test", "loom"]);
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target_directory().join("loom"));
    run_tests("loom", command)
}

fn e2e(names: &str) -> Result<Report, String> {
    let built = watch("e2e: the release build", cargo(&["build", "--release", "--package", "domicile", "--bin", "domicile"]))?;
    if !built.success {
        return Ok(one(built));
    }
    // Two at a time: several of them measure time, or load both cores themselves.
    let mut command = cargo(&["test", "--workspace", "--test", "e2e", "--", "--test-threads=2"]);
    if !names.is_empty() {
        command.arg(names);
    }
    command.env("DOMICILE_BIN", target_directory().join("release/domicile"));
    let mut report = run_tests("e2e", command)?;
    report.took += built.took;
    Ok(report)
}

/// Runs tests, and counts those that skip themselves, which for the runner have passed.
fn run_tests(what: &str, mut command: Command) -> Result<Report, String> {
    let scratch = Scratch::new().map_err(|error| format!("a temporary directory: {error}"))?;
    let file = scratch.path().join("skipped");
    command.env(skip::FILE, &file);
    let mut report = counted(watch(what, command)?);
    report.skipped = fs::read_to_string(&file).unwrap_or_default().lines().map(str::to_owned).collect();
    report.passed = report.passed.saturating_sub(report.skipped.len());
    Ok(report)
}

/// Counts what a test runner printed: nextest's summary, else `test result:` of every test binary.
fn counted(outcome: Outcome) -> Report {
    let Outcome { output, success, took } = outcome;
    let lines = || output.lines().map(str::trim);
    let results: Vec<&str> = match lines().find(|line| line.starts_with("Summary [")) {
        Some(summary) => vec![summary],
        None => lines().filter(|line| line.starts_with("test result: ")).collect(),
    };
    let sum = |word: &str| results.iter().map(|line| before(line, word)).sum::<usize>();
    let (passed, failed) = (sum("passed"), sum("failed") + sum("timed out"));
    // A run that broke off, because something does not compile, has failed too.
    let failed = if success { failed } else { failed.max(1) };
    Report { passed, failed, took, output: without_passed(&output), ..Report::default() }
}

/// What a test runner printed, without what only says that all is well.
fn without_passed(output: &str) -> String {
    let is_news = |line: &&str| {
        let line = line.trim_start();
        let starts = ["PASS [", "Compiling ", "Checking ", "Running "];
        !(starts.iter().any(|start| line.starts_with(start)) || line.starts_with("test ") && line.ends_with(" ok"))
    };
    output.lines().filter(is_news).collect::<Vec<_>>().join("\n")
}

/// The number that stands before a word.
fn before(line: &str, word: &str) -> usize {
    let words = line.split(word).next().filter(|head| head.len() < line.len());
    words.and_then(|head| head.split_whitespace().last()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(output: &str, success: bool) -> (usize, usize) {
        let report = counted(Outcome { output: output.to_owned(), success, took: Duration::ZERO });
        (report.passed, report.failed)
    }

    #[test]
    fn both_runners_are_counted() {
        let cargo = "running 3 tests\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                     test result: FAILED. 1 passed; 2 failed; 0 ignored";
        assert_eq!(count(cargo, false), (4, 2));
        let nextest = "     Summary [   0.1s] 9 tests run: 6 passed (1 slow), 1 failed, 2 timed out, 4 skipped\n\
                       test result: FAILED. 0 passed; 1 failed; 0 ignored";
        assert_eq!(count(nextest, false), (6, 3));
    }

    #[test]
    fn a_run_that_breaks_off_is_a_failure() {
        assert_eq!(count("error: could not compile", false), (0, 1));
        assert_eq!(count("", true), (0, 0));
    }

    #[test]
    fn failures_are_shown_without_what_passed() {
        assert_eq!(without_passed("   Compiling a v1\ntest a ... ok\ntest b ... FAILED\n  PASS [ 0.1s] c"), "test b ... FAILED");
    }
}
