//! What the tables of the console are made of: everything that is known at one moment, and nothing that would have to be asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::averages::{Averages, Sums};
use crate::config::{self, Config};
use crate::observe::FenceSample;
use crate::policy::Policy;
use crate::pool::{Pauses, PoolReport, Tally};
use crate::region::SessionRegion;
use crate::session::{Counters, GroupReport, Report};

/// A node, and what the last tries have found.
#[derive(Debug)]
pub struct NodeFact<'a> {
    /// As configured.
    pub config: &'a config::Node,
    /// It can be used.
    pub up: bool,
    /// It is a standby, if that is known.
    pub standby: Option<bool>,
    /// Why it is down.
    pub error: Option<String>,
}

/// All of it.
pub struct Facts<'a> {
    /// What each worker has told.
    pub reports: Vec<Report>,
    /// The configuration in force.
    pub config: &'a Config,
    /// The policy in force.
    pub policy: &'a Policy,
    /// The nodes, in the order of the configuration.
    pub nodes: Vec<NodeFact<'a>>,
    /// What each worker has counted.
    pub counters: &'a [Arc<Counters>],
    /// The fence.
    pub fence: FenceSample,
    /// What is paused.
    pub pauses: &'a Pauses,
    /// The databases that admit no new sessions.
    pub disabled: &'a BTreeSet<Box<str>>,
    /// What was done a second.
    pub averages: &'a Averages,
    /// Sessions of the console.
    pub consoles: usize,
    /// Clients that are logging in.
    pub logging_in: usize,
    /// The process is on its way to its end.
    pub draining: bool,
    /// When this is.
    pub now: Instant,
    /// The same for people.
    pub wall: SystemTime,
}

impl Facts<'_> {
    /// The parts of pools that workers have, each with its worker.
    pub fn pools(&self) -> impl Iterator<Item = (usize, &PoolReport)> {
        self.reports.iter().flat_map(|report| report.pools.iter().map(|pool| (report.worker, pool)))
    }

    /// The sessions, counted.
    pub fn groups(&self) -> impl Iterator<Item = &GroupReport> {
        self.reports.iter().flat_map(|report| &report.groups)
    }

    /// What was done in each database, in all regions.
    pub fn sums(&self) -> Sums {
        sums(&self.reports)
    }

    /// What was done in each region, by its name.
    pub fn sums_by_region(&self) -> BTreeMap<&str, Tally> {
        let mut sums = BTreeMap::<_, Tally>::new();
        for report in &self.reports {
            let used = report.pools.iter().map(|pool| (pool.region, &pool.tally));
            for (region, tally) in used.chain(report.past.iter().map(|past| (past.region, &past.tally))) {
                *sums.entry(self.policy.name(region)).or_default() += tally;
            }
        }
        sums
    }

    /// Every database that has or had a pool, with the names of its pools' regions.
    pub fn regions_by_database(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut databases = BTreeMap::<_, BTreeSet<_>>::new();
        for report in &self.reports {
            let used = report.pools.iter().map(|pool| (&pool.database, pool.region));
            for (database, region) in used.chain(report.past.iter().map(|past| (&past.database, past.region))) {
                databases.entry(&**database).or_default().insert(self.policy.name(region));
            }
        }
        databases
    }

    /// The name of a region that a session is in; `None` of no region.
    pub fn region_name<'b>(&'b self, region: &'b SessionRegion) -> Option<&'b str> {
        match region {
            SessionRegion::None => None,
            SessionRegion::Declared(_) | SessionRegion::Undeclared(_) => Some(self.policy.region_name(region)),
        }
    }

    /// A moment as people read it, in UTC.
    pub fn clock(&self, at: Instant) -> String {
        let age = self.now.saturating_duration_since(at);
        let since_epoch = self.wall.checked_sub(age).and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        timestamp(since_epoch)
    }
}

/// What was done in each database, in all regions.
pub fn sums(reports: &[Report]) -> Sums {
    let mut sums = Sums::new();
    for report in reports {
        let used = report.pools.iter().map(|pool| (&pool.database, &pool.tally));
        for (database, tally) in used.chain(report.past.iter().map(|past| (&past.database, &past.tally))) {
            *sums.entry(database.clone()).or_default() += tally;
        }
    }
    sums
}

/// `2026-11-26 09:00:00 UTC`, as PgBouncer writes it.
fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
}

/// The date of a day counted from 1970-01-01. Years are counted from a 1st of March here, so that the day of a leap year is the
/// last one; 400 years have 146 097 days.
fn date(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
    (year + 400 * era, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_people_read_them() {
        let shown = |seconds| timestamp(Duration::from_secs(seconds));
        assert_eq!(shown(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(shown(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(shown(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(shown(1_767_225_599), "2025-12-31 23:59:59 UTC");
        assert_eq!(shown(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }
}
