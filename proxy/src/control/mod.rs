//! The process from start to end: reads the configuration, starts the workers, and then is the control thread.
//!
//! Everything that can wake the control thread is in one place, [`Control::serve`]: what workers tell, and signals. What it starts
//! goes on by itself as tasks: logins, backends being opened, probes, HTTP. A reload is one step: everything that can be wrong with
//! the new configuration is found before anything of it is used.

mod console;
mod fence;
mod listen;
mod log;
mod memory;
mod notify;
mod secrecy;
mod unix;
mod workers;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Display;
use std::future::pending;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, interval, sleep_until};
use tracing::{error, info, warn};

use crate::admin;
use crate::admin::console::Shutdown;
use crate::config::{self, Config};
use crate::engine::{ToControl, ToWorker};
use crate::fence::{Absent, Fence, Privileges, drop_privileges};
use crate::login::{Desk, Node, Rules, random_bytes};
use crate::observe::{AuditLog, NodeSample, Snapshot};
use crate::policy::Policy;
use crate::table::Publisher;
use console::{Console, Order};
use workers::Workers;

/// Submission entries of the control thread's ring. A login, of a client or to a backend, has one operation at a time.
const RING_ENTRIES: u32 = 1024;

/// How often the control thread looks for what can be thrown away.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// How often it is looked whether the last client has left, while that is waited for.
const FAREWELLS: Duration = Duration::from_secs(1);

/// Runs the proxy with the configuration in `config_path` until SIGTERM or SIGINT.
///
/// # Errors
/// It can not start, or too many workers have broken down. The text is for the operator.
pub fn run(config_path: &Path) -> Result<(), Box<dyn Error>> {
    // Before the first secret is read.
    secrecy::conceal();
    let config = load(config_path)?;
    log::start(&config.log)?;
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    raise_open_files();

    let policy = Arc::new(Policy::compile(&config.policy_source(), None)?);
    // Outside of the fence, where it can be asked who listens.
    unix::remove_stale(&config.unix_sockets.paths)?;
    // Before any socket is there: the fence is around those that are made inside.
    let fence = Rc::new(Fence::enter(&config, config_path).map_err(|absent| format!("fence = \"required\", but {absent}"))?);
    let publisher = Publisher::new(Arc::clone(&policy));
    let mut listeners = listen::bind(&config.listen, workers::count(&config)?)?;
    let http = config.http.map(listen::bind_http).transpose()?;
    let audit = AuditLog::open(config.audit_file.as_deref()).map_err(|error| naming(config.audit_file.as_deref(), error))?;

    fence.steer(config.kernel.steering, &listeners);
    let (mut unix_listeners, _unix_files) = unix::bind(&config.unix_sockets)?;
    // One worker accepts for all: the desk spreads these clients.
    listeners.iter_mut().take(1).for_each(|first| first.append(&mut unix_listeners));
    give_privileges_up(&config, &fence)?;
    secrecy::configure(config.core_dumps);

    let process_secret = random_bytes()?;
    let rules = Rules::new(config, policy, process_secret, None, Instant::now());
    let (workers, events) = Workers::start(&rules, &publisher, listeners, &fence)?;
    let desk = Rc::new(Desk::new(rules, workers.deliverer(), workers.counters.clone(), audit, Rc::clone(&fence)));
    let (ordering, orders) = unbounded_channel();
    let console = Rc::new(Console::new(Rc::clone(&desk), &workers, ordering));
    let control = Control {
        config_path: config_path.to_owned(),
        process_secret,
        publisher,
        desk,
        workers,
        events,
        console,
        orders,
        leaving: Rc::default(),
        ending: false,
    };
    let runtime = tokio_uring::Runtime::new(tokio_uring::builder().entries(RING_ENTRIES))
        .map_err(|error| format!("io_uring could not be set up for the control thread: {error}"))?;
    // Never dropped: tokio-uring 0.5 frees the buffers of pending reads before it cancels them, and what is pending at the end
    // (logins under way) ends with the process anyway.
    let runtime = ManuallyDrop::new(runtime);
    info!(workers = control.workers.count(), "domicile has started");
    runtime.block_on(control.serve(http))
}

/// The control thread.
struct Control {
    config_path: PathBuf,
    process_secret: [u8; 32],
    publisher: Publisher<Policy>,
    desk: Rc<Desk>,
    workers: Workers,
    events: UnboundedReceiver<ToControl>,
    console: Rc<Console>,
    /// What operators order on the console.
    orders: UnboundedReceiver<Order>,
    /// What the fence still has to let in for what was opened before.
    leaving: Rc<fence::Leaving>,
    /// The process is on its way to its end: a worker that breaks down has no follower.
    ending: bool,
}

