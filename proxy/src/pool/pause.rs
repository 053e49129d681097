//! What an operator wants of the backends of a database, or of all: no new work for them, new connections, or their end.
//!
//! While a database is paused its pools lend nothing and open nothing, and a backend that is given back is closed. Those who wait
//! stay in their queue, in order, and are served when the pause ends. Who may ask for any of this is not decided here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::{MovedBackend, State};
use super::key::BackendKey;
use super::order::Farewell;
use super::pools::{PoolIndex, Pools, Slot};

/// How long a recall is remembered for backends that were between two workers when it was made. That takes milliseconds.
const RECALL_REMEMBERED: Duration = Duration::from_secs(60);

/// Which databases a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// The one that clients know by this name, in every region.
    Database(Arc<str>),
}

impl Scope {
    /// Whether the command is about this database.
    pub fn covers(&self, database: &str) -> bool {
        match self {
            Self::All => true,
            Self::Database(name) => **name == *database,
        }
    }
}

/// What is paused: everything, and beside that single databases. Each ends by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pauses {
    /// Everything is.
    pub all: bool,
    /// These are.
    pub databases: BTreeSet<Arc<str>>,
}

impl Pauses {
    /// Whether pools of this database are paused.
    pub fn cover(&self, database: &str) -> bool {
        self.all || self.databases.contains(database)
    }

    /// Begins or ends one. False: it was so already.
    pub fn set(&mut self, scope: &Scope, paused: bool) -> bool {
        match scope {
            Scope::All => std::mem::replace(&mut self.all, paused) != paused,
            Scope::Database(name) if paused => self.databases.insert(name.clone()),
            Scope::Database(name) => self.databases.remove(name),
        }
    }
}

/// What has been asked of the pools of one worker.
#[derive(Default)]
pub(super) struct Operated {
    pauses: Pauses,
    /// Recalls of the last minute.
    recalls: Vec<(Scope, Instant)>,
}

impl Operated {
    pub(super) fn pauses(&self, database: &str) -> bool {
        self.pauses.cover(database)
    }

    /// Whether a backend that has just come from another worker has missed its recall.
    pub(super) fn recalls(&self, moved: &MovedBackend) -> bool {
        self.recalls.iter().any(|(scope, at)| scope.covers(&moved.key.database) && moved.opened_at <= *at)
    }
}

impl Pools {
    /// Lends nothing more in this scope. Idle backends are closed at once, the others when they are given back.
    pub fn pause(&mut self, scope: &Scope) {
        self.operated.pauses.set(scope, true);
        self.note_pauses();
        for key in self.backends_in(scope, |state| state == State::Idle) {
            self.close(key, Farewell::Terminate);
        }
        // Nobody need hand backends to sessions that wait for the end of a pause.
        for index in self.indices() {
            self.note_hunger(index);
        }
    }

    /// Ends a pause; those who wait are served in their order.
    pub fn resume(&mut self, scope: &Scope, now: Instant) {
        self.operated.pauses.set(scope, false);
        self.note_pauses();
        for index in self.indices() {
            self.open_more(index, now);
            self.note_hunger(index);
        }
    }

    /// Whether the pool lends nothing.
    pub fn is_paused(&self, index: PoolIndex) -> bool {
        self.pools.get(index.0 as usize).and_then(Option::as_ref).is_some_and(|pool| pool.paused)
    }

    /// Every backend there is now is closed when it is given back, idle ones at once; new ones may be opened.
    pub fn recall(&mut self, scope: &Scope, now: Instant) {
        self.operated.recalls.retain(|(_, at)| now.saturating_duration_since(*at) < RECALL_REMEMBERED);
        self.operated.recalls.push((scope.clone(), now));
        let next_ticket = self.next_ticket;
        for pool in self.pools.iter_mut().flatten().filter(|pool| scope.covers(&pool.key.database)) {
            pool.recalled_below = next_ticket;
        }
        for key in self.backends_in(scope, |_| true) {
            match self.get(key) {
                Some(backend) if backend.state == State::Idle => self.close(key, Farewell::Terminate),
                Some(backend) => backend.recalled = true,
                None => {}
            }
        }
    }

    /// Closes every backend of the scope, whoever has it.
    pub fn close_all(&mut self, scope: &Scope) {
        for key in self.backends_in(scope, |_| true) {
            self.close(key, Farewell::Abrupt);
        }
    }

    fn note_pauses(&mut self) {
        for pool in self.pools.iter_mut().flatten() {
            pool.paused = self.operated.pauses.cover(&pool.key.database);
        }
    }

    fn backends_in(&self, scope: &Scope, wanted: impl Fn(State) -> bool) -> Vec<BackendKey> {
        let taken = self.backends.iter().enumerate().filter_map(|(slot, taken)| match taken {
            Slot::Taken(backend) if wanted(backend.state) => {
                let pool = self.pools.get(backend.pool.0 as usize)?.as_ref()?;
                let index = u32::try_from(slot).unwrap_or(u32::MAX);
                scope.covers(&pool.key.database).then_some(BackendKey { index, generation: backend.generation })
            }
            Slot::Taken(_) | Slot::Free { .. } => None,
        });
        taken.collect()
    }
}
