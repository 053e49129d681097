//! The file itself and its plain sections: keys, defaults, bounds. Residency and nodes have files of their own.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tracing::Level;

use super::document::{Document, Entry, Section, parse};
use super::mistake::{Findings, Mistakes};
use super::value::path_beside;
use super::{Buffers, Config, Engine, Log, LogFormat, Pools, admin, auth, files, kernel, limits, listen, nodes, residency, tls};
use crate::pool::{PoolMode, StatePolicy};

/// Workers that the pools can keep apart.
const WORKERS_MAX: u32 = 64;
/// Connections, of one pool or of all clients: beyond what one process can have open.
pub(super) const CONNECTIONS: RangeInclusive<u32> = 1..=1_000_000;
/// Prepared statements of one backend.
const STATEMENTS: RangeInclusive<u32> = 1..=100_000;
/// What `session_state` may be.
const SESSION_STATE: [(&str, StatePolicy); 3] =
    [("pin", StatePolicy::Pin), ("refuse", StatePolicy::Refuse), ("allow", StatePolicy::Allow)];
/// Entries of a provided-buffer ring (io_uring_register_buf_ring(3)).
const RECEIVE_BUFFERS: RangeInclusive<u32> = 16..=32_768;
/// A year is far beyond what anyone means and near enough that no sum of times overflows.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// The kernel takes it as milliseconds in 32 bits with a sign (tcp(7)).
const TCP_USER_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 86_400);
/// Times that must pass before something is given up.
pub(super) const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;

/// What clients are told before a node was probed, in PostgreSQL's order and with its defaults.
const PARAMETERS: [(&str, &str); 12] = [
    ("application_name", ""),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("IntervalStyle", "postgres"),
    ("is_superuser", "off"),
    ("server_encoding", "UTF8"),
    ("server_version", "15.0"),
    ("standard_conforming_strings", "on"),
    ("TimeZone", "Etc/UTC"),
];

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads and checks the configuration in `path`.
pub(super) fn config(path: &Path, environment: Environment<'_>) -> Result<Config, Mistakes> {
    let findings = Findings::default();
    let config = match files::text(path) {
        Ok(text) => whole(path, &text, environment, &findings),
        Err(why) => {
            findings.mistake(path, None, why);
            None
        }
    };
    let (config, warnings) = findings.into_result(config)?;
    Ok(Config { warnings, ..config })
}

/// Reads the text of the file. None only if it is not TOML; where values are wrong, others stand in for them.
pub(super) fn whole(path: &Path, text: &str, environment: Environment<'_>, findings: &Findings) -> Option<Config> {
    let document = Document::new(path, text, findings);
    let table = parse(&document, text)?;
    Some(Section::root(&document, &table, |root| {
        let regions = residency::regions(root);
        let nodes = nodes::read(root, &regions, environment);
        let auth = root.section("auth", |section| auth::read(section, &regions, environment));
        let listen = listen::read(root);
        let tls = root.section("tls", tls::read);
        if let Some(hba) = &auth.hba {
            hba.warn_of_idle_rules(tls.mode, findings);
        }
        Config {
            listen: listen.addresses,
            unix_sockets: listen.unix,
            workers: root.entry("workers").and_then(|entry| entry.number(0..=WORKERS_MAX)).and_then(non_zero),
            pool_mode: root
                .entry("pool_mode")
                .and_then(|entry| entry.word(&[("transaction", PoolMode::Transaction), ("session", PoolMode::Session)]))
                .unwrap_or(PoolMode::Transaction),
            session_state: root.entry("session_state").and_then(|entry| entry.word(&SESSION_STATE)).unwrap_or(StatePolicy::Pin),
            pin_notice: root.entry("pin_notice").and_then(|entry| entry.boolean()).unwrap_or(true),
            core_dumps: root.entry("core_dumps").and_then(|entry| entry.boolean()).unwrap_or(false),
            user: root.entry("user").and_then(|entry| entry.text()).map(str::to_owned),
            kernel: kernel::read(root),
            tls,
            residency: root.section("residency", |section| residency::read(section, &regions, &nodes, auth.jwt.as_deref())),
            pools: root.section("pools", pools),
            limits: root.section("limits", limits::read),
            admin: root.section("admin", |section| admin::read(section, &auth)),
            auth,
            engine: root.section("engine", engine),
            http: root.section("http", |http| http.entry("listen").and_then(|entry| listen_address(&entry))),
            log: root.section("log", log),
            audit_file: root
                .section("audit", |audit| audit.entry("file").and_then(|entry| entry.text()).map(|file| path_beside(path, file))),
            parameters: root.section("parameters", parameters),
            regions,
            nodes,
            digest: Sha256::digest(text).into(),
            warnings: Vec::new(),
        }
    }))
}

