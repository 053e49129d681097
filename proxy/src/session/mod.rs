//! The conversations with clients, without any I/O: what arrived goes in, what is to be done comes out.
//!
//! [`Core`] holds every session and every backend of one worker. Its owner keeps to this order: call one of the methods that say what
//! happened, then carry out all [`Outputs`] in order, then the next call. The core reads no clock (time is an argument), opens
//! nothing and never waits.
//!
//! ```text
//!   client bytes ─▶ frontend ─▶ simple   (Query)         ─▶ plan ─┐
//!                      │     └▶ extended (Parse … Sync) ─▶ local ─┼─▶ gate ─▶ policy::decide ─▶ pool::checkout ─▶ backend
//!                      │                                          │      └─ Denial ─▶ ErrorResponse, the session lives on
//!                      └ held back while a backend or a reply is awaited
//!   backend bytes ─▶ backend: whose reply is this? ─▶ that client, or nobody
//! ```
//!
//! There is one way to a backend: [`gate`](mod@gate). Every message that needs one passes it, whatever its kind and whatever the state of
//! the session, and it is asked again for every message, so that a reload takes effect at the next one.

#![forbid(unsafe_code)]

mod backend;
mod cancel;
mod client;
mod counters;
mod extended;
mod frontend;
mod gate;
mod greeting;
mod local;
mod operate;
mod orders;
mod output;
mod pin;
mod place;
mod plan;
mod prepare;
mod prepared;
mod pressure;
mod reading;
mod refusal;
mod region;
mod replication;
mod report;
mod settings;
mod simple;
mod timeouts;
mod unasked;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use client::Session;
use prepared::SharedStatements;

pub use crate::pool::{BackendKey, SessionKey};
pub use cancel::{Cancel, CancelOrder, worker_of_process};
pub use counters::{Counter, Counters, Outcome};
pub use greeting::encode as encode_greeting;
pub use operate::Operation;
pub use output::{AuditRecord, CoreSettings, FirstNodes, Identity, Login, Output, Outputs, Payload};
pub use place::{Count, Place, RegionPlace, RegionPlaces};
pub use prepared::StatementBounds;
pub use pressure::{Memory, Pressure};
pub use refusal::Refusal;
pub use replication::REPLICATION_HINT;
pub use report::{ClientReport, ClientState, Detail, GroupReport, Report, ServerReport, declared};
pub use timeouts::Timeouts;

use crate::policy::Policy;
use crate::pool::{BackendInfo, MovedBackend, OpenError, OpenTicket, Pools, Quotas, State};
use crate::wire::SqlState;
use crate::{sql, table};
use output::Feed;

/// The sessions and backends of one worker.
pub struct Core {
    sessions: Sessions,
    common: Common,
}

/// What all sessions of a worker have in common.
struct Common {
    settings: CoreSettings,
    policy: table::Reader<Policy>,
    sql: sql::Reader,
    pools: Pools,
    counters: Arc<Counters>,
    shared: SharedStatements,
    /// Memory that the heads of renamed messages are cut from.
    scratch: BytesMut,
    now: Instant,
    /// When time was last told to have passed.
    ticked_at: Instant,
    /// When the first timeout can be due.
    timeouts_at: Instant,
    /// Since when there may be clients that are not read because memory is short.
    unread_since: Option<Instant>,
    draining: bool,
    process_ids: cancel::ProcessIds,
    /// Sessions that may look at the bytes they hold.
    resumable: VecDeque<SessionKey>,
}

/// The table of sessions.
#[derive(Default)]
struct Sessions {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// Who has a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// A session, which knows it.
    Session(SessionKey),
    /// The pool, which has something done there: a reset, or waiting for the end of a cancel.
    Pool,
    /// Nobody yet: it is idle or on its way, or the session that it has been lent to in this turn still waits to hear of it.
    Nobody,
}

enum Slot {
    Free { generation: u32 },
    Taken(Box<Session>),
}

