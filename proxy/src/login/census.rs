//! How many clients there are: of all, of each user, each database and each region; and who may be one more. Sessions that go to another
//! region ask for a place there themselves (`session::region`).
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
use crate::region::RegionId;
use crate::session::{Count, Place, RegionPlace, RegionPlaces};

/// Names looked at for whether they are still in use, at the least, before they are looked at again.
const NAMES_KEPT: usize = 64;

/// The clients of the process.
#[derive(Default)]
pub(super) struct Census {
    all: Count,
    users: Names,
    databases: Names,
}

/// Those of a user and a database, and that of a region.
type Places = (Vec<Place>, Option<RegionPlace>);

/// Who wants to be a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer<'a> {
    pub(super) user: &'a Arc<str>,
    pub(super) database: &'a Arc<str>,
    /// The region that it starts in, if it is one that is declared, and its name.
    pub(super) region: Option<(RegionId, &'a str)>,
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

    /// The places of a newcomer among those of its user, its database and its region, which `regions` counts.
    ///
    /// # Errors
    /// 53300: one of them has as many as it may have.
    pub(super) fn admit(&self, newcomer: Newcomer<'_>, limits: &Limits, regions: &RegionPlaces) -> Result<Places, Refusal> {
        let Newcomer { user, database, region } = newcomer;
        let kinds = [
            (Limit::ClientsPerUser, &self.users, user, limits.max_clients_per_user),
            (Limit::ClientsPerDatabase, &self.databases, database, limits.max_clients_per_database),
        ];
        let mut places = Vec::with_capacity(kinds.len());
        for (limit, names, name, max) in kinds {
            let count = names.of(name);
            if max.is_some_and(|max| count.get() >= max) {
                return Err(Refusal::limited(limit, name));
            }
            places.push(count.take());
        }
        let region_place = match region {
            Some((region, name)) => Some(regions.take(region).ok_or_else(|| Refusal::limited(Limit::ClientsPerRegion, name))?),
            None => None,
        };
        Ok((places, region_place))
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

    fn limits(user: u32, database: u32) -> Limits {
        Limits { max_clients_per_user: Some(user), max_clients_per_database: Some(database), ..Limits::default() }
    }

    fn come(census: &Census, user: &str, database: &str, limits: &Limits) -> Result<Places, String> {
        come_to(census, user, database, None, limits, &RegionPlaces::default())
    }

    fn come_to(
        census: &Census,
        user: &str,
        database: &str,
        region: Option<(RegionId, &str)>,
        limits: &Limits,
        regions: &RegionPlaces,
    ) -> Result<Places, String> {
        let (user, database) = (user.into(), database.into());
        census.admit(Newcomer { user: &user, database: &database, region }, limits, regions).map_err(|refusal| refusal.message)
    }

    #[test]
    fn each_kind_has_its_own_bound_and_a_refused_one_takes_no_place() {
        let (census, bounds) = (Census::default(), limits(2, 3));
        let regions = RegionPlaces::default().bounded(Some(4));
        let [eu, us] = [(0, "eu"), (1, "us")].map(|(number, name)| RegionId::new(number).map(|region| (region, name)));
        let come = |user, database, region| come_to(&census, user, database, region, &bounds, &regions);
        let first = come("a", "d", eu).unwrap();
        let second = come("a", "d", eu).unwrap();
        assert_eq!(come("a", "e", None).unwrap_err(), "too many clients of user \"a\" already");
        let third = come("b", "d", eu).unwrap();
        assert_eq!(come("c", "d", us).unwrap_err(), "too many clients of database \"d\" already");
        let fourth = come("c", "e", eu).unwrap();
        assert_eq!(come("c", "f", eu).unwrap_err(), "too many clients of region \"eu\" already");
        // No region has no bound, and a place that is given back, even on another thread, is another's.
        let fifth = come("c", "f", None).unwrap();
        std::thread::spawn(move || drop((first, second))).join().unwrap();
        assert!(come("a", "d", eu).is_ok());
        drop((third, fourth, fifth));
    }

    #[test]
    fn a_bound_that_a_reload_sets_counts_those_who_came_before() {
        let census = Census::default();
        let early: Vec<_> = (0..5).map(|_| come(&census, "a", "d", &Limits::default()).unwrap()).collect();
        assert!(come(&census, "a", "d", &limits(5, 9)).is_err());
        drop(early);
        assert!(come(&census, "a", "d", &limits(5, 9)).is_ok());
    }

    #[test]
    fn names_that_nobody_uses_are_forgotten() {
        let census = Census::default();
        let kept = come(&census, "kept", "kept", &Limits::default()).unwrap();
        for number in 0..1000 {
            come(&census, "kept", &format!("database {number}"), &Limits::default()).unwrap();
        }
        assert!(census.databases.counts.borrow().len() <= NAMES_KEPT + 3);
        assert_eq!((census.users.of("kept").get(), census.databases.of("kept").get()), (1, 1));
        drop(kept);
    }
}
