//! Starts the workers, and is the way to all of them.

use std::collections::VecDeque;
use std::error::Error;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, mem};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::error;

use crate::config::{self, Buffers, Config};
use crate::engine::{self, BufferMode, ControlSender, Mailbox, Options, ToControl, ToWorker, WorkerHandle};
use crate::fence::Fence;
use crate::login::Rules;
use crate::policy::Policy;
use crate::pool::{self, Quotas};
use crate::region::RegionId;
use crate::session::{Core, CoreSettings, Counters, StatementBounds, Timeouts};
use crate::table::Publisher;
use crate::target::TargetSessionAttrs;

/// Workers where the configuration does not say how many; as many as it could say.
const WORKERS_BY_DEFAULT_MAX: usize = 64;
/// Memory that one configured receive buffer stands for.
const RECEIVE_BUFFER_BYTES: usize = 16 << 10;

/// Workers that may break down within a minute; whatever is wrong then, starting more of them does not mend it.
const BREAKDOWNS_A_MINUTE_MAX: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// All workers.
pub(super) struct Workers {
    handles: Vec<WorkerHandle>,
    /// What they are started with.
    options: Options,
    to_control: ControlSender,
    /// Each one's listening sockets once more: while they are open, clients that come when a worker has broken down wait for the next.
    /// Empty when no more clients are taken.
    listeners: Vec<Vec<OwnedFd>>,
    /// When workers have broken down within the last minute.
    breakdowns: VecDeque<Instant>,
    /// What each has counted.
    pub(super) counters: Vec<Arc<Counters>>,
    /// How many backends they have open.
    pub(super) quotas: Arc<Quotas>,
}

impl Workers {
    /// Starts a worker for each of these sets of listening sockets. What they tell comes out of the receiver; that it ends says
    /// that all of them are gone.
    ///
    /// # Errors
    /// One can not start; the error says why.
    pub(super) fn start(
        rules: &Rules,
        publisher: &Publisher<Policy>,
        listeners: Vec<Vec<OwnedFd>>,
        fence: &Fence,
    ) -> Result<(Self, UnboundedReceiver<ToControl>), Box<dyn Error>> {
        let count = listeners.len();
        let (to_control, events) = unbounded_channel();
        let mailboxes = (0..count).map(|_| Mailbox::new()).collect::<io::Result<_>>()?;
        let mut options = options(&rules.config.engine, mailboxes);
        (options.denials, options.loads) = (fence.denials.clone(), fence.loads.clone());
        let mut workers = Self {
            handles: Vec::with_capacity(count),
            options,
            to_control,
            listeners,
            breakdowns: VecDeque::new(),
            counters: (0..count).map(|_| Arc::default()).collect(),
            quotas: Arc::default(),
        };
        for worker in 0..count {
            let handle = workers.start_one(worker, rules, publisher)?;
            workers.handles.push(handle);
        }
        Ok((workers, events))
    }

    fn start_one(&self, worker: usize, rules: &Rules, publisher: &Publisher<Policy>) -> Result<WorkerHandle, Box<dyn Error>> {
        let (settings, reader, quotas) =
            (core_settings(rules, self.listeners.len()), publisher.reader(), Arc::clone(&self.quotas));
        let counters = self.counters.get(worker).cloned().unwrap_or_default();
        let listeners = self.listeners.get(worker).into_iter().flatten().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        let core = move || Core::new(settings, reader, quotas, counters, worker, now());
        Ok(engine::start(worker, listeners, core, self.to_control.clone(), self.options.clone())?)
    }

    /// Puts another worker in the place of one that has broken down. `told` is what it has to know beside the configuration.
    ///
    /// # Errors
    /// It cannot start, or too many have broken down.
    pub(super) fn replace(
        &mut self,
        worker: usize,
        rules: &Rules,
        publisher: &Publisher<Policy>,
        told: Vec<ToWorker>,
    ) -> Result<(), String> {
        let now = now();
        self.breakdowns.retain(|at| now.duration_since(*at) < MINUTE);
        self.breakdowns.push_back(now);
        if self.breakdowns.len() > BREAKDOWNS_A_MINUTE_MAX {
            return Err(format!("{} workers have broken down within a minute", self.breakdowns.len()));
        }
        let next = self.start_one(worker, rules, publisher).map_err(|error| error.to_string())?;
        told.into_iter().for_each(|message| next.mailbox.send(message));
        if let Some(handle) = self.handles.get_mut(worker)
            && mem::replace(handle, next).join.join().is_err()
        {
            error!(worker, "a worker panicked at its very end");
        }
        // What it had open, others may have now.
        self.tell_all(|| ToWorker::QuotaChanged);
        Ok(())
    }

