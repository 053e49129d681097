//! The programs that a measurement consists of: a load, a server that is none, and a relay that is the floor. Each is a process of
//! its own, so that none shares its CPU time with another. `cargo xtask bench` starts them.

// The product's engine is in here as source, whose tests are the product's.
#![cfg(not(test))]

mod engine;
mod load;
mod relay;
mod sealed;
mod stub;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use domicile_tests::tls::Files;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

#[derive(Parser)]
struct CommandLine {
    /// The core to stay on
    #[arg(long)]
    core: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer the load's statements at a port of 127.0.0.1
    Stub {
        port: u16,
        /// Encrypt with this certificate whoever asks for it
        #[arg(long, requires = "key")]
        certificate: Option<PathBuf>,
        /// Its key
        #[arg(long)]
        key: Option<PathBuf>,
    },
    /// Relay from a port of 127.0.0.1 to another
    Relay { port: u16, target: u16 },
    /// Ask, and say what it came to
    Load(load::Options),
    /// Log in over and over, and say what it came to
    Logins(load::logins::Options),
    /// Log in with many clients, wait until standard input ends, and leave
    Idle(load::idle::Options),
}

fn main() -> ExitCode {
    // Every client is a file.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
    let line = CommandLine::parse();
    if let Some(core) = line.core {
        domicile_bench::cpu::pin_thread(None, core);
    }
    let done = match line.command {
        Command::Stub { port, certificate, key } => {
            let tls = certificate.zip(key).map(|(certificate, key)| Files { certificate, key }.server());
            listen(port).and_then(|listener| stub::run(listener, tls.as_ref())).map_err(|error| error.to_string())
        }
        Command::Relay { port, target } => {
            let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
            listen(port).and_then(|listener| relay::run(listener, target)).map_err(|error| error.to_string())
        }
        Command::Load(options) => load::run(&options).and_then(|outcome| print(&outcome)),
        Command::Logins(options) => load::logins::run(&options).and_then(|outcome| print(&outcome)),
        Command::Idle(options) => load::idle::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print(outcome: &domicile_bench::outcome::Outcome) -> Result<(), String> {
    println!("{}", serde_json::to_string(outcome).map_err(|error| error.to_string())?);
    Ok(())
}

fn listen(port: u16) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
