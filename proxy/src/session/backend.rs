//! The backend's stream: finds out for every message whose reply it is, and what it means for the session.
//!
//! Messages are passed on as they come, without being put together; only the few are read whole whose contents matter here. A
//! backend is not trusted: what does not fit the replies it owes ends it, and the session with it.

use memchr::memmem;

use super::client::{Preamble, Session, Wait};
use super::output::{Feed, Output, Outputs, Payload, farewell, tell};
use super::prepared::SERVER_NAME_PREFIX;
use super::reading::{Broken, ends_connection, is_sound_error, mode};
use super::settings::restore_refusal;
use super::{Common, Core, Holder, Refusal, Sessions};
use crate::pool::{Backend, BackendKey, Effect, Farewell, Kind, Progress, Reply, Rule, SessionKey, State};
use crate::wire::tag::backend as tag;
use crate::wire::{Frame, SqlState, TransactionStatus, backend, frontend};

/// Where the pieces of the message in hand go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    To(SessionKey),
    Nowhere,
}

/// What a message leads to after it has been passed on.
pub(super) enum Event {
    /// A reply goes on.
    None,
    /// A statement or a reply is complete: answers of the proxy may be next.
    Advanced,
    /// The session's Query, FunctionCall or Sync is answered.
    Ready(SessionKey, TransactionStatus, Rule),
    /// The reset is answered.
    Reset { failed: bool },
}

