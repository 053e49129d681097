//! Who has shown wrong passwords, and how long the next try has to wait.
//!
//! What is remembered is where a client comes from and who it wants to be; so whoever guesses delays himself, and nobody who comes
//! from elsewhere or as another user. Nothing is asked of a client before its time has come, so that guesses made at the same time
//! wait for each other. Only so many wait; the rest is refused. The table is bounded: who would fill it must fail for each place.
//!
//! An IPv6 client counts by its /64, which is what one host is given.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use crate::limits::{LOGIN_ATTEMPTS_WAITING_MAX, LOGIN_FAILURES_REMEMBERED_MAX};

/// The delay after the first failure beyond those that are free; it doubles with each.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// Failures are forgotten when none has followed for so long.
const MEMORY: Duration = Duration::from_secs(600);

/// The failures that are remembered.
pub(super) struct Attempts {
    hasher: RandomState,
    table: LruCache<Who, Record>,
}

/// A client's origin and the user it wants to be, as a number that nobody outside can aim at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Who(u64);

#[derive(Default)]
struct Record {
    /// In a row.
    failures: u32,
    last: Option<Instant>,
    /// When the next try may begin.
    free_at: Option<Instant>,
    waiting: u32,
}

/// What a try has to do first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    Now,
    /// Wait until then, and say [`Attempts::has_waited`].
    At(Instant),
    /// Give up: too many wait already.
    Never,
}

impl Default for Attempts {
    fn default() -> Self {
        let places = NonZeroUsize::new(LOGIN_FAILURES_REMEMBERED_MAX).unwrap_or(NonZeroUsize::MIN);
        Self { hasher: RandomState::new(), table: LruCache::new(places) }
    }
}

