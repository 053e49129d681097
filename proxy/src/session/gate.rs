//! The one way to a backend: the decision, then the checkout.
//!
//! Every message that needs a backend passes [`Common::gate`]. It refuses to lend a backend without a [`Permit`](crate::policy::Permit),
//! and to use one of another region than the permit's.

use super::client::{Preamble, Session, Wait};
use super::counters::Outcome;
use super::output::{AuditRecord, Identity, Output, Outputs, Payload};
use super::prepared::Note;
use super::region::RegionTrack;
use super::replication::not_permitted;
use super::{Common, Refusal};
use crate::policy::{Denial, Grant, Requirement, RuleId, Subject};
use crate::pool::{BackendKey, Checkout, Farewell, Kind, PoolKey, Reply, Rule};
use crate::region::{RegionId, SessionRegion};
use crate::sql::GuardSet;
use crate::wire::{Report, Severity, SqlState, TransactionStatus, encode_notice, frontend};

/// What the gate says.
pub(super) enum Gate {
    /// The session has this backend, of the region that the decision permits.
    Open(BackendKey),
    /// The message has to wait.
    Hold(Wait),
    /// No.
    Refuse(Refusal),
}

impl Common {
    /// Decides about the next message of the session in its present region, and gets it a backend.
    pub(super) fn gate(&mut self, session: &mut Session, message: &'static str, out: &mut Outputs) -> Gate {
        let region = session.region.current().clone();
        self.gate_in(session, &region, GuardSet::NONE, message, out)
    }

    /// The same for a message with guards.
    pub(super) fn gate_guarded(
        &mut self,
        session: &mut Session,
        guards: GuardSet,
        message: &'static str,
        out: &mut Outputs,
    ) -> Gate {
        let region = session.region.current().clone();
        self.gate_in(session, &region, guards, message, out)
    }

    /// The same for a region that the message itself chooses.
    pub(super) fn gate_in(
        &mut self,
        session: &mut Session,
        region: &SessionRegion,
        guards: GuardSet,
        message: &'static str,
        out: &mut Outputs,
    ) -> Gate {
        if let Some(refusal) = session.failure.take() {
            return Gate::Refuse(*refusal);
        }
        if session.shadow {
            return Gate::Refuse(Refusal::in_failed_transaction());
        }
        if session.region.is_open() && !session.is_quiet() && !session.unit.touched {
            // Replies that are on their way decide which region the session is in.
            return Gate::Hold(Wait::Quiet);
        }
        if session.unit.region_ends {
            return Gate::Refuse(Refusal::region_changes_at_end());
        }
        if let Err(refusal) = self.renew_grant(session) {
            return Gate::Refuse(refusal);
        }
        let Some(grant) = &session.grant else { return Gate::Refuse(Refusal::internal("session without a grant")) };
        // The snapshot that the grant is of: a newer one is for the next message.
        let permit = match self.policy.snapshot().decide(grant, region, guards) {
            Ok(permit) => permit,
            // The refusal must stand behind the replies that are still to come.
            Err(_) if !session.is_quiet() && !session.unit.touched => return Gate::Hold(Wait::Quiet),
            Err(denial) => return Gate::Refuse(self.denied(session, &denial, message, out)),
        };
        let (served_by, requirement, rule) = (permit.region(), permit.requirement(), permit.rule());
        if let Some(key) = session.backend {
            // A reload may have given the session other servers of its region, as it may have changed its node.
            let other_servers = grant.target() != session.target;
            let bound_to = self.pools.get(key).map(|backend| (backend.region(), backend.is_retired() || other_servers));
            let in_transaction = session.unit.touched || self.backend_in_transaction(session);
            let stays = match bound_to {
                Some((region, retired)) => region == served_by && (!retired || in_transaction || !session.is_quiet()),
                None => false,
            };
            if !stays {
                if !session.is_quiet() {
                    return Gate::Hold(Wait::Quiet);
                }
                if in_transaction {
                    return Gate::Refuse(Refusal::region_changes_too_late());
                }
                let moved = bound_to.is_some_and(|(region, _)| region != served_by);
                if let Some(pin) = session.pin.filter(|_| moved) {
                    return Gate::Refuse(pin.refuses_to_move());
                }
                let why = if moved { "the session leaves its region" } else { "the node of this session has been reconfigured" };
                self.give_up_backend(session, why, out);
            }
        }
        let key = match session.backend {
            Some(key) => key,
            None => {
                let pool = self.pool_of(session, served_by);
                match self.pools.checkout(permit, pool, session.key, self.now) {
                    Some(Checkout::Bound(key)) => {
                        session.backend = Some(key);
                        session.unmet = true;
                        self.lent(session, key);
                        key
                    }
                    Some(Checkout::Waiting) => return Gate::Hold(Wait::Backend),
                    None => return Gate::Refuse(Refusal::internal("a pool of another region than the decision's")),
                }
            }
        };
        let gate = self.open_gate(session, key, out);
        if matches!(gate, Gate::Open(_)) {
            // A message that is held is decided on again, and counted then.
            self.permitted(session, region, requirement, rule, served_by, message, out);
        }
        gate
    }