impl Core {
    pub(super) fn receive_from_backend(&mut self, key: BackendKey, chunk: &[u8], out: &mut Outputs) {
        let feed = Feed::Chunk(chunk);
        let mut at = 0;
        loop {
            let Some(found) = self.common.pools.get(key) else { return };
            let describes = found.owed.front().is_some_and(|reply| reply.kind == Kind::Describe && reply.noted);
            let frame = match found.splitter.next(chunk, &mut at, |message, body_len| mode(message, body_len, describes)) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    // The rest of a message that it has begun would meet whoever gets it next.
                    if !found.splitter.at_boundary() && self.sessions.holder(found.state()) == Holder::Nobody {
                        self.common.pools.close(key, Farewell::Abrupt);
                    }
                    return;
                }
                Err(Broken) => return self.backend_broke_protocol(key, out),
            };
            let (message, payload, range) = match frame {
                Frame::Body { range, .. } => {
                    if let State::Bound(session) = found.state()
                        && self.sessions.get(session).is_some_and(|session| session.receiving)
                    {
                        feed.to_frontend(session, range, out);
                    }
                    continue;
                }
                Frame::Whole { tag, range } | Frame::Head { tag, range, .. } => (tag, &chunk[range.clone()], Ok(range)),
                Frame::Gathered { tag, ref bytes } | Frame::GatheredHead { tag, ref bytes, .. } => {
                    (tag, &bytes[..], Err(bytes.clone()))
                }
            };
            if message == tag::COPY_DATA
                && let Some((session, refusal)) = self.common.withdrawn(&mut self.sessions, key, out)
            {
                self.common.pools.close(key, Farewell::Abrupt);
                return self.session_lost_backend(State::Bound(session), false, &refusal, out);
            }
            if message == tag::ERROR_RESPONSE && !is_sound_error(payload) {
                return self.backend_broke_protocol(key, out);
            }
            let body = payload.get(5..).unwrap_or_default();
            let Ok((route, event)) = self.common.reply(&mut self.sessions, key, message, body, out) else {
                return self.backend_broke_protocol(key, out);
            };
            match (route, range) {
                (Route::Nowhere, _) => {}
                (Route::To(session), Ok(range)) => feed.to_frontend(session, range, out),
                (Route::To(session), Err(bytes)) => tell(session, bytes, out),
            }
            match event {
                Event::None => {}
                Event::Advanced => {
                    self.common.emit_local(&mut self.sessions, key, out);
                    if let Some(State::Bound(session)) = self.common.pools.get(key).map(|found| found.state())
                        && let Some(session) = self.sessions.get(session)
                        && session.wait == Wait::Quiet
                        && session.is_quiet()
                    {
                        self.common.wake(session);
                    }
                }
                Event::Reset { failed } => self.common.pools.reset_answered(key, failed, self.common.now),
                Event::Ready(session, status, rule) => {
                    self.common.emit_local(&mut self.sessions, key, out);
                    if let Some(session) = self.sessions.get(session) {
                        self.common.ready_for_query(session, key, status, rule, out);
                    }
                }
            }
        }
    }

    /// The backend is gone. The session that has it goes with it: its transaction and its replies are lost.
    pub(super) fn backend_is_lost(&mut self, key: BackendKey, out: &mut Outputs) {
        let Some(found) = self.common.pools.get(key) else { return };
        let (state, node, cut) = (found.state(), found.node().name.clone(), found.splitter.is_streaming());
        self.common.pools.lost(key);
        self.common.counters.backends_closed_total.add(1);
        let text = format!("server connection to node \"{node}\" was lost");
        self.session_lost_backend(state, cut, &Refusal::new(SqlState::CONNECTION_FAILURE, text), out);
    }

    /// The backend has sent what it may not send now.
    fn backend_broke_protocol(&mut self, key: BackendKey, out: &mut Outputs) {
        let Some(found) = self.common.pools.get(key) else { return };
        let (state, node, cut) = (found.state(), found.node().name.clone(), found.splitter.is_streaming());
        self.common.counters.backend_protocol_errors_total.add(1);
        self.common.pools.close(key, Farewell::Abrupt);
        let text = format!("node \"{node}\" broke the protocol");
        self.session_lost_backend(state, cut, &Refusal::new(SqlState::CONNECTION_FAILURE, text), out);
    }

    pub(super) fn session_lost_backend(&mut self, state: State, cut: bool, refusal: &Refusal, out: &mut Outputs) {
        // A session that it was lent to a moment ago hears of it when it is to be bound.
        let Holder::Session(key) = self.sessions.holder(state) else { return };
        let Some(session) = self.sessions.get(key) else { return };
        session.backend = None;
        let only_preamble = matches!(session.wait, Wait::Preamble(Preamble::Restore | Preamble::Begin));
        if only_preamble && !session.keeps_backend() && !session.told_fatal && !std::mem::replace(&mut session.retried, true) {
            // It has most likely died unseen while it was idle, and has run nothing of the client's.
            session.owed = 0;
            session.unready = 0;
            session.failure = None;
            session.unit.failed = false;
            return self.common.wake(session);
        }
        if (cut && session.receiving) || session.told_fatal {
            // In the middle of a message nothing can be said any more; and after a FATAL of the server's nothing need be.
            out.push(Output::CloseFrontend(key));
        } else if session.committing {
            farewell(key, &Refusal::commit_unknown(refusal), out);
        } else {
            farewell(key, refusal, out);
        }
        self.end_session(key, out);
    }
}

