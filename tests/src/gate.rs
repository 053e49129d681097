//! A fence of a test's own: its cgroup and its directory of pins, which are gone with it; and what bpftool(8) says of its maps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::process::{remove_fence_at_exit, wait_for};
use crate::program;
use crate::proxy::{self, Configuration};

/// Where a fence of this test is.
pub struct Gate {
    name: String,
    cgroup: PathBuf,
}

impl Gate {
    /// Room for a fence; nothing is set up yet.
    ///
    /// # Errors
    /// What is lacking here to have one.
    pub fn new() -> Result<Self, String> {
        Self::named("test")
    }

    /// The same, with a word in its name that says what it is for.
    ///
    /// # Errors
    /// What is lacking here to have one.
    pub fn named(purpose: &str) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return Err("root, to load eBPF programs".to_owned());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let hierarchy = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let hierarchy = hierarchy.ok_or("a cgroup v2 hierarchy that is mounted")?;
        program::need("bpftool")?;
        let prefix = format!("domicile-{purpose}-");
        remove_what_killed_runs_left(Path::new(hierarchy), &prefix);
        let name = format!("{prefix}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let cgroup = Path::new(hierarchy).join(&name);
        let gate = Self { name, cgroup };
        remove_fence_at_exit(&gate.pins(), &gate.cgroup, true);
        Ok(gate)
    }

    /// Lets a configuration have this fence.
    pub fn around(&self, configuration: &Configuration, mode: &str) -> Configuration {
        let mut configuration = configuration.clone();
        configuration.top += &format!("fence = \"{mode}\"\n");
        configuration.more += &format!("[kernel]\npins = \"{}\"\ncgroup = \"{}\"\n", self.pins().display(), self.name);
        configuration
    }

    /// The directory of its pins.
    pub fn pins(&self) -> PathBuf {
        Path::new(PINS).join(&self.name)
    }

    /// The directory of its cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// What bpftool dumps of a map, as it names the fields: a list of objects with `key` and `value` or `values`.
    pub fn dump(&self, map: &str) -> Result<Vec<Value>, String> {
        let mut command = Command::new(program::need("bpftool")?);
        command.args(["--json", "map", "dump", "pinned"]).arg(self.pins().join(map));
        let output = command.output().map_err(|error| format!("bpftool: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let value: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {}", program::both(&output)))?;
        let entries = value.as_array().ok_or_else(|| format!("{value}"))?;
        Ok(entries.iter().map(|entry| entry.get("formatted").unwrap_or(entry).clone()).collect())
    }

    /// The sum over CPUs and workers of a field of `flows`, where the key has these values.
    pub fn flows(&self, field: &str, key: &[(&str, Value)]) -> Result<u64, String> {
        let entries = self.dump("flows")?;
        let is_wanted = |entry: &&Value| key.iter().all(|(name, value)| entry["key"][*name] == *value);
        let values = entries.iter().filter(is_wanted).flat_map(|entry| entry["values"].as_array().cloned().unwrap_or_default());
        Ok(values.filter_map(|value| value["value"][field].as_u64()).sum())
    }

    /// Takes the fence away.
    pub fn remove(&self) {
        remove_pins(&self.pins());
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        remove(&self.pins(), &self.cgroup);
        remove_fence_at_exit(&self.pins(), &self.cgroup, false);
    }
}

const PINS: &str = "/sys/fs/bpf";

/// Removes what there is of a fence whose processes have been stopped.
pub(crate) fn remove(pins: &Path, cgroup: &Path) {
    remove_pins(pins);
    // A process that has just ended leaves a moment later.
    wait_for(Duration::from_secs(5), || (fs::remove_dir(cgroup).is_ok() || !cgroup.exists()).then_some(()));
}

fn remove_pins(pins: &Path) {
    for entry in fs::read_dir(pins).into_iter().flatten().flatten() {
        fs::remove_file(entry.path()).ok();
    }
    fs::remove_dir(pins).ok();
}

/// Fences are named after the process that has made them; those of processes that are gone are of no use to anybody.
fn remove_what_killed_runs_left(hierarchy: &Path, prefix: &str) {
    for directory in [Path::new(PINS), hierarchy] {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(prefix)?.split_once('-')?.0.parse::<u32>().ok());
            if owner.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists()) {
                remove_pins(&Path::new(PINS).join(&name));
                fs::remove_dir(hierarchy.join(&name)).ok();
            }
        }
    }
}

/// The number by which the kernel knows a region or a node: README.md tells how it is made.
pub fn number(name: &str) -> u32 {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::digest(name);
    digest.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Runs `domicile fence …`; what it says.
pub fn command(arguments: &[&str], file: &Path) -> Result<String, String> {
    let mut command = Command::new(proxy::binary()?);
    command.arg("fence").args(arguments).arg("--config").arg(file);
    let output = command.output().map_err(|error| format!("domicile fence: {error}"))?;
    let said = program::both(&output);
    if output.status.success() { Ok(said) } else { Err(said) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip;

    #[test]
    fn what_a_killed_run_left_is_gone_when_the_next_one_begins() {
        let Some(gate) = skip::available(Gate::named("swept")) else { return };
        let hierarchy = gate.cgroup().parent().unwrap();
        // Process ids end at 4 194 304.
        let left = [Path::new(PINS), hierarchy].map(|directory| directory.join("domicile-swept-9999999-0"));
        let own = [gate.pins(), gate.cgroup().to_owned()];
        left.iter().chain(&own).for_each(|directory| fs::create_dir(directory).unwrap());
        drop(Gate::named("swept").unwrap());
        assert!(left.iter().all(|directory| !directory.exists()));
        assert!(own.iter().all(|directory| directory.exists()));
        drop(gate);
        assert!(own.iter().all(|directory| !directory.exists()));
    }
}
