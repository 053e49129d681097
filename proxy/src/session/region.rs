//! The session region as a setting: SET, SET LOCAL and RESET with the transaction rules of PostgreSQL's own settings.

use crate::limits::SAVEPOINTS_MAX;
use crate::region::SessionRegion;

/// The session region and what the end of the transaction would make of it.
#[derive(Clone, Debug, Default)]
pub(super) struct RegionTrack {
    start: SessionRegion,
    values: Values,
    /// Present from the first SET of a transaction to its end.
    undo: Option<Box<Undo>>,
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
    /// A session that starts in `start`, which RESET goes back to.
    pub(super) fn new(start: SessionRegion) -> Self {
        let values = Values { current: start.clone(), kept: start.clone() };
        Self { start, values, undo: None }
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
        }
    }

    /// The transaction has been rolled back.
    pub(super) fn rollback(&mut self) {
        if let Some(undo) = self.undo.take() {
            self.values = Values { current: undo.before.clone(), kept: undo.before };
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
    pub(super) fn rename(&mut self, renew: impl Fn(&SessionRegion) -> SessionRegion) {
        let renew_values = |values: &mut Values| {
            values.current = renew(&values.current);
            values.kept = renew(&values.kept);
        };
        self.start = renew(&self.start);
        renew_values(&mut self.values);
        if let Some(undo) = &mut self.undo {
            undo.before = renew(&undo.before);
            undo.savepoints.iter_mut().for_each(|(_, values)| renew_values(values));
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
        RegionTrack::new(region("a"))
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
}