impl Common {
    /// Takes one message of a backend in: where it goes, and what it leads to.
    fn reply(
        &mut self,
        sessions: &mut Sessions,
        key: BackendKey,
        message: u8,
        body: &[u8],
        out: &mut Outputs,
    ) -> Result<(Route, Event), Broken> {
        let Some(found) = self.pools.get(key) else { return Err(Broken) };
        let state = found.state();
        if found.owed.is_empty()
            && message == tag::ERROR_RESPONSE
            && let Holder::Session(session) = sessions.holder(state)
        {
            // The server says goodbye between two statements (shutdown, idle timeout): FATAL, and end of stream follows.
            if let Some(session) = sessions.get(session) {
                session.told_fatal = true;
                session.receiving = true;
            }
            return Ok((Route::To(session), Event::None));
        }
        let progress = found.owed.progress(message).map_err(|_| Broken)?;
        if progress == Progress::Asynchronous {
            return self.asynchronous(sessions, key, message, body, out);
        }
        let Some(front) = found.owed.front() else { return Err(Broken) };
        let Some(owner) = front.session else {
            // The reset, which has no answer but CommandComplete and ReadyForQuery.
            return match (progress, message) {
                (Progress::Ends, _) => {
                    let status = backend::ready_for_query_status(body).ok_or(Broken)?;
                    found.owed.pop();
                    found.status = status;
                    let failed = found.dirty;
                    found.dirty = false;
                    Ok((Route::Nowhere, Event::Reset { failed }))
                }
                (_, tag::ERROR_RESPONSE) => {
                    found.dirty = true;
                    Ok((Route::Nowhere, Event::None))
                }
                (_, tag::COMMAND_COMPLETE) => Ok((Route::Nowhere, Event::None)),
                _ => Err(Broken),
            };
        };
        let Some(session) = sessions.get(owner) else { return Err(Broken) };
        let swallow = matches!(front.rule, Rule::Swallow);
        let route = if swallow { Route::Nowhere } else { Route::To(owner) };
        session.receiving = !swallow;
        match progress {
            Progress::Asynchronous => Err(Broken),
            Progress::Within => {
                if message == tag::COPY_IN_RESPONSE {
                    let dropped = found.owed.copy_in_begins();
                    session.owed = session.owed.saturating_sub(dropped.len());
                    session.unready = session.unready.saturating_sub(dropped.len());
                    if !dropped.is_empty() {
                        // The unit that was thought to be over goes on behind the data.
                        session.unit.touched = true;
                        found.unsynced = true;
                    }
                }
                if message == tag::COPY_BOTH_RESPONSE {
                    if !session.replicates() {
                        return Err(Broken);
                    }
                    found.owed.stream_begins();
                }
                if message == tag::ERROR_RESPONSE {
                    found.owed.copy_ended();
                    session.unit.failed = true;
                    if session.wait == Wait::Preamble(Preamble::Restore) {
                        session.failure = Some(restore_refusal(body).into());
                        session.receiving = false;
                        return Ok((Route::Nowhere, Event::None));
                    }
                    // Only now: what the client does not see it has not been told.
                    session.told_fatal |= ends_connection(body);
                    if let Some(error) = session.in_words_of_timeout(body) {
                        session.receiving = false;
                        tell(owner, error, out);
                        return Ok((Route::Nowhere, Event::None));
                    }
                    // The error of a command that the proxy put before the client's goes to the client.
                    session.receiving = true;
                    return Ok((Route::To(owner), Event::None));
                }
                Ok((route, Event::None))
            }
            Progress::Completes => {
                session.times.answered(self.now);
                if let Rule::Follow(script) = &mut front.rule {
                    script.completed += 1;
                    let now = script.completed;
                    apply_effects(session, &script.effects, now, body);
                    let inserts = script.inserts.iter().filter(|(after, _)| *after == now).map(|(_, bytes)| bytes.clone());
                    // They follow the message in hand.
                    session.after_message.extend(inserts);
                }
                found.owed.copy_ended();
                note_completion(found, session, message, body);
                Ok((route, Event::Advanced))
            }
            Progress::Ends => {
                let Some(Reply { kind, rule, noted, .. }) = found.owed.pop() else { return Err(Broken) };
                session.owed = session.owed.saturating_sub(1);
                session.times.answered(self.now);
                if message == tag::READY_FOR_QUERY {
                    session.unready = session.unready.saturating_sub(1);
                }
                if noted {
                    session.settle_note(found, body);
                }
                if message != tag::READY_FOR_QUERY {
                    if kind == Kind::Execute {
                        note_completion(found, session, message, body);
                        found.owed.copy_ended();
                        if let Rule::Follow(script) = &rule {
                            apply_effects(session, &script.effects, 1, body);
                        }
                    }
                    return Ok((route, Event::Advanced));
                }
                let status = backend::ready_for_query_status(body).ok_or(Broken)?;
                found.status = status;
                Ok((route, Event::Ready(owner, status, rule)))
            }
            Progress::Fails => {
                let failed = found.owed.fail();
                session.owed = session.owed.saturating_sub(failed.len());
                let noted = failed.iter().filter(|reply| reply.noted).count();
                let first_failed = failed.first().is_some_and(|reply| reply.noted);
                session.undo_notes(found, noted, first_failed);
                session.unit.failed = true;
                session.told_fatal |= ends_connection(body);
                doubt_statements(found, body);
                if found.owed.is_skipping() {
                    session.unit.skip = true;
                }
                session.receiving = true;
                let instead = failed.into_iter().next().and_then(|reply| match reply.rule {
                    Rule::Instead(error) => Some(error),
                    Rule::Forward | Rule::Swallow | Rule::Follow(_) | Rule::Emit(_) => None,
                });
                let instead = instead.or_else(|| session.in_words_of_timeout(body)).or_else(|| session.in_its_words(body));
                session.times.answered(self.now);
                let Some(error) = instead else { return Ok((Route::To(owner), Event::Advanced)) };
                session.receiving = false;
                tell(owner, error, out);
                Ok((Route::Nowhere, Event::Advanced))
            }
        }
    }

