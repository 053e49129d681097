//! The process from start to end: reads the configuration, starts the workers, and then is the control thread.
//!
//! Everything that can wake the control thread is in one place, [`Control::serve`]: what workers tell, and signals. What it starts
//! goes on by itself as tasks: logins, backends being opened, probes, HTTP. A reload is one step: everything that can be wrong with
//! the new configuration is found before anything of it is used.

mod listen;
mod log;
mod notify;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Display;
use std::io;
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::admin;
use crate::config::{self, Buffers, Config};
use crate::engine::{self, BufferMode, Mailbox, Options, ToControl, ToWorker, WorkerHandle};
use crate::login::{Desk, Node, Rules, random_bytes};
use crate::observe::AuditLog;
use crate::policy::Policy;
use crate::pool::{self, Quotas};
use crate::region::RegionId;
use crate::session::{Core, CoreSettings, Counters};
use crate::table::Publisher;

/// Submission entries of the control thread's ring; its logins and connects are a few hundred at most, each with one operation.
const RING_ENTRIES: u32 = 1024;
/// Memory that one configured receive buffer stands for.
const RECEIVE_BUFFER_BYTES: usize = 16 << 10;

/// Runs the proxy with the configuration in `config_path` until SIGTERM or SIGINT.
///
/// # Errors
/// It can not start, or a worker has broken down. The text is for the operator.
pub fn run(config_path: &Path) -> Result<(), Box<dyn Error>> {
    let config = load(config_path)?;
    log::start(&config.log)?;
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    raise_open_files();

    let policy = Arc::new(Policy::compile(&config.policy_source(), None)?);
    let publisher = Publisher::new(Arc::clone(&policy));
    let workers = worker_count(&config)?;
    let listeners = listen::bind(&config.listen, workers)?;
    let http = config.http.map(listen::bind_http).transpose()?;
    let audit = AuditLog::open(config.audit_file.as_deref()).map_err(|error| naming(config.audit_file.as_deref(), error))?;

    let process_secret = random_bytes()?;
    let drain_timeout = config.limits.drain_timeout;
    let (to_control, events) = unbounded_channel();
    let mailboxes: Arc<[Mailbox]> = (0..workers).map(|_| Mailbox::new()).collect::<io::Result<_>>()?;
    let mut options = Options::new(Arc::clone(&mailboxes));
    set_buffers(&mut options, &config.engine);

    // Runtime first: nodes remember when they were probed by its clock.
    let mut runtime = tokio_uring::builder();
    let runtime = tokio_uring::Runtime::new(runtime.entries(RING_ENTRIES))
        .map_err(|error| format!("io_uring could not be set up for the control thread: {error}"))?;
    // Never dropped: tokio-uring 0.5 frees the buffers of pending reads before it cancels them, and what is pending at the end
    // (logins under way) ends with the process anyway.
    let runtime = ManuallyDrop::new(runtime);
    let rules = Rules::new(config, policy, process_secret, None, Instant::now());

    let settings = core_settings(&rules, workers);
    let quotas = Arc::new(Quotas::default());
    let counters: Vec<Arc<Counters>> = (0..workers).map(|_| Arc::default()).collect();
    let mut handles = Vec::with_capacity(workers);
    for (worker, (listeners, counters)) in listeners.into_iter().zip(&counters).enumerate() {
        let (settings, reader) = (settings.clone(), publisher.reader());
        let (quotas, counters) = (Arc::clone(&quotas), Arc::clone(counters));
        let core = move || Core::new(settings, reader, quotas, counters, worker, now());
        handles.push(engine::start(worker, listeners, core, to_control.clone(), options.clone())?);
    }

    let desk = Rc::new(Desk::new(rules, mailboxes.to_vec(), counters, audit));
    let control = Control { config_path: config_path.to_owned(), process_secret, publisher, desk, handles, events };
    info!(workers, drain_timeout = ?drain_timeout, "domicile has started");
    runtime.block_on(control.serve(http))
}