impl Control {
    /// Serves until a signal ends it, or workers break down one after the other.
    async fn serve(mut self, http: Option<TcpListener>) -> Result<(), Box<dyn Error>> {
        let mut signals = Signals::catch()?;
        tokio_uring::spawn(Rc::clone(&self.desk).probe_nodes());
        fence::watch(&self.desk);
        tokio_uring::spawn(memory::watch(Rc::clone(&self.desk)));
        if let Some(listener) = http {
            let desk = Rc::clone(&self.desk);
            tokio_uring::spawn(async move {
                if let Err(error) = admin::serve(listener, Rc::new(Status(desk))).await {
                    error!(%error, "HTTP is not served");
                }
            });
        }
        Rc::clone(&self.console).open();
        notify::ready();
        let mut housekeeping = interval(HOUSEKEEPING);
        // Whether clients are waited for, and how often it is looked whether one is left.
        let (mut leaving, mut farewells) = (false, interval(FAREWELLS));
        // A reload under way, and those that were asked for since.
        let (mut reload, mut asked) = (None, Vec::new());
        loop {
            if reload.is_none() && !asked.is_empty() {
                let (reading, replies) = (self.read_again(), mem::take(&mut asked));
                reload = Some(Box::pin(async move { (reading.await, replies) }));
            }
            tokio::select! {
                event = self.events.recv() => {
                    self.handle(event)?;
                }
                // A policy that was replaced stays in memory until every worker has looked at the new one.
                _ = housekeeping.tick() => self.publisher.free_retired(),
                wish = signals.next() => match wish {
                    Wish::Reload => asked.push(None),
                    Wish::End => break,
                },
                Some(order) = self.orders.recv() => match order {
                    Order::Reload(reply) => asked.push(Some(reply)),
                    Order::Shutdown(Shutdown::WaitForServers, reply) => {
                        self.desk.drain();
                        console::answer(reply, ());
                        break;
                    }
                    Order::Shutdown(Shutdown::Immediate, _) => {
                        warn!("sessions are cut off: SHUTDOWN on the console");
                        return Ok(());
                    }
                    Order::Shutdown(Shutdown::WaitForClients, reply) => {
                        info!("no new clients; the process ends when the last one has left");
                        self.desk.drain();
                        console::answer(reply, ());
                        self.workers.close_listeners();
                        self.workers.tell_all(|| ToWorker::StopAccepting);
                        leaving = true;
                    }
                },
                replies = async {
                    match &mut reload {
                        Some(reload) => reload.as_mut().await,
                        None => pending().await,
                    }
                } => {
                    reload = None;
                    let (rules, replies) = replies;
                    let is_good = self.put_in_force(rules);
                    replies.into_iter().flatten().for_each(|reply| console::answer(reply, is_good));
                }
                _ = farewells.tick(), if leaving => {
                    if self.desk.clients() == 0 {
                        info!("the last client has left");
                        break;
                    }
                }
            }
        }
        self.drain(&mut signals).await
    }

    /// Does what a worker asks for. The number of a worker that has no clients any more, after it was told to drain.
    fn handle(&mut self, event: Option<ToControl>) -> Result<Option<usize>, String> {
        match event {
            Some(ToControl::Accepted { worker, socket, peer, seat }) => self.desk.accept(worker, socket, peer, seat),
            Some(ToControl::OpenBackend { worker, ticket, request, session }) => {
                self.desk.open_backend(worker, ticket, request, session);
            }
            Some(ToControl::Cancel { worker, order }) => self.desk.cancel_late(worker, *order),
            Some(ToControl::Audit(record)) => self.desk.audit.write(&record, &self.desk.rules().policy),
            Some(ToControl::Drained { worker }) => return Ok(Some(worker)),
            Some(ToControl::Failed { worker, error }) => {
                error!(worker, error, "a worker has broken down: its sessions are lost");
                if self.ending {
                    return Ok(Some(worker));
                }
                let told = self.console.paused().into_iter().map(|pause| ToWorker::Operate(pause, oneshot::channel().0));
                let replaced = self.workers.replace(worker, &self.desk.rules(), &self.publisher, told.collect());
                replaced.map_err(|why| format!("worker {worker} has broken down: {error}; {why}"))?;
                warn!(worker, "another worker is in its place");
            }
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
        self.ending = true;
        self.workers.close_listeners();
        self.workers.tell_all(|| ToWorker::Drain);
        let deadline = Instant::now() + timeout;
        let mut undrained: BTreeSet<usize> = (0..self.workers.count()).collect();
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
                Some(order) = self.orders.recv() => match order {
                    Order::Reload(reply) => console::answer(reply, false),
                    Order::Shutdown(Shutdown::Immediate, _) => {
                        warn!("sessions are cut off: SHUTDOWN on the console");
                        return Ok(());
                    }
                    Order::Shutdown(Shutdown::WaitForServers | Shutdown::WaitForClients, reply) => console::answer(reply, ()),
                },
            }
        }
        self.workers.stop();
        info!("domicile has stopped");
        Ok(())
    }

    /// Reads the configuration file as it is now, and lets the fence know of it.
    fn read_again(&self) -> impl Future<Output = Result<Rules, Vec<String>>> + use<> {
        notify::reloading(monotonic_microseconds());
        let (desk, config_path, process_secret) = (Rc::clone(&self.desk), self.config_path.clone(), self.process_secret);
        async move {
            loop {
                let rules = next_rules(&desk.rules(), &config_path, process_secret)?;
                // Nobody may be sent where the kernel would not let it go. If the file has changed meanwhile, it is read once more.
                if fence::widen(&desk.fence, &rules.config.digest).await.map_err(|why| vec![why])? {
                    return Ok(rules);
                }
            }
        }
    }

    /// Puts what was read in force, or nothing of it. Whether it did.
    fn put_in_force(&self, next: Result<Rules, Vec<String>>) -> bool {
        let is_good = next.is_ok();
        match next {
            Ok(rules) => {
                let old = self.desk.rules();
                warn_of_restart(&old.config, &rules.config);
                rules.config.warnings.iter().for_each(|warning| warn!("{warning}"));
                let settings = workers::core_settings(&rules, self.workers.count());
                let generation = rules.policy.generation();
                if let Err(error) = self.desk.audit.reopen(rules.config.audit_file.as_deref()) {
                    let error = naming(rules.config.audit_file.as_deref(), error);
                    error!(%error, "audit records go on to where they went");
                }
                self.desk.fence.declare(&rules.config);
                self.leaving.narrow_later(&self.desk.fence, &old, &rules);
                // The workers first: backends of a node that has left its region are gone before anything is decided anew. The
                // policy before the desk: whoever is admitted by the new rules is then judged by the new policy too.
                self.workers.tell_all(|| ToWorker::Reload(settings.clone()));
                self.publisher.publish(Arc::clone(&rules.policy));
                self.desk.replace_rules(rules);
                info!(generation, "the configuration has been reloaded");
            }
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| error!("{mistake}"));
                error!("the configuration was not reloaded; the old one stays in force");
            }
        }
        notify::ready();
        is_good
    }
}

