//! The command line, and nothing else: what a command does stands in `command`, what it needs in the library.
//!
//! Exit codes: 0 done (for `explain`: permitted), 1 an error (for `check`: a mistake), 2 denied (`explain` only), 64 a command line
//! that is no command.

mod command;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

/// Keeps every PostgreSQL user's data in its region.
#[derive(Parser)]
#[command(name = "domicile", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients until SIGTERM; SIGHUP reads the configuration again
    Run {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Read a configuration file and report every mistake in it
    Check {
        /// The configuration file
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
    /// The kernel's own gate: set it up, take it away, look at it
    #[command(subcommand)]
    Fence(command::fence::Command),
    /// Tell which pool would serve a login, by which rule, and why; needs no server
    Explain(command::Login),
}

pub(crate) fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(message) => {
            // Nobody is left to tell if this cannot be written.
            message.print().unwrap_or_default();
            return ExitCode::from(code(&message));
        }
    };
    match command_line.command {
        Command::Run { config } => command::run(&config),
        Command::Check { config } => command::check(&config),
        Command::Fence(command) => command::fence::run(command),
        Command::Explain(login) => command::explain(&login),
    }
}

/// The exit code of what is not a command: help that was asked for is no error.
fn code(message: &clap::Error) -> u8 {
    if message.use_stderr() { USAGE } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exit code of a command line that runs nothing, or none if it would run a command.
    fn code_of(arguments: &[&str]) -> Option<u8> {
        CommandLine::try_parse_from(["domicile"].iter().chain(arguments)).err().as_ref().map(code)
    }

    #[test]
    fn usage_errors_are_64_and_help_is_0() {
        assert_eq!(code_of(&["--help"]), Some(0));
        assert_eq!(code_of(&["--version"]), Some(0));
        assert_eq!(code_of(&["explain", "--help"]), Some(0));
        let explain = ["explain", "--config", "f", "--user", "u", "--database", "d", "--from"];
        let about = |more: &[&'static str]| [&explain[..], &["::1"], more].concat();
        for wrong in [&["--claim", "sub"][..], &["--claim", "=x"], &["--claims", "a=b"]] {
            assert_eq!(code_of(&about(wrong)), Some(64), "{wrong:?}");
        }
        assert_eq!(code_of(&about(&["--claim", "a=b=c", "--claim", "d=", "--certificate", "x"])), None);
        for wrong in [&[][..], &["serve"], &["check"], &["run", "f"], &explain, &[&explain[..], &["localhost"]].concat()] {
            assert_eq!(code_of(wrong), Some(64), "{wrong:?}");
        }
        assert_eq!(code_of(&["run", "--config", "f"]), None);
        assert_eq!(code_of(&["check", "f"]), None);
        assert_eq!(code_of(&[&explain[..], &["::1"]].concat()), None);
        assert_eq!(code_of(&[&explain[..], &["10.0.0.1", "--region", "eu-west"]].concat()), None);
    }
}