    /// Answers of the proxy whose turn has come, and what follows the message in hand.
    fn emit_local(&mut self, sessions: &mut Sessions, key: BackendKey, out: &mut Outputs) {
        let Some(found) = self.pools.get(key) else { return };
        if let State::Bound(owner) = found.state()
            && let Some(session) = sessions.get(owner)
        {
            for bytes in session.after_message.drain(..) {
                tell(owner, bytes, out);
            }
        }
        while let Some(front) = found.owed.front() {
            match (front.kind, front.session, &front.rule) {
                (Kind::Local, Some(owner), Rule::Emit(bytes)) => tell(owner, bytes.clone(), out),
                (Kind::CopyEnd, ..) => {}
                _ => return,
            }
            let Some(done) = found.owed.pop() else { return };
            if let Some(session) = done.session.and_then(|owner| sessions.get(owner)) {
                session.owed = session.owed.saturating_sub(1);
                if done.noted {
                    session.settle_note(found, b"");
                }
            }
        }
    }

    /// The backend has answered a Query, a FunctionCall or a Sync of the session.
    fn ready_for_query(
        &mut self,
        session: &mut Session,
        key: BackendKey,
        status: TransactionStatus,
        rule: Rule,
        out: &mut Outputs,
    ) {
        self.counters.answers_total.add(1);
        if let Wait::Preamble(preamble) = session.wait
            && matches!(rule, Rule::Swallow)
        {
            return self.preamble_answered(session, key, preamble, status, out);
        }
        if let Some(found) = self.pools.get(key) {
            found.has_answered(self.now);
        }
        if matches!(rule, Rule::Swallow) {
            // The end of something that the client's transaction knows nothing of.
            return self.pause_between(session);
        }
        session.retried = false;
        session.times.ready();
        session.committing &= !session.is_quiet();
        session.status = status;
        if status == TransactionStatus::Idle {
            session.times.transaction_is_over();
            if session.unit.failed {
                session.region.rollback();
            } else {
                session.region.commit();
            }
            if session.is_quiet()
                && let Some(local) = &mut session.local
            {
                local.portals.clear();
            }
        }
        session.unit.failed = session.unit.failed && session.unit.skip;
        self.pause_between(session);
    }

    /// Nothing may be owed any more: the backend goes back if it can, and a session that waited for quiet goes on.
    pub(super) fn pause_between(&mut self, session: &mut Session) {
        if !session.is_quiet() {
            return;
        }
        session.clearing = false;
        let keeps = session.keeps_backend() && !self.draining;
        if session.backend.is_some() && session.is_settled() && !keeps {
            if let Some(key) = session.backend.take() {
                self.pools.release(key, self.now);
            }
            if self.draining && session.wait == Wait::No {
                // It is sent away in its turn, unless it has more to say.
                self.resumable.push_back(session.key);
            }
        }
        if session.wait == Wait::Quiet || session.wait == Wait::Cancel && session.backend.is_none() {
            self.wake(session);
        }
    }

