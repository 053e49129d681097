//! Prepared statements that the proxy answers itself, in the extended protocol: the settings of residency, and the commands that
//! open, close and divide transactions, because their meaning depends on what the session knows and the backend does not.
//!
//! Parse, Bind and Describe of them are answered at once. Execute does what the statement says; where a backend must run it, it is
//! sent there under a name of the proxy's own.

use super::Refusal;
use super::client::{Deferred, Session, Wait};
use super::frontend::Verdict;
use super::gate::Gate;
use super::output::Outputs;
use super::plan::{already_warning, joined, none_warning, set_local_warning};
use super::prepared::Note;
use super::{Common, client};
use crate::limits::DEFERRED_STATEMENTS_MAX;
use crate::pool::{Effect, Kind, Rule, Script};
use crate::region::SessionRegion;
use crate::sql;
use crate::wire::{SqlState, TransactionStatus, backend, frontend};

/// The name under which the proxy prepares what it runs for a client; closed before each use.
const OWN_STATEMENT: &[u8] = b"domicile";
/// The portal of what the proxy runs between the messages of a client; closed after each use.
const OWN_PORTAL: &[u8] = b"domicile";
/// A portal that does not exist.
const NO_PORTAL: &[u8] = b"domicile: no such portal";

/// A statement of the proxy's own.
pub(super) struct LocalStatement {
    pub(super) text: Box<[u8]>,
    /// `None` for an empty text.
    pub(super) kind: Option<sql::Kind>,
}

/// What a row of a local statement is called.
pub(super) fn column(kind: Option<&sql::Kind>) -> Option<&str> {
    match kind? {
        sql::Kind::ShowRegion { column } | sql::Kind::ShowNode { column } | sql::Kind::SetConfigRegion { column, .. } => {
            Some(column)
        }
        sql::Kind::SetRegion { .. }
        | sql::Kind::ResetRegion { .. }
        | sql::Kind::ResetAll
        | sql::Kind::DiscardAll
        | sql::Kind::Deallocate { .. }
        | sql::Kind::Begin
        | sql::Kind::Commit { .. }
        | sql::Kind::Rollback { .. }
        | sql::Kind::RollbackTo { .. }
        | sql::Kind::Savepoint { .. }
        | sql::Kind::Release { .. }
        | sql::Kind::PrepareTransaction
        | sql::Kind::SetTransaction
        | sql::Kind::SetOther { .. }
        | sql::Kind::Refused(_)
        | sql::Kind::Other { .. } => None,
    }
}

/// Whose a statement is.
pub(super) enum Class<'a> {
    /// The proxy's.
    Local,
    /// A backend's.
    Other,
    /// Nobody's.
    Refused(&'a sql::Refusal),
}

pub(super) fn class(kind: &sql::Kind) -> Class<'_> {
    match kind {
        sql::Kind::SetRegion { .. }
        | sql::Kind::ResetRegion { .. }
        | sql::Kind::ResetAll
        | sql::Kind::DiscardAll
        | sql::Kind::Deallocate { .. }
        | sql::Kind::ShowRegion { .. }
        | sql::Kind::ShowNode { .. }
        | sql::Kind::SetConfigRegion { .. }
        | sql::Kind::Begin
        | sql::Kind::Commit { .. }
        | sql::Kind::Rollback { .. }
        | sql::Kind::RollbackTo { .. }
        | sql::Kind::Savepoint { .. }
        | sql::Kind::Release { .. }
        | sql::Kind::PrepareTransaction
        | sql::Kind::SetTransaction => Class::Local,
        sql::Kind::SetOther { .. } | sql::Kind::Other { .. } => Class::Other,
        sql::Kind::Refused(refused) => Class::Refused(refused),
    }
}

/// Whether a failed transaction takes a statement of this kind.
pub(super) fn ends_failure(kind: Option<&sql::Kind>) -> bool {
    matches!(
        kind,
        None | Some(
            sql::Kind::Commit { .. } | sql::Kind::Rollback { .. } | sql::Kind::RollbackTo { .. } | sql::Kind::PrepareTransaction
        )
    )
}

