//! Real PostgreSQL clusters on loopback, each with its own log of every statement that reached it.
//!
//! The log is what residency is judged by: what stands in it did reach that server, and what was blocked must not. A cluster is
//! made for speed and thrown away: it does not survive a power cut, and nothing of it is kept.

use std::fs;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Client, Login};
use crate::process::{Process, Scratch, free_port, unprivileged_user, wait_for};
use crate::program;
use crate::transcript::{End, Transcript};

/// How a cluster is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// `cluster_name`, and the marker of its log.
    pub name: &'a str,
    /// A port of 127.0.0.1; `None` takes a free one.
    pub port: Option<u16>,
    /// `max_connections`.
    pub connections_max: u32,
    /// Further settings, with their values.
    pub settings: &'a [(&'a str, &'a str)],
    /// A data directory to start from a copy of, such as a base backup; else it is a new cluster.
    pub copy_of: Option<&'a Path>,
}

/// A running cluster; stopped and removed when dropped. Its superuser is `postgres` with password `postgres`, by SCRAM.
pub struct Cluster {
    name: String,
    port: u16,
    /// Those that are not the same for all.
    settings: Vec<(String, String)>,
    process: Process,
    directory: Scratch,
}

const START_PATIENCE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Starts a cluster and waits until it serves.
    pub fn start(options: &Options<'_>) -> Result<Self, String> {
        let bin = programs()?;
        let origin = options.copy_of.map_or_else(|| template(&bin), Ok)?;
        let copy = |data: &Path| {
            run(Command::new("cp").arg("-a").arg(origin).arg(data))?;
            match unprivileged_user().filter(|_| options.copy_of.is_some()) {
                Some((user, group)) => run(Command::new("chown").arg("-R").arg(format!("{user}:{group}")).arg(data)),
                None => Ok(()),
            }
        };
        Self::start_in(options, &bin, copy)
    }

    /// Starts a standby that follows `primary`, and waits until it serves.
    pub fn start_standby(options: &Options<'_>, primary: &Self) -> Result<Self, String> {
        let bin = programs()?;
        let copy = |data: &Path| {
            let mut command = unprivileged(&bin.join("pg_basebackup"));
            command.args(["--host=127.0.0.1", "--username=postgres", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]);
            command.arg(format!("--port={}", primary.port)).arg("--pgdata").arg(data);
            run(&mut command)
        };
        Self::start_in(options, &bin, copy)
    }

    fn start_in(options: &Options<'_>, bin: &Path, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<Self, String> {
        let name = options.name;
        let directory = Scratch::new().map_err(|error| format!("a directory for {name}: {error}"))?;
        give_away(directory.path()).map_err(|error| format!("{}: {error}", directory.path().display()))?;
        fill(&directory.path().join("data"))?;
        let port = options.port.unwrap_or_else(free_port);
        let further = options.settings.iter().map(|(setting, value)| ((*setting).to_owned(), (*value).to_owned()));
        let bound = ("max_connections".to_owned(), options.connections_max.to_string());
        let settings: Vec<(String, String)> = [bound].into_iter().chain(further).collect();
        let process = launch(name, port, &settings, bin, &directory)?;
        let mut cluster = Self { name: name.to_owned(), port, settings, process, directory };
        cluster.wait_until_it_serves()?;
        Ok(cluster)
    }

    /// Starts it again after [`Self::crash`] or [`Self::kill`], and waits until it serves.
    pub fn start_again(&mut self) -> Result<(), String> {
        let bin = programs()?;
        // Processes of the old server may still be on their way out; until then the new one refuses to start.
        let started = wait_for(START_PATIENCE, || {
            self.process = launch(&self.name, self.port, &self.settings, &bin, &self.directory).ok()?;
            self.wait_until_it_serves().ok()
        });
        started.ok_or_else(|| format!("PostgreSQL {} did not start again: {}", self.name, self.log()))
    }

    /// The process that all others of it come from.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Ends the server process and nothing else, as the kernel does when memory is short.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(Duration::from_secs(10));
    }

    fn wait_until_it_serves(&mut self) -> Result<(), String> {
        let login = Login { database: "postgres", ..Login::default() };
        let served = wait_for(START_PATIENCE, || {
            let ended = self.process.exit_status().is_some();
            (ended || Client::login(self.address(), &login).is_ok()).then_some(!ended)
        });
        if served == Some(true) {
            return Ok(());
        }
        let log = self.log();
        let why = log.lines().rev().find(|line| line.contains("FATAL:")).or_else(|| log.lines().last()).unwrap_or("no word");
        Err(format!("PostgreSQL {} did not start on port {}: {why}", self.name, self.port))
    }

    /// `cluster_name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Where its files are.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The directory of its unix socket.
    pub fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// Logs in straight to the server, past any proxy, as its superuser.
    pub fn connect(&self, database: &str) -> Result<Client, String> {
        let login = Login { database, ..Login::default() };
        Client::login(self.address(), &login).map_err(|said| format!("{}: {said}", self.name))
    }

    /// Runs SQL straight on the server; an ErrorResponse is an `Err`.
    pub fn execute(&self, database: &str, sql: &str) -> Result<Transcript, String> {
        let said = self.connect(database)?.query(sql);
        match said.error() {
            None if said.end == End::Reached => Ok(said),
            _ => Err(format!("{}: {said}", self.name)),
        }
    }

    /// The first column of the first row of a query run straight on the server, or what went wrong.
    pub fn value(&self, database: &str, sql: &str) -> String {
        self.execute(database, sql).map_or_else(|error| error, |said| said.value().unwrap_or_default())
    }

    /// Everything the server has written to its log.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.directory.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The text of every statement that reached the server, in order: Query, Parse, Bind, Execute (so a statement of the
    /// extended protocol stands there several times) and the names of functions called by FunctionCall.
    pub fn statements(&self) -> Vec<String> {
        entries(&self.log(), &marker(&self.name)).iter().filter_map(|entry| statement(entry)).map(str::to_owned).collect()
    }

    /// Lets every user log in without a password from now on.
    pub fn trust_everyone(&self) -> Result<(), String> {
        let file = self.directory.path().join("data/pg_hba.conf");
        let error = |error| format!("{}: {error}", file.display());
        fs::write(&file, "local all all trust\nhost all all 127.0.0.1/32 trust\n").map_err(error)?;
        self.execute("postgres", "SELECT pg_reload_conf()").map(drop)
    }

    /// Puts other rules in the place of `pg_hba.conf` and `pg_ident.conf`. The superuser must be let in by TCP.
    pub fn set_rules(&self, hba: &str, ident: &str) -> Result<(), String> {
        for (name, text) in [("pg_hba.conf", hba), ("pg_ident.conf", ident)] {
            let file = self.directory.path().join("data").join(name);
            fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        self.execute("postgres", "SELECT pg_reload_conf()").map(drop)
    }

    /// Lets users log in from these networks too, by SCRAM.
    pub fn admit(&self, networks: &[&str]) -> Result<(), String> {
        let file = self.directory.path().join("data/pg_hba.conf");
        let error = |error| format!("{}: {error}", file.display());
        let mut rules = fs::read_to_string(&file).map_err(error)?;
        networks.iter().for_each(|network| rules += &format!("host all all {network} scram-sha-256\n"));
        fs::write(&file, rules).map_err(error)?;
        self.execute("postgres", "SELECT pg_reload_conf()").map(drop)
    }

    /// Sends a signal to one of the server's processes.
    pub fn signal_backend(&self, process_id: u32, signal: Signal) {
        crate::process::signal_process(process_id, signal);
    }

    /// Sends a signal to the server process.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops the cluster at once, as a crash would, and leaves its port closed.
    pub fn crash(&mut self) {
        self.process.signal(Signal::QUIT);
        self.process.wait(Duration::from_secs(10));
    }
}

