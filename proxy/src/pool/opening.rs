//! New connections: asked for as waiters need them, admitted when they are there, given up when they are not to be had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::key::{BackendInfo, BackendKey, OpenError, OpenTicket, SessionKey};
use super::order::{Order, WaitFailure};
use super::pools::{PoolIndex, Pools, Slot, Standing, Waiter};
use crate::wire::startup::Replication;

/// While others are alive, a connection that could not be opened is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A connection that was asked for.
pub(super) struct Opening {
    pub(super) pool: PoolIndex,
    /// Who waited longest without one.
    session: Option<SessionKey>,
}

impl Pools {
    /// The session because of which a connection was asked for. Another one may get it.
    pub fn opened_for(&self, ticket: OpenTicket) -> Option<SessionKey> {
        self.tickets.get(&ticket)?.session
    }

    /// A connection was opened. `None`: nobody wants it any more; its quota is given back and the caller closes it.
    pub fn opened(&mut self, ticket: OpenTicket, info: BackendInfo, now: Instant) -> Option<BackendKey> {
        let Opening { pool: index, .. } = self.tickets.remove(&ticket)?;
        let (draining, stands) = (self.draining, self.standing(&info.node) == Standing::Current);
        let pool = self.pool(index)?;
        pool.opening -= 1;
        pool.retry_at = None;
        let unwanted = pool.paused || ticket.0 < pool.recalled_below || draining && pool.waiting.is_empty();
        if info.node.region != pool.key.region || !stands || unwanted {
            self.gave_back_quota(index);
            self.open_for_waiters(index);
            self.forget_if_unused(index);
            return None;
        }
        Some(self.admit(index, info, now, now))
    }

    pub(super) fn admit(&mut self, index: PoolIndex, info: BackendInfo, opened_at: Instant, now: Instant) -> BackendKey {
        let slot = self.free_backends.pop().unwrap_or_else(|| {
            self.backends.push(Slot::Free { generation: self.first_generation });
            u32::try_from(self.backends.len() - 1).unwrap_or(u32::MAX)
        });
        let generation = match &self.backends[slot as usize] {
            Slot::Free { generation } => *generation,
            Slot::Taken(backend) => backend.generation,
        };
        let key = BackendKey { index: slot, generation };
        let mut backend = Box::new(Backend::new(generation, index, info, opened_at, now));
        backend.spoiled = self.pool(index).is_some_and(|pool| pool.key.replication != Replication::None);
        self.backends[slot as usize] = Slot::Taken(backend);
        if let Some(pool) = self.pool(index) {
            pool.open += 1;
        }
        // Whoever it came for gets it before other workers may ask for it.
        self.lend_or_lay_aside(key);
        key
    }

    /// A connection could not be opened. With no other backend alive everybody who waits for this pool gets the error; else they go
    /// on waiting for the others, and nothing new is tried for a second. If the node is not there, those others are not worth much:
    /// they are waited for no longer than until the next failure.
    pub fn open_failed(&mut self, ticket: OpenTicket, error: OpenError, now: Instant) {
        let Some(Opening { pool: index, .. }) = self.tickets.remove(&ticket) else { return };
        if let Some(pool) = self.pool(index) {
            pool.opening -= 1;
        }
        self.gave_back_quota(index);
        let Some(pool) = self.pool(index) else { return };
        let given_up = if pool.open == 0 && pool.opening == 0 {
            // Whoever comes next asks anew: it is known outside how long the node is left alone, and the answer comes at once.
            pool.retry_at = None;
            pool.waiting.len()
        } else {
            pool.retry_at = Some(now + RETRY_AFTER);
            // They stand in order of arrival. For some of them a connection is still on its way.
            let patient = pool.waiting.iter().take_while(|waiter| waiter.since + RETRY_AFTER <= now).count();
            let without = pool.waiting.len().saturating_sub(pool.opening as usize);
            if error.is_absence() { patient.min(without) } else { 0 }
        };
        let given_up: Vec<Waiter> = pool.waiting.drain(..given_up).collect();
        let error = Arc::new(error);
        self.orders.extend(given_up.into_iter().map(|waiter| Order::Fail(waiter.session, WaitFailure::Open(error.clone()))));
        self.note_hunger(index);
        self.forget_if_unused(index);
    }

    /// Opens as many connections as there are waiters without one on its way, if the quota allows.
    pub(super) fn open_more(&mut self, index: PoolIndex, now: Instant) {
        if let Some(pool) = self.pool(index) {
            pool.retry_at = pool.retry_at.filter(|at| *at > now);
            self.open_for_waiters(index);
        }
    }

    pub(super) fn open_for_waiters(&mut self, index: PoolIndex) {
        let (size, per_region_max, worker) = (self.settings.size, self.settings.per_region_max, self.worker);
        loop {
            let ticket = OpenTicket(self.next_ticket);
            let Some(pool) = self.pool(index) else { return };
            // Without a backend there is nobody to wait for.
            let may_wait = pool.retry_at.is_some() && pool.open + pool.opening > 0;
            let wanted = !pool.paused && pool.waiting.len() > pool.opening as usize && !may_wait;
            if !wanted {
                break;
            }
            if !pool.quota.try_take(size, per_region_max) {
                if pool.quota.is_held_by_region(size) && self.make_room(index) {
                    continue;
                }
                break;
            }
            pool.quota.set_region_hungry(worker, false);
            let session = pool.waiting.get(pool.opening as usize).map(|waiter| waiter.session);
            pool.opening += 1;
            let request = pool.key.clone();
            self.next_ticket += 1;
            self.tickets.insert(ticket, Opening { pool: index, session });
            self.orders.push(Order::Open(ticket, request));
        }
        self.note_hunger(index);
    }
}
