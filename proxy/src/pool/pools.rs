//! The pools of one worker.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::backend::{Backend, State};
use super::key::{BackendKey, NodeIdentity, OpenTicket, PoolKey, Proof, SessionKey};
use super::order::{Checkout, Farewell, Order, PoolMode, Settings, WaitFailure};
use super::owed::{Kind, Reply, Rule};
use super::pause::Operated;
use super::quota::{Quota, Quotas};
use super::tally::{Past, Tally};

/// Names one pool of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolIndex(pub(super) u32);

pub(super) struct Pool {
    pub(super) key: PoolKey,
    pub(super) quota: Arc<Quota>,
    /// Last in, first out: the rest can grow old and be closed.
    pub(super) idle: Vec<BackendKey>,
    pub(super) waiting: VecDeque<Waiter>,
    /// Backends of this worker, whatever their state.
    pub(super) open: u32,
    /// Connections being opened.
    pub(super) opening: u32,
    /// After a failure with other backends alive, nothing is opened before this.
    pub(super) retry_at: Option<Instant>,
    /// Sessions that have looked this pool up and not left.
    pub(super) users: u32,
    /// Nothing is lent and nothing is opened.
    pub(super) paused: bool,
    /// Connections asked for under a lower ticket are not wanted any more.
    pub(super) recalled_below: u64,
    /// Of backends that are gone, and what only the pool knows.
    pub(super) tally: Tally,
}

pub(super) struct Waiter {
    pub(super) session: SessionKey,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
}

/// The pools of one worker, their backends and those who wait.
pub struct Pools {
    pub(super) settings: Settings,
    pub(super) quotas: Arc<Quotas>,
    pub(super) worker: usize,
    pub(super) by_key: HashMap<PoolKey, PoolIndex>,
    pub(super) pools: Vec<Option<Pool>>,
    pub(super) free_pools: Vec<u32>,
    pub(super) backends: Vec<Slot>,
    pub(super) free_backends: Vec<u32>,
    pub(super) tickets: HashMap<OpenTicket, super::opening::Opening>,
    pub(super) next_ticket: u64,
    /// Of a slot that is new.
    pub(super) first_generation: u32,
    pub(super) orders: Vec<Order>,
    pub(super) draining: bool,
    pub(super) operated: Operated,
    pub(super) past: Past,
}

/// What has become of a node since a backend was opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Current,
    /// It has the same name and region, and another address, user, …
    Replaced,
    /// It is not there, or not in that region.
    Gone,
}

pub(super) enum Slot {
    Free { generation: u32 },
    Taken(Box<Backend>),
}

impl Pools {
    /// Pools without a backend.
    pub fn new(settings: Settings, quotas: Arc<Quotas>, worker: usize) -> Self {
        Self {
            settings,
            quotas,
            worker,
            by_key: HashMap::new(),
            pools: Vec::new(),
            free_pools: Vec::new(),
            backends: Vec::new(),
            free_backends: Vec::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            first_generation: 0,
            orders: Vec::new(),
            draining: false,
            operated: Operated::default(),
            past: Past::default(),
        }
    }

    /// The same for a worker that is not the first of its number: what was asked for by a former one, and answers about its backends,
    /// must not be taken for its own.
    pub fn in_life(mut self, life: u64) -> Self {
        self.first_generation = u32::try_from(life & 0xfff).unwrap_or(0) << 20;
        self.next_ticket = life << 32;
        self
    }

    /// The bounds in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// New settings. A backend whose node is not in its region any more is closed, whoever has it: those are returned: where
    /// they were, and whether a message from them was cut off. One whose node is only reached in another way is closed when it is given back.
    pub fn apply(&mut self, settings: Settings) -> Vec<(State, bool)> {
        self.settings = settings;
        let all = self.backends.iter().enumerate().filter_map(|(slot, taken)| match taken {
            Slot::Taken(backend) => {
                let index = u32::try_from(slot).unwrap_or(u32::MAX);
                let key = BackendKey { index, generation: backend.generation };
                Some((key, backend.state, backend.splitter.is_streaming(), self.standing(backend.node())))
            }
            Slot::Free { .. } => None,
        });
        let all: Vec<_> = all.collect();
        let mut gone = Vec::new();
        for (key, state, cut, standing) in all {
            match standing {
                Standing::Current => {}
                Standing::Replaced if state == State::Idle => self.close(key, Farewell::Terminate),
                Standing::Replaced => {
                    if let Some(backend) = self.get(key) {
                        backend.retired = true;
                    }
                }
                Standing::Gone => {
                    self.close(key, Farewell::Abrupt);
                    gone.push((state, cut));
                }
            }
        }
        gone
    }