impl Sessions {
    fn get(&mut self, key: SessionKey) -> Option<&mut Session> {
        match self.slots.get_mut(key.index as usize) {
            Some(Slot::Taken(session)) if session.key.generation == key.generation => Some(session),
            Some(Slot::Taken(_) | Slot::Free { .. }) | None => None,
        }
    }

    /// Who has a backend in this state.
    fn holder(&mut self, state: State) -> Holder {
        let is_about_to_hear = |session: &mut Session| session.wait == client::Wait::Backend && session.backend.is_none();
        match state {
            State::Bound(owner) if self.get(owner).is_some_and(is_about_to_hear) => Holder::Nobody,
            State::Bound(owner) => Holder::Session(owner),
            State::Idle | State::Moving => Holder::Nobody,
            State::Withheld | State::Resetting => Holder::Pool,
        }
    }

    fn insert(&mut self, make: impl FnOnce(SessionKey) -> Session) -> SessionKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free { generation: 0 });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let generation = match &self.slots[index as usize] {
            Slot::Free { generation } => *generation,
            Slot::Taken(session) => session.key.generation,
        };
        let key = SessionKey { index, generation };
        self.slots[index as usize] = Slot::Taken(Box::new(make(key)));
        key
    }

    fn remove(&mut self, key: SessionKey) -> Option<Box<Session>> {
        self.get(key)?;
        let free = Slot::Free { generation: key.generation.wrapping_add(1) };
        match std::mem::replace(&mut self.slots[key.index as usize], free) {
            Slot::Taken(session) => {
                self.free.push(key.index);
                Some(session)
            }
            Slot::Free { .. } => None,
        }
    }

    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn keys(&self) -> Vec<SessionKey> {
        let taken = self.slots.iter().filter_map(|slot| match slot {
            Slot::Taken(session) => Some(session.key),
            Slot::Free { .. } => None,
        });
        taken.collect()
    }
}

impl Core {
    /// A core without sessions. `worker` is this worker's number, from 0.
    pub fn new(
        settings: CoreSettings,
        policy: table::Reader<Policy>,
        quotas: Arc<Quotas>,
        counters: Arc<Counters>,
        worker: usize,
        now: Instant,
    ) -> Self {
        let life = counters.begin_life();
        let common = Common {
            sql: sql::Reader::new(&settings.parameters),
            pools: Pools::new(settings.pools.clone(), quotas, worker).in_life(life),
            settings,
            policy,
            counters,
            shared: SharedStatements::default(),
            scratch: BytesMut::new(),
            now,
            ticked_at: now,
            timeouts_at: now,
            unread_since: None,
            draining: false,
            process_ids: cancel::ProcessIds::default(),
            resumable: VecDeque::new(),
        };
        Self { sessions: Sessions::default(), common }
    }

    /// A client that has proved who it is, to be greeted. Bytes that it sent behind its login follow by [`Core::frontend_received`].
    pub fn client_ready(&mut self, login: Login, now: Instant, out: &mut Outputs) -> SessionKey {
        self.common.now = now;
        let mode = self.common.settings.pools.mode;
        let key = self.sessions.insert(|key| Session::new(key, login, mode));
        self.common.counters.sessions_total.add(1);
        let serial = self.common.counters.sessions_total.get();
        self.common.counters.sessions.set(self.sessions.len() as u64);
        let draining = self.common.draining;
        if let Some(session) = self.sessions.get(key) {
            session.watch = report::Watch::new(serial, now);
            let refused = self.common.renew_grant(session).err();
            let refused = refused.or_else(|| draining.then(shutting_down));
            if let Some(refusal) = refused {
                output::farewell(key, &refusal, out);
                self.end_session(key, out);
            } else if self.common.welcome(session, out) {
                self.end_session(key, out);
            }
        }
        self.carry_on(out);
        key
    }

