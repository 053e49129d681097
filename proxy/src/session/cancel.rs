//! Cancel requests: which session a key names, and what is done about it.
//!
//! A key names a session of ours, never a server. It reaches the backend that is lent to this session now and owes it something, and
//! no other: where there is none, there is nothing to cancel, and the request is dropped. While a request is on its way to the
//! server, the backend is withheld from everybody else (`pool::withheld`). A session that stands in the queue of a pool is answered
//! here, so that cancelling works while a pool is exhausted.
//!
//! Layout of the process IDs that are not a server's (31 bits, so that they are positive as signed numbers):
//!
//! ```text
//!   bit 30      1: no operating system numbers its processes so high
//!   bits 24–29  the worker
//!   bits 0–23   the session's place in the worker's table
//! ```

use std::collections::HashMap;

use smallvec::SmallVec;

use super::client::Wait;
use super::{Core, Outputs, Refusal, SessionKey, Slot};
use crate::pool::{BackendKey, CancelTarget, State};
use crate::wire::SqlState;
use crate::wire::startup::CancelRequest;

const OURS: u32 = 1 << 30;
const WORKER_SHIFT: u32 = 24;
const PLACE_MASK: u32 = (1 << WORKER_SHIFT) - 1;
const WORKER_MASK: u32 = 0x3f;

/// A process ID has room for every worker that the pools can keep apart.
const _: () = assert!(crate::pool::WORKERS_MAX <= WORKER_MASK as usize + 1);

/// The process ID of a session that shows none of a server.
pub(super) fn process_id(worker: usize, place: u32) -> u32 {
    let worker = u32::try_from(worker).unwrap_or(0) & WORKER_MASK;
    // Sessions beyond 16 million in a worker share IDs; their secrets still tell them apart.
    OURS | worker << WORKER_SHIFT | place & PLACE_MASK
}

/// Whether a process ID can be shown as it is: positive, and not taken for one of ours.
pub(super) fn is_of_a_server(process_id: u32) -> bool {
    process_id != 0 && process_id < OURS
}

/// The worker whose session a process ID names; `None`: any worker's.
pub fn worker_of_process(process_id: u32) -> Option<usize> {
    (process_id & OURS != 0).then_some((process_id >> WORKER_SHIFT & WORKER_MASK) as usize)
}

/// Sessions that show a server's process ID. Servers number their processes each for itself, so several may show the same.
#[derive(Default)]
pub(super) struct ProcessIds(HashMap<u32, SmallVec<[SessionKey; 1]>>);

impl ProcessIds {
    pub(super) fn insert(&mut self, process_id: u32, session: SessionKey) {
        self.0.entry(process_id).or_default().push(session);
    }

    pub(super) fn remove(&mut self, process_id: u32, session: SessionKey) {
        if let Some(sessions) = self.0.get_mut(&process_id) {
            sessions.retain(|known| *known != session);
            if sessions.is_empty() {
                self.0.remove(&process_id);
            }
        }
    }
}

/// A cancel request that has to go to a server.
#[derive(Debug)]
pub struct CancelOrder {
    /// The backend; [`Core::cancel_over`] wants it back.
    pub backend: BackendKey,
    /// Where to.
    pub target: CancelTarget,
}

/// What becomes of a cancel request.
#[derive(Debug)]
pub enum Cancel {
    /// No session of this worker has this key.
    Unknown,
    /// It is dealt with: the session was waiting, or does nothing that could be cancelled, or one like it is on its way.
    Done,
    /// It goes to a server.
    Send(CancelOrder),
}

impl Core {
    /// Somebody has shown a key and wants what its session is doing to be cancelled.
    pub fn cancel(&mut self, request: &CancelRequest, out: &mut Outputs) -> Cancel {
        let Some(key) = self.session_of(request) else { return Cancel::Unknown };
        let Some(session) = self.sessions.get(key) else { return Cancel::Unknown };
        let counters = &self.common.counters;
        if session.wait == Wait::Backend {
            if let Some((_, pool)) = session.pool {
                self.common.pools.stop_waiting(pool, key);
            }
            session.failure = Some(Refusal::cancelled().into());
            counters.cancels_answered_total.add(1);
            self.common.wake(session);
            self.carry_on(out);
            return Cancel::Done;
        }
        let Some(backend) = session.backend.filter(|_| !session.is_quiet()) else {
            counters.cancels_dropped_total.add(1);
            return Cancel::Done;
        };
        match self.common.pools.begin_cancel(backend) {
            Some(target) => {
                counters.cancels_sent_total.add(1);
                Cancel::Send(CancelOrder { backend, target })
            }
            None => Cancel::Done,
        }
    }

    /// A request that was sent is over: the server has closed its connection, or has never got it (`is_over`), or nobody knows. What
    /// is to be sent next: a request that came in the meantime.
    pub fn cancel_over(&mut self, backend: BackendKey, is_over: bool, out: &mut Outputs) -> Option<CancelOrder> {
        let again = self.common.pools.end_cancel(backend, is_over, self.common.now);
        if let Some(State::Bound(session)) = self.common.pools.get(backend).map(|found| found.state())
            && let Some(session) = self.sessions.get(session)
            && session.wait == Wait::Cancel
        {
            self.common.wake(session);
        }
        let owes = self.common.pools.get(backend).is_some_and(|found| !found.owed.is_empty());
        let next = if again && owes { self.common.pools.begin_cancel(backend) } else { None };
        self.common.counters.cancels_sent_total.add(u64::from(next.is_some()));
        self.carry_on(out);
        next.map(|target| CancelOrder { backend, target })
    }

    fn session_of(&mut self, request: &CancelRequest) -> Option<SessionKey> {
        let id = request.process_id;
        let keys: SmallVec<[SessionKey; 1]> = match worker_of_process(id) {
            Some(worker) if worker != self.common.pools.worker() => SmallVec::new(),
            Some(_) => match self.sessions.slots.get((id & PLACE_MASK) as usize) {
                Some(Slot::Taken(session)) => [session.key].into(),
                Some(Slot::Free { .. }) | None => SmallVec::new(),
            },
            None => self.common.process_ids.0.get(&id).cloned().unwrap_or_default(),
        };
        let shown = |session: &super::Session| session.process_id == id && session.secret.is_shown_by(&request.secret);
        keys.into_iter().find(|key| self.sessions.get(*key).is_some_and(|session| shown(session)))
    }
}

impl Refusal {
    /// In PostgreSQL's words.
    fn cancelled() -> Self {
        Self::new(SqlState::QUERY_CANCELED, "canceling statement due to user request")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_names_worker_and_place_and_is_positive() {
        for (worker, place) in [(0, 0), (63, 0), (0, PLACE_MASK), (63, PLACE_MASK), (5, 77)] {
            let id = process_id(worker, place);
            assert!(i32::try_from(id).unwrap() > 0);
            assert_eq!((worker_of_process(id), id & PLACE_MASK), (Some(worker), place));
            assert!(!is_of_a_server(id));
        }
        assert_eq!(worker_of_process(4_194_304), None);
        assert!(is_of_a_server(4_194_304) && !is_of_a_server(0) && !is_of_a_server(u32::MAX));
    }

    #[test]
    fn sessions_of_several_servers_may_show_the_same_process_id() {
        let mut ids = ProcessIds::default();
        let session = |index| SessionKey { index, generation: 0 };
        ids.insert(9, session(1));
        ids.insert(9, session(2));
        ids.remove(9, session(1));
        assert_eq!(ids.0[&9].as_slice(), [session(2)]);
        ids.remove(9, session(2));
        assert!(ids.0.is_empty());
    }
}
