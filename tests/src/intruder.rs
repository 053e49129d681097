//! A process in the proxy's cgroup that tries to get out: what it was told to try, and what became of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{program, proxy};

/// Where an intruder is put.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The cgroup's directory; none leaves it outside.
    pub cgroup: Option<&'a Path>,
    /// As a user without any privilege.
    pub unprivileged: bool,
}

/// The program, built beside the tests.
pub fn program() -> Result<PathBuf, String> {
    if let Some(program) = std::env::var_os("DOMICILE_INTRUDER") {
        return Ok(program.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "domicile-tests", "--bin", "domicile-intruder"]).current_dir(proxy::root());
    let status = command.status().map_err(|error| format!("cargo: {error}"))?;
    let built = proxy::target_directory().join("debug/domicile-intruder");
    if status.success() { Ok(built) } else { Err("the intruder does not build".to_owned()) }
}

/// Has one try everything it is told, in the network namespace of this thread: a line for each, `<what> <where>: <what became of it>`.
pub fn intrude(place: Place<'_>, attempts: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program()?);
    if let Some(cgroup) = place.cgroup {
        command.arg("--cgroup").arg(cgroup);
    }
    if place.unprivileged {
        command.arg("--unprivileged");
    }
    command.args(attempts).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("the intruder: {error}"))?;
    let said = program::both(&output);
    if output.status.success() { Ok(said) } else { Err(said) }
}
