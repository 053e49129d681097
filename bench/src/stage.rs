//! What all workloads have at hand: the programs, the stub server, the peers in front of it, and how deep to go.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use domicile_tests::gate::Gate;
use domicile_tests::process::now;
use domicile_tests::program;
use domicile_tests::proxy::Configuration;

use crate::answers::Work;
use crate::cell::{Cell, Sample};
use crate::outcome::{Outcome, Protocol};
use crate::report::Report;
use crate::subjects::{self, Login, Peer, PgBouncer, Programs, Subject};

/// How much time there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Under three minutes.
    Quick,
    /// What a change is judged by.
    Usual,
    /// Under 40 minutes.
    Full,
}

impl Depth {
    /// One of three.
    pub fn choose<T>(self, quick: T, usual: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Usual => usual,
            Self::Full => full,
        }
    }

    /// How often a short query is measured.
    pub fn rounds(self) -> usize {
        self.choose(3, 5, 6)
    }

    /// And for how long each time.
    pub fn window(self) -> Duration {
        Duration::from_millis(self.choose(350, 600, 700))
    }
}

/// One run.
pub struct Stage<'a> {
    /// Where the programs are.
    pub programs: Programs,
    /// How much time there is.
    pub depth: Depth,
    /// Every PgBouncer there is: the one that is installed, and those that were given by hand.
    pub pgbouncers: Vec<PgBouncer>,
    /// Further peers that were given by hand.
    pub peers: Vec<Peer>,
    /// Who is told how far it is.
    pub told: &'a dyn Fn(&str),
    /// What comes of it.
    pub report: Report,
    server: Subject,
}

/// How the load is run.
#[derive(Clone, Copy)]
pub struct Asked {
    /// What is asked for.
    pub work: Work,
    /// How.
    pub protocol: Protocol,
    /// By how many at once.
    pub clients: usize,
    /// How often a second; as often as they can without it.
    pub rate: Option<f64>,
    /// For how long.
    pub window: Duration,
}

impl<'a> Stage<'a> {
    /// Starts the stub server.
    ///
    /// # Errors
    /// It does not start.
    pub fn set(
        programs: Programs,
        depth: Depth,
        pgbouncers: Vec<PgBouncer>,
        peers: Vec<Peer>,
        mut report: Report,
        told: &'a dyn Fn(&str),
    ) -> Result<Self, String> {
        let server = programs.stub(None)?;
        let by_hand = pgbouncers.iter().map(|pgbouncer| &pgbouncer.name).chain(peers.iter().map(|peer| &peer.name));
        report.peers = ["haproxy".to_owned()].into_iter().chain(by_hand.cloned()).collect();
        let pgbouncers = PgBouncer::installed().into_iter().chain(pgbouncers).collect();
        Ok(Self { programs, depth, pgbouncers, peers, told, report, server })
    }

    /// Where the stub server is.
    pub fn server(&self) -> SocketAddr {
        self.server.address
    }

    /// Domicile as it is meant to be run: with metrics, and fenced in where that can be.
    ///
    /// # Errors
    /// It does not start.
    pub fn domicile(&mut self, server: SocketAddr) -> Result<Subject, String> {
        self.domicile_with(server, |_| {})
    }

    /// The same with another configuration.
    ///
    /// # Errors
    /// It does not start.
    pub fn domicile_with(&mut self, server: SocketAddr, change: impl FnOnce(&mut Configuration)) -> Result<Subject, String> {
        let gate = match Gate::named("bench") {
            Ok(gate) => Some(gate),
            Err(lacking) => {
                self.note(format!("Domicile runs without its fence: that needs {lacking}"));
                None
            }
        };
        self.programs.domicile("domicile", server, gate, change)
    }

