//! What is known of users since they have logged in, as far as backends are opened with it: the keys that they have shown by SCRAM, and
//! the secrets that were looked up for them.
//!
//! Whoever proves a password by SCRAM hands out its ClientKey (RFC 5802, section 3), which is as good as the password towards every
//! server that has the same verifier, and of no use anywhere else. It is kept in memory alone, and wiped when it goes.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::scram::Keys;
use crate::config::Secret;

/// How many users are remembered. Who has been away longest logs in anew before more backends are opened for it.
const USERS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// What a login has shown of its user.
#[derive(Default)]
pub(super) struct Known {
    /// The secret, if it was looked up.
    pub(super) secret: Option<Secret>,
    /// The keys of a secret that is a SCRAM verifier.
    pub(super) keys: Option<Keys>,
}

/// The users that have logged in, by their names.
pub(super) struct KnownUsers(LruCache<Box<str>, Known>);

impl Default for KnownUsers {
    fn default() -> Self {
        // No room is taken for users that do not come.
        let mut users = LruCache::unbounded();
        users.resize(USERS_MAX);
        Self(users)
    }
}

impl KnownUsers {
    /// A client has logged in. One that has shown nothing leaves what is known.
    pub(super) fn keep(&mut self, user: &str, known: Known) {
        if known.secret.is_some() || known.keys.is_some() {
            self.0.put(user.into(), known);
        }
    }

    /// The secret that was looked up for a user.
    pub(super) fn secret(&mut self, user: &str) -> Option<Secret> {
        self.0.get(user)?.secret.clone()
    }

    /// The keys of a user, if they are those of this secret.
    pub(super) fn keys(&mut self, user: &str, secret: Option<&Secret>) -> Option<Keys> {
        match secret? {
            Secret::Scram { stored_key, .. } => self.0.get(user)?.keys.clone().filter(|keys| keys.open(stored_key)),
            Secret::Plain(_) | Secret::Md5(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn keys_are_those_of_the_present_verifier_or_none() {
        let keys = |password: &[u8]| Keys::derive(password, b"salt", 1);
        let secret = |password: &[u8]| {
            let (stored_key, server_key) = (keys(password).verifier(b"salt", 1).stored_key, [0; 32]);
            let (stored_key, server_key) = (Zeroizing::new(stored_key), Zeroizing::new(server_key));
            Secret::Scram { iterations: 1, salt: b"salt".to_vec(), stored_key, server_key }
        };
        let mut users = KnownUsers::default();
        users.keep("alice", Known { secret: None, keys: Some(keys(b"old")) });
        assert!(users.keys("alice", Some(&secret(b"old"))).is_some());
        assert!(users.keys("alice", Some(&secret(b"new"))).is_none());
        assert!(users.keys("bob", Some(&secret(b"old"))).is_none() && users.keys("alice", None).is_none());
        users.keep("alice", Known::default());
        assert!(users.keys("alice", Some(&secret(b"old"))).is_some());
        users.keep("alice", Known { secret: Some(secret(b"new")), keys: Some(keys(b"new")) });
        let looked_up = users.secret("alice");
        assert!(users.keys("alice", looked_up.as_ref()).is_some());
    }
}
