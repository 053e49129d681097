//! Stretches passwords (PBKDF2) on threads of their own, a few at once: whoever names an iteration count makes others work, up to
//! half a second and more, and the control thread has other logins to go on with.
//!
//! What known passwords stretch to is remembered, so that a thousand logins with one password cost the work of one.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::scram::{self, Keys};

/// Keys that are remembered for one node, or for the users that have a password in clear text.
const KEYS_MAX: usize = 4096;

/// A password that is to be stretched.
#[derive(PartialEq, Eq)]
pub struct Derivation {
    password: Zeroizing<Vec<u8>>,
    salt: Vec<u8>,
    iterations: u32,
    is_guess: bool,
}

impl Derivation {
    /// Of a password from the configuration, whose keys will be wanted again.
    pub(super) fn of_known(password: &str, salt: &[u8], iterations: u32) -> Self {
        Self { password: password.as_bytes().to_vec().into(), salt: salt.to_vec(), iterations, is_guess: false }
    }

    /// Of a password that a client has sent.
    pub(super) fn of_guess(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        Self { password: password.to_vec().into(), salt: salt.to_vec(), iterations, is_guess: true }
    }

    /// Does the work.
    pub(super) fn keys(&self) -> Keys {
        Keys::derive(&self.password, &self.salt, self.iterations)
    }

    /// Names it by a hash, so that the password is not kept a second time.
    fn name(&self) -> [u8; 32] {
        let Self { password, salt, iterations, .. } = self;
        scram::hmac(b"name", &[&(salt.len() as u64).to_be_bytes(), salt, &iterations.to_be_bytes(), password])
    }
}

impl fmt::Debug for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derivation").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// Where passwords are stretched that belong together: a server that asks for much holds up nobody but those who want to enter it.
pub(super) struct Stretcher {
    at_once: Arc<Semaphore>,
    known: Arc<Mutex<HashMap<[u8; 32], Keys>>>,
}

impl Stretcher {
    /// One that keeps so many threads busy and no more.
    pub(super) fn new(at_once: usize) -> Self {
        Self { at_once: Arc::new(Semaphore::new(at_once)), known: Arc::default() }
    }

    /// What the password stretches to. The work goes on, and is remembered, if nobody waits for it any more.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) async fn keys(&self, derivation: Derivation) -> io::Result<Keys> {
        let name = derivation.name();
        if let Some(keys) = self.recall(&name) {
            return Ok(keys);
        }
        let permit = Arc::clone(&self.at_once).acquire_owned().await.map_err(io::Error::other)?;
        // Whoever was before may have wanted the same.
        if let Some(keys) = self.recall(&name) {
            return Ok(keys);
        }
        let known = Arc::clone(&self.known);
        let work = move || {
            let keys = derivation.keys();
            if !derivation.is_guess {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.len() >= KEYS_MAX {
                    known.clear();
                }
                known.insert(name, keys.clone());
            }
            drop(permit);
            keys
        };
        spawn_blocking(work).await.map_err(io::Error::other)
    }

    fn recall(&self, name: &[u8; 32]) -> Option<Keys> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use super::*;

    fn known() -> Derivation {
        Derivation::of_known("pencil", b"salt", 10)
    }

    /// Begins it; whether it has to wait.
    async fn waits(future: &mut Pin<&mut impl Future>) -> bool {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    /// Whether these are the keys of [`known`].
    fn are_right(keys: &Keys) -> bool {
        keys.verifier(b"salt", 10) == known().keys().verifier(b"salt", 10)
    }

    #[test]
    fn a_known_password_is_stretched_once() {
        tokio_uring::start(async {
            let stretcher = Stretcher::new(1);
            let busy = Arc::clone(&stretcher.at_once).acquire_owned().await.unwrap();
            let (mut one, mut other) = (pin!(stretcher.keys(known())), pin!(stretcher.keys(known())));
            assert!(waits(&mut one).await && waits(&mut other).await, "all threads are busy");
            // Other keys in their place show that none are made again.
            let planted = Derivation::of_known("another", b"salt", 10).keys();
            stretcher.known.lock().unwrap().insert(known().name(), planted);
            drop(busy);
            assert!(!are_right(&one.await.unwrap()) && !are_right(&other.await.unwrap()));
        });
    }

    #[test]
    fn work_that_nobody_waits_for_is_remembered() {
        tokio_uring::start(async {
            let stretcher = Stretcher::new(1);
            assert!(waits(&mut pin!(stretcher.keys(known()))).await);
            // Its thread has ended.
            let permit = stretcher.at_once.acquire().await.unwrap();
            assert!(stretcher.recall(&known().name()).is_some_and(|keys| are_right(&keys)));
            // What is known needs no thread.
            assert!(!waits(&mut pin!(stretcher.keys(known()))).await);
            drop(permit);
        });
    }

    #[test]
    fn guesses_are_not_remembered() {
        tokio_uring::start(async {
            let stretcher = Stretcher::new(1);
            let keys = stretcher.keys(Derivation::of_guess(b"pencil", b"salt", 10)).await.unwrap();
            assert!(are_right(&keys) && stretcher.known.lock().unwrap().is_empty());
        });
    }
}