impl Common {
    /// Execute of a local portal.
    pub(super) fn perform(&mut self, session: &mut Session, statement: &LocalStatement, out: &mut Outputs) -> Verdict {
        let Some(kind) = &statement.kind else {
            self.answer(session, backend::empty_query_response(), out);
            return Verdict::Done;
        };
        // Within a unit that has reached the backend, answers stand in the queue of replies; before it, the status must be known.
        if !session.knows_status() {
            return self.hold_until_quiet(session, out);
        }
        if session.status == TransactionStatus::Failed && !ends_failure(Some(kind)) {
            return self.fail_in_failed(session, out);
        }
        if session.unit.region_ends {
            return self.fail_unit(session, &Refusal::region_changes_at_end(), out);
        }
        let first = statement.text.iter().find(|byte| !byte.is_ascii_whitespace()).map_or(0, u8::to_ascii_lowercase);
        if let sql::Kind::SetRegion { value, .. } | sql::Kind::SetConfigRegion { value: Some(value), .. } = kind
            && let Some(refusal) = Refusal::of_region_name(value)
        {
            return self.fail_unit(session, &refusal, out);
        }
        let policy = self.policy.snapshot().clone();
        match kind {
            sql::Kind::SetRegion { value, local } => {
                let warn = *local && session.status == TransactionStatus::Idle && !session.unit.touched;
                let answer = joined([warn.then(set_local_warning), Some(backend::command_complete("SET"))]);
                self.set_region(session, policy.region(value), *local, answer, out)
            }
            sql::Kind::ResetRegion { local } => {
                let answer = backend::command_complete(if first == b's' { "SET" } else { "RESET" });
                self.set_region(session, session.region.start().clone(), *local, answer, out)
            }
            sql::Kind::SetConfigRegion { value, local, .. } => {
                let start = session.region.start().clone();
                let region = value.as_ref().map_or(start, |value| policy.region(value));
                let row = backend::data_row_text(Some(policy.region_name(&region)));
                let answer = joined([Some(row), Some(backend::command_complete("SELECT 1"))]);
                self.set_region(session, region, *local, answer, out)
            }
            sql::Kind::ShowRegion { .. } => {
                let row = backend::data_row_text(Some(policy.region_name(session.region.current())));
                self.answer(session, joined([Some(row), Some(backend::command_complete("SHOW"))]), out);
                Verdict::Done
            }
            sql::Kind::ShowNode { .. } => {
                let row = backend::data_row_text(Some(&self.node_of(session)));
                self.answer(session, joined([Some(row), Some(backend::command_complete("SHOW"))]), out);
                Verdict::Done
            }
            sql::Kind::DiscardAll if session.status != TransactionStatus::Idle => {
                let text = "DISCARD ALL cannot run inside a transaction block";
                self.fail_unit(session, &Refusal::new(SqlState::ACTIVE_SQL_TRANSACTION, text), out)
            }
            sql::Kind::ResetAll | sql::Kind::DiscardAll => {
                let start = session.region.start().clone();
                let stays = start == *session.region.current();
                let resets = *kind == sql::Kind::ResetAll;
                let has_set = session.start_settings.as_ref().is_some_and(|start| *start != session.told);
                if session.backend.is_some() && stays || resets && has_set {
                    session.clearing |= !resets;
                    session.discarded_at = if resets { session.discarded_at } else { session.asked + 1 };
                    return self.run_on_backend(session, &statement.text, None, out);
                }
                let answer = backend::command_complete(if resets { "RESET" } else { "DISCARD ALL" });
                let verdict = self.set_region(session, start, false, answer, out);
                if !resets && matches!(verdict, Verdict::Done) && !session.unit.skip {
                    self.discard_all(session);
                    self.reset_settings(session, out);
                }
                verdict
            }
            sql::Kind::Deallocate { name } => self.perform_deallocate(session, name.as_deref(), &statement.text, out),
            sql::Kind::Begin => self.perform_begin(session, &statement.text, first, out),
            sql::Kind::Commit { chain } => self.perform_end(session, &statement.text, *chain, true, out),
            sql::Kind::Rollback { chain } => self.perform_end(session, &statement.text, *chain, false, out),
            sql::Kind::PrepareTransaction => self.perform_end(session, &statement.text, false, true, out),
            sql::Kind::RollbackTo { name } => {
                if session.shadow {
                    if !self.backend_in_transaction(session) {
                        let text = format!("savepoint \"{name}\" does not exist");
                        let refusal = Refusal::new(SqlState::INVALID_SAVEPOINT_SPECIFICATION, text);
                        return self.fail_unit(session, &refusal, out);
                    }
                    session.shadow = false;
                    session.status = TransactionStatus::InTransaction;
                }
                self.run_on_backend(session, &statement.text, Some(Effect::RollbackTo(name.clone())), out)
            }
            sql::Kind::Savepoint { name } => {
                self.run_on_backend(session, &statement.text, Some(Effect::Savepoint(name.clone())), out)
            }
            sql::Kind::Release { name } => {
                self.run_on_backend(session, &statement.text, Some(Effect::Release(name.clone())), out)
            }
            sql::Kind::SetTransaction => match &mut session.deferred {
                Some(deferred) if !session.unit.touched && deferred.statements < DEFERRED_STATEMENTS_MAX => {
                    deferred.text.push(b';');
                    deferred.text.extend_from_slice(&statement.text);
                    deferred.statements += 1;
                    self.answer(session, backend::command_complete("SET"), out);
                    Verdict::Done
                }
                Some(_) | None => self.run_on_backend(session, &statement.text, None, out),
            },
            sql::Kind::SetOther { .. } | sql::Kind::Refused(_) | sql::Kind::Other { .. } => {
                Verdict::Fatal(Refusal::internal("a statement that is not the proxy's"))
            }
        }
    }

