//! The simple protocol: one Query, one answer up to ReadyForQuery.

use std::time::Instant;

use super::backend::apply;
use super::client::{Deferred, Preamble, Session, Wait};
use super::frontend::Verdict;
use super::gate::Gate;
use super::output::{Output, Outputs, Payload};
use super::plan::{Item, Plan, Refuse, View, joined, plan};
use super::{Common, Refusal};
use crate::limits::DEFERRED_STATEMENTS_MAX;
use crate::pool::{BackendKey, Effect, Kind, Rule, Script};
use crate::sql::{self, Facts, GuardSet, Reading, SyntaxRefusal};
use crate::wire::{SqlState, TransactionStatus, backend, frontend};

impl Common {
    /// A Query.
    pub(super) fn query(&mut self, session: &mut Session, body: &[u8], out: &mut Outputs) -> Verdict {
        // A Query ends the unnamed statement, whatever becomes of it.
        session.unnamed_ended = true;
        session.deallocate_unnamed();
        let Ok(text) = frontend::query_text(body) else {
            return self.refuse_query(session, &Refusal::protocol("invalid message format"), out);
        };
        if let Some(verdict) = self.meets_first(session, text, "Query", out) {
            return verdict;
        }
        match self.read(session, text) {
            Reading::Plain => self.plain_query(session, text, out),
            // Whatever is not plain depends on the transaction status, so it must be known.
            Reading::Known(_) | Reading::Refused(_) if !session.is_quiet() => self.hold_until_quiet(session, out),
            // It stands behind statements of a pipeline that has not been ended.
            Reading::Known(_) | Reading::Refused(_) if session.unit.touched && self.sql.is_ambiguous(text) => {
                self.refuse_query(session, &Refusal::ambiguous_text(), out)
            }
            Reading::Known(facts) => self.known_query(session, &facts, text, out),
            Reading::Refused(refused) => self.unread_query(session, refused, text, out),
        }
    }

    /// A text that the grammar refuses. The server refuses it in its own words, with the place and a hint, but it gets the text as a
    /// Parse only, so that one whose grammar has more to it runs nothing.
    fn unread_query(&mut self, session: &mut Session, refused: SyntaxRefusal, text: &[u8], out: &mut Outputs) -> Verdict {
        let is_syntax = refused.sqlstate != SqlState::STATEMENT_TOO_COMPLEX;
        let refusal = Refusal::of_text(refused);
        if !is_syntax || session.shadow || !self.is_permitted(session) {
            return self.refuse_query(session, &refusal, out);
        }
        let key = match self.gate(session, "Query", out) {
            Gate::Open(key) => key,
            Gate::Hold(wait) => return Verdict::Hold(wait),
            Gate::Refuse(refusal) => return self.refuse_query(session, &refusal, out),
        };
        session.fresh = false;
        if let Some(backend) = self.pools.get(key) {
            backend.prepared.sent_unnamed(self.shared.unique());
        }
        self.send(session, key, frontend::parse(b"", text, &[]), Some((Kind::Parse, Rule::Swallow)), out);
        self.fail_there(session, key, &refusal, out)
    }

    /// Whether the session may use its region.
    fn is_permitted(&mut self, session: &mut Session) -> bool {
        self.renew_grant(session).is_ok()
            && session
                .grant
                .as_ref()
                .is_some_and(|grant| self.policy.snapshot().decide(grant, session.region.current(), GuardSet::NONE).is_ok())
    }

    /// A text without anything of interest: the decision, and on it goes.
    fn plain_query(&mut self, session: &mut Session, text: &[u8], out: &mut Outputs) -> Verdict {
        let guards = if session.replicates() { sql::searched(text) } else { GuardSet::NONE };
        match self.gate_guarded(session, guards, "Query", out) {
            Gate::Open(backend) => {
                session.fresh = false;
                self.note_sent(session, backend, Some((Kind::Query, Rule::Forward)));
                Verdict::Forward
            }
            Gate::Hold(wait) => Verdict::Hold(wait),
            Gate::Refuse(refusal) => self.refuse_query(session, &refusal, out),
        }
    }

