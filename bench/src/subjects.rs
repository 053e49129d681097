//! Who is measured: started with its own configuration, on one core, in front of one server.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use domicile_tests::client::Client;
use domicile_tests::gate::Gate;
use domicile_tests::message;
use domicile_tests::process::{Process, Scratch, free_port, unprivileged_user, wait_for};
use domicile_tests::program;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::scram;
use domicile_tests::tls::Files;
use rustix::process::{Resource, Signal, getrlimit};

use crate::cpu;

/// The one region of all measurements.
pub const REGION: &str = "eu-west";
/// Server connections of every pooler: PgBouncer's default.
const POOL_SIZE: u32 = 20;

/// One that is measured.
pub struct Subject {
    /// Its name in the report.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process; `direct` has none.
    pub process: Option<u32>,
    /// The authority of its certificate, if its clients are to encrypt.
    pub authority: Option<PathBuf>,
    running: Running,
}

impl Subject {
    /// The same by another name.
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The same process by another name, for what is to be compared with itself. It ends with this one.
    pub fn again(&self, name: &str) -> Self {
        let authority = self.authority.clone();
        Self { name: name.to_owned(), address: self.address, process: self.process, authority, running: Running::Nothing }
    }

    /// Domicile, if it is one.
    pub fn proxy(&self) -> Option<&Proxy> {
        if let Running::Proxy(proxy, _) = &self.running { Some(proxy) } else { None }
    }

    /// The same for clients that encrypt.
    pub fn encrypted(self, authority: &Path) -> Self {
        Self { authority: Some(authority.to_owned()), ..self }
    }
}

/// What ends with it. The process goes before its files and its fence.
enum Running {
    Nothing,
    Process(#[expect(dead_code, reason = "only dropped")] Process, #[expect(dead_code, reason = "only dropped")] Option<Scratch>),
    Proxy(Proxy, #[expect(dead_code, reason = "only dropped")] Option<Gate>),
}

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    Trust,
    /// By SCRAM-SHA-256, against a verifier.
    Scram,
}

/// Where the programs are.
pub struct Programs {
    /// The product.
    pub domicile: PathBuf,
    /// `domicile-bench`.
    pub bench: PathBuf,
    /// `domicile-steps`.
    pub steps: PathBuf,
}

/// The core of whoever is measured.
pub const MEASURED_CORE: usize = 0;

/// The core of the load; the last one.
pub fn load_core() -> usize {
    cpu::cores() - 1
}

/// The core of the stub server: one of its own where there are three.
pub fn server_core() -> usize {
    if cpu::cores() > 2 { 1 } else { load_core() }
}

impl Programs {
    /// The stub server; with a certificate it encrypts for whoever asks for it.
    ///
    /// # Errors
    /// It does not start.
    pub fn stub(&self, certificate: Option<&Files>) -> Result<Subject, String> {
        let port = free_port();
        let mut command = Command::new(&self.bench);
        command.args(["--core", &server_core().to_string(), "stub", &port.to_string()]);
        if let Some(files) = certificate {
            command.arg("--certificate").arg(&files.certificate).arg("--key").arg(&files.key);
        }
        start("stub", command, port, None, None)
    }

    /// The server itself.
    pub fn direct(server: SocketAddr) -> Subject {
        Subject { name: "direct".to_owned(), address: server, process: None, authority: None, running: Running::Nothing }
    }

    /// The bare relay.
    ///
    /// # Errors
    /// It does not start.
    pub fn floor(&self, server: SocketAddr) -> Result<Subject, String> {
        let port = free_port();
        let mut command = Command::new(&self.bench);
        command.args(["relay", &port.to_string(), &server.port().to_string()]);
        start("floor", command, port, None, Some(MEASURED_CORE))
    }

    /// Domicile with one worker; fenced in if `gate` is there. `change` may make another configuration of it.
    ///
    /// # Errors
    /// It does not start.
    pub fn domicile(
        &self,
        name: &str,
        server: SocketAddr,
        gate: Option<Gate>,
        change: impl FnOnce(&mut Configuration),
    ) -> Result<Subject, String> {
        let mut configuration = Configuration::new(&[(REGION, "pg-eu-west", server)]);
        configuration.residency = format!("unbound = \"{REGION}\"\n");
        (configuration.workers, configuration.method) = (1, "trust");
        configuration.pools = format!("size = {POOL_SIZE}\n");
        change(&mut configuration);
        if let Some(gate) = &gate {
            configuration = gate.around(&configuration, "required");
        }
        let proxy = Proxy::start_program(&self.domicile, &configuration)?;
        let process = proxy.id();
        if configuration.workers == 1 {
            cpu::pin(process, MEASURED_CORE);
        }
        Ok(Subject {
            name: name.to_owned(),
            address: proxy.address(),
            process: Some(process),
            authority: None,
            running: Running::Proxy(proxy, gate),
        })
    }
}

/// A PgBouncer.
#[derive(Clone, Debug)]
pub struct PgBouncer {
    /// Its name in the report.
    pub name: String,
    program: PathBuf,
}

impl PgBouncer {
    /// The one that is installed.
    pub fn installed() -> Option<Self> {
        find("pgbouncer").map(|program| Self { name: "pgbouncer".to_owned(), program })
    }
}

impl std::str::FromStr for PgBouncer {
    type Err = String;

