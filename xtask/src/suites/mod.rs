//! `cargo xtask suites`: PostgreSQL's own tests through the proxy, judged by what passes without it.
//!
//! Their sources come from the distribution's source package of the very version that is installed here, so nothing of them
//! stands in this repository. What cannot be had is skipped, and said. Continuous integration does not depend on it.

mod pipeline;
mod regress;
mod source;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use domicile_tests::cluster::{self, Cluster};
use domicile_tests::program;
use domicile_tests::proxy::{Configuration, Proxy, root, target_directory};
use domicile_tests::skip::io_uring;

use crate::progress;
use source::Source;
use table::Row;

/// Run PostgreSQL's own test suites through the proxy.
#[derive(clap::Args)]
pub struct Options {
    /// Only this suite
    #[arg(long, value_enum)]
    suite: Option<Suite>,
    /// Only this mode; what fails without the proxy is then not known, and counts
    #[arg(long, value_enum)]
    mode: Option<Mode>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    /// The regression suite, by `pg_regress`
    Regress,
    /// libpq's tests of pipelines
    Pipeline,
}

/// How the suite reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Without the proxy
    Direct,
    /// Through the proxy in session mode
    Session,
    /// Through the proxy in transaction mode
    Transaction,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Direct, Self::Session, Self::Transaction];

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Session => "session",
            Self::Transaction => "transaction",
        }
    }
}

/// Runs the suites, prints a table, and fails if a test fails through the proxy that passes without it.
pub fn run(options: &Options) -> Result<(), String> {
    io_uring().map_err(|needs| format!("nothing can run: the proxy needs {needs}"))?;
    let directory = target_directory().join("suites");
    let source = Source::get(&directory)?;
    build_proxy()?;
    let mut rows = Vec::new();
    for (suite, name, run) in [
        (Suite::Regress, "regress", regress::run as fn(&Source, &Target) -> Result<Row, String>),
        (Suite::Pipeline, "libpq_pipeline", pipeline::run),
    ] {
        if options.suite.is_some_and(|asked_for| asked_for != suite) {
            continue;
        }
        for mode in Mode::ALL {
            if options.mode.is_some_and(|asked_for| asked_for != mode) {
                continue;
            }
            let results = directory.join("results").join(mode.name());
            let row = Target::start(mode, results).and_then(|target| run(&source, &target));
            rows.push((name, mode, row.unwrap_or_else(Row::skipped)));
        }
    }
    table::print(&rows);
    println!("What differs is kept in {}", directory.join("results").display());
    table::verdict(&rows)
}

fn build_proxy() -> Result<(), String> {
    if std::env::var_os("DOMICILE_BIN").is_some() {
        return Ok(());
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--package", "domicile", "--bin", "domicile"]).current_dir(root());
    progress::run("build", cargo).map(drop)
}

/// A fresh server, and the proxy before it unless the mode is direct.
struct Target {
    mode: Mode,
    /// Where the suite leaves what it found.
    results: PathBuf,
    cluster: Cluster,
    proxy: Option<Proxy>,
}

impl Target {
    fn start(mode: Mode, results: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&results).map_err(|error| format!("{}: {error}", results.display()))?;
        let mut cluster = Cluster::start(&cluster::Options { name: "suites", connections_max: 300, ..Default::default() })?;
        cluster.trust_everyone()?;
        // What `pg_regress` sets on servers that it starts itself, and no log of each statement.
        for setting in ["max_prepared_transactions = 2", "log_statement = 'none'", "log_min_duration_statement = -1"] {
            cluster.execute("postgres", &format!("ALTER SYSTEM SET {setting}"))?;
        }
        cluster.crash();
        cluster.start_again()?;
        let through = |pool_mode| {
            let mut configuration = Configuration::new(&[("here", "suites", cluster.address())]);
            configuration.pool_mode = pool_mode;
            configuration.method = "trust";
            configuration.top = "pin_notice = false\n".to_owned();
            configuration.pools = "size = 40\n".to_owned();
            configuration.residency = "unbound = \"here\"\n".to_owned();
            // The suites test what guards deny.
            GUARDS.iter().for_each(|guard| configuration.residency += &format!("guards.{guard} = \"allow\"\n"));
            Proxy::start(&configuration)
        };
        let proxy = match mode {
            Mode::Direct => None,
            Mode::Session | Mode::Transaction => Some(through(mode.name())?),
        };
        Ok(Self { mode, results, cluster, proxy })
    }

    /// Where the suite connects to.
    fn port(&self) -> u16 {
        self.proxy.as_ref().map_or(self.cluster.address(), Proxy::address).port()
    }

    /// Keeps the logs of the server and the proxy beside the results.
    fn keep_logs(&self) {
        std::fs::write(self.results.join("server.log"), self.cluster.log()).ok();
        if let Some(proxy) = &self.proxy {
            std::fs::write(self.results.join("proxy.log"), proxy.log()).ok();
        }
    }
}

/// A command that runs as the server's user, for suites that write files which the server reads.
fn as_server(program: &Path) -> Command {
    cluster::unprivileged(program)
}

/// Runs a command quietly; what it printed is the error when it fails.
fn quietly(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    let said = program::both(&output);
    if output.status.success() { Ok(()) } else { Err(format!("{name}: {}", said.trim())) }
}

/// The guards of `[residency.guards]`.
const GUARDS: [&str; 14] = [
    "dblink",
    "foreign_data",
    "subscriptions",
    "publications",
    "copy_program",
    "copy_file",
    "large_object_files",
    "server_files",
    "alter_system",
    "replication_slots",
    "untrusted_languages",
    "load",
    "network_extensions",
    "function_calls",
];
