//! Sessions for replication: those whose StartupMessage had the parameter `replication`, and whose bind rule permits it.
//!
//! Such a session has a backend of its own, opened for it and closed behind it: what a walsender has been told is not undone by
//! DISCARD ALL, which physical replication does not even have. Its queries are in the language of the chapter "Streaming Replication
//! Protocol", so none of them is read; each passes the gate as a text in which nothing but guarded names is looked for. So the region cannot be set
//! by a statement: it is the one that the session started in.
//!
//! A stream is one message that never ends. So that a reload takes effect in it too, the decision is made again before data is
//! passed on under a policy that the session has not seen.

use super::client::Session;
use super::output::Outputs;
use super::{Common, Core, Refusal, Sessions, shutting_down};
use crate::pool::{BackendKey, Farewell, SessionKey, State};
use crate::sql::{GuardSet, Reading, StringConstants};
use crate::wire::SqlState;
use crate::wire::startup::Replication;

/// How a login comes to be one that may replicate.
pub const REPLICATION_HINT: &str = "The bind rule of this login permits them with replication = true.";

impl Session {
    /// Whether it is for replication.
    pub(super) fn replicates(&self) -> bool {
        self.identity.replication != Replication::None
    }
}

impl Core {
    /// At the end of work: ends the stream of a session, if it has one, and the session. By itself a stream never ends.
    pub(super) fn end_stream(&mut self, session: SessionKey, out: &mut Outputs) {
        let Some(key) = self.sessions.get(session).and_then(|session| session.backend) else { return };
        let Some(found) = self.common.pools.get(key).filter(|found| found.owed.is_streaming()) else { return };
        let (state, cut) = (found.state(), found.splitter.is_streaming());
        self.common.pools.close(key, Farewell::Abrupt);
        self.session_lost_backend(state, cut, &shutting_down(), out);
    }
}

impl Common {
    /// Reads the text of a statement of the session.
    pub(super) fn read(&mut self, session: &Session, text: &[u8]) -> Reading {
        if session.replicates() {
            return Reading::Plain;
        }
        // What the client believes is what its backend has, or will have before the text comes there.
        self.sql.read(text, StringConstants::of(session.told.get("standard_conforming_strings")))
    }

    /// A backend is about to send data of a COPY. If its session replicates and may not have it any more: which session, and why.
    pub(super) fn withdrawn(
        &mut self,
        sessions: &mut Sessions,
        key: BackendKey,
        out: &mut Outputs,
    ) -> Option<(SessionKey, Refusal)> {
        let found = self.pools.get(key)?;
        let (State::Bound(owner), served_by) = (found.state(), found.region()) else { return None };
        if self.draining && found.owed.is_streaming() {
            return Some((owner, shutting_down()));
        }
        let session = sessions.get(owner).filter(|session| session.replicates())?;
        if session.generation == self.policy.get().generation() {
            return None;
        }
        if let Err(refusal) = self.renew_grant(session) {
            return Some((owner, refusal));
        }
        let decision = self.policy.snapshot().decide(session.grant.as_ref()?, session.region.current(), GuardSet::NONE);
        match decision {
            Ok(permit) if permit.region() == served_by => None,
            Ok(_) => Some((owner, Refusal::new(SqlState::ADMIN_SHUTDOWN, "the region of this session is served elsewhere now"))),
            Err(denial) => Some((owner, self.denied(session, &denial, "CopyData", out))),
        }
    }
}

/// A session for replication that no bind rule permits any more.
pub(super) fn not_permitted() -> Refusal {
    Refusal::new(SqlState::FEATURE_NOT_SUPPORTED, "replication connections are not permitted for this login")
        .with_hint(REPLICATION_HINT)
}