    pub(super) fn standing(&self, node: &Arc<NodeIdentity>) -> Standing {
        if self.settings.nodes.iter().any(|known| Arc::ptr_eq(known, node)) {
            Standing::Current
        } else if self.settings.nodes.contains(node) {
            Standing::Replaced
        } else {
            Standing::Gone
        }
    }

    /// What is to be done since the last call, in order.
    pub fn take_orders(&mut self) -> Vec<Order> {
        mem::take(&mut self.orders)
    }

    /// Whether there is something to do.
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Registers a user of the pool of this key, making the pool when there is none yet.
    pub fn enter(&mut self, key: &PoolKey) -> PoolIndex {
        let index = self.by_key.get(key).copied().unwrap_or_else(|| {
            let quota = self.quotas.of(key);
            let pool = Pool {
                paused: self.operated.pauses(&key.database),
                recalled_below: 0,
                tally: Tally::default(),
                key: key.clone(),
                quota,
                idle: Vec::new(),
                waiting: VecDeque::new(),
                open: 0,
                opening: 0,
                retry_at: None,
                users: 0,
            };
            let index = self.free_pools.pop().unwrap_or_else(|| {
                self.pools.push(None);
                u32::try_from(self.pools.len() - 1).unwrap_or(u32::MAX)
            });
            self.pools[index as usize] = Some(pool);
            self.by_key.insert(key.clone(), PoolIndex(index));
            PoolIndex(index)
        });
        if let Some(pool) = self.pool(index) {
            pool.users += 1;
        }
        index
    }

    /// A user is gone. A pool without users, backends and openings is forgotten.
    pub fn leave(&mut self, index: PoolIndex) {
        if let Some(pool) = self.pool(index) {
            pool.users = pool.users.saturating_sub(1);
        }
        self.forget_if_unused(index);
    }

    pub(super) fn forget_if_unused(&mut self, index: PoolIndex) {
        let unused = self
            .pool(index)
            .is_some_and(|pool| pool.users == 0 && pool.open == 0 && pool.opening == 0 && pool.waiting.is_empty());
        if unused && let Some(pool) = self.pools[index.0 as usize].take() {
            self.by_key.remove(&pool.key);
            self.free_pools.push(index.0);
            self.keep_tally(&pool);
            let key = pool.key.clone();
            drop(pool);
            self.quotas.forget(&key);
        }
    }

    /// A backend by its key; `None` when it is gone.
    pub fn get(&mut self, key: BackendKey) -> Option<&mut Backend> {
        match self.backends.get_mut(key.index as usize) {
            Some(Slot::Taken(backend)) if backend.generation == key.generation => Some(backend),
            Some(Slot::Taken(_) | Slot::Free { .. }) | None => None,
        }
    }

    /// Lends a backend of the pool to the session, or lets it wait. The proof's region must be the pool's: if it is not, nothing is
    /// lent and the call fails.
    pub fn checkout(&mut self, proof: impl Proof, index: PoolIndex, session: SessionKey, now: Instant) -> Option<Checkout> {
        let wait_timeout = self.settings.wait_timeout;
        let pool = self.pool(index)?;
        if pool.key.region != proof.region() {
            return None;
        }
        // Those who wait already come first.
        let first = if pool.waiting.is_empty() && !pool.paused { pool.idle.pop() } else { None };
        if let Some(key) = first {
            let region = proof.region();
            let backend = self.get(key)?;
            // The last assertion before a session and a server meet: both are of the same region.
            if backend.region() != region {
                self.close(key, Farewell::Abrupt);
                return None;
            }
            backend.state = State::Bound(session);
            backend.tally.assignments += 1;
            return Some(Checkout::Bound(key));
        }
        pool.waiting.push_back(Waiter { session, since: now, deadline: now + wait_timeout });
        self.open_more(index, now);
        Some(Checkout::Waiting)
    }

    /// A session no longer waits.
    pub fn stop_waiting(&mut self, index: PoolIndex, session: SessionKey) {
        if let Some(pool) = self.pool(index) {
            pool.waiting.retain(|waiter| waiter.session != session);
        }
        self.note_hunger(index);
    }

