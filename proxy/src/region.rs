//! Regions by name and by number.
//!
//! A region is a named place where rows may live. Inside the process a *declared* region is a small number that stays the
//! same across reloads, so that a comparison is one instruction; a name that no configuration declares keeps its text, because
//! a client may name any region and the refusal must be able to repeat it. This module decides nothing about regions.

use std::fmt;
use std::sync::Arc;

/// The number of a declared region. It is never reused while the process lives, not even when a reload removes the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(u16);

impl RegionId {
    /// Numbers a region; `None` past [`crate::limits::REGIONS_MAX`].
    pub fn new(index: usize) -> Option<Self> {
        (index < crate::limits::REGIONS_MAX).then(|| Self(u16::try_from(index).unwrap_or(u16::MAX)))
    }

    /// The number as an index into tables that have one row a region.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The region a session is in now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum SessionRegion {
    /// Nothing has set one.
    #[default]
    None,
    /// A region of the configuration.
    Declared(RegionId),
    /// A name that the configuration does not have; kept for the texts of refusals and for `SHOW`.
    Undeclared(Arc<str>),
}

/// A set of declared regions.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct RegionSet(Vec<u64>);

impl RegionSet {
    /// Adds a region.
    pub fn insert(&mut self, region: RegionId) {
        let word = region.index() / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (region.index() % 64);
    }

    /// Whether the set has `region`.
    pub fn contains(&self, region: RegionId) -> bool {
        self.0.get(region.index() / 64).is_some_and(|word| word & (1 << (region.index() % 64)) != 0)
    }

    /// The regions of the set, lowest number first.
    pub fn iter(&self) -> impl Iterator<Item = RegionId> + '_ {
        (0..self.0.len() * 64).filter_map(RegionId::new).filter(|region| self.contains(*region))
    }
}

impl FromIterator<RegionId> for RegionSet {
    fn from_iter<I: IntoIterator<Item = RegionId>>(regions: I) -> Self {
        let mut set = Self::default();
        regions.into_iter().for_each(|region| set.insert(region));
        set
    }
}

impl fmt::Debug for RegionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(RegionId::index)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_inserted_and_nothing_else() {
        let region = |index| RegionId::new(index).unwrap();
        let set: RegionSet = [region(0), region(63), region(64), region(200)].into_iter().collect();
        assert_eq!(set.iter().map(RegionId::index).collect::<Vec<_>>(), [0, 63, 64, 200]);
        assert!(!set.contains(region(1)) && !set.contains(region(1000)));
    }

    #[test]
    fn numbers_end_at_the_limit() {
        assert!(RegionId::new(crate::limits::REGIONS_MAX).is_none());
    }
}
