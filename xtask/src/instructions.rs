//! Instructions of the steps of a query, counted by callgrind and compared with what is committed in `bench/steps/instructions.txt`.
//!
//! They do not depend on how busy the machine is, so a rise is a change of the code (or of the compiler: then the file is written
//! anew, with `UPDATE_EXPECT=1`).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use domicile_tests::program;
use domicile_tests::proxy::{root, target_directory};

use crate::progress;

const BASELINE: &str = "bench/steps/instructions.txt";
/// What a step may rise by.
const RISE_MAX: f64 = 0.03;
/// Instructions that may be more whatever the share is: a step of a few dozen must not fail for two.
const RISE_FREE: f64 = 4.0;

/// Counts every step: one line for each. `Ok(None)`: there is no valgrind.
///
/// # Errors
/// A step takes more instructions than it did, or cannot be counted.
pub fn check() -> Result<Option<String>, String> {
    let Some(valgrind) = program::find("valgrind") else { return Ok(None) };
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The same as for `cargo xtask bench`, so that features are the same and nothing is built twice.
    build.args(["build", "--release", "--package", "domicile", "--bin", "domicile"]);
    build.args(["--package", "domicile-bench", "--bin", "domicile-bench", "--example", "domicile-steps"]).current_dir(root());
    progress::run("instructions: the release build", build)?;
    let steps = target_directory().join("release/examples/domicile-steps");
    let names = run(Command::new(&steps))?;
    let mut counted = Vec::new();
    for name in names.lines() {
        // What comes before the steps is in both, and drops out.
        let (few, many) = (1000, 3000);
        let difference = instructions(&valgrind, &steps, name, many)? - instructions(&valgrind, &steps, name, few)?;
        counted.push((name, difference / f64::from(many - few)));
    }
    let text: String = counted.iter().map(|(name, count)| format!("{count:>6.0} {name}\n")).collect();
    let file = root().join(BASELINE);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&file, &text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let baseline = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let risen = risen(&baseline, &counted);
    if risen.is_empty() { Ok(Some(text)) } else { Err(format!("{text}{}", risen.join("\n"))) }
}

/// What takes more than it did.
fn risen(baseline: &str, counted: &[(&str, f64)]) -> Vec<String> {
    let known = |name: &str| baseline.lines().find_map(|line| line.trim().strip_suffix(name)?.trim().parse::<f64>().ok());
    let judge = |(name, count): &(&str, f64)| match known(name) {
        None => Some(format!("{name} is not in {BASELINE}: UPDATE_EXPECT=1 writes it")),
        Some(before) if count - before > (before * RISE_MAX).max(RISE_FREE) => Some(format!(
            "{name} takes {count:.0} instructions instead of {before:.0}: {:.1} % more. If that is what it takes, \
             UPDATE_EXPECT=1 writes {BASELINE} anew",
            100.0 * (count / before - 1.0)
        )),
        Some(_) => None,
    };
    counted.iter().filter_map(judge).collect()
}

/// Instructions of a process that does a step so many times.
fn instructions(valgrind: &Path, steps: &Path, name: &str, times: i32) -> Result<f64, String> {
    let mut command = Command::new(valgrind);
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(steps).args([name, &times.to_string()]);
    let said = run(command)?;
    // `==7== Collected : 123456`
    let count = said.lines().find_map(|line| line.split_once("Collected :")?.1.split_whitespace().next()?.parse().ok());
    count.ok_or_else(|| format!("callgrind did not count {name}: {said}"))
}

fn run(command: Command) -> Result<String, String> {
    let output = program::run(command, "", Duration::from_secs(120)).map_err(|error| error.to_string())?;
    let said = program::both(&output);
    if output.status.success() { Ok(said) } else { Err(said) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_is_named_and_a_fall_is_not() {
        let baseline = "   100 a::b\n    10 c, two words\n";
        assert_eq!(risen(baseline, &[("a::b", 104.0), ("c, two words", 14.0)]), [""; 0]);
        let said = risen(baseline, &[("a::b", 120.0), ("c, two words", 5.0), ("d", 1.0)]).join("\n");
        assert!(said.starts_with("a::b takes 120 instructions instead of 100: 20.0 % more"), "{said}");
        assert!(said.ends_with("d is not in bench/steps/instructions.txt: UPDATE_EXPECT=1 writes it"), "{said}");
    }
}
