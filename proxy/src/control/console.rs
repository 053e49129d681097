//! What the commands of the administration console do: asks the workers, tells them, and waits for what a command waits for.
//!
//! The control thread is the one place that knows what is paused; workers only have it told. Whatever a command changes is changed
//! before the first wait, so a client that leaves in the middle leaves nothing half done, and two consoles see one order of events.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::{interval, sleep};

use super::workers::Workers;
use crate::admin::console::averages::{Averages, PERIOD};
use crate::admin::console::{Answer, Command, Facts, Fault, Operator, Rights, Show, Shutdown, facts, rights, serve};
use crate::engine::{Mailbox, Reply, ToWorker};
use crate::limits::OPERATED_DATABASES_MAX;
use crate::login::{Desk, Node};
use crate::pool::{Pauses, Quotas, Scope, worker_of};
use crate::session::{Detail, Operation, Report};
use crate::wire::rows::Value;
use crate::wire::{Report as Message, Severity, SqlState, encode_notice};

/// How often it is looked whether the backends that a command waits for are gone. They may be of any worker, or on their way between
/// two of them, so there is nobody who could tell.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What only the owner of the control thread's loop can do.
pub(super) enum Order {
    /// Read the configuration file again, and say whether it was good.
    Reload(Reply<bool>),
    /// End the process; answered when no new client comes in. That it ends at once is answered by that alone.
    Shutdown(Shutdown, Reply<()>),
}

/// Carries commands out.
pub(super) struct Console {
    desk: Rc<Desk>,
    workers: Vec<Mailbox>,
    quotas: Arc<Quotas>,
    orders: UnboundedSender<Order>,
    pauses: RefCell<Pauses>,
    averages: RefCell<Averages>,
}

impl Console {
    pub(super) fn new(desk: Rc<Desk>, workers: &Workers, orders: UnboundedSender<Order>) -> Self {
        let (workers, quotas) = (workers.mailboxes(), Arc::clone(&workers.quotas));
        Self { desk, workers, quotas, orders, pauses: RefCell::default(), averages: Averages::new(now()).into() }
    }

    /// The pauses that a worker must know of that has just begun.
    pub(super) fn paused(&self) -> Vec<Operation> {
        let pauses = self.pauses.borrow();
        let databases = pauses.databases.iter().map(|database| Scope::Database(Arc::clone(database)));
        pauses.all.then_some(Scope::All).into_iter().chain(databases).map(Operation::Pause).collect()
    }

    /// Serves clients that the desk lets in, from now on.
    pub(super) fn open(self: Rc<Self>) {
        tokio_uring::spawn(Rc::clone(&self).keep_averages());
        let desk = Rc::clone(&self.desk);
        desk.open_console(move |socket, client, counted| {
            let operator = Rc::clone(&self);
            tokio_uring::spawn(async move {
                serve(socket, client, operator).await;
                drop(counted);
            });
        });
    }

    async fn keep_averages(self: Rc<Self>) {
        let mut periods = interval(PERIOD);
        // The first one is over at once: it is the time before the start.
        periods.tick().await;
        loop {
            periods.tick().await;
            let reports = self.reports(Detail::Pools).await;
            self.averages.borrow_mut().turn(now(), facts::sums(&reports));
        }
    }

    async fn show(&self, show: Show) -> Answer {
        let reports = self.reports(show.detail()).await;
        let rules = self.desk.rules();
        let (pauses, disabled, averages) = (self.pauses.borrow(), self.desk.disabled(), self.averages.borrow());
        let node = |node: &'_ Rc<Node>| (node.is_up(), node.is_standby(), node.error().map(|(_, text)| text));
        let found: Vec<_> = rules.nodes.iter().map(node).collect();
        let nodes = rules.nodes.iter().zip(found);
        let nodes =
            nodes.map(|(node, (up, standby, error))| facts::NodeFact { config: &node.config, up, standby, error }).collect();
        let facts = Facts {
            reports,
            config: &rules.config,
            policy: &rules.policy,
            nodes,
            counters: self.desk.sessions(),
            fence: self.desk.fence.sample(),
            pauses: &pauses,
            disabled: &disabled,
            averages: &averages,
            consoles: self.desk.consoles(),
            logging_in: self.desk.logging_in(),
            draining: self.desk.is_draining(),
            now: now(),
            wall: wall(),
        };
        Answer { notice: show.notice(), rows: show.rows(&facts) }
    }

    /// Asks every worker, in the order of their numbers. One that has stopped is left out.
    async fn reports(&self, detail: Detail) -> Vec<Report> {
        self.ask_all(|reply| ToWorker::Report(detail, reply)).await
    }

    /// Tells every worker; done when all have done it. Whether one of them had what it is about.
    async fn operate(&self, operation: &Operation) -> bool {
        let found = self.ask_all(|reply| ToWorker::Operate(operation.clone(), reply)).await;
        found.into_iter().any(|found| found)
    }

    async fn ask_all<T>(&self, message: impl Fn(Reply<T>) -> ToWorker) -> Vec<T> {
        let ask = |worker: &Mailbox| {
            let (reply, answer) = oneshot::channel();
            worker.send(message(reply));
            answer
        };
        // All are asked before the first answer is waited for.
        let answers: Vec<_> = self.workers.iter().map(ask).collect();
        let mut told = Vec::with_capacity(answers.len());
        for answer in answers {
            told.extend(answer.await.ok());
        }
        told
    }