fn programs() -> Result<PathBuf, String> {
    program::postgres_directory().ok_or_else(|| "PostgreSQL's server programs (Debian: apt-get install postgresql)".to_owned())
}

/// Starts the server process on the data directory.
fn launch(name: &str, port: u16, further: &[(String, String)], bin: &Path, directory: &Scratch) -> Result<Process, String> {
    let data = directory.path().join("data");
    let log = File::options().create(true).append(true).open(directory.path().join("log"));
    let log = log.map_err(|error| format!("log of {name}: {error}"))?;
    let mut command = unprivileged(&bin.join("postgres"));
    command.arg("-D").arg(&data).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let settings = [
        ("cluster_name", name.to_owned()),
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", port.to_string()),
        ("unix_socket_directories", directory.path().display().to_string()),
        ("fsync", "off".to_owned()),
        ("full_page_writes", "off".to_owned()),
        ("synchronous_commit", "off".to_owned()),
        // Statements of the simple protocol, Executes and function calls are logged by the first, and by the second also
        // Parse and Bind, executed or not.
        ("log_statement", "all".to_owned()),
        ("log_min_duration_statement", "0".to_owned()),
        ("log_line_prefix", format!("{} %p ", marker(name))),
        ("log_destination", "stderr".to_owned()),
        ("logging_collector", "off".to_owned()),
    ];
    let further = further.iter().map(|(setting, value)| (setting.as_str(), value.clone()));
    settings.into_iter().chain(further).for_each(|(setting, value)| {
        command.arg("-c").arg(format!("{setting}={value}"));
    });
    // SIGQUIT is PostgreSQL's immediate shutdown: nothing of this cluster is kept.
    Process::start(command, Signal::QUIT).map_err(|error| format!("starting {name}: {error}"))
}

