//! Many clients that have logged in and asked once, and say nothing more.

use std::io::{self, Read};
use std::net::SocketAddr;

use domicile_bench::answers::Work;
use domicile_tests::client::Login;

use super::Encrypted;

/// What is to be done.
#[derive(clap::Args)]
pub struct Options {
    /// Where to
    address: SocketAddr,
    /// Clients at once
    #[arg(long)]
    clients: usize,
    #[command(flatten)]
    encrypted: Encrypted,
}

/// Logs in, says `idle`, and leaves when standard input ends.
pub fn run(options: &Options) -> Result<(), String> {
    let mut clients = Vec::new();
    let log_in = options.encrypted.door(options.address);
    for _ in 0..options.clients {
        let mut client = log_in(&Login::default())?;
        if let Some(error) = client.query(Work::Row100.statement()).error() {
            return Err(format!("{error:?}"));
        }
        clients.push(client);
    }
    println!("idle");
    io::stdin().read_to_end(&mut Vec::new()).map_err(|error| error.to_string())?;
    Ok(())
}
