//! What ends by time: a statement, a transaction or a session that takes, or does nothing, for too long.
//!
//! Each timeout is what PostgreSQL's setting of the same purpose is, in its words, for servers and settings that a client cannot
//! change. Messages only leave a time behind that is in hand anyway; sessions are looked at when time has passed, and only when the
//! first of them can be due. The core's time stands still between two ticks, so nothing ends early, and up to two ticks late.
//!
//! A statement is cancelled at its server, and the session goes on. Until that request is over the session's next message waits,
//! so that it hits no other statement than the one that it was for.

use std::mem;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memchr::memmem;

use super::cancel::CancelOrder;
use super::client::{Session, Wait};
use super::output::{Output, Outputs};
use super::{Common, Core, Refusal, SessionKey, Slot};
use crate::limits::CANCELLED_STATEMENT_SECONDS_MAX;
use crate::pool::BackendKey;
use crate::wire::{SqlState, TransactionStatus};

/// How long things may take; zero: as long as they like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// A statement, from the moment it goes to its server.
    pub query: Duration,
    /// A transaction, that of a single statement included.
    pub transaction: Duration,
    /// A transaction in which nothing happens.
    pub idle_in_transaction: Duration,
    /// A session without a transaction in which nothing happens.
    pub client_idle: Duration,
}

impl Timeouts {
    fn shortest(&self) -> Option<Duration> {
        let all = [self.query, self.transaction, self.idle_in_transaction, self.client_idle];
        all.into_iter().filter(|timeout| !timeout.is_zero()).min()
    }
}

/// The times of one session that timeouts go by.
#[derive(Default)]
pub(super) struct Times {
    /// When the statement that runs began or, while none runs, when the last one ended.
    statement_at: Option<Instant>,
    /// When its transaction began.
    transaction_at: Option<Instant>,
    /// The statement that runs has taken too long, and was cancelled then.
    cancelled_at: Option<Instant>,
    /// The error that this brings has not come yet.
    expects_error: bool,
    /// The request to cancel it may still be on its way.
    is_cancelling: bool,
}

impl Times {
    /// Something is asked of a server that owed nothing. `begins`: outside of a transaction.
    pub(super) fn asked(&mut self, begins: bool, now: Instant) {
        self.statement_at = Some(now);
        if begins || self.transaction_at.is_none() {
            self.transaction_at = Some(now);
        }
    }

    /// A statement has ended, or a step of one.
    pub(super) fn answered(&mut self, now: Instant) {
        self.statement_at = Some(now);
        self.cancelled_at = None;
    }

    /// The answer of a Query, a FunctionCall or a Sync is over.
    pub(super) fn ready(&mut self) {
        self.expects_error = false;
    }

    /// A transaction begins.
    pub(super) fn transaction_begins(&mut self, now: Instant) {
        self.transaction_at = Some(now);
    }

    /// The transaction is over. The next one may have begun already.
    pub(super) fn transaction_is_over(&mut self) {
        self.transaction_at = None;
    }
}

/// What a session's time is up for.
#[derive(Clone, Copy)]
enum Due {
    Query,
    /// The server has not obeyed.
    CancelledQuery,
    Transaction,
    IdleInTransaction,
    ClientIdle,
}

impl Core {
    /// Time has passed since the last call.
    pub(super) fn look_at_timeouts(&mut self, now: Instant, out: &mut Outputs) {
        // What has been noted since the last tick may have happened up to this one.
        let certain = mem::replace(&mut self.common.ticked_at, now);
        let timeouts = self.common.settings.timeouts;
        let Some(shortest) = timeouts.shortest().filter(|_| certain >= self.common.timeouts_at) else { return };
        let mut due = Vec::new();
        let mut next = now + shortest.min(CANCELLED);
        for slot in &self.sessions.slots {
            let Slot::Taken(session) = slot else { continue };
            match session.deadlines(&timeouts).min_by_key(|(at, _)| *at) {
                Some((at, what)) if at <= certain => due.push((session.key, what)),
                Some((at, _)) => next = next.min(at),
                None => {}
            }
        }
        self.common.timeouts_at = next;
        for (key, what) in due {
            self.time_is_up(key, what, out);
        }
    }

