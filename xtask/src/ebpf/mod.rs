//! `cargo xtask ebpf`: builds the kernel's programs from `ebpf/` into `ebpf/prebuilt/domicile.o`, which the proxy carries inside.
//!
//! Nobody needs this but who changes the programs: the object is committed. It is the same to the byte wherever it is built with the
//! same toolchain, so `--check` can tell whether what is committed is what the sources say.

mod stats;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use domicile_tests::proxy::{root, target_directory};
use sha2::{Digest as _, Sha256};

use crate::progress;
use toolchain::Toolchain;

/// How the object is built, or looked at.
#[derive(Args)]
pub struct Options {
    /// Build it again and compare with what is committed; with another toolchain, run the fence's tests on what was built
    #[arg(long, conflicts_with = "stats")]
    check: bool,
    /// Load what is committed, and print what the verifier says of each program (root)
    #[arg(long)]
    stats: bool,
    /// With --stats: the verifier's whole log
    #[arg(long, requires = "stats")]
    log: bool,
}

/// What became of a check.
pub enum Checked {
    /// What is committed is what the sources say.
    Same,
    /// Another toolchain has built it, and the tests pass on that.
    Works(String),
    /// It cannot be built here.
    Lacking(String),
}

/// Builds, checks or shows.
pub fn run(options: &Options) -> Result<(), String> {
    if options.stats {
        return stats::show(&prebuilt(), options.log);
    }
    if options.check {
        match check()? {
            Checked::Same => println!("ebpf/prebuilt/domicile.o is what the sources say."),
            Checked::Works(why) => {
                println!("Its bytes were not compared: {why}. What this toolchain builds passes the fence's tests.")
            }
            Checked::Lacking(needs) => println!("skipped: ebpf --check: needs {needs}"),
        }
        return Ok(());
    }
    let toolchain = Toolchain::install()?;
    let built = build(&toolchain)?;
    let object = read(&built)?;
    write(&prebuilt(), &object)?;
    write(&prebuilt().with_extension("toolchain"), toolchain.versions().as_bytes())?;
    println!("ebpf/prebuilt/domicile.o: {} bytes, SHA-256 {}", object.len(), digest(&object));
    Ok(())
}

/// Builds the object again and compares it.
pub fn check() -> Result<Checked, String> {
    let toolchain = match Toolchain::install() {
        Ok(toolchain) => toolchain,
        Err(needs) => return Ok(Checked::Lacking(needs)),
    };
    let built = build(&toolchain)?;
    let committed = fs::read_to_string(prebuilt().with_extension("toolchain")).unwrap_or_default();
    if committed == toolchain.versions() {
        let (ours, theirs) = (read(&built)?, read(&prebuilt())?);
        if ours == theirs {
            return Ok(Checked::Same);
        }
        let (ours, theirs) = (digest(&ours), digest(&theirs));
        return Err(format!(
            "ebpf/prebuilt/domicile.o is not what ebpf/ says (SHA-256 {theirs}, and built from it {ours}): run cargo xtask ebpf"
        ));
    }
    let mut tests = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tests.args(["test", "--workspace", "--test", "e2e", "fence::"]).current_dir(root());
    tests.env("DOMICILE_EBPF_OBJECT", &built).env_remove("DOMICILE_BIN");
    tests.env("CARGO_TARGET_DIR", target_directory().join("ebpf-check"));
    progress::run("ebpf: the fence's tests with another toolchain's object", tests)?;
    Ok(Checked::Works(format!("it was built by {}, and here is {}", flat(&committed), flat(toolchain.versions()))))
}

/// Builds the object; it has no debugging information but BTF.
fn build(toolchain: &Toolchain) -> Result<PathBuf, String> {
    let sources = root().join("ebpf");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--locked", "--package", "domicile-ebpf", "--target", "bpfel-unknown-none"]);
    command.current_dir(&sources);
    // What the outer cargo and rustup were told is for the proxy, not for this.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN", "CARGO_BUILD_TARGET"] {
        command.env_remove(variable);
    }
    let directory = target_directory().join("ebpf");
    command.env("CARGO_TARGET_DIR", &directory);
    command.env("RUSTC", toolchain.rustc());
    // For inline assembly, which is not stable for this target yet.
    command.env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", toolchain.linker());
    let mut flags = vec!["-Cdebuginfo=2".to_owned(), "-Clink-arg=--btf".to_owned(), "-Ctarget-cpu=v3".to_owned()];
    // Paths stand in the object; they must not depend on where it is built.
    flags.push(format!("--remap-path-prefix={}=/ebpf", sources.display()));
    flags.extend(registries().iter().map(|registry| format!("--remap-path-prefix={}=/registry", registry.display())));
    command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", flags.join(" "));
    progress::run("ebpf: the object", command)?;

    let linked = directory.join("bpfel-unknown-none/release/domicile");
    let stripped = directory.join("domicile.o");
    let mut strip = Command::new(toolchain.strip());
    strip.arg("-g").arg(&linked).arg("-o").arg(&stripped);
    progress::run("ebpf: llvm-strip", strip)?;
    Ok(stripped)
}

/// The folders in which cargo keeps the sources of crates.
fn registries() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"))).unwrap_or_default();
    let mut found: Vec<PathBuf> =
        fs::read_dir(home.join("registry/src")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn prebuilt() -> PathBuf {
    root().join("ebpf/prebuilt/domicile.o")
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn flat(versions: &str) -> String {
    versions.lines().collect::<Vec<_>>().join(", ")
}