    /// Bytes from a client.
    pub fn frontend_received(&mut self, session: SessionKey, chunk: &[u8], out: &mut Outputs) {
        let Some(client) = self.sessions.get(session) else { return };
        #[cfg(feature = "panic")]
        assert!(memchr::memmem::find(chunk, b"domicile_panic").is_none(), "a client has asked for it");
        client.watch.received += chunk.len() as u64;
        client.watch.asked_at = Some(self.common.now);
        let ended = self.common.receive(client, chunk, out);
        if ended {
            self.end_session(session, out);
        }
        self.carry_on(out);
    }

    /// A client is gone: end of stream, reset, or it cannot be sent to.
    pub fn frontend_closed(&mut self, session: SessionKey, out: &mut Outputs) {
        self.end_session(session, out);
        self.carry_on(out);
    }

    /// Bytes from a backend.
    pub fn backend_received(&mut self, backend: BackendKey, chunk: &[u8], out: &mut Outputs) {
        if let Some(found) = self.common.pools.get(backend) {
            found.tally.sent += chunk.len() as u64;
        }
        self.receive_from_backend(backend, chunk, out);
        self.carry_on(out);
    }

    /// A backend closed its connection, or broke it.
    pub fn backend_closed(&mut self, backend: BackendKey, out: &mut Outputs) {
        self.backend_is_lost(backend, out);
        self.carry_on(out);
    }

    /// The engine's queue to this backend has just become empty.
    pub fn backend_flushed(&mut self, backend: BackendKey, out: &mut Outputs) {
        self.common.pools.flushed(backend, self.common.now);
        self.carry_on(out);
    }

    /// A connection that was asked for is there. `None`: it is not wanted any more and must be closed.
    pub fn backend_opened(&mut self, ticket: OpenTicket, info: BackendInfo, out: &mut Outputs) -> Option<BackendKey> {
        let key = self.common.pools.opened(ticket, info, self.common.now);
        self.common.counters.backends_opened_total.add(u64::from(key.is_some()));
        self.carry_on(out);
        key
    }

    /// A connection that was asked for is not to be had.
    pub fn backend_failed(&mut self, ticket: OpenTicket, error: OpenError, out: &mut Outputs) {
        self.common.pools.open_failed(ticket, error, self.common.now);
        self.carry_on(out);
    }

    /// A backend came from another worker.
    pub fn backend_arrived(&mut self, moved: MovedBackend, out: &mut Outputs) -> Option<BackendKey> {
        let key = self.common.pools.arrived(moved, self.common.now);
        self.common.counters.backends_closed_total.add(u64::from(key.is_none()));
        self.carry_on(out);
        key
    }

    /// A backend did not survive its way to another worker.
    pub fn move_failed(&mut self, moved: MovedBackend, out: &mut Outputs) {
        self.common.pools.move_failed(moved);
        self.common.counters.backends_closed_total.add(1);
        self.carry_on(out);
    }

    /// Whether this backend is lent to this session now.
    pub fn is_serving(&mut self, backend: BackendKey, session: SessionKey) -> bool {
        self.common.pools.get(backend).is_some_and(|found| found.state() == State::Bound(session))
    }

    /// Another worker has given quota back, or has run out of it.
    pub fn quota_changed(&mut self, out: &mut Outputs) {
        self.common.pools.quota_changed(self.common.now);
        self.carry_on(out);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, out: &mut Outputs) {
        self.common.now = now;
        self.look_at_timeouts(now, out);
        self.mind_memory(out);
        self.common.pools.tick(now);
        self.carry_on(out);
        let (idle, busy, opening, waiting) = self.common.pools.totals();
        let counters = &self.common.counters;
        counters.backends_idle.set(idle as u64);
        counters.backends_busy.set(busy as u64);
        counters.backends_opening.set(opening as u64);
        counters.sessions_waiting.set(waiting as u64);
    }

