//! A process in the proxy's cgroup that tries to get out: what it was told to try, and what became of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

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
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build("domicile-intruder", &[])).clone()
}

/// The proxy with a mistake in it: it connects to another region than was decided.
pub fn misrouting() -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build("domicile-misrouting", &["--features", "domicile/misroute"])).clone()
}

/// The proxy in which a client can have its worker panic, by sending `domicile_panic`.
pub fn panicking() -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build("domicile-panicking", &["--features", "domicile/panic"])).clone()
}

fn build(program: &str, options: &[&str]) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Of the whole workspace, so that features are the same as for the tests.
    command.args(["build", "--quiet", "--workspace", "--bin", program]).args(options).current_dir(proxy::root());
    let status = command.status().map_err(|error| format!("cargo: {error}"))?;
    let built = proxy::target_directory().join("debug").join(program);
    if status.success() { Ok(built) } else { Err(format!("{program} does not build")) }
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
