//! The built `domicile` as a process, started from a configuration file that the test writes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Signal, geteuid};

use crate::client::{Client, Login, PATIENCE};
use crate::message;
use crate::process::{Process, Scratch, free_port, wait_for};
use crate::transcript::Transcript;

/// A configuration file, as far as tests vary it.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// `workers`.
    pub workers: u8,
    /// `transaction` or `session`.
    pub pool_mode: &'static str,
    /// Further lines before the first table.
    pub top: String,
    /// Further elements of `listen`.
    pub listen: Vec<String>,
    /// Further lines of `[auth]`.
    pub auth: String,
    /// The lines of `[pools]`.
    pub pools: String,
    /// `[auth] method`; empty for none.
    pub method: &'static str,
    /// The lines of users.txt: user and password or verifier.
    pub users: Vec<(String, String)>,
    /// The lines of `[residency]`.
    pub residency: String,
    /// Region, name and address of every node.
    pub nodes: Vec<(String, String, String)>,
    /// Further lines of every node.
    pub node: String,
    /// Further tables, as they stand in the file.
    pub more: String,
}

impl Configuration {
    /// The configuration that most tests start from: SCRAM, clients choose their region, without a region nothing is served.
    pub fn new(nodes: &[(&str, &str, SocketAddr)]) -> Self {
        let node =
            |(region, name, address): &(&str, &str, SocketAddr)| ((*region).to_owned(), (*name).to_owned(), address.to_string());
        Self {
            workers: 2,
            pool_mode: "transaction",
            top: String::new(),
            listen: Vec::new(),
            auth: String::new(),
            pools: "size = 10\n".to_owned(),
            method: "scram-sha-256",
            users: vec![("postgres".to_owned(), "postgres".to_owned())],
            residency: "unbound = \"client\"\nno_region = \"block\"\n".to_owned(),
            nodes: nodes.iter().map(node).collect(),
            node: String::new(),
            more: String::new(),
        }
    }

    fn text(&self, listen: SocketAddr, http: SocketAddr) -> String {
        let mut regions: Vec<&str> = self.nodes.iter().map(|(region, ..)| region.as_str()).collect();
        regions.sort_unstable();
        regions.dedup();
        let regions: String = regions.iter().map(|region| format!("[regions.{region}]\n")).collect();
        let node = |(region, name, address): &(String, String, String)| {
            let more = &self.node;
            format!("[[nodes]]\nname = \"{name}\"\nregion = \"{region}\"\naddress = \"{address}\"\nrole = \"primary\"\n{more}")
        };
        let nodes: String = self.nodes.iter().map(node).collect();
        // Tests of one host would all share one fence; those that are about it have their own (see gate.rs).
        let fence = if self.top.contains("fence = ") { "" } else { "fence = \"off\"\n" };
        // Only root may look at the descriptors of a process that hides its memory.
        let hides = self.top.contains("core_dumps = ") || geteuid().is_root();
        let core_dumps = if hides { "" } else { "core_dumps = true\n" };
        let listen: Vec<String> =
            [listen.to_string()].iter().chain(&self.listen).map(|element| format!("\"{element}\"")).collect();
        let listen = listen.join(", ");
        let method = if self.method.is_empty() { String::new() } else { format!("method = \"{}\"\n", self.method) };
        format!(
            "{fence}{core_dumps}listen = [{listen}]\nworkers = {}\npool_mode = \"{}\"\n{}\n[auth]\n{}users = \"users.txt\"\n{}\n\
             [pools]\n{}[http]\nlisten = \"{http}\"\n[residency]\n{}\n{regions}{nodes}{}",
            self.workers, self.pool_mode, self.top, method, self.auth, self.pools, self.residency, self.more
        )
    }
}

/// A running proxy; stopped when dropped.
pub struct Proxy {
    process: Process,
    address: SocketAddr,
    http: SocketAddr,
    file: PathBuf,
    log: PathBuf,
    /// Holds the configuration and the log.
    _directory: Option<Scratch>,
}

impl Proxy {
    /// Writes the configuration to a directory of its own, starts the proxy on free ports and waits until it answers.
    pub fn start(configuration: &Configuration) -> Result<Self, String> {
        Self::start_program(&binary()?, configuration)
    }

    /// The same with another program.
    pub fn start_program(program: &Path, configuration: &Configuration) -> Result<Self, String> {
        let directory = Scratch::new().map_err(|error| format!("a directory for the proxy: {error}"))?;
        let Prepared { file, address, http } = Self::prepare(configuration, &directory)?;
        let mut proxy = Self::start_file(program, &file, address, http)?;
        proxy._directory = Some(directory);
        Ok(proxy)
    }