/// The control thread.
struct Control {
    config_path: PathBuf,
    process_secret: [u8; 32],
    publisher: Publisher<Policy>,
    desk: Rc<Desk>,
    handles: Vec<WorkerHandle>,
    events: UnboundedReceiver<ToControl>,
}

impl Control {
    /// Serves until a signal ends it or a worker breaks down.
    async fn serve(mut self, http: Option<TcpListener>) -> Result<(), Box<dyn Error>> {
        let mut signals = Signals::catch()?;
        tokio_uring::spawn(Rc::clone(&self.desk).probe_nodes());
        if let Some(listener) = http {
            let desk = Rc::clone(&self.desk);
            tokio_uring::spawn(async move {
                if let Err(error) = admin::serve(listener, desk).await {
                    error!(%error, "HTTP is not served");
                }
            });
        }
        notify::ready();
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    self.handle(event)?;
                }
                wish = signals.next() => match wish {
                    Wish::Reload => self.reload(),
                    Wish::End => break,
                },
            }
        }
        self.drain(&mut signals).await
    }

    /// Does what a worker asks for. The number of a worker that has no clients any more, after it was told to drain.
    fn handle(&self, event: Option<ToControl>) -> Result<Option<usize>, String> {
        match event {
            Some(ToControl::Accepted { worker, socket, peer }) => self.desk.accept(worker, socket, peer),
            Some(ToControl::OpenBackend { worker, ticket, request }) => self.desk.open_backend(worker, ticket, request),
            Some(ToControl::Audit(record)) => self.desk.audit.write(&record, &self.desk.rules().policy),
            Some(ToControl::Drained { worker }) => return Ok(Some(worker)),
            Some(ToControl::Failed { worker, error }) => return Err(format!("worker {worker} has broken down: {error}")),
            None => return Err("all workers are gone".to_owned()),
        }
        Ok(None)
    }

    /// Lets sessions end their transactions, for as long as `limits.drain_timeout` allows. A second signal ends them at once.
    async fn drain(mut self, signals: &mut Signals) -> Result<(), Box<dyn Error>> {
        let timeout = self.desk.rules().config.limits.drain_timeout;
        info!(?timeout, "draining: no new clients, sessions end with their transactions");
        notify::stopping();
        self.desk.drain();
        self.tell_workers(|| ToWorker::Drain);
        let deadline = Instant::now() + timeout;
        let mut undrained: BTreeSet<usize> = (0..self.handles.len()).collect();
        while !undrained.is_empty() {
            tokio::select! {
                event = self.events.recv() => {
                    if let Some(worker) = self.handle(event)? {
                        undrained.remove(&worker);
                    }
                }
                () = sleep_until(deadline) => {
                    warn!("sessions are cut off: limits.drain_timeout is over");
                    break;
                }
                wish = signals.next() => match wish {
                    Wish::Reload => info!("not reloading while draining"),
                    Wish::End => {
                        warn!("sessions are cut off: a second signal");
                        return Ok(());
                    }
                },
            }
        }
        self.tell_workers(|| ToWorker::Stop);
        for handle in self.handles {
            if handle.join.join().is_err() {
                error!("a worker panicked while it stopped");
            }
        }
        info!("domicile has stopped");
        Ok(())
    }

    /// Puts the configuration file in force as it is now, or nothing of it.
    fn reload(&self) {
        notify::reloading(monotonic_microseconds());
        match self.next_rules() {
            Ok(rules) => {
                warn_of_restart(&self.desk.rules().config, &rules.config);
                rules.config.warnings.iter().for_each(|warning| warn!("{warning}"));
                let settings = core_settings(&rules, self.handles.len());
                let generation = rules.policy.generation();
                if let Err(error) = self.desk.audit.reopen(rules.config.audit_file.as_deref()) {
                    let error = naming(rules.config.audit_file.as_deref(), error);
                    error!(%error, "audit records go on to where they went");
                }
                // The policy first: whoever is admitted by the new rules is then judged by the new policy too.
                self.publisher.publish(Arc::clone(&rules.policy));
                self.desk.replace_rules(rules);
                self.tell_workers(|| ToWorker::Reload(settings.clone()));
                info!(generation, "the configuration has been reloaded");
            }
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| error!("{mistake}"));
                error!("the configuration was not reloaded; the old one stays in force");
            }
        }
        notify::ready();
    }

    /// The rules that the configuration file makes now, or everything that is wrong with it.
    fn next_rules(&self) -> Result<Rules, Vec<String>> {
        let rules = self.desk.rules();
        let config = config::load(&self.config_path, &environment)
            .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let policy = Policy::compile(&config.policy_source(), Some(&rules.policy)).map_err(|error| vec![error.to_string()])?;
        Ok(Rules::new(config, Arc::new(policy), self.process_secret, Some(&rules), Instant::now()))
    }

    fn tell_workers(&self, message: impl Fn() -> ToWorker) {
        self.handles.iter().for_each(|handle| handle.mailbox.send(message()));
    }
}

