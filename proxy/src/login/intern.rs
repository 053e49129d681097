//! Equal sets of parameters become one set: thousands of sessions and backends share a few.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Weak};

use crate::pool::Parameters;

/// Sets that are remembered; past it, new ones are not shared.
const SETS_MAX: usize = 4096;

/// The sets in use.
#[derive(Default)]
pub(super) struct Interner(HashMap<u64, Weak<Parameters>>);

impl Interner {
    /// The set that is equal to this one, or this one.
    pub(super) fn share(&mut self, parameters: Arc<Parameters>) -> Arc<Parameters> {
        let hash = hash(&parameters);
        if let Some(known) = self.0.get(&hash).and_then(Weak::upgrade)
            && known == parameters
        {
            return known;
        }
        if self.0.len() >= SETS_MAX {
            self.0.retain(|_, known| known.strong_count() > 0);
        }
        if self.0.len() < SETS_MAX {
            self.0.insert(hash, Arc::downgrade(&parameters));
        }
        parameters
    }
}

fn hash(parameters: &Parameters) -> u64 {
    let mut hasher = DefaultHasher::new();
    parameters.iter().for_each(|pair| pair.hash(&mut hasher));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_shared_and_forgotten_with_their_last_user() {
        let set = |value: &str| Arc::new([("TimeZone", value)].into_iter().collect::<Parameters>());
        let mut interner = Interner::default();
        let first = interner.share(set("UTC"));
        assert!(Arc::ptr_eq(&first, &interner.share(set("UTC"))));
        assert!(!Arc::ptr_eq(&first, &interner.share(set("CET"))));
        drop(first);
        assert_eq!(interner.share(set("UTC")), set("UTC"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut interner = Interner::default();
        for index in 0..2 * SETS_MAX {
            interner.share(Arc::new([("n", index.to_string())].into_iter().collect()));
        }
        assert!(interner.0.len() <= SETS_MAX);
    }
}