/// The rules that the configuration file makes now, or everything that is wrong with it.
fn next_rules(rules: &Rules, config_path: &Path, process_secret: [u8; 32]) -> Result<Rules, Vec<String>> {
    let config = config::load(config_path, &environment)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let policy = Policy::compile(&config.policy_source(), Some(&rules.policy)).map_err(|error| vec![error.to_string()])?;
    Ok(Rules::new(config, Arc::new(policy), process_secret, Some(rules), Instant::now()))
}

/// What HTTP shows of the desk.
struct Status(Rc<Desk>);

impl admin::View for Status {
    fn metrics(&self) -> Snapshot {
        let rules = self.0.rules();
        let sample = |node: &Rc<Node>| NodeSample {
            name: node.config.name.clone(),
            region: node.config.region.clone(),
            up: node.is_up(),
            standby: node.is_standby(),
            error: node.error().map(|(kind, _)| kind),
        };
        Snapshot::take(
            self.0.sessions(),
            &rules.policy,
            &self.0.logins,
            rules.nodes.iter().map(sample),
            &rules.memory,
            &self.0.fence.sample(),
        )
    }

    fn remark(&self) -> Option<String> {
        let fence = &self.0.fence;
        fence.absent().filter(|absent| *absent != Absent::Off).map(|absent| format!("there is no fence: {absent}"))
    }

    fn obstacle(&self) -> Option<String> {
        if self.0.is_draining() {
            return Some("draining".to_owned());
        }
        if let Some(absent) = self.0.fence.absent().filter(|_| self.0.fence.is_required()) {
            return Some(format!("the fence is required, but {absent}"));
        }
        let rules = self.0.rules();
        let is_down = |region: &&str| !rules.nodes.iter().any(|node| node.config.region == **region && node.is_up());
        let regions: BTreeSet<&str> = rules.nodes.iter().map(|node| node.config.region.as_str()).collect();
        let down: Vec<&str> = regions.into_iter().filter(is_down).collect();
        (!down.is_empty()).then(|| format!("no node is up in: {}", down.join(", ")))
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

/// What only the start needs is given up once the process is inside of the fence, or when it is told who to be.
fn give_privileges_up(config: &Config, fence: &Fence) -> Result<(), String> {
    if config.user.is_none() && !fence.is_there() {
        return Ok(());
    }
    match drop_privileges(config.user.as_deref())? {
        Privileges::None => {}
        Privileges::User(user) => info!(user, "privileges are given up"),
        Privileges::StillRoot => warn!(
            "capabilities are given up, but the process is still root's, whose files could undo the fence: set user = \"…\""
        ),
    }
    Ok(())
}

/// Names what a reload can not change.
fn warn_of_restart(old: &Config, new: &Config) {
    let changed = [
        ("listen", old.listen != new.listen || old.unix_sockets.paths != new.unix_sockets.paths),
        ("unix_socket_mode", old.unix_sockets.mode != new.unix_sockets.mode),
        ("workers", old.workers != new.workers),
        ("engine", old.engine != new.engine),
        ("http", old.http != new.http),
        ("log", old.log != new.log),
        ("user", old.user != new.user),
        ("core_dumps", old.core_dumps != new.core_dumps),
        ("fence", old.kernel.fence != new.kernel.fence),
        ("kernel.pins", old.kernel.pins != new.kernel.pins),
        ("kernel.cgroup", old.kernel.cgroup != new.kernel.cgroup),
        ("kernel.steering", old.kernel.steering != new.kernel.steering),
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
