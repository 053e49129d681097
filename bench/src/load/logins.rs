//! Clients that log in, ask once and leave, over and over: some threads, each with one client at a time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use domicile_bench::answers::Work;
use domicile_bench::cpu;
use domicile_bench::outcome::{Latency, Outcome};
use domicile_tests::client::Login;
use domicile_tests::message;
use domicile_tests::process::now;

use super::Encrypted;

/// What is to be done.
#[derive(clap::Args)]
pub struct Options {
    /// Where to
    address: SocketAddr,
    /// Clients at once
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Milliseconds before it counts
    #[arg(long, default_value_t = 200)]
    warm_up: u64,
    /// Milliseconds that count
    #[arg(long, default_value_t = 1000)]
    window: u64,
    /// The process whose CPU time is looked at, with all its children
    #[arg(long)]
    process: u32,
    #[command(flatten)]
    encrypted: Encrypted,
}

/// Runs it; the outcome counts logins.
pub fn run(options: &Options) -> Result<Outcome, String> {
    let log_in = options.encrypted.door(options.address);
    let (logins, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let client = || -> Result<(), String> {
        while !over.load(Ordering::Relaxed) {
            let mut client = log_in(&Login::default())?;
            let said = client.query(Work::Row100.statement());
            if let Some(error) = said.error() {
                return Err(format!("{error:?}"));
            }
            // The server closes first, so that no port of the client has to wait before it is used again.
            client.send(&message::terminate());
            client.until(|_| false);
            logins.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let client = &client;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..options.clients).map(|_| scope.spawn(client)).collect();
        let look = || (now(), cpu::of_tree(options.process), logins.load(Ordering::Relaxed));
        thread::sleep(Duration::from_millis(options.warm_up));
        let before = look();
        thread::sleep(Duration::from_millis(options.window));
        let after = look();
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| "a client panicked".to_owned())??;
        }
        Ok(Outcome {
            queries: after.2 - before.2,
            seconds: (after.0 - before.0).as_secs_f64(),
            cpu_seconds: (after.1 - before.1).as_secs_f64(),
            own_cpu_seconds: 0.0,
            latency: Latency::default(),
            late: 0,
        })
    })
}