    /// No more clients are taken.
    pub(super) fn close_listeners(&mut self) {
        self.listeners.iter_mut().for_each(Vec::clear);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.handles.len()
    }

    /// Tells all of them.
    pub(super) fn tell_all(&self, message: impl Fn() -> ToWorker) {
        self.handles.iter().for_each(|handle| handle.mailbox.send(message()));
    }

    /// The ways to all of them, in the order of their numbers.
    pub(super) fn mailboxes(&self) -> Vec<Mailbox> {
        self.handles.iter().map(|handle| handle.mailbox.clone()).collect()
    }

    /// Tells one, by its number.
    pub(super) fn deliverer(&self) -> impl Fn(usize, ToWorker) + use<> {
        let mailboxes = self.mailboxes();
        move |worker, message| {
            if let Some(mailbox) = mailboxes.get(worker) {
                mailbox.send(message);
            }
        }
    }

    /// Ends all of them; they close what they have.
    pub(super) fn stop(mut self) {
        self.close_listeners();
        self.tell_all(|| ToWorker::Stop);
        for handle in self.handles {
            if handle.join.join().is_err() {
                error!("a worker panicked while it stopped");
            }
        }
    }
}

/// How many workers there will be.
///
/// # Errors
/// The configuration does not say, and neither does the system.
pub(super) fn count(config: &Config) -> io::Result<usize> {
    match config.workers {
        Some(workers) => Ok(workers.get()),
        None => std::thread::available_parallelism().map(|cores| cores.get().min(WORKERS_BY_DEFAULT_MAX)),
    }
}

fn options(config: &config::Engine, mailboxes: Arc<[Mailbox]>) -> Options {
    let mut options = Options::new(mailboxes);
    options.buffer_mode = match config.buffers {
        Buffers::Auto => BufferMode::Auto,
        Buffers::Incremental => BufferMode::Incremental,
        Buffers::Plain => BufferMode::Plain,
    };
    if let Some(count) = config.receive_buffers {
        let bytes = usize::from(count) * RECEIVE_BUFFER_BYTES;
        (options.frontend_buffer_bytes, options.backend_buffer_bytes) = (bytes, bytes);
    }
    options
}

/// What the workers' cores are told of the rules.
pub(super) fn core_settings(rules: &Rules, workers: usize) -> CoreSettings {
    let (pools, limits) = (&rules.config.pools, &rules.config.limits);
    let regions = rules.nodes.iter().map(|node| node.region.index() + 1).max().unwrap_or(0);
    let first = |region: usize, wanted| {
        let serving = rules.serving(RegionId::new(region)?, wanted, None);
        serving.first().map(|node| Arc::clone(&node.name))
    };
    let first_nodes = |region| TargetSessionAttrs::ALL.map(|(_, wanted)| first(region, wanted));
    CoreSettings {
        pools: pool::Settings {
            mode: rules.config.pool_mode,
            size: pools.size,
            per_region_max: pools.max_per_region,
            wait_timeout: pools.wait_timeout,
            // A server that takes longer to be ready again than to be ready at first is not worth waiting for.
            reset_timeout: pools.connect_timeout,
            idle_timeout: pools.idle_timeout,
            lifetime: pools.lifetime,
            prepared_statements: pools.prepared_statements as usize,
            reset_always: pools.reset_always,
            nodes: rules.nodes.iter().map(|node| Arc::clone(&node.identity)).collect(),
            workers,
        },
        parameters: rules.config.residency.parameters.clone().into(),
        session_state: rules.config.session_state,
        pin_notice: rules.config.pin_notice,
        session_statements: StatementBounds { count: limits.session_statements as usize, bytes: limits.session_statement_bytes },
        memory: Arc::clone(&rules.memory),
        region_places: rules.region_places.clone(),
        timeouts: Timeouts {
            query: limits.query_timeout,
            transaction: limits.transaction_timeout,
            idle_in_transaction: limits.idle_in_transaction_timeout,
            client_idle: limits.client_idle_timeout,
        },
        nodes: (0..regions).map(first_nodes).collect(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a core is told the time; this is where its first time comes from")]
fn now() -> Instant {
    Instant::now()
}