    /// Each PgBouncer in front of a server, with `more` settings.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn pgbouncers(&mut self, server: SocketAddr, login: Login, more: &str) -> Result<Vec<Subject>, String> {
        if self.pgbouncers.is_empty() {
            self.note("PgBouncer is not installed; --install-peers gets it".to_owned());
        }
        self.pgbouncers.iter().map(|pgbouncer| subjects::pgbouncer(pgbouncer, server, login, more)).collect()
    }

    /// Everybody in front of a server, and `more` settings for a second one of each PgBouncer, if it is to be there.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn everybody(&mut self, server: SocketAddr, more: Option<&str>) -> Result<Vec<Subject>, String> {
        let mut all = vec![self.domicile(server)?, self.programs.floor(server)?];
        for more in ["", more.unwrap_or_default()].iter().take(1 + usize::from(more.is_some())) {
            all.extend(self.pgbouncers(server, Login::Trust, more)?);
        }
        match subjects::haproxy(server)? {
            Some(haproxy) => all.push(haproxy),
            None => self.note("HAProxy is not installed; --install-peers gets it".to_owned()),
        }
        for peer in &self.peers {
            all.push(peer.start(server)?);
        }
        Ok(all)
    }

    /// Remembers what a reader of the report should know.
    pub fn note(&mut self, note: String) {
        if !self.report.notes.contains(&note) {
            self.report.notes.push(note);
        }
    }

    /// Measures a cell.
    pub fn measure(
        &mut self,
        cell: &Cell<'_>,
        subjects: &[&Subject],
        rounds: usize,
        mut measure: impl FnMut(&Programs, &Subject) -> Result<Sample, String>,
    ) {
        let programs = &self.programs;
        cell.run(&mut self.report, subjects, rounds, self.told, |subject| measure(programs, subject));
    }
}

impl Programs {
    /// Runs the load once.
    ///
    /// # Errors
    /// It failed, or is not done long after its time.
    pub fn load(&self, subject: &Subject, asked: &Asked) -> Result<Outcome, String> {
        let mut command = self.load_command(subject, asked);
        command.stdin(Stdio::null());
        outcome(command, asked.window)
    }

    fn load_command(&self, subject: &Subject, asked: &Asked) -> Command {
        let mut command = Command::new(&self.bench);
        command.args(["--core", &subjects::load_core().to_string(), "load", &subject.address.to_string()]);
        command.args(["--clients", &asked.clients.to_string(), "--protocol", asked.protocol.name()]);
        command.args(["--work", &asked.work.name(), "--window", &asked.window.as_millis().to_string()]);
        if let Some(authority) = &subject.authority {
            command.arg("--authority").arg(authority);
        }
        if let Some(process) = subject.process {
            command.args(["--process", &process.to_string()]);
        }
        if let Some(rate) = asked.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        command
    }

    /// System calls of a process for each question, counted by perf(1) in the middle of a time of load.
    ///
    /// # Errors
    /// perf is lacking, or may not count them.
    pub fn system_calls(&self, subject: &Subject, asked: &Asked) -> Result<f64, String> {
        let process = subject.process.ok_or("no process")?;
        let perf = program::find("perf").ok_or("perf (Debian: apt-get install linux-perf)")?;
        let command = self.load_command(subject, &Asked { window: Duration::from_millis(1400), ..*asked });
        std::thread::scope(|scope| {
            let load = scope.spawn(|| outcome(command, Duration::from_secs(2)));
            std::thread::sleep(Duration::from_millis(500));
            let mut count = Command::new(perf);
            count.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &process.to_string(), "--", "sleep", "0.6"]);
            let said = program::run(count, "", Duration::from_secs(10)).map_err(|error| error.to_string())?;
            let said = program::both(&said);
            let calls = said.lines().find(|line| line.contains("raw_syscalls")).and_then(|line| line.split(',').next());
            let calls: f64 = calls.and_then(|calls| calls.parse().ok()).ok_or_else(|| format!("perf: {}", said.trim()))?;
            let outcome = load.join().map_err(|_| "the load panicked".to_owned())??;
            Ok(calls / 0.6 / (outcome.queries as f64 / outcome.seconds))
        })
    }
}

/// Runs a program that says what it came to.
///
/// # Errors
/// It failed, or is not done long after its time.
pub fn outcome(command: Command, window: Duration) -> Result<Outcome, String> {
    let output = program::run(command, "", window + Duration::from_secs(30)).map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(program::both(&output).trim().to_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

/// Tells how long a thing has taken.
pub struct Watch(Instant);

impl Watch {
    /// From now on.
    pub fn start() -> Self {
        Self(now())
    }

    /// Up to now.
    pub fn seconds(&self) -> f64 {
        (now() - self.0).as_secs_f64()
    }
}