    /// The session goes to another region, if it may and if nothing of the transaction has run.
    fn set_region(
        &mut self,
        session: &mut Session,
        region: SessionRegion,
        local: bool,
        answer: bytes::Bytes,
        out: &mut Outputs,
    ) -> Verdict {
        if let Err(refusal) = self.renew_grant(session) {
            return self.fail_unit(session, &refusal, out);
        }
        let Some(grant) = &session.grant else { return Verdict::Fatal(Refusal::internal("session without a grant")) };
        if let Err(denial) = self.policy.snapshot().may_choose(grant, &region) {
            let refusal = self.denied(session, &denial, "Execute", out);
            return self.fail_unit(session, &refusal, out);
        }
        let touched = (session.unit.touched || self.backend_in_transaction(session)) && !session.fresh;
        if region != *session.region.current() && touched {
            return self.fail_unit(session, &Refusal::region_changes_too_late(), out);
        }
        if !session.region.reserve(&region, &self.settings.region_places) {
            let refusal = Refusal::region_is_full(self.policy.snapshot().region_name(&region));
            return self.fail_unit(session, &refusal, out);
        }
        session.region.set(region, local);
        self.answer(session, answer, out);
        Verdict::Done
    }

    /// What the proxy has prepared is taken from the session; what SQL's PREPARE has made is the backend's.
    fn perform_deallocate(&mut self, session: &mut Session, name: Option<&str>, text: &[u8], out: &mut Outputs) -> Verdict {
        let known = name.is_some_and(|name| session.has_statement(name.as_bytes()));
        if session.keeps_backend() && session.backend.is_some() && !known {
            session.clearing = true;
            return self.run_on_backend(session, text, None, out);
        }
        if let Some(name) = name.filter(|_| !known) {
            let text = format!("prepared statement \"{name}\" does not exist");
            return self.fail_unit(session, &Refusal::new(SqlState::INVALID_SQL_STATEMENT_NAME, text), out);
        }
        session.deallocate(name);
        let tag = if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" };
        self.answer(session, backend::command_complete(tag), out);
        Verdict::Done
    }

