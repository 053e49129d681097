//! What a worker's core counts, for whoever wants to show it.
//!
//! Each worker has counters of its own, so that counting is a load and a store without a lock; readers add the workers up and may see
//! a value that is an instant old.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::REGIONS_MAX;
use crate::policy::Reason;
use crate::region::{RegionId, SessionRegion};

/// One row a declared region, one for "none", one for names that nobody declared.
const COLUMNS: usize = REGIONS_MAX + 2;
/// Permits in region, permits by default, then would-be blocks and denials, a row a reason each.
const ROWS: usize = 2 + 2 * Reason::ALL.len();

/// A counter that one thread adds to and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; only the owning worker may call it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Sets a gauge; only the owning worker may call it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Served in the session's region.
    Permitted,
    /// Served by the default region, because no region was required.
    Defaulted,
    /// Served by the default region, although enforcing would have denied it.
    WouldBlock(Reason),
    /// Refused.
    Denied(Reason),
}

impl Outcome {
    /// The outcome as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permitted => "permit",
            Self::Defaulted => "default",
            Self::WouldBlock(_) => "would_block",
            Self::Denied(_) => "deny",
        }
    }

    /// The reason as a metric label; empty without one.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Permitted | Self::Defaulted => "",
            Self::WouldBlock(reason) | Self::Denied(reason) => reason.as_str(),
        }
    }

    fn row(self) -> usize {
        let place = |reason: Reason| Reason::ALL.iter().position(|known| *known == reason).unwrap_or(0);
        match self {
            Self::Permitted => 0,
            Self::Defaulted => 1,
            Self::WouldBlock(reason) => 2 + place(reason),
            Self::Denied(reason) => 2 + Reason::ALL.len() + place(reason),
        }
    }

    fn of_row(row: usize) -> Self {
        match row {
            0 => Self::Permitted,
            1 => Self::Defaulted,
            _ if row < 2 + Reason::ALL.len() => Self::WouldBlock(Reason::ALL[row - 2]),
            _ => Self::Denied(Reason::ALL[row - 2 - Reason::ALL.len()]),
        }
    }
}

/// The counters of one worker.
#[derive(Debug)]
pub struct Counters {
    decisions: Box<[Counter]>,
    /// Workers that there were, one after the other.
    pub lives_total: Counter,
    /// Sessions ended because the proxy has broken a rule of its own.
    pub internal_errors_total: Counter,
    /// Sessions that began.
    pub sessions_total: Counter,
    /// Sessions there are.
    pub sessions: Counter,
    /// Queries, function calls and Syncs answered by a backend.
    pub answers_total: Counter,
    /// Sessions that began to keep their backend because of what they left behind in it.
    pub pins_total: Counter,
    /// Prepared statements refused because their session had as many as it may have.
    pub statements_refused_total: Counter,
    /// Sessions ended because memory was short.
    pub memory_ended_total: Counter,
    /// Backends opened.
    pub backends_opened_total: Counter,
    /// Cancel requests that went to a server, …
    pub cancels_sent_total: Counter,
    /// … that the proxy answered because the session was waiting for a backend, …
    pub cancels_answered_total: Counter,
    /// … and that found nothing to cancel.
    pub cancels_dropped_total: Counter,
    /// Statements that took too long, and were cancelled.
    pub timeouts_query_total: Counter,
    /// Sessions ended because their transaction lasted for too long, …
    pub timeouts_transaction_total: Counter,
    /// … because nothing happened in it, …
    pub timeouts_idle_in_transaction_total: Counter,
    /// … or because they did nothing.
    pub timeouts_client_idle_total: Counter,
    /// Waits for a backend that were given up.
    pub timeouts_wait_total: Counter,
    /// Backends closed, by either side.
    pub backends_closed_total: Counter,
    /// Backends nobody uses.
    pub backends_idle: Counter,
    /// Backends lent or being reset.
    pub backends_busy: Counter,
    /// Backends being opened.
    pub backends_opening: Counter,
    /// Sessions that wait for a backend.
    pub sessions_waiting: Counter,
    /// Sessions ended because they broke the protocol.
    pub frontend_protocol_errors_total: Counter,
    /// Backends closed because they broke the protocol.
    pub backend_protocol_errors_total: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            decisions: (0..ROWS * COLUMNS).map(|_| Counter::default()).collect(),
            lives_total: Counter::default(),
            internal_errors_total: Counter::default(),
            statements_refused_total: Counter::default(),
            memory_ended_total: Counter::default(),
            sessions_total: Counter::default(),
            sessions: Counter::default(),
            answers_total: Counter::default(),
            pins_total: Counter::default(),
            cancels_sent_total: Counter::default(),
            cancels_answered_total: Counter::default(),
            cancels_dropped_total: Counter::default(),
            timeouts_query_total: Counter::default(),
            timeouts_transaction_total: Counter::default(),
            timeouts_idle_in_transaction_total: Counter::default(),
            timeouts_client_idle_total: Counter::default(),
            timeouts_wait_total: Counter::default(),
            backends_opened_total: Counter::default(),
            backends_closed_total: Counter::default(),
            backends_idle: Counter::default(),
            backends_busy: Counter::default(),
            backends_opening: Counter::default(),
            sessions_waiting: Counter::default(),
            frontend_protocol_errors_total: Counter::default(),
            backend_protocol_errors_total: Counter::default(),
        }
    }
}

impl Counters {
    /// A worker begins with nothing; what a former one of its number has done stays counted. How many of those there were.
    pub(super) fn begin_life(&self) -> u64 {
        let present = [&self.sessions, &self.backends_idle, &self.backends_busy, &self.backends_opening, &self.sessions_waiting];
        present.into_iter().for_each(|gauge| gauge.set(0));
        let life = self.lives_total.get();
        self.lives_total.add(1);
        life
    }

    /// Counts a decision about a session in `region`.
    pub(super) fn decided(&self, outcome: Outcome, region: &SessionRegion) {
        let column = match region {
            SessionRegion::Declared(region) => region.index(),
            SessionRegion::None => REGIONS_MAX,
            SessionRegion::Undeclared(_) => REGIONS_MAX + 1,
        };
        if let Some(counter) = self.decisions.get(outcome.row() * COLUMNS + column) {
            counter.add(1);
        }
    }

    /// All decisions that were made at least once: (outcome, the session's region, how many). Names that nobody declared are one
    /// region, `undeclared`, so that a client cannot make labels.
    pub fn decisions(&self) -> Vec<(Outcome, SessionRegion, u64)> {
        let counted = self.decisions.iter().enumerate().filter(|(_, counter)| counter.get() > 0);
        counted
            .map(|(place, counter)| {
                let column = place % COLUMNS;
                let region = match RegionId::new(column) {
                    Some(region) => SessionRegion::Declared(region),
                    None if column == REGIONS_MAX => SessionRegion::None,
                    None => SessionRegion::Undeclared("undeclared".into()),
                };
                (Outcome::of_row(place / COLUMNS), region, counter.get())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_counted_under_its_own_label() {
        let counters = Counters::default();
        let all = Reason::ALL.iter().flat_map(|reason| [Outcome::WouldBlock(*reason), Outcome::Denied(*reason)]);
        let all: Vec<Outcome> = all.chain([Outcome::Permitted, Outcome::Defaulted]).collect();
        for outcome in &all {
            counters.decided(*outcome, &SessionRegion::None);
        }
        let counted = counters.decisions();
        assert_eq!(counted.len(), all.len());
        assert!(counted.iter().all(|(outcome, region, n)| all.contains(outcome) && *region == SessionRegion::None && *n == 1));
    }
}