    fn known_query(&mut self, session: &mut Session, facts: &Facts, text: &[u8], out: &mut Outputs) -> Verdict {
        if facts.statements.is_empty() {
            // A server answers an empty text in any state.
            session.tell(backend::empty_query_response(), out);
            return self.ready(session, out);
        }
        if session.status == TransactionStatus::Failed
            && let Some(verdict) = self.failed_query(session, facts, text, out)
        {
            return verdict;
        }
        if let Err(refusal) = self.renew_grant(session) {
            return self.refuse_query(session, &refusal, out);
        }
        let plan = match self.plan(session, facts, text) {
            Ok(plan) => plan,
            Err(Refuse::Answer(refusal)) => return self.refuse_query(session, &refusal, out),
            Err(Refuse::Denied(denial)) => {
                let refusal = self.denied(session, &denial, "Query", out);
                return self.refuse_query(session, &refusal, out);
            }
        };
        if plan.needs_backend() {
            self.run_plan(session, plan, facts, text, out)
        } else {
            self.answer_plan(session, plan, facts, text, out)
        }
    }

    fn plan(&mut self, session: &Session, facts: &Facts, text: &[u8]) -> Result<Plan, Refuse> {
        let touched = (self.backend_in_transaction(session) || session.unit.touched) && !session.fresh;
        let node = self.node_of(session);
        let has_set = session.start_settings.as_ref().is_some_and(|start| *start != session.told);
        let Some(grant) = &session.grant else { return Err(Refusal::internal("session without a grant").into()) };
        let view = View {
            policy: self.policy.snapshot(),
            grant,
            region_places: &self.settings.region_places,
            region: session.region.clone(),
            status: session.status,
            touched,
            deferred: session.deferred.is_some(),
            fresh: session.fresh,
            bound: session.backend.is_some(),
            keeps: session.keeps_backend(),
            refuses_state: self.refuses_state(session),
            has_set,
            reported: &session.told,
            has_statement: &|name| session.has_statement(name),
            node: &node,
        };
        plan(&view, facts, text)
    }

    /// The node that serves the session, or would: the answer to `SHOW domicile.node`.
    pub(super) fn node_of(&mut self, session: &Session) -> String {
        if let Some(found) = session.backend.and_then(|key| self.pools.get(key)) {
            return found.node().name.to_string();
        }
        let Some(grant) = &session.grant else { return String::new() };
        let Ok(permit) = self.policy.snapshot().decide(grant, session.region.current(), GuardSet::NONE) else {
            return String::new();
        };
        let node =
            self.settings.nodes.get(permit.region().index()).and_then(|first| first.get(grant.target().index())?.as_deref());
        node.unwrap_or_default().to_owned()
    }

    /// A message that no backend need see.
    fn answer_plan(&mut self, session: &mut Session, plan: Plan, facts: &Facts, text: &[u8], out: &mut Outputs) -> Verdict {
        if !plan.defer.is_empty()
            && let Err(refusal) = defer(session, &plan, facts, text, self.now)
        {
            return self.fail_query(session, &refusal, out);
        }
        let alone = if let [statement] = &facts.statements[..] { Some(&statement.kind) } else { None };
        if matches!(alone, Some(sql::Kind::DiscardAll)) {
            self.discard_all(session);
        }
        for item in plan.items {
            if let Item::Local(answer, effect) = item {
                session.tell(answer, out);
                if let Some(Effect::Deallocate(name)) = effect {
                    session.deallocate(name.as_deref());
                }
            }
        }
        if matches!(alone, Some(sql::Kind::DiscardAll | sql::Kind::ResetAll)) && session.backend.is_none() {
            self.reset_settings(session, out);
        }
        session.region = plan.region;
        session.status = plan.status;
        if plan.status == TransactionStatus::Idle {
            session.transaction_is_over();
            session.region.commit();
        }
        self.ready(session, out)
    }