    /// A further one by its program, which says its version.
    fn from_str(text: &str) -> Result<Self, String> {
        let program = fs::canonicalize(text).map_err(|error| format!("{text}: {error}"))?;
        let mut command = Command::new(&program);
        command.arg("--version");
        let said = program::run(command, "", Duration::from_secs(10)).map_err(|error| format!("{text}: {error}"))?;
        let said = program::both(&said);
        let version = said.lines().next().and_then(|line| line.strip_prefix("PgBouncer "));
        let version = version.ok_or_else(|| format!("{text} is no PgBouncer: {}", said.trim()))?;
        Ok(Self { name: format!("pgbouncer-{}", version.trim()), program })
    }
}

/// A PgBouncer with its defaults, but for what it must be told to serve at all, and for `more`, which its name says.
///
/// # Errors
/// It does not start.
pub fn pgbouncer(of: &PgBouncer, server: SocketAddr, login: Login, more: &str) -> Result<Subject, String> {
    let name = if more.contains('\n') || more.is_empty() { of.name.clone() } else { format!("{} {more}", of.name) };
    let (directory, port) = (scratch()?, free_port());
    let (auth_type, secret) = match login {
        Login::Trust => ("trust", "postgres".to_owned()),
        Login::Scram => ("scram-sha-256", verifier()),
    };
    let users = write(&directory, "users.txt", &format!("\"postgres\" \"{secret}\"\n"))?;
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = {auth_type}\nauth_file = {}\npool_mode = transaction\nmax_client_conn = 25000\n{more}\n",
        server.port(),
        users.display()
    );
    let file = write(&directory, "pgbouncer.ini", &text)?;
    let mut command = Command::new(&of.program);
    command.arg("-q").arg(file);
    // It does not run as root.
    if let Some((user, group)) = unprivileged_user() {
        command.uid(user).gid(group);
    }
    start(&name, command, port, Some(directory), Some(MEASURED_CORE))
}

/// HAProxy as a relay of TCP with one thread; nothing if it is not installed.
///
/// # Errors
/// It does not start.
pub fn haproxy(server: SocketAddr) -> Result<Option<Subject>, String> {
    let Some(program) = find("haproxy") else { return Ok(None) };
    let (directory, port) = (scratch()?, free_port());
    // It has two files for each client.
    let clients = getrlimit(Resource::Nofile).maximum.map_or(30_000, |files| files.min(60_000).saturating_sub(200) / 2);
    let text = format!(
        "global\n nbthread 1\n maxconn {clients}\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
         listen postgresql\n bind 127.0.0.1:{port}\n server one 127.0.0.1:{}\n",
        server.port()
    );
    let file = write(&directory, "haproxy.cfg", &text)?;
    let mut command = Command::new(program);
    command.args(["-db", "-q", "-f"]).arg(file);
    start("haproxy", command, port, Some(directory), Some(MEASURED_CORE)).map(Some)
}

/// Any other: a command that listens at `port` and, in place of `{server}`, gets the port of its server.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name in the report.
    pub name: String,
    command: String,
    port: u16,
}

impl std::str::FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.rsplit_once(',')?)));
        let (name, (command, port)) = parts.ok_or("a peer is NAME=COMMAND,PORT")?;
        let port = port.trim().parse().map_err(|_| format!("{port} is no port"))?;
        Ok(Self { name: name.to_owned(), command: command.to_owned(), port })
    }
}

impl Peer {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self, server: SocketAddr) -> Result<Subject, String> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {}", self.command.replace("{server}", &server.port().to_string())));
        start(&self.name, command, self.port, None, Some(MEASURED_CORE))
    }
}

/// What stands in a file of users instead of the password `postgres`.
pub fn verifier() -> String {
    scram::verifier("postgres")
}

/// Starts a program and waits until it answers at its port.
fn start(name: &str, mut command: Command, port: u16, files: Option<Scratch>, core: Option<usize>) -> Result<Subject, String> {
    let directory = files.map_or_else(scratch, Ok)?;
    let log = directory.path().join("log");
    let output = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let errors = output.try_clone().map_err(|error| error.to_string())?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let mut process = Process::start(command, Signal::INT).map_err(|error| format!("{name}: {error}"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let answers = wait_for(Duration::from_secs(10), || {
        let ended = process.exit_status().is_some();
        (ended || answers(address)).then_some(!ended)
    });
    if answers != Some(true) {
        return Err(format!("{name} did not start: {}", fs::read_to_string(&log).unwrap_or_default().trim_end()));
    }
    if let Some(core) = core {
        cpu::pin(process.id(), core);
    }
    let process_id = Some(process.id());
    let running = Running::Process(process, Some(directory));
    Ok(Subject { name: name.to_owned(), address, process: process_id, authority: None, running })
}

fn answers(address: SocketAddr) -> bool {
    Client::connect(address).is_ok_and(|mut client| {
        client.send(&message::ssl_request());
        client.set_patience(Duration::from_secs(1));
        client.byte().is_some()
    })
}

/// Servers are not in the path of an ordinary user.
fn find(name: &str) -> Option<PathBuf> {
    let places = ["/usr/sbin", "/usr/local/sbin"].map(|directory| Path::new(directory).join(name));
    program::find(name).or_else(|| places.into_iter().find(|program| program.is_file()))
}

fn scratch() -> Result<Scratch, String> {
    Scratch::new().map_err(|error| format!("a temporary directory: {error}"))
}

fn write(directory: &Scratch, name: &str, text: &str) -> Result<PathBuf, String> {
    let file = directory.path().join(name);
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    fs::write(&file, text).map_err(failed)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_a_command_and_a_port() {
        let peer: Peer = "other=/opt/other -c a,b --to {server},7000".parse().unwrap();
        assert_eq!((peer.name.as_str(), peer.command.as_str(), peer.port), ("other", "/opt/other -c a,b --to {server}", 7000));
        assert_eq!("other".parse::<Peer>().unwrap_err(), "a peer is NAME=COMMAND,PORT");
        assert_eq!("a=b,c".parse::<Peer>().unwrap_err(), "c is no port");
    }
}