/// Initialises one data directory a process; every cluster starts from a copy of it.
fn template(bin: &Path) -> Result<&'static Path, String> {
    // The directory lives in a static and is removed when the process exits.
    static TEMPLATE: OnceLock<Result<(Scratch, PathBuf), String>> = OnceLock::new();
    let made = TEMPLATE.get_or_init(|| {
        let scratch = Scratch::new().map_err(|error| format!("a directory for initdb: {error}"))?;
        let password = scratch.path().join("password");
        fs::write(&password, "postgres\n").map_err(|error| format!("{}: {error}", password.display()))?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).map_err(|error| error.to_string())?;
        give_away(scratch.path()).map_err(|error| format!("{}: {error}", scratch.path().display()))?;
        let data = scratch.path().join("data");
        let mut initdb = unprivileged(&bin.join("initdb"));
        initdb.args(["--no-sync", "--no-locale", "--encoding=UTF8", "--username=postgres", "--auth=scram-sha-256"]);
        initdb.arg("--pwfile").arg(&password).arg("-D").arg(&data);
        run(&mut initdb)?;
        Ok((scratch, data))
    });
    made.as_ref().map(|(_, data)| data.as_path()).map_err(Clone::clone)
}

/// A command that runs as PostgreSQL's user when we are root.
pub fn unprivileged(program: &Path) -> Command {
    let mut command = program::command(program);
    if let Some((user, group)) = unprivileged_user() {
        command.uid(user).gid(group);
    }
    command
}

/// Makes a directory the server's, when that runs as another user.
pub fn give_away(directory: &Path) -> std::io::Result<()> {
    unprivileged_user().map_or(Ok(()), |(user, group)| chown(directory, Some(user), Some(group)))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    let said = program::both(&output);
    if output.status.success() { Ok(()) } else { Err(format!("{name} failed: {}", said.trim())) }
}

fn marker(name: &str) -> String {
    format!("@{name}@")
}

