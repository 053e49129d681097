//! When a node is tried again that could not be had.
//!
//! After a failure nothing is tried for a while, which grows with every failure in a row; whoever asks meanwhile gets the error of
//! the last try at once, so that a node that is down costs nobody a timeout and gets no storm of connects. When the time is over
//! *one* try is let through, and only its success opens the way for all. Pure: time and chance come in as arguments.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::OpenError;

/// After the first failure.
const FIRST: Duration = Duration::from_millis(250);
/// After many.
const LONGEST: Duration = Duration::from_secs(15);

/// What is known of the last tries.
#[derive(Debug, Default)]
pub(super) struct Backoff(Option<Failing>);

#[derive(Debug)]
struct Failing {
    /// Failures in a row, those of tries that went on at the same time counted once.
    failures: u32,
    failed_at: Instant,
    /// Nothing is tried before this.
    until: Instant,
    error: OpenError,
}

/// A try that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) began_at: Instant,
}

impl Backoff {
    /// Whether a try would be let through.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.0.as_ref().is_none_or(|failing| failing.until <= now)
    }

    /// When the next try will be let through.
    pub(super) fn until(&self) -> Option<Instant> {
        self.0.as_ref().map(|failing| failing.until)
    }

    /// The error of the last try, if it failed.
    pub(super) fn error(&self) -> Option<&OpenError> {
        self.0.as_ref().map(|failing| &failing.error)
    }

    /// Begins a try that ends within `patience`.
    ///
    /// # Errors
    /// It is too early, or another one is under way that will tell; the error of the last try.
    pub(super) fn begin(&mut self, now: Instant, patience: Duration) -> Result<Attempt, OpenError> {
        if let Some(failing) = &mut self.0 {
            if failing.until > now {
                return Err(failing.error.clone());
            }
            failing.until = now + patience;
        }
        Ok(Attempt { began_at: now })
    }

    /// A try that nobody had to let through: a probe.
    pub(super) fn begin_anyway(now: Instant) -> Attempt {
        Attempt { began_at: now }
    }

    /// The node was there.
    pub(super) fn succeeded(&mut self) {
        self.0 = None;
    }

    /// The node was not there. `chance` is a random byte.
    pub(super) fn failed(&mut self, attempt: Attempt, error: OpenError, now: Instant, chance: u8) {
        let failures = match &self.0 {
            None => 1,
            // It was under way already when another one failed, and says nothing new.
            Some(failing) if attempt.began_at < failing.failed_at => failing.failures,
            Some(failing) => failing.failures.saturating_add(1),
        };
        self.0 = Some(Failing { failures, failed_at: now, until: now + delay(failures, chance), error });
    }
}

/// How long nothing is tried after so many failures: twice as long as before each time, and a quarter more or less by chance, so that
/// several proxies do not come back at the same moment.
fn delay(failures: u32, chance: u8) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let delay = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    // From 3/4 to 5/4.
    (delay.saturating_mul(384 + u32::from(chance)) / 512).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);
    /// Neither more nor less.
    const MEAN: u8 = 128;

    fn refused() -> OpenError {
        OpenError::Refused { node: "n".into() }
    }

    #[test]
    fn the_delay_doubles_up_to_its_bound() {
        let delays: Vec<u128> = (1..=8).map(|failures| delay(failures, MEAN).as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        assert_eq!((delay(1, 0).as_millis(), delay(1, 255).as_millis()), (187, 312));
        assert_eq!(delay(u32::MAX, 255), LONGEST);
    }

    #[test]
    fn meanwhile_everybody_gets_the_last_error_and_then_one_tries() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut backoff = Backoff::default();
        let attempt = backoff.begin(at(0), PATIENCE).unwrap();
        backoff.failed(attempt, refused(), at(10), MEAN);
        assert!(!backoff.is_open(at(259)) && backoff.begin(at(259), PATIENCE).is_err());
        assert!(backoff.is_open(at(260)));
        let trial = backoff.begin(at(260), PATIENCE).unwrap();
        assert!(matches!(backoff.begin(at(300), PATIENCE), Err(OpenError::Refused { .. })), "one is on its way");
        backoff.failed(trial, refused(), at(310), MEAN);
        assert!(!backoff.is_open(at(809)) && backoff.is_open(at(810)));
        backoff.succeeded();
        assert!(backoff.is_open(at(310)) && backoff.error().is_none());
        let attempt = backoff.begin(at(900), PATIENCE).unwrap();
        backoff.failed(attempt, refused(), at(900), MEAN);
        assert!(backoff.is_open(at(1150)), "it begins anew");
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        let attempt = backoff.begin(start, PATIENCE).unwrap();
        backoff.failed(attempt, refused(), start, MEAN);
        backoff.begin(start + Duration::from_secs(1), PATIENCE).unwrap();
        assert!(backoff.begin(start + Duration::from_secs(5), PATIENCE).is_err());
        assert!(backoff.begin(start + Duration::from_secs(6), PATIENCE).is_ok());
    }

    #[test]
    fn tries_of_one_moment_count_as_one_failure() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        let attempts: Vec<_> = (0..20).map(|_| backoff.begin(start, PATIENCE).unwrap()).collect();
        for attempt in attempts {
            backoff.failed(attempt, refused(), start + Duration::from_millis(1), MEAN);
        }
        assert!(backoff.is_open(start + Duration::from_millis(251)));
    }
}