    /// A session gives its backend back. The rules by which it may serve another:
    ///
    /// 1. it must be at rest ([`Backend::is_at_rest`]); else it is closed, so that the server rolls back: an open transaction, an
    ///    unfinished reply or half a message never meets the next session;
    /// 2. a cancel request that is on its way to it must be over; until then it is withheld ([`Pools::end_cancel`]);
    /// 3. everything sent to it must have left; until then it waits ([`Pools::flushed`]);
    /// 4. in session mode, or when the session left something behind, DISCARD ALL is sent first, must be answered without error and must
    ///    bring all settings that the server reports back to what they were at login; what it cannot undo closes the backend;
    /// 5. past its lifetime, or when there are too many, it is closed.
    pub fn release(&mut self, key: BackendKey, now: Instant) {
        let reset_always = self.settings.mode == PoolMode::Session || self.settings.reset_always;
        let Some(backend) = self.get(key) else { return };
        if !backend.is_at_rest() {
            return self.close(key, Farewell::Abrupt);
        }
        if backend.spoiled {
            return self.close(key, Farewell::Terminate);
        }
        if backend.cancelling.is_some() {
            backend.state = State::Withheld;
            return;
        }
        if backend.unflushed {
            backend.release_when_flushed = true;
            backend.state = State::Resetting;
            backend.idle_since = now;
            return;
        }
        if backend.dirty || reset_always {
            backend.state = State::Resetting;
            backend.idle_since = now;
            backend.dirty = false;
            backend.prepared.clear();
            // A clean bill for the statement: only its ReadyForQuery `I` without an error makes the backend idle again.
            let reply = Reply { session: None, kind: Kind::Query, rule: Rule::Swallow, noted: false };
            let counts = backend.owed.push(reply);
            debug_assert!(counts, "a backend at rest is neither skipping nor copying");
            self.orders.push(Order::Reset(key));
            return;
        }
        self.make_idle(key, now);
    }

    /// The engine has sent all it had for this backend.
    pub fn flushed(&mut self, key: BackendKey, now: Instant) {
        let Some(backend) = self.get(key) else { return };
        backend.unflushed = false;
        if mem::take(&mut backend.release_when_flushed) {
            self.release(key, now);
        }
    }

    /// The reset was answered; `failed` when with an error.
    pub fn reset_answered(&mut self, key: BackendKey, failed: bool, now: Instant) {
        let Some(backend) = self.get(key) else { return };
        if failed || !backend.is_at_rest() || backend.parameters != backend.initial {
            return self.close(key, Farewell::Abrupt);
        }
        backend.state = State::Idle;
        self.make_idle(key, now);
    }

    /// Lends the backend to the next waiter, gives it to a worker that needs it more, or lays it aside.
    pub(super) fn make_idle(&mut self, key: BackendKey, now: Instant) {
        let (lifetime, worker) = (self.settings.lifetime, self.worker);
        let share = self.share();
        let Some(backend) = self.get(key) else { return };
        let index = backend.pool;
        let unwanted = backend.is_unwanted();
        let too_old = !lifetime.is_zero() && now.saturating_duration_since(backend.opened_at) >= lifetime;
        backend.idle_since = now;
        backend.owed.shrink();
        if too_old || unwanted || self.is_paused(index) {
            return self.close(key, Farewell::Terminate);
        }
        let Some(pool) = self.pool(index) else { return };
        let needed_elsewhere = match pool.quota.hungry_other(worker, true) {
            Some(starving) => Some(starving),
            None if pool.waiting.is_empty() || pool.open > share => pool.quota.hungry_other(worker, false),
            None => None,
        };
        if let Some(other) = needed_elsewhere {
            pool.quota.fed(other);
            return self.move_to(key, other);
        }
        self.lend_or_lay_aside(key);
    }

    pub(super) fn lend_or_lay_aside(&mut self, key: BackendKey) {
        let draining = self.draining;
        let Some(backend) = self.get(key) else { return };
        let index = backend.pool;
        let Some(pool) = self.pool(index) else { return };
        if pool.paused {
            return self.close(key, Farewell::Terminate);
        }
        if let Some(waiter) = pool.waiting.pop_front() {
            if let Some(backend) = self.get(key) {
                backend.state = State::Bound(waiter.session);
                backend.tally.assignments += 1;
                // It became idle just now.
                backend.tally.wait_time += backend.idle_since.saturating_duration_since(waiter.since);
            }
            self.orders.push(Order::Bind(waiter.session, key));
            return self.note_hunger(index);
        }
        if draining {
            return self.close(key, Farewell::Terminate);
        }
        pool.idle.push(key);
        if let Some(backend) = self.get(key) {
            backend.state = State::Idle;
        }
    }

    /// The connection is gone (closed by the peer, or broken).
    pub fn lost(&mut self, key: BackendKey) {
        self.remove(key);
    }

