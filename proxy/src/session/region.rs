//! The session region as a setting: SET, SET LOCAL and RESET with the transaction rules of PostgreSQL's own settings.

use std::rc::Rc;

use smallvec::SmallVec;

use super::place::{RegionPlace, RegionPlaces};
use crate::limits::SAVEPOINTS_MAX;
use crate::region::SessionRegion;

/// The session region and what the end of the transaction would make of it.
#[derive(Clone, Debug, Default)]
pub(super) struct RegionTrack {
    start: SessionRegion,
    values: Values,
    /// Present from the first SET of a transaction to its end.
    undo: Option<Box<Undo>>,
    /// Where it is counted: in its region and, until the transaction ends, in each that it has been in or has asked for.
    places: SmallVec<[Rc<RegionPlace>; 1]>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Values {
    current: SessionRegion,
    /// What is left after COMMIT; differs from `current` after SET LOCAL.
    kept: SessionRegion,
}

#[derive(Clone, Debug)]
struct Undo {
    before: SessionRegion,
    savepoints: Vec<(Box<str>, Values)>,
}

impl RegionTrack {
    /// A session that starts in `start`, which RESET goes back to. Its login has taken `place`.
    pub(super) fn new(start: SessionRegion, place: Option<RegionPlace>, places: &RegionPlaces) -> Self {
        let values = Values { current: start.clone(), kept: start.clone() };
        let mut track = Self { start, values, undo: None, places: place.into_iter().map(Rc::new).collect() };
        track.settle_place(places);
        track
    }

    /// Takes a place in a region that it may be about to go to. False: the region is full.
    pub(super) fn reserve(&mut self, region: &SessionRegion, places: &RegionPlaces) -> bool {
        if !self.lacks_place(region) {
            return true;
        }
        let SessionRegion::Declared(region) = region else { return true };
        let place = places.take(*region);
        self.places.extend(place.into_iter().map(Rc::new));
        self.places.last().is_some_and(|place| place.region() == *region)
    }

    /// Has the places, too, that a plan has reserved.
    pub(super) fn adopt_places(&mut self, plan: &Self) {
        self.places.clone_from(&plan.places);
    }

    fn lacks_place(&self, region: &SessionRegion) -> bool {
        match region {
            SessionRegion::Declared(region) => self.places.iter().all(|place| place.region() != *region),
            SessionRegion::None | SessionRegion::Undeclared(_) => false,
        }
    }

    /// It is counted where it is, whatever the bound, and nowhere else.
    fn settle_place(&mut self, places: &RegionPlaces) {
        if let SessionRegion::Declared(region) = self.values.current
            && self.lacks_place(&self.values.current)
        {
            self.places.extend(places.take_anyway(region).map(Rc::new));
        }
        self.leave_others();
    }

    /// Nothing leads back to a former region any more.
    fn leave_others(&mut self) {
        let Self { values: Values { current, .. }, places, .. } = self;
        places.retain(|place| *current == SessionRegion::Declared(place.region()));
    }

    /// The region the session is in.
    pub(super) fn current(&self) -> &SessionRegion {
        &self.values.current
    }

    /// The region it started in.
    pub(super) fn start(&self) -> &SessionRegion {
        &self.start
    }

    /// Whether the end of the transaction has something to settle.
    pub(super) fn is_open(&self) -> bool {
        self.undo.is_some()
    }

    /// SET, or SET LOCAL.
    pub(super) fn set(&mut self, region: SessionRegion, local: bool) {
        if self.undo.is_none() {
            self.undo = Some(Box::new(Undo { before: self.values.current.clone(), savepoints: Vec::new() }));
        }
        if !local {
            self.values.kept = region.clone();
        }
        self.values.current = region;
    }

    /// The region after a COMMIT now.
    pub(super) fn after_commit(&self) -> &SessionRegion {
        if self.is_open() { &self.values.kept } else { &self.values.current }
    }

    /// The region after a ROLLBACK now.
    pub(super) fn after_rollback(&self) -> &SessionRegion {
        self.undo.as_ref().map_or(&self.values.current, |undo| &undo.before)
    }

    /// The transaction has committed.
    pub(super) fn commit(&mut self) {
        if self.undo.take().is_some() {
            self.values.current = self.values.kept.clone();
            self.leave_others();
        } else if self.places.len() > 1 {
            self.leave_others();
        }
    }

    /// The transaction has been rolled back.
    pub(super) fn rollback(&mut self) {
        if let Some(undo) = self.undo.take() {
            self.values = Values { current: undo.before.clone(), kept: undo.before };
            self.leave_others();
        } else if self.places.len() > 1 {
            self.leave_others();
        }
    }