    /// No new work: idle backends are closed, clients without a transaction are sent away, the others when theirs is over.
    pub fn drain(&mut self, out: &mut Outputs) {
        self.common.draining = true;
        self.common.pools.drain();
        for key in self.sessions.keys() {
            self.end_stream(key, out);
            let pools = &self.common.pools;
            let may_go = self.sessions.get(key).is_some_and(|session| match session.wait {
                client::Wait::No => session.is_settled(),
                // A pause would hold it until the end.
                client::Wait::Backend => session.pool.is_some_and(|(_, pool)| pools.is_paused(pool)),
                client::Wait::Quiet | client::Wait::Cancel | client::Wait::Preamble(_) => false,
            });
            if may_go {
                output::farewell(key, &shutting_down(), out);
                self.end_session(key, out);
            }
        }
        self.carry_on(out);
    }

    /// Whether every client is gone.
    pub fn is_drained(&self) -> bool {
        self.common.draining && self.sessions.len() == 0
    }

    /// New settings, after a reload. A session whose backend is on a node that has left the region goes with it.
    pub fn apply(&mut self, settings: CoreSettings, out: &mut Outputs) {
        for (state, cut) in self.common.pools.apply(settings.pools.clone()) {
            let refusal =
                Refusal::new(SqlState::ADMIN_SHUTDOWN, "the server of this session does not belong to its region any more");
            self.session_lost_backend(state, cut, &refusal, out);
        }
        if settings.parameters != self.common.settings.parameters {
            self.common.sql = sql::Reader::new(&settings.parameters);
        }
        self.common.timeouts_at = self.common.now;
        self.common.settings = settings;
        self.carry_on(out);
    }

    /// Forgets a session and gives back or closes what it had. The client's socket is closed by `CloseFrontend`, or is already.
    fn end_session(&mut self, key: SessionKey, out: &mut Outputs) {
        let Some(session) = self.sessions.remove(key) else { return };
        self.common.let_go(*session, out);
        self.common.counters.sessions.set(self.sessions.len() as u64);
    }

    /// Works off what the last event made possible, until nothing is left.
    fn carry_on(&mut self, out: &mut Outputs) {
        loop {
            if self.common.pools.has_orders() {
                self.carry_out_orders(out);
            } else if let Some(key) = self.common.resumable.pop_front() {
                let Some(session) = self.sessions.get(key) else { continue };
                if self.common.resume(session, out) {
                    self.end_session(key, out);
                }
            } else {
                return;
            }
        }
    }
}

impl Common {
    /// Bytes from a client: looked at, or kept while the session waits. True: the session is over.
    fn receive(&mut self, session: &mut Session, chunk: &[u8], out: &mut Outputs) -> bool {
        if session.wait == client::Wait::No {
            let ended = self.advance(session, &Feed::Chunk(chunk), out);
            if !ended && self.settings.memory.pressure() != Pressure::None && session.stop_reading_if_large(out) {
                self.unread_since = self.unread_since.or(Some(self.now));
            }
            return ended;
        }
        session.hold(chunk);
        if session.holds_too_much() && !session.paused {
            session.paused = true;
            out.push(Output::PauseFrontend(session.key));
        }
        false
    }

    /// A session need not wait any more: looks at the bytes it holds. True: the session is over.
    fn resume(&mut self, session: &mut Session, out: &mut Outputs) -> bool {
        if session.wait != client::Wait::No {
            return false;
        }
        if self.greet(session, out) {
            return true;
        }
        let held = session.take_held();
        let ended = !held.is_empty() && self.advance(session, &Feed::Held(held), out);
        if !ended && session.wait == client::Wait::No {
            // What it waited for may have come to nothing.
            self.pause_between(session);
        }
        if session.paused && !session.holds_too_much() {
            session.paused = false;
            if !session.unread {
                out.push(Output::ResumeFrontend(session.key));
            }
        }
        if !ended && self.draining && session.is_settled() && session.wait == client::Wait::No && session.holds_nothing() {
            output::farewell(session.key, &shutting_down(), out);
            return true;
        }
        ended
    }

    /// Ends a session's wait; it goes on in its turn.
    fn wake(&mut self, session: &mut Session) {
        session.wait = client::Wait::No;
        self.resumable.push_back(session.key);
    }
}

fn shutting_down() -> Refusal {
    Refusal::new(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
}