impl Attempts {
    /// The name of a client here.
    pub(super) fn who(&self, address: Option<IpAddr>, user: &str) -> Who {
        let address = address.map(|address| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64),
        });
        Who(self.hasher.hash_one((address, user)))
    }

    /// A client is about to prove who it is. After `free` failures in a row the next tries wait, each longer than the last, up to
    /// `longest`.
    pub(super) fn begin(&mut self, who: Who, free: u32, longest: Duration, now: Instant) -> Turn {
        let Some(record) = self.table.get_mut(&who) else { return Turn::Now };
        if record.last.is_none_or(|last| now.duration_since(last) >= MEMORY) && record.waiting == 0 {
            self.table.pop(&who);
            return Turn::Now;
        }
        // Those who wait will most likely fail too.
        let over = (record.failures + record.waiting).saturating_sub(free);
        if free == 0 || over == 0 {
            return Turn::Now;
        }
        if record.waiting >= LOGIN_ATTEMPTS_WAITING_MAX {
            return Turn::Never;
        }
        let delay = FIRST_DELAY.saturating_mul(1 << (over - 1).min(16)).min(longest);
        let at = record.free_at.map_or(now, |free_at| free_at.max(now)) + delay;
        record.free_at = Some(at);
        record.waiting += 1;
        Turn::At(at)
    }

    /// A try that was to wait has waited.
    pub(super) fn has_waited(&mut self, who: Who) {
        if let Some(record) = self.table.get_mut(&who) {
            record.waiting = record.waiting.saturating_sub(1);
        }
    }

    /// The password was wrong, or there is no such user.
    pub(super) fn failed(&mut self, who: Who, now: Instant) {
        let record = self.table.get_or_insert_mut(who, Record::default);
        record.failures = record.failures.saturating_add(1);
        record.last = Some(now);
    }

    /// It was right.
    pub(super) fn succeeded(&mut self, who: Who) {
        self.table.pop(&who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: u32 = 2;
    const LONGEST: Duration = Duration::from_secs(2);

    fn start() -> (Attempts, Who, Instant) {
        let attempts = Attempts::default();
        let who = attempts.who(Some(IpAddr::from([10, 0, 0, 1])), "alice");
        (attempts, who, Instant::now())
    }

    /// The delays of tries that begin one after the other and all fail.
    fn delays(attempts: &mut Attempts, who: Who, mut now: Instant, tries: usize) -> Vec<u128> {
        let mut delays = Vec::new();
        for _ in 0..tries {
            let at = match attempts.begin(who, FREE, LONGEST, now) {
                Turn::Now => now,
                Turn::At(at) => {
                    attempts.has_waited(who);
                    at
                }
                Turn::Never => panic!("nobody waits"),
            };
            delays.push(at.duration_since(now).as_millis());
            now = at;
            attempts.failed(who, now);
        }
        delays
    }

    #[test]
    fn the_delay_grows_with_each_failure_up_to_the_longest() {
        let (mut attempts, who, now) = start();
        assert_eq!(delays(&mut attempts, who, now, 9), [0, 0, 0, 250, 500, 1000, 2000, 2000, 2000]);
    }

    #[test]
    fn others_do_not_wait() {
        let (mut attempts, who, now) = start();
        delays(&mut attempts, who, now, 9);
        for other in [
            attempts.who(Some(IpAddr::from([10, 0, 0, 1])), "bob"),
            attempts.who(Some(IpAddr::from([10, 0, 0, 2])), "alice"),
            attempts.who(None, "alice"),
        ] {
            assert_eq!(attempts.begin(other, FREE, LONGEST, now), Turn::Now);
        }
        assert_ne!(attempts.begin(who, FREE, LONGEST, now), Turn::Now);
    }

    #[test]
    fn one_host_of_ipv6_is_one_client() {
        let attempts = Attempts::default();
        let who = |text: &str| attempts.who(Some(text.parse().unwrap()), "alice");
        assert_eq!(who("2001:db8:0:1::1"), who("2001:db8:0:1:ffff::2"));
        assert_ne!(who("2001:db8:0:1::1"), who("2001:db8:0:2::1"));
    }

    #[test]
    fn a_success_and_time_make_them_forgotten() {
        let (mut attempts, who, now) = start();
        delays(&mut attempts, who, now, 9);
        attempts.succeeded(who);
        assert_eq!(attempts.begin(who, FREE, LONGEST, now), Turn::Now);
        delays(&mut attempts, who, now, 9);
        assert_eq!(attempts.begin(who, FREE, LONGEST, now + MEMORY * 2), Turn::Now);
        assert_eq!(attempts.table.len(), 0);
    }

    #[test]
    fn those_that_come_together_wait_for_each_other_and_only_so_many_do() {
        let (mut attempts, who, now) = start();
        (0..3).for_each(|_| attempts.failed(who, now));
        let mut last = now;
        for _ in 0..LOGIN_ATTEMPTS_WAITING_MAX {
            let Turn::At(at) = attempts.begin(who, FREE, LONGEST, now) else { panic!("it waits") };
            assert!(at > last);
            last = at;
        }
        assert_eq!(attempts.begin(who, FREE, LONGEST, now), Turn::Never);
        attempts.has_waited(who);
        assert!(matches!(attempts.begin(who, FREE, LONGEST, now), Turn::At(_)));
    }

    #[test]
    fn the_table_has_a_bound() {
        let (mut attempts, who, now) = start();
        attempts.failed(who, now);
        for number in 0..LOGIN_FAILURES_REMEMBERED_MAX * 2 {
            let other = attempts.who(None, &number.to_string());
            attempts.failed(other, now);
        }
        assert_eq!(attempts.table.len(), LOGIN_FAILURES_REMEMBERED_MAX);
    }

    #[test]
    fn without_a_bound_nobody_waits() {
        let (mut attempts, who, now) = start();
        (0..30).for_each(|_| attempts.failed(who, now));
        assert_eq!(attempts.begin(who, 0, LONGEST, now), Turn::Now);
    }
}