    /// A message that a backend runs, or a part of it.
    fn run_plan(&mut self, session: &mut Session, plan: Plan, facts: &Facts, text: &[u8], out: &mut Outputs) -> Verdict {
        if let Some((end, region)) = plan.ended {
            // Up to there the proxy answers; what follows is a message of its own.
            for item in plan.items.into_iter().take(end + 1) {
                if let Item::Local(answer, _) = item {
                    session.tell(answer, out);
                }
            }
            session.region = region;
            session.transaction_is_over();
            let answered: Vec<_> = facts.statements.iter().take(end + 1).map(|statement| statement.range.clone()).collect();
            return self.requery(session, &sql::blank(text, &answered), out);
        }
        let is_failed = session.status == TransactionStatus::Failed;
        let only_rolls_back = match &facts.statements[..] {
            [sql::Statement { kind: sql::Kind::Rollback { chain: false }, .. }] => true,
            [sql::Statement { kind: sql::Kind::Commit { chain: false } | sql::Kind::PrepareTransaction, .. }] => is_failed,
            _ => false,
        };
        self.reads_sequence(session, plan.leaves);
        let gate = match session.backend {
            // Whatever has become of its grant, a session may always undo what it has begun.
            Some(backend) if only_rolls_back && session.failure.is_none() => Gate::Open(backend),
            Some(_) | None => self.gate_in(session, &plan.runs_in, plan.guards, "Query", out),
        };
        let key = match gate {
            Gate::Open(key) => key,
            Gate::Hold(wait) => return Verdict::Hold(wait),
            Gate::Refuse(refusal) => return self.block(session, plan, facts, text, &refusal, out),
        };
        session.fresh = false;
        session.region.adopt_places(&plan.region);
        if let Some(cause) = plan.leaves {
            session.guards |= plan.guards;
            self.leaves_behind(session, key, cause, out);
        }
        session.clearing |= facts.statements.iter().any(|statement| clears_names(&statement.kind));
        if facts.statements.iter().any(|statement| statement.kind == sql::Kind::DiscardAll) {
            session.discarded_at = session.asked + 1;
        }
        session.committing |= facts.statements.iter().any(|statement| ends_with_commit(&statement.kind));
        let mut script = Script::default();
        let mut blanked = Vec::new();
        let mut completions = 0;
        for (place, item) in plan.items.into_iter().enumerate() {
            // BEGIN of this very message goes to the backend with it.
            match item {
                Item::Local(..) if plan.defer.contains(&place) => completions += 1,
                Item::Local(answer, effect) => {
                    blanked.push(facts.statements[place].range.clone());
                    if completions == 0 {
                        session.tell(answer, out);
                        effect.iter().for_each(|effect| apply(session, effect, b""));
                    } else {
                        script.inserts.push((completions, answer));
                        script.effects.extend(effect.map(|effect| (completions, effect)));
                    }
                }
                Item::Backend(effect) => {
                    completions += 1;
                    script.effects.extend(effect.map(|effect| (completions, effect)));
                }
            }
        }
        if !session.region.is_open() && !script.effects.iter().any(|(_, effect)| matches!(effect, Effect::Set(..))) {
            script.effects.retain(|(_, effect)| matches!(effect, Effect::Deallocate(_)));
        }
        let plain = script.inserts.is_empty() && script.effects.is_empty();
        let rule = if plain { Rule::Forward } else { Rule::Follow(Box::new(script)) };
        if blanked.is_empty() {
            self.note_sent(session, key, Some((Kind::Query, rule)));
            return Verdict::Forward;
        }
        let text = sql::blank(text, &blanked);
        self.send(session, key, frontend::query(&text), Some((Kind::Query, rule)), out);
        Verdict::Done
    }

