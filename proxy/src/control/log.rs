//! The log: to stderr, as text for people or as JSON for machines.
//!
//! What is logged anywhere in the program never holds a statement's text, a parameter or a secret; here it only gets its form.

use std::io::{self, IsTerminal as _};

use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};
use crate::observe::AUDIT_TARGET;

/// Begins to log.
///
/// # Errors
/// The process logs already.
pub(super) fn start(log: &Log) -> Result<(), TryInitError> {
    // Audit records are shown whatever the level: they are a duty, not a help.
    let filter = Targets::new().with_default(log.level).with_target(AUDIT_TARGET, Level::INFO.max(log.level));
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match log.format {
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
}
