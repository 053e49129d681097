//! `cargo xtask ci`: what `.ci/run` calls, and the fuzz targets where they can be built.

use crate::{demo, fuzz, install, test};

/// Stops at the first command that fails.
pub fn run() -> Result<(), String> {
    install::run()?;
    test::run(None)?;
    match fuzz::missing() {
        None => fuzz::run(60)?,
        Some(missing) => println!("skipped: fuzz: needs {missing}"),
    }
    demo::run(&demo::Options::once())
}