    /// The region of a message is blocked: what stands before the blocked statement is answered, and undone with it.
    fn block(
        &mut self,
        session: &mut Session,
        plan: Plan,
        facts: &Facts,
        text: &[u8],
        refusal: &Refusal,
        out: &mut Outputs,
    ) -> Verdict {
        if session.unit.touched {
            return self.refuse_query(session, refusal, out);
        }
        let begins = plan.defer.iter().any(|place| *place < plan.blocked);
        for (place, item) in plan.items.iter().enumerate().take(plan.blocked) {
            match item {
                Item::Local(answer, _) => session.tell(answer.clone(), out),
                // Only settings stand before the statement that is blocked; they are undone with it.
                Item::Backend(_) => session.tell(backend::command_complete(tag_of_setting(text, &facts.statements[place])), out),
            }
        }
        if begins && defer(session, &plan, facts, text, self.now).is_ok() {
            session.region = plan.region;
            session.status = TransactionStatus::InTransaction;
        }
        self.refuse_query(session, refusal, out)
    }

    /// A statement in a transaction that has failed. `None`: it is one that a failed transaction may run, and the plan is made
    /// for it.
    fn failed_query(&mut self, session: &mut Session, facts: &Facts, text: &[u8], out: &mut Outputs) -> Option<Verdict> {
        let first = &facts.statements[0];
        let chain = match &first.kind {
            sql::Kind::Commit { chain } | sql::Kind::Rollback { chain } => *chain,
            sql::Kind::PrepareTransaction => false,
            sql::Kind::RollbackTo { .. } if !session.shadow => return None,
            sql::Kind::RollbackTo { name } => {
                if self.backend_in_transaction(session) {
                    // Back to a moment before the failure, of which the backend knows nothing.
                    session.shadow = false;
                    session.status = TransactionStatus::InTransaction;
                    return None;
                }
                let text = format!("savepoint \"{name}\" does not exist");
                return Some(self.fail_query(session, &Refusal::new(SqlState::INVALID_SAVEPOINT_SPECIFICATION, text), out));
            }
            _ => return Some(self.fail_query(session, &Refusal::in_failed_transaction(), out)),
        };
        if !session.shadow {
            return None;
        }
        if chain && session.region.after_rollback() != session.region.current() {
            return Some(self.fail_query(session, &Refusal::region_changes_at_end(), out));
        }
        // The transaction is rolled back, whatever the statement asked for. What else the message has comes after that.
        let rest = (facts.statements.len() > 1).then(|| sql::blank(text, std::slice::from_ref(&first.range)));
        let status = if chain { TransactionStatus::InTransaction } else { TransactionStatus::Idle };
        let ready = rest.is_none().then(|| backend::ready_for_query(status));
        let answer = joined([Some(backend::command_complete("ROLLBACK")), ready]);
        if let Some(key) = session.backend.filter(|_| self.backend_in_transaction(session)) {
            let command: &[u8] = if chain { b"ROLLBACK AND CHAIN" } else { b"ROLLBACK" };
            self.send(session, key, frontend::query(command), Some((Kind::Query, Rule::Swallow)), out);
            session.after_preamble = Some(answer);
            if let Some(rest) = rest {
                session.hold(&frontend::query(&rest));
            }
            return Some(Verdict::HoldBehind(Wait::Preamble(Preamble::Rollback { chain })));
        }
        session.tell(answer, out);
        session.region.rollback();
        if chain {
            session.status = status;
            session.shadow = false;
        } else {
            session.transaction_is_over();
        }
        Some(rest.map_or(Verdict::Done, |rest| self.requery(session, &rest, out)))
    }

    /// What is left of a Query whose beginning has been answered.
    fn requery(&mut self, session: &mut Session, text: &[u8], out: &mut Outputs) -> Verdict {
        let message = frontend::query(text);
        match self.query(session, message.get(5..).unwrap_or_default(), out) {
            Verdict::Forward => {
                out.extend(session.backend.map(|backend| Output::ToBackend(backend, Payload::Owned(message))));
                Verdict::Done
            }
            Verdict::Hold(wait) => {
                session.hold(&message);
                Verdict::HoldBehind(wait)
            }
            verdict
            @ (Verdict::Rename { .. } | Verdict::Done | Verdict::HoldBehind(_) | Verdict::Fatal(_) | Verdict::Goodbye) => verdict,
        }
    }

