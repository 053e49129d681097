//! The compiler of the kernel's programs: Debian's rustc for the web, which has a core library for BPF, LLVM of the same version, and
//! bpf-linker, which is built from its crate once.

use std::path::{Path, PathBuf};
use std::process::Command;

use domicile_tests::program;
use domicile_tests::proxy::target_directory;

use crate::{install, progress};

/// What Debian has; the first is the compiler, the second its core library, the others are for bpf-linker and for stripping.
const PACKAGES: [&str; 4] = ["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22", "llvm-22-dev"];
const LLVM: &str = "/usr/lib/llvm-22";
const LINKER_VERSION: &str = "0.13.0";

/// The toolchain, once it is there.
pub struct Toolchain {
    versions: String,
    linker: PathBuf,
}

impl Toolchain {
    /// Installs what is missing.
    ///
    /// # Errors
    /// What is missing and cannot be installed.
    pub fn install() -> Result<Self, String> {
        let missing: Vec<&str> = PACKAGES.into_iter().filter(|package| version(package).is_none()).collect();
        if !missing.is_empty() {
            install::packages(&missing)?;
        }
        let linker = linker()?;
        let mut versions = String::new();
        for package in &PACKAGES[..3] {
            let version = version(package).ok_or_else(|| format!("Debian's package {package}"))?;
            versions += &format!("{package} {version}\n");
        }
        versions += &format!("bpf-linker {LINKER_VERSION}\n");
        Ok(Self { versions, linker })
    }

    /// A line for each part: its name and its version.
    pub fn versions(&self) -> &str {
        &self.versions
    }

    /// The compiler.
    pub fn rustc(&self) -> &Path {
        Path::new("/usr/bin/rustc")
    }

    /// The linker.
    pub fn linker(&self) -> &Path {
        &self.linker
    }

    /// What takes debugging information away.
    pub fn strip(&self) -> PathBuf {
        Path::new(LLVM).join("bin/llvm-strip")
    }
}

/// The version of a Debian package that is installed.
fn version(package: &str) -> Option<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status} ${Version}", package]);
    let output = query.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.strip_prefix("installed ").map(str::to_owned)
}

/// Builds bpf-linker unless it is there.
fn linker() -> Result<PathBuf, String> {
    let directory = target_directory().join("ebpf-tools");
    let linker = directory.join("bin/bpf-linker");
    let is_there = || {
        let output = Command::new(&linker).arg("--version").output();
        output.is_ok_and(|output| program::both(&output).trim() == format!("bpf-linker {LINKER_VERSION}"))
    };
    if !is_there() {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--no-default-features"]);
        command.args(["--features", "llvm-22", "--root"]).arg(&directory).env("LLVM_PREFIX", LLVM);
        command.env("CARGO_TARGET_DIR", directory.join("build")).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        progress::run("ebpf: bpf-linker", command)?;
    }
    if is_there() { Ok(linker) } else { Err(format!("bpf-linker {LINKER_VERSION}, which cargo install has not made")) }
}
