//! What an operator does to sessions and their backends. Whether he may is decided where he logs in.

use std::time::Instant;

use super::output::{Output, farewell};
use super::{Core, Outputs, Refusal, SessionKey, Slot, shutting_down};
use crate::pool::{Scope, session_id};

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Lend no backends; close those there are as they are given back.
    Pause(Scope),
    /// Lend backends again.
    Resume(Scope),
    /// Pause, end all sessions and close all backends, now.
    Kill(Scope),
    /// Close the backends there are as they are given back; new ones may be opened.
    Recall(Scope),
    /// End one session.
    KillClient(u64),
}

impl Core {
    /// Carries a command out. False: the session that it is about is not here.
    pub fn operate(&mut self, operation: &Operation, now: Instant, out: &mut Outputs) -> bool {
        self.common.now = now;
        let mut found = true;
        match operation {
            Operation::Pause(scope) => self.common.pools.pause(scope),
            Operation::Resume(scope) => self.common.pools.resume(scope, now),
            Operation::Recall(scope) => self.common.pools.recall(scope, now),
            Operation::Kill(scope) => {
                // First the pause, so that what one session gives back is lent to no other.
                self.common.pools.pause(scope);
                for key in self.sessions_where(|_, database| scope.covers(database)) {
                    self.cut_off(key, &shutting_down(), out);
                }
                self.common.pools.close_all(scope);
            }
            Operation::KillClient(id) => {
                let worker = self.common.pools.worker();
                let keys = self.sessions_where(|serial, _| session_id(serial, worker) == *id);
                found = !keys.is_empty();
                keys.into_iter().for_each(|key| self.cut_off(key, &shutting_down(), out));
            }
        }
        self.carry_on(out);
        found
    }

    /// Ends a session whatever it is doing. A backend that is at rest goes back to its pool, any other is closed.
    pub(super) fn cut_off(&mut self, key: SessionKey, refusal: &Refusal, out: &mut Outputs) {
        let Some(session) = self.sessions.get(key) else { return };
        let backend = session.backend.and_then(|backend| self.common.pools.get(backend));
        let in_a_message = session.receiving && backend.is_some_and(|backend| backend.splitter.is_streaming());
        if in_a_message || session.told_fatal {
            // In the middle of a message nothing can be said any more.
            out.push(Output::CloseFrontend(key));
        } else {
            farewell(key, refusal, out);
        }
        self.end_session(key, out);
    }

    fn sessions_where(&self, wanted: impl Fn(u64, &str) -> bool) -> Vec<SessionKey> {
        let taken = self.sessions.slots.iter().filter_map(|slot| match slot {
            Slot::Taken(session) => wanted(session.watch.serial, &session.identity.database).then_some(session.key),
            Slot::Free { .. } => None,
        });
        taken.collect()
    }
}
