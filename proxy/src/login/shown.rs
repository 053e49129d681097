//! What clients have shown of their passwords: the keys of SCRAM, by which backends are opened as the same user.
//!
//! Whoever proves a password by SCRAM hands out its ClientKey (RFC 5802, section 3), which is as good as the password towards every
//! server that has the same verifier, and of no use anywhere else. It is kept in memory alone, and wiped when it goes.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::scram::Keys;

/// How many users' keys are kept. Who has been away longest logs in anew before more backends are opened for it.
const USERS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// The keys of users, by their names.
pub(super) struct ShownKeys(LruCache<Box<str>, Keys>);

impl Default for ShownKeys {
    fn default() -> Self {
        // No room is taken for users that do not come.
        let mut keys = LruCache::unbounded();
        keys.resize(USERS_MAX);
        Self(keys)
    }
}

impl ShownKeys {
    /// A client has shown these.
    pub(super) fn keep(&mut self, user: &str, keys: Keys) {
        self.0.put(user.into(), keys);
    }

    /// The keys of a user, if they are those of the verifier with this `stored_key`.
    pub(super) fn get(&mut self, user: &str, stored_key: &[u8; 32]) -> Option<Keys> {
        self.0.get(user).filter(|keys| keys.open(stored_key)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_present_verifier_or_none() {
        let keys = |password: &[u8]| Keys::derive(password, b"salt", 1);
        let stored = |password: &[u8]| keys(password).verifier(b"salt", 1).stored_key;
        let mut shown = ShownKeys::default();
        shown.keep("alice", keys(b"old"));
        assert!(shown.get("alice", &stored(b"old")).is_some());
        assert!(shown.get("alice", &stored(b"new")).is_none());
        assert!(shown.get("bob", &stored(b"old")).is_none());
        shown.keep("alice", keys(b"new"));
        assert!(shown.get("alice", &stored(b"new")).is_some());
    }
}