    /// The session has a backend: brings its settings there if they are others, then the BEGIN that has been put off, if there is one.
    fn open_gate(&mut self, session: &mut Session, key: BackendKey, out: &mut Outputs) -> Gate {
        if std::mem::take(&mut session.unmet)
            && let Some(restore) = self.meet(session, key, out)
        {
            self.send(session, key, frontend::query(restore.as_bytes()), Some((Kind::Query, Rule::Swallow)), out);
            return Gate::Hold(Wait::Preamble(Preamble::Restore));
        }
        let Some(deferred) = &session.deferred else { return Gate::Open(key) };
        let begin = frontend::query(&deferred.text);
        self.send(session, key, begin, Some((Kind::Query, Rule::Swallow)), out);
        Gate::Hold(Wait::Preamble(Preamble::Begin))
    }

    /// The pool of the session in a region.
    pub(super) fn pool_of(&mut self, session: &mut Session, region: RegionId) -> crate::pool::PoolIndex {
        let target = session.grant.as_ref().map(Grant::target).unwrap_or_default();
        if let Some((of, pool)) = session.pool {
            if of == region && session.target == target {
                return pool;
            }
            self.count_watched(session);
            self.pools.leave(pool);
        }
        let identity = &session.identity;
        let pool = self.pools.enter(&PoolKey {
            region,
            database: identity.database.clone(),
            user: identity.user.clone(),
            settings: identity.settings.clone(),
            target,
            replication: identity.replication,
        });
        session.target = target;
        session.pool = Some((region, pool));
        pool
    }