    /// A command that the proxy put before the client's message is answered.
    fn preamble_answered(
        &mut self,
        session: &mut Session,
        key: BackendKey,
        preamble: Preamble,
        status: TransactionStatus,
        out: &mut Outputs,
    ) {
        let failed = std::mem::take(&mut session.unit.failed);
        match preamble {
            Preamble::Restore if failed || status != TransactionStatus::Idle => {
                session.backend = None;
                self.pools.close(key, Farewell::Abrupt);
            }
            Preamble::Restore => self.settings_restored(session, key, out),
            Preamble::Begin if !failed && status == TransactionStatus::InTransaction => {
                session.deferred = None;
                session.fresh = true;
            }
            Preamble::Begin => {
                // The client has got the error; for it the transaction has failed.
                session.deferred = None;
                session.preamble_failed = true;
                session.status = TransactionStatus::Failed;
                session.shadow = status != TransactionStatus::Failed;
                if status == TransactionStatus::Idle && !session.keeps_backend() {
                    session.backend = None;
                    self.pools.release(key, self.now);
                }
            }
            Preamble::Rollback { chain } => {
                session.region.rollback();
                session.times.transaction_is_over();
                session.shadow = false;
                session.status = status;
                if !chain && !session.keeps_backend() && status == TransactionStatus::Idle {
                    session.backend = None;
                    self.pools.release(key, self.now);
                }
                if let Some(answer) = session.after_preamble.take() {
                    session.tell(answer, out);
                }
            }
        }
        self.wake(session);
    }
}

/// The n-th statement of a message has completed: what that means for the session.
fn apply_effects(session: &mut Session, effects: &[(usize, Effect)], completed: usize, body: &[u8]) {
    effects.iter().filter(|(after, _)| *after == completed).for_each(|(_, effect)| apply(session, effect, body));
}

/// A statement with a consequence for the session has completed; `body` is that of its CommandComplete.
pub(super) fn apply(session: &mut Session, effect: &Effect, body: &[u8]) {
    match effect {
        Effect::End => {
            session.times.transaction_is_over();
            if backend::command_complete_tag(body).is_some_and(|tag| tag == b"ROLLBACK") {
                session.region.rollback();
            } else {
                session.region.commit();
            }
            if session.status == TransactionStatus::Failed {
                // What follows in the same unit is not refused any more; ReadyForQuery tells the rest.
                session.status = TransactionStatus::Idle;
            }
        }
        Effect::Savepoint(name) => session.region.savepoint(name),
        Effect::Release(name) => session.region.release(name),
        Effect::RollbackTo(name) => {
            session.region.rollback_to(name);
            if session.status == TransactionStatus::Failed {
                session.status = TransactionStatus::InTransaction;
            }
        }
        Effect::Set(region, local) => session.region.set(region.clone(), *local),
        Effect::Deallocate(name) => session.deallocate(name.as_deref()),
    }
}

/// Some errors say that a prepared statement is not what it was.
fn doubt_statements(found: &mut Backend, error: &[u8]) {
    if found.prepared.is_empty() {
        return;
    }
    // The routine (field R) tells this 0A000 from others; see the chapter "Error and Notice Message Fields".
    let is_stale = memmem::find(error, b"\0C0A000\0").is_some() && memmem::find(error, b"\0RRevalidateCachedQuery\0").is_some();
    if is_stale {
        found.prepared.doubt();
    } else if memmem::find(error, b"\0C26000\0").is_some() && memmem::find(error, SERVER_NAME_PREFIX.as_bytes()).is_some() {
        found.prepared.clear();
    }
}

/// A statement is complete: what it means for the proxy, if its CommandComplete says so.
fn note_completion(found: &mut Backend, session: &mut Session, message: u8, body: &[u8]) {
    if message == tag::COMMAND_COMPLETE
        && body.first() == Some(&b'D')
        && let Some(completed) = backend::command_complete_tag(body)
    {
        super::pin::completed(found, session, completed);
    }
}

/// What is sent when a backend is given back after use.
pub(super) fn reset_message() -> Payload {
    Payload::Owned(frontend::query(b"DISCARD ALL"))
}
