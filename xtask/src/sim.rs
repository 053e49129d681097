//! `cargo xtask sim`: the seeded simulation, with as many seeds as one likes.

use std::process::Command;

use domicile_tests::proxy::root;

/// Play the core against model servers, from seeds.
#[derive(clap::Args)]
pub struct Options {
    /// How many seeds to play
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Play this seed alone, as a failure prints it
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Steps of each seed in which clients go on talking
    #[arg(long, default_value_t = 700)]
    steps: usize,
}

/// Runs it; a failure names the seed and shows the conversation that went wrong.
pub fn run(options: &Options) -> Result<(), String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--package", "domicile-tests", "--test", "simulation", "--", "--nocapture"]).current_dir(root());
    cargo.env("SEEDS", options.seeds.to_string()).env("STEPS", options.steps.to_string());
    if let Some(seed) = options.seed {
        cargo.env("SEED", seed.to_string());
    }
    match cargo.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("a seed has failed: play it again with `cargo xtask sim --seed`".to_owned()),
        Err(error) => Err(format!("cargo: {error}")),
    }
}
