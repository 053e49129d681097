//! How many clients there are: of all, of each user, each database and each region; and who may be one more.
//!
//! Clients are counted whether or not there is a bound, so that a reload which sets one finds the right numbers. All are counted from
//! the moment on at which they are let as far as to prove who they are; of a user, a database and a region only those that have
//! done so, because otherwise anybody could use up the places of a user by its name alone.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use super::refusal::Refusal;
use crate::config::Limits;
use crate::observe::Limit;
use crate::session::{Count, Place};

/// Names looked at for whether they are still in use, at the least, before they are looked at again.
const NAMES_KEPT: usize = 64;

/// The clients of the process.
#[derive(Default)]
pub(super) struct Census {
    all: Count,
    users: Names,
    databases: Names,
    regions: Names,
}

/// Who wants to be a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer<'a> {
    pub(super) user: &'a Arc<str>,
    pub(super) database: &'a Arc<str>,
    /// The region that it starts in, if it is one that is declared.
    pub(super) region: Option<&'a str>,
}

impl Census {
    /// All clients.
    pub(super) fn clients(&self) -> u64 {
        self.all.get().into()
    }

    /// One more of all.
    pub(super) fn take(&self) -> Place {
        self.all.take()
    }

    /// The places of a newcomer among those of its user, its database and its region.
    ///
    /// # Errors
    /// 53300: one of them has as many as it may have.
    pub(super) fn admit(&self, newcomer: Newcomer<'_>, limits: &Limits) -> Result<Vec<Place>, Refusal> {
        let Newcomer { user, database, region } = newcomer;
        let kinds = [
            (Limit::ClientsPerUser, &self.users, Some(&**user), limits.max_clients_per_user),
            (Limit::ClientsPerDatabase, &self.databases, Some(&**database), limits.max_clients_per_database),
            (Limit::ClientsPerRegion, &self.regions, region, limits.max_clients_per_region),
        ];
        let mut places = Vec::with_capacity(kinds.len());
        for (limit, names, name, max) in kinds {
            let Some(name) = name else { continue };
            let count = names.of(name);
            if max.is_some_and(|max| count.get() >= max) {
                return Err(Refusal::limited(limit, name));
            }
            places.push(count.take());
        }
        Ok(places)
    }
}

/// A count for each name that is in use.
#[derive(Default)]
struct Names {
    counts: RefCell<HashMap<Box<str>, Count>>,
    /// So many names, and it is looked which of them nobody uses any more.
    full_at: Cell<usize>,
}

impl Names {
    fn of(&self, name: &str) -> Count {
        let mut counts = self.counts.borrow_mut();
        if let Some(count) = counts.get(name) {
            return count.clone();
        }
        if counts.len() >= self.full_at.get() {
            counts.retain(|_, count| !count.is_unused());
            self.full_at.set(counts.len() * 2 + NAMES_KEPT);
        }
        counts.entry(name.into()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(user: u32, database: u32, region: u32) -> Limits {
        Limits {
            max_clients_per_user: Some(user),
            max_clients_per_database: Some(database),
            max_clients_per_region: Some(region),
            ..Limits::default()
        }
    }

    fn come(census: &Census, user: &str, database: &str, region: Option<&str>, limits: &Limits) -> Result<Vec<Place>, String> {
        let (user, database) = (user.into(), database.into());
        census.admit(Newcomer { user: &user, database: &database, region }, limits).map_err(|refusal| refusal.message)
    }

    #[test]
    fn each_kind_has_its_own_bound_and_a_refused_one_takes_no_place() {
        let (census, bounds) = (Census::default(), limits(2, 3, 4));
        let first = come(&census, "a", "d", Some("eu"), &bounds).unwrap();
        let second = come(&census, "a", "d", Some("eu"), &bounds).unwrap();
        assert_eq!(come(&census, "a", "e", None, &bounds).unwrap_err(), "too many clients of user \"a\" already");
        let third = come(&census, "b", "d", Some("eu"), &bounds).unwrap();
        assert_eq!(come(&census, "c", "d", Some("us"), &bounds).unwrap_err(), "too many clients of database \"d\" already");
        let fourth = come(&census, "c", "e", Some("eu"), &bounds).unwrap();
        assert_eq!(come(&census, "c", "f", Some("eu"), &bounds).unwrap_err(), "too many clients of region \"eu\" already");
        // No region has no bound, and a place that is given back, even on another thread, is another's.
        let fifth = come(&census, "c", "f", None, &bounds).unwrap();
        std::thread::spawn(move || drop((first, second))).join().unwrap();
        assert!(come(&census, "a", "d", Some("eu"), &bounds).is_ok());
        drop((third, fourth, fifth));
    }

    #[test]
    fn a_bound_that_a_reload_sets_counts_those_who_came_before() {
        let census = Census::default();
        let early: Vec<_> = (0..5).map(|_| come(&census, "a", "d", None, &Limits::default()).unwrap()).collect();
        assert!(come(&census, "a", "d", None, &limits(5, 9, 9)).is_err());
        drop(early);
        assert!(come(&census, "a", "d", None, &limits(5, 9, 9)).is_ok());
    }

    #[test]
    fn names_that_nobody_uses_are_forgotten() {
        let census = Census::default();
        let kept = come(&census, "kept", "kept", None, &Limits::default()).unwrap();
        for number in 0..1000 {
            come(&census, "kept", &format!("database {number}"), None, &Limits::default()).unwrap();
        }
        assert!(census.databases.counts.borrow().len() <= NAMES_KEPT + 3);
        assert_eq!((census.users.of("kept").get(), census.databases.of("kept").get()), (1, 1));
        drop(kept);
    }
}
