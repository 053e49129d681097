//! `cargo xtask demo`: Domicile between psql and two real PostgreSQL servers, from nothing to the last answer.
//!
//! It builds the release proxy, starts both servers and the proxy, and makes the calls that the project was asked for, word for
//! word. All of it lives in temporary directories, on loopback, and ends with this process, however that ends.

mod calls;
mod fence;
mod stage;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use domicile_tests::process::port_is_free;
use domicile_tests::proxy::{root, target_directory};

use crate::show::Screen;
use crate::{install, progress};
use stage::Stage;

/// How the demo is run.
#[derive(Args)]
pub struct Options {
    /// Exit after the calls, with 1 if an answer is not as expected
    #[arg(long)]
    once: bool,
    /// The port that Domicile listens on
    #[arg(long, default_value_t = 6432)]
    port: u16,
}

impl Options {
    /// As continuous integration runs it.
    pub fn once() -> Self {
        Self { once: true, port: 6432 }
    }
}

/// Set by Ctrl-C and by SIGTERM.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Runs the demo.
pub fn run(options: &Options) -> Result<(), String> {
    watch_signals();
    install::run()?;
    if !port_is_free(options.port) {
        return Err(format!(
            "Port {} of 127.0.0.1 is taken: stop what listens there, or choose another with --port.",
            options.port
        ));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--package", "domicile", "--bin", "domicile"]).current_dir(root());
    progress::run("Building Domicile (release)", build)?;
    stop_if_told_to()?;

    let mut screen = Screen::new();
    screen.heading("Domicile: two regions, one PostgreSQL server in each, one address for both");
    screen.text("Starting both servers and the proxy between them …");
    let stage = Stage::set(options.port, &target_directory().join("release/domicile"))?;
    screen.text(&stage.describe());
    calls::make_all(&stage, &mut screen, stop_if_told_to)?;
    fence::show(&stage, &mut screen)?;

    let summary = screen.sum_up();
    screen.heading(summary.as_ref().unwrap_or_else(|error| error));
    if options.once {
        return summary.map(drop);
    }
    screen.text(&stage.invitation());
    while stop_if_told_to().is_ok() {
        thread::sleep(Duration::from_millis(100));
    }
    println!("\nStopping the proxy and both servers.");
    summary.map(drop)
}

fn stop_if_told_to() -> Result<(), String> {
    if STOPPED.load(Ordering::Relaxed) { Err("Stopped.".to_owned()) } else { Ok(()) }
}

/// Ctrl-C and SIGTERM end the demo as its own end would: everything it started is stopped in order.
fn watch_signals() {
    extern "C" fn stop(_: libc::c_int) {
        STOPPED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler: extern "C" fn(libc::c_int) = stop;
        // SAFETY: the handler stores to an atomic and does nothing else, which is async-signal-safe.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}