    /// An error for a Query that may stand in a transaction, or behind extended-protocol messages without their Sync.
    pub(super) fn refuse_query(&mut self, session: &mut Session, refusal: &Refusal, out: &mut Outputs) -> Verdict {
        if refusal.is_internal() {
            return Verdict::Fatal(refusal.clone());
        }
        let Some(key) = self.backend_to_fail(session) else {
            if !session.is_quiet() {
                return Verdict::Hold(Wait::Quiet);
            }
            return self.fail_query(session, refusal, out);
        };
        // The server would have failed the unit or the transaction, and so it does.
        self.fail_there(session, key, refusal, out)
    }

    /// The backend fails, and with it what it has run of the unit or of the transaction: the answer of a Query.
    fn fail_there(&mut self, session: &mut Session, key: BackendKey, refusal: &Refusal, out: &mut Outputs) -> Verdict {
        self.provoke_error(session, key, refusal, out);
        self.send(session, key, frontend::sync(), Some((Kind::Sync, Rule::Forward)), out);
        session.unit = super::client::Unit::default();
        Verdict::Done
    }

    /// An error and ReadyForQuery with the true status: the answer of a Query that does not run.
    pub(super) fn fail_query(&mut self, session: &mut Session, refusal: &Refusal, out: &mut Outputs) -> Verdict {
        session.tell(refusal.error(), out);
        session.fail_transaction();
        if session.status == TransactionStatus::Idle {
            session.region.rollback();
        }
        self.ready(session, out)
    }

    /// Replies are on their way that decide what the message means. Without a Sync the server keeps some of them back.
    pub(super) fn hold_until_quiet(&mut self, session: &mut Session, out: &mut Outputs) -> Verdict {
        if let Some(backend) = session.backend.filter(|_| session.unit.touched) {
            self.send(session, backend, frontend::flush(), None, out);
        }
        Verdict::Hold(Wait::Quiet)
    }

    /// ReadyForQuery: of the proxy's own, or of the backend where a unit of the extended protocol ends with the Query.
    pub(super) fn ready(&mut self, session: &mut Session, out: &mut Outputs) -> Verdict {
        if let Some(backend) = session.backend.filter(|_| session.unit.touched) {
            self.send(session, backend, frontend::sync(), Some((Kind::Sync, Rule::Forward)), out);
            session.unit = super::client::Unit { failed: session.unit.failed, ..Default::default() };
            return Verdict::Done;
        }
        session.tell(backend::ready_for_query(session.status), out);
        Verdict::Done
    }
}

/// Puts the BEGIN of a message off, or the SET TRANSACTION behind one that was put off.
fn defer(session: &mut Session, plan: &Plan, facts: &Facts, text: &[u8], now: Instant) -> Result<(), Refusal> {
    for place in &plan.defer {
        let Some(statement) = facts.statements.get(*place).and_then(|statement| text.get(statement.range.clone())) else {
            continue;
        };
        match &mut session.deferred {
            Some(deferred) if deferred.statements >= DEFERRED_STATEMENTS_MAX => {
                return Err(Refusal::new(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    "too many SET TRANSACTION before the first statement",
                ));
            }
            Some(deferred) => {
                deferred.text.push(b';');
                deferred.text.extend_from_slice(statement);
                deferred.statements += 1;
            }
            None => {
                session.deferred = Some(Deferred { text: statement.to_vec(), statements: 1 });
                session.times.transaction_begins(now);
            }
        }
    }
    Ok(())
}

/// Whether a statement may take prepared statements away.
fn clears_names(kind: &sql::Kind) -> bool {
    matches!(kind, sql::Kind::DiscardAll | sql::Kind::Deallocate { .. })
}

/// Whether a statement makes what a transaction has done last.
fn ends_with_commit(kind: &sql::Kind) -> bool {
    matches!(kind, sql::Kind::Commit { .. } | sql::Kind::PrepareTransaction)
}

/// SET or RESET.
fn tag_of_setting(text: &[u8], statement: &sql::Statement) -> &'static str {
    let first = text.get(statement.range.start).copied().unwrap_or_default();
    if first.eq_ignore_ascii_case(&b'r') { "RESET" } else { "SET" }
}