fn non_zero(number: u32) -> Option<NonZeroUsize> {
    usize::try_from(number).ok().and_then(NonZeroUsize::new)
}

fn listen_address(entry: &Entry<'_>) -> Option<SocketAddr> {
    let what = "an IP address and a port, such as \"127.0.0.1:6432\", \"0.0.0.0:6432\" or \"[::]:6432\"";
    entry.parsed(what, listen::address)
}

fn pools(section: &Section<'_>) -> Pools {
    Pools {
        size: section.entry("size").and_then(|entry| entry.number(CONNECTIONS)).unwrap_or(20),
        max_per_region: section.entry("max_per_region").and_then(|entry| entry.number(CONNECTIONS)),
        wait_timeout: duration(section, "wait_timeout", TIMEOUT, 120),
        idle_timeout: duration(section, "idle_timeout", TIMEOUT, 600),
        lifetime: duration(section, "lifetime", TIMEOUT, 3600),
        connect_timeout: duration(section, "connect_timeout", TIMEOUT, 5),
        tcp_user_timeout: duration(section, "tcp_user_timeout", Duration::ZERO..=TCP_USER_TIMEOUT_MAX, 120),
        probe_interval: duration(section, "probe_interval", Duration::ZERO..=LONGEST, 10),
        prepared_statements: section.entry("prepared_statements").and_then(|entry| entry.number(STATEMENTS)).unwrap_or(200),
        reset_always: section.entry("reset_always").and_then(|entry| entry.boolean()).unwrap_or(false),
    }
}

/// A duration, or the default.
pub(super) fn duration(
    section: &Section<'_>,
    key: &'static str,
    bounds: RangeInclusive<Duration>,
    default_seconds: u64,
) -> Duration {
    section.entry(key).and_then(|entry| entry.duration(bounds)).unwrap_or(Duration::from_secs(default_seconds))
}

fn engine(section: &Section<'_>) -> Engine {
    let words = [("auto", Buffers::Auto), ("incremental", Buffers::Incremental), ("plain", Buffers::Plain)];
    Engine {
        buffers: section.entry("buffers").and_then(|entry| entry.word(&words)).unwrap_or(Buffers::Auto),
        receive_buffers: section.entry("receive_buffers").and_then(|entry| {
            let number = entry.number(RECEIVE_BUFFERS)?;
            if !number.is_power_of_two() {
                entry.must_be("a power of two, as the kernel's buffer rings are");
            }
            u16::try_from(number).ok()
        }),
    }
}

fn log(section: &Section<'_>) -> Log {
    let levels =
        [("error", Level::ERROR), ("warn", Level::WARN), ("info", Level::INFO), ("debug", Level::DEBUG), ("trace", Level::TRACE)];
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    Log {
        format: section.entry("format").and_then(|entry| entry.word(&formats)).unwrap_or(LogFormat::Text),
        level: section.entry("level").and_then(|entry| entry.word(&levels)).unwrap_or(Level::INFO),
    }
}

/// PostgreSQL's defaults, overridden and extended. Its names are compared without regard to case, as PostgreSQL does.
fn parameters(section: &Section<'_>) -> Vec<(String, String)> {
    let mut parameters: Vec<_> = PARAMETERS.iter().map(|(name, value)| (String::from(*name), String::from(*value))).collect();
    for (name, entry) in section.all() {
        let value = entry.parsed("a text between quotes, as PostgreSQL would report it", Some).unwrap_or_default();
        if name.is_empty() || name.contains('\0') {
            entry.mistake("a parameter must have a name");
        } else if name.eq_ignore_ascii_case("session_authorization") {
            entry.mistake(format!("{} is always the user who logs in: remove it", entry.name));
        }
        match parameters.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, known)) => value.clone_into(known),
            None => parameters.push((name.to_owned(), value.to_owned())),
        }
    }
    parameters
}