    /// Whether one more savepoint can be remembered.
    pub(super) fn has_room(&self) -> bool {
        self.undo.as_ref().is_none_or(|undo| undo.savepoints.len() < SAVEPOINTS_MAX)
    }

    /// SAVEPOINT.
    pub(super) fn savepoint(&mut self, name: &str) {
        let values = self.values.clone();
        if let Some(undo) = &mut self.undo {
            undo.savepoints.push((name.into(), values));
        }
    }

    /// RELEASE: the savepoint and those after it are gone.
    pub(super) fn release(&mut self, name: &str) {
        if let Some(undo) = &mut self.undo
            && let Some(at) = undo.savepoints.iter().rposition(|(known, _)| &**known == name)
        {
            undo.savepoints.truncate(at);
        }
    }

    /// ROLLBACK TO: the savepoint stays. One that is not known was made before the first SET of the transaction.
    pub(super) fn rollback_to(&mut self, name: &str) {
        let Some(undo) = &mut self.undo else { return };
        match undo.savepoints.iter().rposition(|(known, _)| &**known == name) {
            Some(at) => {
                undo.savepoints.truncate(at + 1);
                self.values = undo.savepoints[at].1.clone();
            }
            None => self.rollback(),
        }
    }

    /// The names of regions have got a new meaning (a reload).
    pub(super) fn rename(&mut self, renew: impl Fn(&SessionRegion) -> SessionRegion, places: &RegionPlaces) {
        let renew_values = |values: &mut Values| {
            values.current = renew(&values.current);
            values.kept = renew(&values.kept);
        };
        self.start = renew(&self.start);
        renew_values(&mut self.values);
        if let Some(undo) = &mut self.undo {
            undo.before = renew(&undo.before);
            undo.savepoints.iter_mut().for_each(|(_, values)| renew_values(values));
        } else {
            self.settle_place(places);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> SessionRegion {
        SessionRegion::Undeclared(name.into())
    }

    fn in_a() -> RegionTrack {
        RegionTrack::new(region("a"), None, &RegionPlaces::default())
    }

    #[test]
    fn set_is_kept_by_commit_and_undone_by_rollback() {
        let mut track = in_a();
        track.set(region("b"), false);
        assert_eq!(*track.current(), region("b"));
        track.commit();
        assert_eq!(*track.current(), region("b"));
        track.set(region("c"), false);
        track.rollback();
        assert_eq!(*track.current(), region("b"));
    }

    #[test]
    fn set_local_ends_with_its_transaction() {
        let mut track = in_a();
        track.set(region("b"), false);
        track.set(region("c"), true);
        assert_eq!((track.current(), track.after_commit(), track.after_rollback()), (&region("c"), &region("b"), &region("a")));
        track.commit();
        assert_eq!(*track.current(), region("b"));
    }

    #[test]
    fn savepoints_restore_what_was_in_force_when_they_were_made() {
        let mut track = in_a();
        track.set(region("b"), true);
        track.savepoint("s");
        track.set(region("b"), false);
        assert_eq!(*track.after_commit(), region("b"));
        track.rollback_to("s");
        assert_eq!(*track.after_commit(), region("a"));
        track.release("s");
        track.rollback_to("s");
        assert!(!track.is_open(), "a savepoint that is not known was made before the first SET");
        assert_eq!(*track.current(), region("a"));
    }

    #[test]
    fn a_place_that_was_asked_for_in_vain_is_given_back() {
        let places = RegionPlaces::default().bounded(Some(1));
        let region = |index| SessionRegion::Declared(crate::region::RegionId::new(index).unwrap());
        let mut track = RegionTrack::new(region(0), None, &places);
        let mut plan = track.clone();
        assert!(plan.reserve(&region(1), &places) && plan.reserve(&region(0), &places));
        let mut other = RegionTrack::new(region(2), None, &places);
        assert!(!other.reserve(&region(1), &places));
        track.adopt_places(&plan);
        drop(plan);
        // What was planned has failed before the SET.
        track.rollback();
        assert!(other.reserve(&region(1), &places));
        assert!(!other.reserve(&region(0), &places), "it is where it was");
        drop(track);
        assert!(other.reserve(&region(0), &places));
    }

    #[test]
    fn a_session_is_counted_where_a_reload_puts_it() {
        let places = RegionPlaces::default().bounded(Some(1));
        let declared = SessionRegion::Declared(crate::region::RegionId::new(0).unwrap());
        let mut track = RegionTrack::new(region("new"), None, &places);
        track.rename(|_| declared.clone(), &places);
        assert!(!in_a().reserve(&declared, &places));
        track.rename(|_| region("old"), &places);
        assert!(in_a().reserve(&declared, &places));
    }
}
