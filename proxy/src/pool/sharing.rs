//! What the workers share: the right to open backends, and idle backends that others need more.

use std::mem;
use std::time::Instant;

use super::backend::{MovedBackend, State};
use super::key::BackendKey;
use super::order::{Farewell, Order};
use super::pools::{Pool, PoolIndex, Pools, Standing};
use super::quota::Right;
use crate::region::RegionId;

impl Pools {
    pub(super) fn move_to(&mut self, key: BackendKey, other: usize) {
        let Some(backend) = self.get(key) else { return };
        backend.state = State::Moving;
        let (info, opened_at, index) = (backend.info(), backend.opened_at, backend.pool);
        // Workers number unnamed statements each for itself.
        backend.prepared.forget_unnamed();
        let (initial, prepared) = (backend.initial.clone(), mem::take(&mut backend.prepared));
        let Some(pool) = self.pool(index) else { return };
        // The right to it travels with it.
        let right = Right::of(&pool.quota);
        let moved = MovedBackend { key: pool.key.clone(), info, opened_at, initial, prepared, right };
        pool.open -= 1;
        self.free_backend(key);
        self.orders.push(Order::Move(key, other, Box::new(moved)));
        self.note_hunger(index);
        self.forget_if_unused(index);
    }

    /// A backend came from another worker, with the right to it.
    pub fn arrived(&mut self, moved: MovedBackend, now: Instant) -> Option<BackendKey> {
        if self.standing(&moved.info.node) != Standing::Current || self.operated.recalls(&moved) {
            self.move_failed(moved);
            return None;
        }
        let MovedBackend { key, info, opened_at, initial, prepared, right } = moved;
        let index = self.enter(&key);
        let key = self.admit(index, info, opened_at, now);
        right.has_arrived();
        if let Some(backend) = self.get(key) {
            backend.initial = initial;
            backend.prepared = prepared;
        }
        self.leave(index);
        Some(key)
    }

    /// A backend was lost between two workers: the right to it is given back.
    pub fn move_failed(&mut self, moved: MovedBackend) {
        let index = self.enter(&moved.key);
        drop(moved.right);
        self.tell_hungry(index);
        self.leave(index);
    }

    pub(super) fn gave_back_quota(&mut self, index: PoolIndex) {
        if let Some(pool) = self.pool(index) {
            pool.quota.give_back();
        }
        self.tell_hungry(index);
    }

    /// A right has been given back: somebody may wait for it.
    fn tell_hungry(&mut self, index: PoolIndex) {
        let worker = self.worker;
        let Some(pool) = self.pool(index) else { return };
        if let Some(other) = pool.quota.hungry_other(worker, false) {
            self.orders.push(Order::QuotaChanged(other));
        }
    }

    pub(super) fn note_hunger(&mut self, index: PoolIndex) {
        let (worker, workers) = (self.worker, self.settings.workers);
        if let Some(pool) = self.pool(index) {
            let hungry = !pool.paused && pool.waiting.len() > pool.opening as usize;
            if pool.quota.set_hungry(worker, hungry, pool.open + pool.opening == 0) {
                // Others may have idle backends.
                self.orders.extend((0..workers).filter(|other| *other != worker).map(Order::QuotaChanged));
            }
        }
    }

    /// The region is full, and a pool of it needs a backend: closes the one that another pool has not used for longest. False: there
    /// is none here, and the other workers are asked for one.
    pub(super) fn make_room(&mut self, index: PoolIndex) -> bool {
        let (worker, workers) = (self.worker, self.settings.workers);
        let Some(region) = self.pool(index).map(|pool| pool.key.region) else { return false };
        if self.close_idlest(region, Some(index)) {
            return true;
        }
        if let Some(pool) = self.pool(index)
            && pool.quota.set_region_hungry(worker, true)
        {
            self.orders.extend((0..workers).filter(|other| *other != worker).map(Order::QuotaChanged));
        }
        false
    }

    /// Closes the backend of a region that has been idle for longest, of those that no session of its own pool waits for.
    fn close_idlest(&mut self, region: RegionId, but: Option<PoolIndex>) -> bool {
        let spare = |(place, pool): (usize, &Option<Pool>)| {
            let index = PoolIndex(u32::try_from(place).ok()?);
            let pool = pool.as_ref().filter(|pool| pool.key.region == region && pool.waiting.is_empty())?;
            // The first of the list is the one that has been there for longest.
            pool.idle.first().copied().filter(|_| but != Some(index))
        };
        let spares: Vec<BackendKey> = self.pools.iter().enumerate().filter_map(spare).collect();
        let idlest = spares.into_iter().filter_map(|key| Some((self.get(key)?.idle_since, key))).min_by_key(|(since, _)| *since);
        if let Some((_, key)) = idlest {
            self.close(key, Farewell::Terminate);
        }
        idlest.is_some()
    }

    /// Gives up idle backends of regions in which other workers need a place.
    fn give_room(&mut self) {
        let worker = self.worker;
        for index in self.indices() {
            while let Some(pool) = self.pool(index)
                && let region = pool.key.region
                && let Some(other) = pool.quota.region_hungry_other(worker)
                && self.close_idlest(region, None)
            {
                if let Some(pool) = self.pool(index) {
                    pool.quota.set_region_hungry(other, false);
                }
                self.orders.push(Order::QuotaChanged(other));
            }
        }
    }

    /// This worker's fair part of a pool. Rounded up, so that two workers never pass the odd one to and fro.
    pub(super) fn share(&self) -> u32 {
        self.settings.size.div_ceil(u32::try_from(self.settings.workers).unwrap_or(1).max(1))
    }

    /// Another worker has given quota back, or has run out of it.
    pub fn quota_changed(&mut self, now: Instant) {
        for index in self.indices() {
            self.open_more(index, now);
            self.spare_idle(index);
        }
        self.give_room();
    }

    /// Hands idle backends to workers whose sessions wait.
    pub(super) fn spare_idle(&mut self, index: PoolIndex) {
        let worker = self.worker;
        while let Some(pool) = self.pool(index)
            && let Some(other) = pool.quota.hungry_other(worker, false)
            && let Some(key) = pool.idle.pop()
        {
            pool.quota.fed(other);
            self.move_to(key, other);
        }
    }
}
