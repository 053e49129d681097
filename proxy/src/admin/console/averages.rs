//! What was done a second, lately.
//!
//! As in PgBouncer a period lasts a minute, and an average is over the time since the beginning of the last period that is over: one
//! to two minutes. Time comes in as an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pool::Tally;

/// How long a period lasts; PgBouncer's default.
pub const PERIOD: Duration = Duration::from_secs(60);

/// The figures that STATS shows, in its order.
pub type Figures = [u64; 12];

/// The sums of every database.
pub type Sums = HashMap<Arc<str>, Tally>;

/// The sums as they were when the last two periods began.
#[derive(Debug)]
pub struct Averages {
    older: (Instant, Sums),
    newer: (Instant, Sums),
}

impl Averages {
    /// Nothing has been done before `now`.
    pub fn new(now: Instant) -> Self {
        Self { older: (now, Sums::new()), newer: (now, Sums::new()) }
    }

    /// A period is over.
    pub fn turn(&mut self, now: Instant, sums: Sums) {
        self.older = std::mem::replace(&mut self.newer, (now, sums));
    }

    /// What was done a second in a database that has come to `sums`. Times are those of one transaction, query or wait, in
    /// microseconds.
    pub fn of(&self, database: &str, sums: &Tally, now: Instant) -> Figures {
        let (since, before) = &self.older;
        let before = before.get(database).copied().unwrap_or_default();
        average(sums, &before, now.saturating_duration_since(*since))
    }

    /// The same of all databases together.
    pub fn of_all(&self, sums: &Tally, now: Instant) -> Figures {
        let (since, before) = &self.older;
        let mut all = Tally::default();
        before.values().for_each(|tally| all += tally);
        average(sums, &all, now.saturating_duration_since(*since))
    }
}

/// Sums as figures; times in microseconds.
pub fn totals(sums: &Tally) -> Figures {
    [
        sums.assignments,
        sums.xacts,
        sums.queries,
        sums.received,
        sums.sent,
        microseconds(sums.xact_time),
        microseconds(sums.query_time),
        microseconds(sums.wait_time),
        sums.client_parses,
        sums.server_parses,
        sums.binds,
        sums.logins,
    ]
}

fn average(sums: &Tally, before: &Tally, period: Duration) -> Figures {
    let (now, before) = (totals(sums), totals(before));
    let done: Vec<u64> = now.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect();
    let period = microseconds(period);
    let a_second = |count: u64| {
        let count = u128::from(count) * 1_000_000;
        count.checked_div(u128::from(period)).and_then(|rate| u64::try_from(rate).ok()).unwrap_or(0)
    };
    let mut averages = [0; 12];
    for (place, average) in averages.iter_mut().enumerate() {
        let count = done.get(place).copied().unwrap_or(0);
        // The times of transactions, queries and waits stand five places behind their counts, in another order.
        let each = match place {
            5 => done.get(1),
            6 => done.get(2),
            7 => done.first(),
            _ => None,
        };
        *average = each.map_or_else(|| a_second(count), |each| count.checked_div(*each).unwrap_or(0));
    }
    averages
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_is_over_the_last_period_and_the_present_one() {
        #[expect(clippy::disallowed_methods, reason = "only differences of it are used")]
        let start = Instant::now();
        let mut averages = Averages::new(start);
        let sums = |queries, seconds| Tally { queries, query_time: Duration::from_secs(seconds), ..Tally::default() };
        let of = |averages: &Averages, sums, at| {
            let figures = averages.of("shop", &sums, start + Duration::from_secs(at));
            (figures[2], figures[6])
        };
        assert_eq!(of(&averages, sums(100, 1), 10), (10, 10_000));
        averages.turn(start + PERIOD, [("shop".into(), sums(600, 6))].into());
        assert_eq!(of(&averages, sums(1200, 12), 120), (10, 10_000), "since the start");
        averages.turn(start + 2 * PERIOD, [("shop".into(), sums(1200, 12))].into());
        assert_eq!(of(&averages, sums(1800, 24), 120), (20, 15_000), "since the first minute");
        assert_eq!(of(&averages, sums(600, 6), 120), (0, 0));
    }

    #[test]
    fn no_time_and_nothing_done_are_no_reason_to_fail() {
        #[expect(clippy::disallowed_methods, reason = "only differences of it are used")]
        let start = Instant::now();
        let averages = Averages::new(start);
        assert_eq!(averages.of("shop", &Tally::default(), start), [0; 12]);
    }
}