/// The signals that mean something.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
        }
    }
}

/// What a signal asks for.
enum Wish {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    End,
}

fn load(path: &Path) -> Result<Config, config::Mistakes> {
    config::load(path, &environment)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// An error with the file it is about.
fn naming(path: Option<&Path>, error: impl Display) -> String {
    path.map_or_else(|| error.to_string(), |path| format!("{}: {error}", path.display()))
}

fn worker_count(config: &Config) -> io::Result<usize> {
    config.workers.map_or_else(std::thread::available_parallelism, Ok).map(NonZeroUsize::get)
}

fn set_buffers(options: &mut Options, config: &config::Engine) {
    options.buffer_mode = match config.buffers {
        Buffers::Auto => BufferMode::Auto,
        Buffers::Incremental => BufferMode::Incremental,
        Buffers::Plain => BufferMode::Plain,
    };
    if let Some(count) = config.receive_buffers {
        let bytes = usize::from(count) * RECEIVE_BUFFER_BYTES;
        (options.frontend_buffer_bytes, options.backend_buffer_bytes) = (bytes, bytes);
    }
}

/// What the workers' cores are told of the rules.
fn core_settings(rules: &Rules, workers: usize) -> CoreSettings {
    let pools = &rules.config.pools;
    let regions = rules.nodes.iter().map(|node| node.region.index() + 1).max().unwrap_or(0);
    let first_node = |index| {
        let first: &Rc<Node> = rules.serving(RegionId::new(index)?).next()?;
        Some(Arc::clone(&first.name))
    };
    CoreSettings {
        pools: pool::Settings {
            mode: rules.config.pool_mode,
            size: pools.size,
            per_region_max: pools.max_per_region,
            wait_timeout: pools.wait_timeout,
            idle_timeout: pools.idle_timeout,
            lifetime: pools.lifetime,
            workers,
        },
        parameters: rules.config.residency.parameters.clone().into(),
        nodes: (0..regions).map(first_node).collect(),
    }
}

/// Names what a reload can not change.
fn warn_of_restart(old: &Config, new: &Config) {
    let changed = [
        ("listen", old.listen != new.listen),
        ("workers", old.workers != new.workers),
        ("engine", old.engine != new.engine),
        ("http", old.http != new.http),
        ("log", old.log != new.log),
    ];
    for (key, _) in changed.iter().filter(|(_, changed)| *changed) {
        warn!("{key} has changed in the configuration file: that takes a restart");
    }
}

/// Each client and each backend is a descriptor: takes as many as the process may have.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        warn!(%error, current = limit.current, "RLIMIT_NOFILE can not be raised");
    }
}

fn monotonic_microseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

#[expect(clippy::disallowed_methods, reason = "a core is told the time; this is where its first time comes from")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
