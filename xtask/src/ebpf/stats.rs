//! What the kernel says of each program when it is loaded.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use domicile_tests::program;
use serde_json::Value;

/// Loads the object, pinned for a moment, and prints a line for each program.
pub fn show(object: &Path, whole_log: bool) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("Loading programs into the kernel takes root.".to_owned());
    }
    let bpftool = program::need("bpftool")?;
    let pins = Pins(format!("/sys/fs/bpf/domicile-stats-{}", std::process::id()));
    std::fs::create_dir_all(&pins.0).map_err(|error| format!("{}: {error} (mount -t bpf bpf /sys/fs/bpf)", pins.0))?;
    let mut load = Command::new(&bpftool);
    load.args(["--debug", "prog", "loadall"]).arg(object).arg(&pins.0);
    let output = load.output().map_err(|error| format!("bpftool: {error}"))?;
    let said = program::both(&output);
    if whole_log || !output.status.success() {
        println!("{}", said.trim_end());
    }
    if !output.status.success() {
        return Err("The kernel refuses the object; its log stands above.".to_owned());
    }
    let verified = verified(&said);
    println!(
        "{:<16} {:<17} {:>12} {:>10} {:>8}  the verifier's last word",
        "program", "type", "instructions", "bytecode", "machine"
    );
    println!("{:<16} {:<17} {:>12} {:>10} {:>8}", "", "", "verified", "bytes", "bytes");
    let mut programs: Vec<_> = std::fs::read_dir(&pins.0).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    programs.sort();
    for pin in programs {
        let mut show = Command::new(&bpftool);
        show.args(["--json", "prog", "show", "pinned"]).arg(&pin);
        let output = show.output().map_err(|error| format!("bpftool: {error}"))?;
        let value: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("bpftool: {error}"))?;
        let number = |name: &str| value[name].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
        let name = pin.file_name().unwrap_or_default().display().to_string();
        let kind = value["type"].as_str().unwrap_or("-");
        let (translated, machine) = (number("bytes_xlated"), number("bytes_jited"));
        let (count, rest) = verified.get(&name).copied().unwrap_or(("-", ""));
        println!("{name:<16} {kind:<17} {count:>12} {translated:>10} {machine:>8}  {rest}");
    }
    Ok(())
}

/// For each program, how many instructions the verifier has walked, and what else it says in the last line of its log.
fn verified(log: &str) -> BTreeMap<String, (&str, &str)> {
    let mut found = BTreeMap::new();
    let mut name = None;
    for line in log.lines() {
        if let Some(rest) = line.strip_prefix("libbpf: prog '") {
            name = rest.split_once('\'').map(|(name, _)| name);
        } else if let Some((count, rest)) = line.strip_prefix("processed ").and_then(|rest| rest.split_once(" insns ")) {
            name.map(|name| found.insert(name.to_owned(), (count, rest)));
        }
    }
    found
}

/// Pins that are gone when they have been looked at.
struct Pins(String);

impl Drop for Pins {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            std::fs::remove_file(entry.path()).ok();
        }
        std::fs::remove_dir(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_line_is_found() {
        let log = "libbpf: prog 'a': -- BEGIN PROG LOAD LOG --\n0: (bf) r6 = r1\nverification time 5 usec\nstack depth 8\n\
                   processed 505 insns (limit 1000000) total_states 34\n-- END PROG LOAD LOG --\nlibbpf: prog 'b': found map 0\n";
        let found = verified(log);
        assert_eq!(found["a"], ("505", "(limit 1000000) total_states 34"));
        assert_eq!(found.len(), 1);
    }
}
