//! `cargo xtask soak`: minutes of mixed load on two regions, in which clients, backends and a server are lost at random.

use std::time::Duration;

use domicile_tests::skip::io_uring;
use domicile_tests::soak::{Plan, run as soak};

/// Load two regions for minutes, with losses, and check that nothing crosses, leaks or is miscounted.
#[derive(clap::Args)]
pub struct Options {
    /// How long
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Clients at a time
    #[arg(long, default_value_t = 24)]
    clients: u64,
}

/// Runs it and prints the verdict.
pub fn run(options: &Options) -> Result<(), String> {
    io_uring().map_err(|needs| format!("nothing can run: the proxy needs {needs}"))?;
    let plan = Plan {
        duration: Duration::from_secs(options.minutes * 60),
        clients: options.clients,
        terminate_every: Duration::from_millis(500),
        crash_every: Duration::from_secs(40),
    };
    let report = soak(&plan, &|line| println!("{line}"))?;
    println!("{report}\nNothing crossed, nothing was left.");
    Ok(())
}
