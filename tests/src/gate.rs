//! A fence of a test's own: its cgroup and its directory of pins, which are gone with it; and what bpftool(8) says of its maps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::process::wait_for;
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
        let name = format!("domicile-{purpose}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let cgroup = Path::new(hierarchy).join(&name);
        Ok(Self { name, cgroup })
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
        Path::new("/sys/fs/bpf").join(&self.name)
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
        for entry in fs::read_dir(self.pins()).into_iter().flatten().flatten() {
            fs::remove_file(entry.path()).ok();
        }
        fs::remove_dir(self.pins()).ok();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.remove();
        // A process that has just ended leaves a moment later.
        wait_for(Duration::from_secs(5), || (fs::remove_dir(&self.cgroup).is_ok() || !self.cgroup.exists()).then_some(()));
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