    fn time_is_up(&mut self, key: SessionKey, what: Due, out: &mut Outputs) {
        let Some(session) = self.sessions.get(key) else { return };
        let counters = &self.common.counters;
        let fatal = match what {
            Due::Query => {
                counters.timeouts_query_total.add(1);
                session.times.cancelled_at = Some(self.common.now);
                (session.times.expects_error, session.times.is_cancelling) = (true, true);
                return self.common.cancel_own(session.backend, out);
            }
            Due::CancelledQuery => Refusal::statement_timeout(),
            Due::Transaction => {
                counters.timeouts_transaction_total.add(1);
                Refusal::new(SqlState::TRANSACTION_TIMEOUT, "terminating connection due to transaction timeout")
            }
            Due::IdleInTransaction => {
                counters.timeouts_idle_in_transaction_total.add(1);
                let text = "terminating connection due to idle-in-transaction timeout";
                Refusal::new(SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, text)
            }
            Due::ClientIdle => {
                counters.timeouts_client_idle_total.add(1);
                Refusal::new(SqlState::IDLE_SESSION_TIMEOUT, "terminating connection due to idle-session timeout")
            }
        };
        if !session.is_quiet() {
            // Its server does not notice for long that nobody waits for an answer any more.
            self.common.cancel_own(session.backend, out);
        }
        self.cut_off(key, &fatal, out);
    }
}

impl Common {
    fn cancel_own(&mut self, backend: Option<BackendKey>, out: &mut Outputs) {
        if let Some(backend) = backend
            && let Some(target) = self.pools.begin_cancel(backend)
        {
            self.counters.cancels_sent_total.add(1);
            out.push(Output::Cancel(Box::new(CancelOrder { backend, target })));
        }
    }

    /// Whether a request to cancel what has taken too long may still hit what the session would do next.
    pub(super) fn awaits_cancel(&mut self, session: &mut Session) -> bool {
        if session.times.is_cancelling {
            let is_cancelling = session.backend.is_some_and(|backend| self.pools.is_being_cancelled(backend));
            session.times.is_cancelling = is_cancelling;
        }
        session.times.is_cancelling
    }
}

impl Session {
    /// All its deadlines as things stand now.
    fn deadlines(&self, timeouts: &Timeouts) -> impl Iterator<Item = (Instant, Due)> {
        let Times { statement_at, transaction_at, cancelled_at, .. } = self.times;
        let idle_since = statement_at.max(self.watch.asked_at);
        let after = |since: Option<Instant>, timeout: Duration, due: Due| {
            (!timeout.is_zero()).then(|| since.map(|since| (since + timeout, due))).flatten()
        };
        let is_idle = self.is_quiet() && self.wait == Wait::No && !self.unit.touched && self.greeting.is_none();
        let all = if self.replicates() {
            // A stream is one long statement, and idle when nothing changes.
            [None; 2]
        } else if is_idle && self.status == TransactionStatus::Idle {
            [after(idle_since, timeouts.client_idle, Due::ClientIdle), None]
        } else {
            let of_statement = if is_idle {
                after(idle_since, timeouts.idle_in_transaction, Due::IdleInTransaction)
            } else if self.is_quiet() {
                None
            } else if cancelled_at.is_some() {
                after(cancelled_at, CANCELLED, Due::CancelledQuery)
            } else {
                after(statement_at, timeouts.query, Due::Query)
            };
            // What may have been committed is waited for, as in PostgreSQL.
            let is_counted = !self.committing && self.greeting.is_none();
            let of_transaction = after(transaction_at.or(idle_since), timeouts.transaction, Due::Transaction);
            [of_statement, of_transaction.filter(|_| is_counted)]
        };
        all.into_iter().flatten()
    }

    /// The server's error for a statement that was cancelled because it took too long, with the cause that only the proxy knows.
    pub(super) fn in_words_of_timeout(&self, error: &[u8]) -> Option<Bytes> {
        let is_cancelled = self.times.expects_error && memmem::find(error, b"\0C57014\0").is_some();
        is_cancelled.then(|| Refusal::statement_timeout().error())
    }
}

impl Refusal {
    /// In PostgreSQL's words.
    fn statement_timeout() -> Self {
        Self::new(SqlState::QUERY_CANCELED, "canceling statement due to statement timeout")
    }
}

const CANCELLED: Duration = Duration::from_secs(CANCELLED_STATEMENT_SECONDS_MAX);