    /// Begins a pause, or extends one.
    fn begin_pause(&self, scope: &Scope) -> Result<(), Fault> {
        let mut pauses = self.pauses.borrow_mut();
        if pauses.all {
            return Err(wrong_state("already paused"));
        }
        if pauses.databases.len() >= OPERATED_DATABASES_MAX {
            return Err(too_many_databases());
        }
        pauses.set(scope, true);
        Ok(())
    }

    async fn pause(&self, scope: &Scope) -> Result<(), Fault> {
        self.begin_pause(scope)?;
        self.operate(&Operation::Pause(scope.clone())).await;
        // From here on no worker opens one, so there is an end to it.
        while self.quotas.open_in(scope) > 0 {
            sleep(LOOK_AGAIN).await;
            let is_paused = match scope {
                Scope::All => self.pauses.borrow().all,
                Scope::Database(name) => self.pauses.borrow().cover(name),
            };
            if !is_paused {
                return Err(wrong_state("the pause was ended before all server connections were closed"));
            }
        }
        Ok(())
    }

    async fn resume(&self, scope: &Scope) -> Result<(), Fault> {
        if !self.pauses.borrow_mut().set(scope, false) {
            return Err(match scope {
                Scope::All => wrong_state("the pooler is not paused"),
                Scope::Database(name) => wrong_state(format!("database \"{name}\" is not paused")),
            });
        }
        self.operate(&Operation::Resume(scope.clone())).await;
        Ok(())
    }

    async fn kill(&self, scope: &Scope) -> Result<(), Fault> {
        self.begin_pause(scope)?;
        self.operate(&Operation::Kill(scope.clone())).await;
        Ok(())
    }

    async fn kill_client(&self, id: u64) -> Result<(), Fault> {
        let missing = || Fault::new(SqlState::UNDEFINED_OBJECT, "client not found");
        let worker = self.workers.get(worker_of(id)).ok_or_else(missing)?;
        let (reply, answer) = oneshot::channel();
        worker.send(ToWorker::Operate(Operation::KillClient(id), reply));
        if answer.await == Ok(true) { Ok(()) } else { Err(missing()) }
    }

    async fn wait_close(&self, scope: &Scope) {
        let is_awaited = |report: &Report| {
            report.servers.iter().any(|server| server.backend.close_needed && scope.covers(&server.backend.database))
        };
        while self.reports(Detail::Servers).await.iter().any(is_awaited) {
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn reload(&self) -> Result<(), Fault> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Reload(reply));
        if answer.await == Ok(true) {
            return Ok(());
        }
        Err(Fault::new(SqlState::CONFIG_FILE_ERROR, "RELOAD failed, the configuration stays as it was")
            .with_hint("The log names every mistake."))
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            tracing::debug!("the control thread is at its end");
        }
    }
}

impl Operator for Console {
    fn rights(&self, user: &str) -> Option<Rights> {
        rights(&self.desk.rules().config.admin, user)
    }

    async fn run(&self, command: &Command) -> Result<Answer, Fault> {
        match command {
            Command::Show(show) => return Ok(self.show(*show).await),
            Command::Setting(setting) => {
                return Ok(Answer { notice: None, rows: vec![vec![Value::from(setting.value)]] });
            }
            Command::Set => return Ok(Answer { notice: Some(set_ignored()), rows: Vec::new() }),
            Command::Reload => self.reload().await?,
            Command::Pause(scope) => self.pause(scope).await?,
            Command::Resume(scope) => self.resume(scope).await?,
            Command::Kill(scope) => self.kill(scope).await?,
            Command::KillClient(id) => self.kill_client(*id).await?,
            Command::Reconnect(scope) => {
                self.operate(&Operation::Recall(scope.clone())).await;
            }
            Command::WaitClose(scope) => self.wait_close(scope).await,
            Command::Disable(database) => {
                if !self.desk.set_disabled(database, true) {
                    return Err(too_many_databases());
                }
            }
            Command::Enable(database) => {
                self.desk.set_disabled(database, false);
            }
            Command::Shutdown(shutdown) => {
                let (reply, answer) = oneshot::channel();
                self.order(Order::Shutdown(*shutdown, reply));
                if *shutdown == Shutdown::Immediate {
                    pending::<()>().await;
                }
                answer.await.ok();
            }
        }
        Ok(Answer::default())
    }
}

/// Answers one who may have gone.
pub(super) fn answer<T>(reply: Reply<T>, answer: T) {
    if reply.send(answer).is_err() {
        tracing::debug!("whoever ordered it has not waited for the answer");
    }
}

fn wrong_state(message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
}

fn too_many_databases() -> Fault {
    Fault::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many databases are paused or disabled by name")
}

fn set_ignored() -> bytes::Bytes {
    encode_notice(&Message {
        severity: Severity::Notice,
        sqlstate: SqlState::SUCCESSFUL_COMPLETION,
        message: "SET ignored",
        detail: None,
        hint: None,
        position: None,
    })
}

#[expect(clippy::disallowed_methods, reason = "the console shows times and ages, and averages over periods")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "people read times of day")]
fn wall() -> SystemTime {
    SystemTime::now()
}
