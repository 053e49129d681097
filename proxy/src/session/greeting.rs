//! The end of a login: what a client is told before its first ReadyForQuery, and the key by which its statements are cancelled.
//!
//! In transaction mode no backend is asked, and the process ID names worker and place of the session. In session mode the backend
//! of the start region comes first: its settings are told and its process ID is shown, so that `pg_stat_activity`, `NOTIFY` and
//! `pg_blocking_pids` agree with what the client knows; without it the login fails as PostgreSQL's would. A session whose start
//! region the policy does not permit lives all the same, and has its statements refused.
//!
//! The secret is ours and random in both modes: a key names a session and never a server.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::client::{Session, Wait};
use super::output::{Outputs, farewell, tell};
use super::{Common, Refusal, cancel};
use crate::policy::Requirement;
use crate::pool::{Checkout, Parameters, PoolMode};
use crate::sql::GuardSet;
use crate::wire::backend::{backend_key_data, parameter_status, ready_for_query};
use crate::wire::{CancelSecret, TransactionStatus};

/// Everything up to the first ReadyForQuery. `before` ends with AuthenticationOk.
pub fn encode(before: &[u8], told: &Parameters, process_id: u32, secret: &CancelSecret) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1024);
    bytes.put_slice(before);
    told.iter().for_each(|(name, value)| bytes.put(parameter_status(name, value)));
    bytes.put(backend_key_data(process_id, secret.bytes()));
    bytes.put(ready_for_query(TransactionStatus::Idle));
    bytes.freeze()
}

impl Common {
    /// A session begins: it is greeted now, or when it has its first backend. True: it is over.
    pub(super) fn welcome(&mut self, session: &mut Session, out: &mut Outputs) -> bool {
        if session.mode == PoolMode::Session {
            match self.first_backend(session) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(refusal) => session.failure = Some(refusal.into()),
            }
        }
        self.greet(session, out)
    }

    /// Gets a session the backend of its start region, if it may have one. False: it has to wait for it.
    fn first_backend(&mut self, session: &mut Session) -> Result<bool, Refusal> {
        let Some(grant) = &session.grant else { return Ok(true) };
        // This is no decision about a message: those are counted and recorded when they come.
        let Ok(permit) = self.policy.snapshot().decide(grant, session.region.current(), GuardSet::NONE) else { return Ok(true) };
        if matches!(permit.requirement(), Requirement::WouldBlock(_)) {
            return Ok(true);
        }
        let pool = self.pool_of(session, permit.region());
        match self.pools.checkout(permit, pool, session.key, self.now) {
            Some(Checkout::Bound(key)) => {
                session.backend = Some(key);
                session.unmet = true;
                self.lent(session, key);
                Ok(true)
            }
            Some(Checkout::Waiting) => {
                session.wait = Wait::Backend;
                Ok(false)
            }
            None => Err(Refusal::internal("a pool of another region than the decision's")),
        }
    }

    /// Greets a session that has not been greeted yet. True: it is over, because what it waited for has come to nothing.
    pub(super) fn greet(&mut self, session: &mut Session, out: &mut Outputs) -> bool {
        let Some(before) = session.greeting.take() else { return false };
        if let Some(refusal) = session.failure.take() {
            tell(session.key, before, out);
            farewell(session.key, &refusal, out);
            return true;
        }
        session.process_id = cancel::process_id(self.pools.worker(), session.key.index);
        if let Some(found) = session.backend.and_then(|key| self.pools.get(key)) {
            session.told = found.parameters.clone();
            session.start_settings = Some(found.initial.clone());
            if cancel::is_of_a_server(found.process_id()) {
                session.process_id = found.process_id();
                self.process_ids.insert(session.process_id, session.key);
            }
        }
        tell(session.key, encode(&before, &session.told, session.process_id, &session.secret), out);
        false
    }
}
