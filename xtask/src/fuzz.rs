//! `cargo xtask fuzz`: each target of `tests/fuzz` for a while. It needs a nightly compiler and cargo-fuzz; the product does not.

use std::process::{Command, Stdio};

use domicile_tests::proxy::root;

/// What is missing to build the targets.
pub fn missing() -> Option<&'static str> {
    let works = |arguments: &[&str]| {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly"]).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !works(&["rustc", "--version"]) {
        Some("a nightly compiler (rustup toolchain install nightly --profile minimal)")
    } else if !works(&["cargo", "fuzz", "--version"]) {
        Some("cargo-fuzz (cargo install cargo-fuzz)")
    } else {
        None
    }
}

/// Runs every target; stops at the first that finds something.
pub fn run(seconds: u32) -> Result<(), String> {
    if let Some(missing) = missing() {
        return Err(format!("fuzzing needs {missing}"));
    }
    for target in targets()? {
        println!("fuzz {target}, {seconds} s");
        // What the fuzzer finds goes to the first folder; the second is written by hand.
        let corpora = ["corpus", "seeds"].map(|folder| format!("tests/fuzz/{folder}/{target}"));
        std::fs::create_dir_all(root().join(&corpora[0])).map_err(|error| format!("{}: {error}", corpora[0]))?;
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir", "tests/fuzz", &target]);
        command.args(&corpora).arg("--").arg(format!("-max_total_time={seconds}")).args(["-verbosity=0", "-print_final_stats=1"]);
        // libpg_query carries one of its tables twice, which is no fault of what is fuzzed.
        command.env("ASAN_OPTIONS", "detect_odr_violation=0");
        let status = command.current_dir(root()).status().map_err(|error| format!("rustup: {error}"))?;
        if !status.success() {
            return Err(format!("fuzz target {target} found something: see tests/fuzz/artifacts/{target}"));
        }
    }
    Ok(())
}

fn targets() -> Result<Vec<String>, String> {
    let folder = root().join("tests/fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let stem = |path: std::path::PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut targets: Vec<String> = entries.flatten().filter_map(|entry| stem(entry.path())).collect();
    targets.sort();
    Ok(targets)
}
