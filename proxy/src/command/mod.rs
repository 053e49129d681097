//! What the commands do, and how their results become text and exit codes. Decides nothing.

mod explain;
pub(crate) mod fence;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use domicile::config::{self, Config, Mistakes};
use domicile::control;
use domicile::policy::Policy;

pub(crate) use explain::{Login, explain};

/// Serves clients until it is told to stop.
pub(crate) fn run(config: &Path) -> ExitCode {
    match control::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(error.as_ref()),
    }
}

/// Reads the configuration as `run` would.
pub(crate) fn check(path: &Path) -> ExitCode {
    match load(path, &|name| std::env::var(name).ok()) {
        Ok((config, _)) => {
            for warning in &config.warnings {
                eprintln!("warning: {warning}");
            }
            eprintln!("{}: ok", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => failure(error.as_ref()),
    }
}

/// A configuration and its policy. `environment` looks up variables.
fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<(Config, Policy), Box<dyn Error>> {
    let config = config::load(path, environment)?;
    let policy = Policy::compile(&config.policy_source(), None).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((config, policy))
}

/// Reports an error. Mistakes in files begin with their place, as a compiler's do; everything else with the program's name.
fn failure(error: &(dyn Error + 'static)) -> ExitCode {
    if error.is::<Mistakes>() {
        eprintln!("{error}");
    } else {
        eprintln!("domicile: {error}");
    }
    ExitCode::FAILURE
}