    /// Brings the session under the policy in force; an error when it no longer admits the user at all.
    pub(super) fn renew_grant(&mut self, session: &mut Session) -> Result<(), Refusal> {
        let policy = self.policy.get();
        if session.generation == policy.generation() && session.grant.is_some() {
            return Ok(());
        }
        let identity = &session.identity;
        let Identity { user, database, address, proven, .. } = identity;
        let subject = Subject { user, database, address: *address, proven };
        let grant = match policy.grant(&subject) {
            Ok(grant) => grant,
            Err(denial) => return Err(Refusal::new(denial.sqlstate(policy), denial.message(policy))),
        };
        // What it has prepared could be run under its name.
        if let Err(denial) = policy.may_run(session.region.current(), session.guards) {
            let refusal = Refusal::new(denial.sqlstate(policy), denial.message(policy));
            return Err(refusal.with_hint("The session has prepared such a statement before that was denied; connect again."));
        }
        if session.replicates() && !grant.may_replicate() {
            return Err(not_permitted());
        }
        if session.grant.is_none() {
            let start = identity.startup_region.as_ref().map_or_else(|| grant.start().clone(), |name| policy.region(name));
            session.region = RegionTrack::new(start, session.region_place.take(), &self.settings.region_places);
        } else {
            // A name may have been declared or have lost its declaration; numbers keep their names.
            let places = &self.settings.region_places;
            session.region.rename(|region| policy.region(policy.region_name(region)), places);
        }
        session.generation = policy.generation();
        session.grant = Some(grant);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a permit, which has been used, and whose it was")]
    fn permitted(
        &self,
        session: &Session,
        region: &SessionRegion,
        requirement: Requirement,
        rule: RuleId,
        served_by: RegionId,
        message: &'static str,
        out: &mut Outputs,
    ) {
        match requirement {
            Requirement::InRegion => self.counters.decided(Outcome::Permitted, region),
            Requirement::NoRequirement => self.counters.decided(Outcome::Defaulted, region),
            Requirement::WouldBlock(reason) => {
                self.counters.decided(Outcome::WouldBlock(reason), region);
                let policy = self.policy.snapshot();
                let rule = policy.rule_name(rule);
                out.push(Output::Audit(Box::new(AuditRecord {
                    would_block: true,
                    served_by: Some(served_by),
                    ..audit(session, policy.region_name(region), reason, rule, SqlState::SUCCESSFUL_COMPLETION, message)
                })));
            }
        }
    }

    /// Counts and records a denial; the answer to the client.
    pub(super) fn denied(&self, session: &Session, denial: &Denial, message: &'static str, out: &mut Outputs) -> Refusal {
        let policy = self.policy.snapshot();
        let (sqlstate, region) = (denial.sqlstate(policy), policy.region_name(&denial.region));
        self.counters.decided(Outcome::Denied(denial.reason), &denial.region);
        let rule = policy.rule_name(denial.rule);
        out.push(Output::Audit(Box::new(audit(session, region, denial.reason, rule, sqlstate, message))));
        Refusal { hint: denial.hint(), ..Refusal::new(sqlstate, denial.message(policy)) }
    }

    /// Sends bytes of the core's own to the session's backend, and notes what they ask for.
    pub(super) fn send(
        &mut self,
        session: &mut Session,
        key: BackendKey,
        bytes: bytes::Bytes,
        asks: Option<(Kind, Rule)>,
        out: &mut Outputs,
    ) {
        self.note_sent(session, key, asks);
        out.push(Output::ToBackend(key, Payload::Owned(bytes)));
    }

    /// Sends a step that stands or falls with its reply.
    #[expect(clippy::too_many_arguments, reason = "what is sent, what it asks for, and what it changes belong together")]
    pub(super) fn send_step(
        &mut self,
        session: &mut Session,
        key: BackendKey,
        bytes: bytes::Bytes,
        kind: Kind,
        rule: Rule,
        note: Note,
        out: &mut Outputs,
    ) {
        self.note_step(session, key, kind, rule, note);
        out.push(Output::ToBackend(key, Payload::Owned(bytes)));
    }

    /// Notes that such a step goes to the session's backend.
    pub(super) fn note_step(&mut self, session: &mut Session, key: BackendKey, kind: Kind, rule: Rule, note: Note) {
        if self.owe(session, key, Some((kind, rule)), true) {
            session.note(note);
        }
    }

    /// Notes that something goes to the session's backend, and what it asks for. False: the server will ignore it.
    pub(super) fn note_sent(&mut self, session: &mut Session, key: BackendKey, asks: Option<(Kind, Rule)>) -> bool {
        self.owe(session, key, asks, false)
    }

    fn owe(&mut self, session: &mut Session, key: BackendKey, asks: Option<(Kind, Rule)>, noted: bool) -> bool {
        let Some(backend) = self.pools.get(key) else { return false };
        // An answer of the proxy's own only stands in the queue.
        backend.unflushed |= !matches!(asks, Some((Kind::Local, _)));
        let Some((kind, rule)) = asks else { return true };
        if session.is_quiet() {
            let begins = session.status == TransactionStatus::Idle && !session.unit.touched;
            session.times.asked(begins, self.now);
        }
        let (first, own) = (backend.owed.is_empty(), matches!(rule, Rule::Swallow));
        if !backend.owed.push(Reply { session: Some(session.key), kind, rule, noted }) {
            return false;
        }
        backend.was_asked(kind, first, own, self.now);
        session.owed += 1;
        session.asked += 1;
        session.unready += usize::from(matches!(kind, Kind::Query | Kind::FunctionCall | Kind::Sync));
        match kind {
            Kind::Sync => {
                backend.unsynced = false;
                backend.prepared.unit_ends(false);
            }
            Kind::Query => backend.prepared.unit_ends(true),
            Kind::Parse | Kind::Bind | Kind::Describe | Kind::Execute | Kind::Close => backend.unsynced = true,
            Kind::FunctionCall | Kind::CopyEnd | Kind::Local => {}
        }
        true
    }

    /// The session and its backend part. A backend that is not at rest is closed by the pool.
    pub(super) fn give_up_backend(&mut self, session: &mut Session, why: &str, out: &mut Outputs) {
        let Some(key) = session.backend.take() else { return };
        // A backend that it was given by its login, and has not used, is no loss.
        let kept = session.keeps_backend() && !session.unmet;
        session.pin = None;
        self.pools.release(key, self.now);
        if kept && session.is_quiet() {
            let message = format!("{why}; prepared statements, temporary tables and settings made there are gone");
            let report = Report {
                severity: Severity::Notice,
                sqlstate: SqlState::SUCCESSFUL_COMPLETION,
                message: &message,
                detail: None,
                hint: None,
                position: None,
            };
            session.tell(encode_notice(&report), out);
        }
    }

    /// The session is over: its backend goes back if it can be used again, else it is closed.
    pub(super) fn let_go(&mut self, mut session: Session, _out: &mut Outputs) {
        self.count_watched(&mut session);
        self.process_ids.remove(session.process_id, session.key);
        if let Some((_, pool)) = session.pool.take() {
            if session.wait == Wait::Backend {
                self.pools.stop_waiting(pool, session.key);
            }
            if let Some(key) = session.backend.take() {
                // What is still owed to this session, or a message it has begun, makes the backend unfit for another.
                let unfit = !session.is_quiet() || session.streaming || session.unit.touched;
                if unfit {
                    self.pools.close(key, Farewell::Abrupt);
                } else {
                    self.pools.release(key, self.now);
                }
            }
            self.pools.leave(pool);
        }
    }

    /// Whether the backend of the session has an open transaction.
    pub(super) fn backend_in_transaction(&mut self, session: &Session) -> bool {
        let Some(key) = session.backend else { return false };
        self.pools.get(key).is_some_and(|backend| backend.status != TransactionStatus::Idle)
    }
}

fn audit(
    session: &Session,
    region: &str,
    reason: crate::policy::Reason,
    rule: &str,
    sqlstate: SqlState,
    message: &'static str,
) -> AuditRecord {
    AuditRecord {
        user: session.identity.user.clone(),
        database: session.identity.database.clone(),
        address: session.identity.address,
        region: region.into(),
        reason,
        rule: rule.into(),
        sqlstate,
        would_block: false,
        served_by: None,
        message,
    }
}
