//! Equal values become one value: thousands of sessions and backends share a few names and sets of settings.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Arc, Weak};

/// Values that are remembered; past it, new ones are not shared.
const VALUES_MAX: usize = 4096;

/// The values in use.
pub(super) struct Interner<T: ?Sized> {
    known: HashMap<u64, Weak<T>>,
    hashing: RandomState,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self { known: HashMap::default(), hashing: RandomState::default() }
    }
}

impl<T: ?Sized + Hash + Eq> Interner<T> {
    /// The value that is equal to this one, or this one.
    pub(super) fn share(&mut self, value: Arc<T>) -> Arc<T> {
        let hash = self.hashing.hash_one(&value);
        if let Some(known) = self.known.get(&hash).and_then(Weak::upgrade)
            && known == value
        {
            return known;
        }
        if self.known.len() >= VALUES_MAX {
            self.known.retain(|_, known| known.strong_count() > 0);
        }
        if self.known.len() < VALUES_MAX {
            self.known.insert(hash, Arc::downgrade(&value));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Parameters;

    #[test]
    fn equal_values_are_shared_and_forgotten_with_their_last_user() {
        let set = |value: &str| Arc::new([("TimeZone", value)].into_iter().collect::<Parameters>());
        let mut interner = Interner::default();
        let first = interner.share(set("UTC"));
        assert!(Arc::ptr_eq(&first, &interner.share(set("UTC"))));
        assert!(!Arc::ptr_eq(&first, &interner.share(set("CET"))));
        drop(first);
        assert_eq!(interner.share(set("UTC")), set("UTC"));
        let mut names = Interner::<str>::default();
        let alice = names.share("alice".into());
        assert!(Arc::ptr_eq(&alice, &names.share("alice".into())) && &*names.share("bob".into()) == "bob");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut interner = Interner::<str>::default();
        for index in 0..2 * VALUES_MAX {
            interner.share(index.to_string().into());
        }
        assert!(interner.known.len() <= VALUES_MAX);
    }
}