/// The entries of a log: each begins with the marker and a process id, and goes on in lines that begin with a tab.
fn entries(log: &str, marker: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in log.lines() {
        if let Some(rest) = line.strip_prefix(marker).and_then(|rest| rest.trim_start().split_once(' ')) {
            entries.push(rest.1.to_owned());
        } else if let (Some(rest), Some(entry)) = (line.strip_prefix('\t'), entries.last_mut()) {
            entry.push('\n');
            entry.push_str(rest);
        }
    }
    entries
}

/// The statement that a log entry tells of.
fn statement(entry: &str) -> Option<&str> {
    if let Some(text) = entry.strip_prefix("STATEMENT:  ") {
        return Some(text);
    }
    let told = entry.strip_prefix("LOG:  ")?;
    let (what, text) = told.split_once(": ")?;
    // With log_min_duration_statement: "duration: 0.1 ms  parse <unnamed>: SELECT 1".
    let (what, text) = if what == "duration" { text.split_once("ms  ")?.1.split_once(": ")? } else { (what, text) };
    let step = what.split(' ').next()?;
    matches!(step, "statement" | "parse" | "bind" | "execute" | "fastpath").then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_many_lines_are_put_together() {
        let log = "@a@ 12 LOG:  statement: SELECT 1,\n\t\t2\n@a@ 12 LOG:  duration: 0.2 ms\n\
                   @a@ 13 LOG:  duration: 0.100 ms  parse s1: SELECT ':'\n@a@ 13 LOG:  execute s1: SELECT ':'\n\
                   @a@ 13 DETAIL:  parameters: $1 = '1'\n@a@ 14 LOG:  fastpath function call: \"f\" (OID 7)\n\
                   @a@ 14 ERROR:  syntax error\n@a@ 14 STATEMENT:  SELEC\n@b@ 1 LOG:  statement: other\n";
        let entries = entries(log, "@a@");
        let found: Vec<_> = entries.iter().filter_map(|entry| statement(entry)).collect();
        assert_eq!(found, ["SELECT 1,\n\t2", "SELECT ':'", "SELECT ':'", "\"f\" (OID 7)", "SELEC"]);
    }

    #[test]
    fn a_cluster_serves_and_logs_what_reached_it() {
        if crate::skip::available(program::need("initdb")).is_none() {
            return;
        }
        let options = Options { name: "pg-one", connections_max: 20, ..Options::default() };
        let cluster = Cluster::start(&options).unwrap();
        let mut client = cluster.connect("postgres").unwrap();
        assert_eq!(client.query("SHOW cluster_name").to_string(), "T cluster_name / D pg-one / C SHOW / Z I");
        assert_eq!(client.extended("SELECT 7 AS n").to_string(), "1 / 2 / T n / D 7 / C SELECT 1 / Z I");
        client.ask(&[crate::message::parse("never", "SELECT 'parsed only'"), crate::message::sync()].concat());
        client.ask(&[crate::message::function_call(1598, &[])].concat());
        let error = client.query("BEGIN; SELECT 1/0");
        assert_eq!(error.to_string(), "C BEGIN / E 22012 division by zero / Z E");
        let statements = cluster.statements();
        for text in ["SHOW cluster_name", "SELECT 7 AS n", "SELECT 'parsed only'", "BEGIN; SELECT 1/0", "\"random\" (OID 1598)"] {
            assert!(statements.iter().any(|statement| statement == text), "{text} is not in {statements:#?}");
        }
        let login = Login { password: "wrong", database: "postgres", ..Login::default() };
        let refused = Client::login(cluster.address(), &login).err().map(|said| said.to_string());
        let expected = "R 10 SCRAM-SHA-256 / R 11 salt of 24 characters, 4096 iterations / \
                        E FATAL 28P01 password authentication failed for user \"postgres\" / closed";
        assert_eq!(refused.as_deref(), Some(expected));
    }
}