    /// Closes a backend.
    pub fn close(&mut self, key: BackendKey, farewell: Farewell) {
        if self.remove(key) {
            self.orders.push(Order::Close(key, farewell));
        }
    }

    pub(super) fn remove(&mut self, key: BackendKey) -> bool {
        let Some(backend) = self.get(key) else { return false };
        let (index, state) = (backend.pool, backend.state);
        self.free_backend(key);
        if let Some(pool) = self.pool(index) {
            pool.open -= 1;
            if state == State::Idle {
                pool.idle.retain(|idle| *idle != key);
            }
        }
        self.gave_back_quota(index);
        self.open_for_waiters(index);
        self.forget_if_unused(index);
        true
    }

    pub(super) fn free_backend(&mut self, key: BackendKey) {
        if let Some(backend) = self.get(key) {
            let (index, tally) = (backend.pool, backend.tally);
            if let Some(pool) = self.pool(index) {
                pool.tally += &tally;
            }
        }
        self.backends[key.index as usize] = Slot::Free { generation: key.generation.wrapping_add(1) };
        self.free_backends.push(key.index);
    }

    /// Ends what has waited or idled for too long.
    pub fn tick(&mut self, now: Instant) {
        self.close_unready(now);
        let idle_timeout = self.settings.idle_timeout;
        for index in self.indices() {
            let Some(pool) = self.pool(index) else { continue };
            // Waiters stand in order of arrival and all wait equally long.
            let late = pool.waiting.iter().take_while(|waiter| waiter.deadline <= now).count();
            let late: Vec<Waiter> = pool.waiting.drain(..late).collect();
            let idle = pool.idle.clone();
            self.orders.extend(late.into_iter().map(|waiter| Order::Fail(waiter.session, WaitFailure::TimedOut)));
            for key in idle {
                let Some(backend) = self.get(key) else { continue };
                let idle_for = now.saturating_duration_since(backend.idle_since);
                if backend.is_unwanted() || !idle_timeout.is_zero() && idle_for >= idle_timeout {
                    self.close(key, Farewell::Terminate);
                }
            }
            self.open_more(index, now);
            self.forget_if_unused(index);
        }
    }

    /// Closes the backends that do not become ready after they were given back: their server is silent, or talks of other things.
    fn close_unready(&mut self, now: Instant) {
        let reset_timeout = self.settings.reset_timeout;
        let late = self.backends.iter().enumerate().filter_map(|(slot, taken)| match taken {
            Slot::Taken(backend) if backend.state == State::Resetting => {
                let index = u32::try_from(slot).unwrap_or(u32::MAX);
                let is_late = now.saturating_duration_since(backend.idle_since) >= reset_timeout;
                is_late.then_some(BackendKey { index, generation: backend.generation })
            }
            Slot::Taken(_) | Slot::Free { .. } => None,
        });
        let late: Vec<BackendKey> = late.collect();
        late.into_iter().for_each(|key| self.close(key, Farewell::Abrupt));
    }

    /// From now on backends are closed as they are given back, idle ones at once.
    pub fn drain(&mut self) {
        self.draining = true;
        for index in self.indices() {
            let idle = self.pool(index).map(|pool| pool.idle.clone()).unwrap_or_default();
            idle.into_iter().for_each(|key| self.close(key, Farewell::Terminate));
        }
    }

    /// Backends of this worker: (idle, lent or being reset, being opened), and sessions that wait.
    pub fn totals(&self) -> (usize, usize, usize, usize) {
        self.pools.iter().flatten().fold((0, 0, 0, 0), |(idle, busy, opening, waiting), pool| {
            (
                idle + pool.idle.len(),
                busy + pool.open as usize - pool.idle.len(),
                opening + pool.opening as usize,
                waiting + pool.waiting.len(),
            )
        })
    }

    pub(super) fn indices(&self) -> Vec<PoolIndex> {
        self.by_key.values().copied().collect()
    }

    pub(super) fn pool(&mut self, index: PoolIndex) -> Option<&mut Pool> {
        self.pools.get_mut(index.0 as usize)?.as_mut()
    }
}

/// The rights to what a worker had go back, whatever way it has ended.
impl Drop for Pools {
    fn drop(&mut self) {
        for pool in mem::take(&mut self.pools).into_iter().flatten() {
            (0..pool.open + pool.opening).for_each(|_| pool.quota.give_back());
            pool.quota.set_hungry(self.worker, false, false);
            pool.quota.set_region_hungry(self.worker, false);
            let key = pool.key.clone();
            drop(pool);
            self.quotas.forget(&key);
        }
    }
}