    fn perform_begin(&mut self, session: &mut Session, text: &[u8], first: u8, out: &mut Outputs) -> Verdict {
        if session.unit.touched || self.backend_in_transaction(session) {
            return self.run_on_backend(session, text, None, out);
        }
        let begun = session.status != TransactionStatus::Idle;
        if !begun {
            session.deferred = Some(Deferred { text: text.to_vec(), statements: 1 });
            session.status = TransactionStatus::InTransaction;
            session.times.transaction_begins(self.now);
        }
        let tag = if first == b's' { "START TRANSACTION" } else { "BEGIN" };
        self.answer(session, joined([begun.then(already_warning), Some(backend::command_complete(tag))]), out);
        Verdict::Done
    }

    fn perform_end(&mut self, session: &mut Session, text: &[u8], chain: bool, commits: bool, out: &mut Outputs) -> Verdict {
        let tag = if commits { "COMMIT" } else { "ROLLBACK" };
        let on_backend = session.unit.touched || self.backend_in_transaction(session);
        if session.status == TransactionStatus::Idle && !on_backend {
            if chain {
                let text = format!("{tag} AND CHAIN can only be used in transaction blocks");
                return self.fail_unit(session, &Refusal::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, text), out);
            }
            self.answer(session, joined([Some(none_warning()), Some(backend::command_complete(tag))]), out);
            return Verdict::Done;
        }
        let after = if commits && !session.shadow { session.region.after_commit() } else { session.region.after_rollback() };
        if chain && after != session.region.current() {
            return self.fail_unit(session, &Refusal::region_changes_at_end(), out);
        }
        if !on_backend {
            if commits && !session.shadow {
                session.region.commit();
            } else {
                session.region.rollback();
            }
            let tag = if session.shadow { "ROLLBACK" } else { tag };
            if chain {
                session.shadow = false;
                session.status = TransactionStatus::InTransaction;
            } else {
                session.transaction_is_over();
            }
            self.answer(session, backend::command_complete(tag), out);
            return Verdict::Done;
        }
        if session.shadow {
            // Whatever was asked for, a failed transaction is rolled back; that needs nobody's permission.
            let Some(key) = session.backend else { return Verdict::Fatal(Refusal::internal("a transaction without a backend")) };
            session.shadow = false;
            let text: &[u8] = if chain { b"ROLLBACK AND CHAIN" } else { b"ROLLBACK" };
            self.send_own(session, key, text, Some(Effect::End), out);
            return Verdict::Done;
        }
        let rolls_back = !commits || session.status == TransactionStatus::Failed;
        if let Some(key) = session.backend.filter(|_| rolls_back && !chain) {
            // Whatever has become of its grant, a session may always undo what it has begun.
            self.send_own(session, key, text, Some(Effect::End), out);
            return Verdict::Done;
        }
        let verdict = self.run_on_backend(session, text, Some(Effect::End), out);
        session.committing |= matches!(verdict, Verdict::Done) && commits && !session.unit.skip;
        verdict
    }

    /// A statement of the proxy's that a backend runs, through the gate like any other.
    fn run_on_backend(&mut self, session: &mut Session, text: &[u8], effect: Option<Effect>, out: &mut Outputs) -> Verdict {
        match self.gate(session, "Execute", out) {
            Gate::Open(key) => {
                session.fresh = false;
                self.send_own(session, key, text, effect, out);
                Verdict::Done
            }
            Gate::Hold(wait) => Verdict::Hold(wait),
            Gate::Refuse(refusal) => self.fail_unit(session, &refusal, out),
        }
    }

    /// Has the session's backend run a text, with the reply of its Execute for the client.
    fn send_own(
        &mut self,
        session: &mut Session,
        key: crate::pool::BackendKey,
        text: &[u8],
        effect: Option<Effect>,
        out: &mut Outputs,
    ) {
        let rule_ends = effect == Some(Effect::End);
        // The region follows what happens if it has been set; whether the transaction is a failed one always does.
        let ends_failure = |effect: &Effect| matches!(effect, Effect::End | Effect::RollbackTo(_));
        let rule = match effect.filter(|effect| ends_failure(effect) || session.region.is_open()) {
            Some(effect) => Rule::Follow(Box::new(Script { effects: vec![(1, effect)], ..Script::default() })),
            None => Rule::Forward,
        };
        let none: &[u8] = b"";
        self.send(session, key, frontend::close_statement(OWN_STATEMENT), Some((Kind::Close, Rule::Swallow)), out);
        self.send(session, key, frontend::parse(OWN_STATEMENT, text, &[]), Some((Kind::Parse, Rule::Swallow)), out);
        self.send(session, key, frontend::bind(none, OWN_STATEMENT), Some((Kind::Bind, Rule::Swallow)), out);
        self.send(session, key, frontend::execute(none, 0), Some((Kind::Execute, rule)), out);
        session.unit.touched = true;
        let (region, current) = (&session.region, session.region.current());
        let ends = rule_ends && (region.after_commit() != current || region.after_rollback() != current);
        session.unit.region_ends |= ends;
    }

    /// Has the session's backend run a text of the proxy's within the unit, without the client seeing anything of it but an error.
    pub(super) fn run_unseen(&mut self, session: &mut Session, key: crate::pool::BackendKey, text: &[u8], out: &mut Outputs) {
        let steps = [
            (frontend::close_statement(OWN_STATEMENT), Kind::Close),
            (frontend::parse(OWN_STATEMENT, text, &[]), Kind::Parse),
            (frontend::bind(OWN_PORTAL, OWN_STATEMENT), Kind::Bind),
            (frontend::execute(OWN_PORTAL, 0), Kind::Execute),
            (frontend::close_portal(OWN_PORTAL), Kind::Close),
        ];
        for (message, kind) in steps {
            self.send(session, key, message, Some((kind, Rule::Swallow)), out);
        }
    }

    /// Answers the client in the order of its messages: behind what is owed to it.
    pub(super) fn answer(&mut self, session: &mut Session, bytes: bytes::Bytes, out: &mut Outputs) {
        match session.backend {
            Some(key) if !session.is_quiet() => {
                // Behind an error the server skips up to Sync, and so do the proxy's answers.
                self.note_sent(session, key, Some((Kind::Local, Rule::Emit(bytes))));
            }
            Some(_) | None => session.tell(bytes, out),
        }
    }

    /// Answers the client with a step that stands only if the answer is given.
    pub(super) fn answer_step(&mut self, session: &mut Session, bytes: bytes::Bytes, note: Note, out: &mut Outputs) {
        match session.backend {
            Some(key) if !session.is_quiet() => self.note_step(session, key, Kind::Local, Rule::Emit(bytes), note),
            Some(_) | None => session.tell(bytes, out),
        }
    }

    /// An error in the extended protocol: everything up to the Sync is discarded.
    pub(super) fn fail_unit(&mut self, session: &mut Session, refusal: &Refusal, out: &mut Outputs) -> Verdict {
        match self.backend_to_fail(session) {
            Some(key) => {
                self.provoke_error(session, key, refusal, out);
                session.unit.touched = true;
            }
            None if !session.is_quiet() => return Verdict::Hold(Wait::Quiet),
            None => {
                session.tell(refusal.error(), out);
                session.fail_transaction();
            }
        }
        session.unit = client::Unit { skip: true, failed: true, ..session.unit };
        Verdict::Done
    }

    /// The backend that must fail with the session: it has run something of the unit, or of the transaction.
    pub(super) fn backend_to_fail(&mut self, session: &Session) -> Option<crate::pool::BackendKey> {
        let is_open = session.is_quiet() && session.status == TransactionStatus::InTransaction && !session.shadow;
        let fails = session.unit.touched || is_open && self.backend_in_transaction(session);
        session.backend.filter(|_| fails)
    }

    /// Makes the backend fail what has been sent since the last Sync, so that none of it is kept, and gives the client the proxy's
    /// own error in the place of the one that this provokes.
    pub(super) fn provoke_error(
        &mut self,
        session: &mut Session,
        key: crate::pool::BackendKey,
        refusal: &Refusal,
        out: &mut Outputs,
    ) {
        let rule = Rule::Instead(refusal.error());
        self.send(session, key, frontend::execute(NO_PORTAL, 0), Some((Kind::Execute, rule)), out);
    }
}