    /// Writes the configuration to a directory and chooses the ports, and starts nothing.
    pub fn prepare(configuration: &Configuration, directory: &Scratch) -> Result<Prepared, String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let file = directory.path().join("domicile.toml");
        write_configuration(&file, configuration, address, http)?;
        Ok(Prepared { file, address, http })
    }

    /// Starts `program` with a configuration file that exists; its log goes beside the file.
    pub fn start_file(program: &Path, file: &Path, address: SocketAddr, http: SocketAddr) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(file);
        Self::start_command(command, file, address, http)
    }

    fn start_command(mut command: Command, file: &Path, address: SocketAddr, http: SocketAddr) -> Result<Self, String> {
        let program = PathBuf::from(command.get_program());
        let log = file.with_extension("log");
        let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let process = Process::start(command, Signal::TERM).map_err(|error| format!("{}: {error}", program.display()))?;
        let mut proxy = Self { process, address, http, file: file.to_owned(), log, _directory: None };
        // A policy of a million rules takes its time.
        let answers = wait_for(Duration::from_secs(60), || {
            let ended = proxy.process.exit_status().is_some();
            (ended || proxy.answers()).then_some(!ended)
        });
        match answers {
            Some(true) => Ok(proxy),
            _ => Err(format!("the proxy did not start: {}", proxy.log().trim_end())),
        }
    }

    /// Whether it says no to an SSLRequest, which it does from its first moment to its last.
    fn answers(&self) -> bool {
        let client = TcpStream::connect_timeout(&self.address, Duration::from_millis(200)).is_ok();
        client
            && Client::connect(self.address).is_ok_and(|mut client| {
                client.send(&message::ssl_request());
                client.set_patience(Duration::from_secs(1));
                client.byte().is_some()
            })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it serves PostgreSQL's protocol.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Logs in.
    pub fn login(&self, login: &Login<'_>) -> Result<Client, Transcript> {
        Client::login(self.address, login)
    }

    /// Logs in as `postgres` to `demo`.
    ///
    /// # Panics
    /// If the proxy refuses.
    #[track_caller]
    pub fn connect(&self) -> Client {
        match self.login(&Login::default()) {
            Ok(client) => client,
            Err(said) => panic!("the proxy refused a login: {said}\n{}", self.log()),
        }
    }

    /// Puts another configuration in place of its file, in one step; SIGHUP makes the proxy read it.
    pub fn configure(&self, configuration: &Configuration) -> Result<(), String> {
        let next = self.file.with_extension("next");
        write_configuration(&next, configuration, self.address, self.http)?;
        fs::rename(&next, &self.file).map_err(|error| format!("{}: {error}", self.file.display()))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it has ended, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.process.wait(limit)
    }

    /// Everything it has written to standard output and standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory, in KiB.
    pub fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most resident memory there has been since the start, in KiB.
    pub fn memory_peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    /// The processor time that it has used, in hundredths of a second (proc_pid_stat(5)).
    pub fn processor_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap_or_default();
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        behind_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).map_or(0, Iterator::count)
    }

    /// GET over its HTTP endpoint: status and body, or what went wrong.
    pub fn http(&self, path: &str) -> Result<(u16, String), String> {
        let mut answer = String::new();
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.http, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| format!("GET {path}: {error}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("GET {path}: {answer:?}"))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(|| format!("GET {path}: {head:?}"))?, body.to_owned()))
    }
}

/// A configuration file that nobody has been started with yet.
pub struct Prepared {
    file: PathBuf,
    address: SocketAddr,
    http: SocketAddr,
}

impl Prepared {
    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Starts the proxy as a user without any privilege, in a cgroup. Only root can.
    pub fn start_as_nobody(&self, cgroup: Option<&Path>) -> Result<Proxy, String> {
        for file in [self.file.clone(), self.file.with_file_name("users.txt")] {
            chown(&file, Some(NOBODY), Some(NOBODY)).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let enter = cgroup.map_or_else(String::new, |cgroup| format!("echo 0 > {}/cgroup.procs && ", cgroup.display()));
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{enter}exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups -- \"$@\""));
        command.arg("sh").arg(binary()?).args(["run", "--config"]).arg(&self.file);
        Proxy::start_command(command, &self.file, self.address, self.http)
    }
}

/// The user of whoever has no privilege, and its group.
const NOBODY: u32 = 65_534;

fn write_configuration(file: &Path, configuration: &Configuration, listen: SocketAddr, http: SocketAddr) -> Result<(), String> {
    let users: String = configuration.users.iter().map(|(user, secret)| format!("\"{user}\" \"{secret}\"\n")).collect();
    let write = |file: &Path, text: String| fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()));
    let users_file = file.with_file_name("users.txt");
    write(&users_file, users)?;
    // Readable by all, it would be a warning in every log.
    fs::set_permissions(&users_file, fs::Permissions::from_mode(0o600)).map_err(|error| format!("users.txt: {error}"))?;
    if configuration.top.contains("user = \"nobody\"") {
        chown(&users_file, Some(NOBODY), None).map_err(|error| format!("users.txt: {error}"))?;
    }
    write(file, configuration.text(listen, http))
}

/// The proxy's program: `DOMICILE_BIN` (which `cargo xtask test` sets to the release build), else built here with the dev profile.
pub fn binary() -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || {
        if let Some(program) = std::env::var_os("DOMICILE_BIN") {
            return Ok(PathBuf::from(program));
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--package", "domicile", "--bin", "domicile"]).current_dir(root());
        let status = command.status().map_err(|error| format!("cargo: {error}"))?;
        if status.success() { Ok(target_directory().join("debug/domicile")) } else { Err("the proxy does not build".to_owned()) }
    };
    BUILT.get_or_init(build).clone()
}

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Where cargo puts what it builds.
pub fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |directory| root().join(directory))
}
