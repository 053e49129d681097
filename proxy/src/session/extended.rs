//! The extended protocol: Parse, Bind, Describe, Execute, Close, and the Sync that ends a unit of them.

use std::rc::Rc;

use super::client::{Local, Session, Unit, Wait};
use super::frontend::{Message, Verdict};
use super::gate::Gate;
use super::local::{Class, LocalStatement, class, column, ends_failure};
use super::output::Outputs;
use super::pin::Cause;
use super::prepared::{Before, Note, Unnamed};
use super::{Common, Refusal};
use crate::limits::{LOCAL_STATEMENT_BYTES_MAX, LOCAL_STATEMENTS_MAX};
use crate::pool::{Kind, Rule};
use crate::sql::{self, GuardSet, Reading};
use crate::wire::frontend::{ParseFields, Target};
use crate::wire::{SqlState, TransactionStatus, backend, frontend, tag};

impl Common {
    /// Parse.
    pub(super) fn parse(&mut self, session: &mut Session, body: &[u8], out: &mut Outputs) -> Verdict {
        let Ok(fields) = frontend::parse_fields(body) else { return self.malformed(session, out) };
        let verdict = self.parse_as(session, &fields, body, out);
        session.unnamed_ended &= !fields.name.is_empty();
        if fields.name.is_empty() && session.unit.skip {
            // A Parse that fails has ended the unnamed statement before it all the same.
            session.deallocate_unnamed();
        }
        verdict
    }

    fn parse_as(&mut self, session: &mut Session, fields: &ParseFields<'_>, body: &[u8], out: &mut Outputs) -> Verdict {
        if !fields.name.is_empty() && session.names_are_unsettled() {
            return self.hold_until_quiet(session, out);
        }
        // A failed transaction takes no statement, and says that first.
        let is_failed = session.status == TransactionStatus::Failed;
        if is_failed && !session.is_quiet() {
            return self.hold_until_quiet(session, out);
        }
        if !fields.name.is_empty() && !is_failed && session.has_statement(fields.name) {
            return self.fail_unit(session, &Refusal::duplicate_statement(fields.name), out);
        }
        if let Some(verdict) = self.meets_first(session, fields.text, "Parse", out) {
            return verdict;
        }
        // A server says at the end of a unit what its statements have set.
        if (session.unit.touched || !session.is_quiet()) && !session.replicates() && self.sql.is_ambiguous(fields.text) {
            if session.unit.touched {
                return self.fail_unit(session, &Refusal::ambiguous_text(), out);
            }
            return self.hold_until_quiet(session, out);
        }
        let mut leaves = None;
        let mut guards = GuardSet::NONE;
        match self.read(session, fields.text) {
            Reading::Plain if session.replicates() => guards = sql::searched(fields.text),
            Reading::Plain => {}
            Reading::Refused(refused) => return self.fail_unit(session, &Refusal::of_text(refused), out),
            Reading::Known(facts) => match &facts.statements[..] {
                [] => return self.keep_local(session, fields.name, b"", None, out),
                [statement] => match class(&statement.kind) {
                    Class::Local => {
                        let text = fields.text.get(statement.range.clone()).unwrap_or(fields.text);
                        return self.keep_local(session, fields.name, text, Some(statement.kind.clone()), out);
                    }
                    Class::Refused(refused) => {
                        let refusal =
                            Refusal { hint: refused.hint, ..Refusal::new(refused.sqlstate, refused.message.to_string()) };
                        return self.fail_unit(session, &refusal, out);
                    }
                    Class::Other => {
                        guards = statement.guards;
                        leaves = Cause::of(&statement.kind, &session.told);
                        if let Some(cause) = leaves.filter(|_| self.refuses_state(session)) {
                            return self.fail_unit(session, &cause.refusal(), out);
                        }
                    }
                },
                _ => {
                    let text = "cannot insert multiple commands into a prepared statement";
                    return self.fail_unit(session, &Refusal::new(SqlState::SYNTAX_ERROR, text), out);
                }
            },
        }
        if session.maps_statements() {
            let definition = body.get(fields.name.len() + 1..).unwrap_or_default();
            return self.prepare(session, fields, definition, leaves, guards, out);
        }
        if is_failed && !guards.is_empty() {
            return self.fail_in_failed(session, out);
        }
        let key = match self.gate_guarded(session, guards, "Parse", out) {
            Gate::Open(key) => key,
            Gate::Hold(wait) => return Verdict::Hold(wait),
            Gate::Refuse(refusal) => return self.fail_unit(session, &refusal, out),
        };
        session.guards |= guards;
        session.is_used();
        session.unit.unnamed |= fields.name.is_empty();
        if session.local_statement(fields.name).is_some() {
            let before = session.before(fields.name);
            self.note_step(session, key, Kind::Parse, Rule::Forward, Note::Local(fields.name.into(), before));
        } else {
            session.unnamed_serial += u64::from(fields.name.is_empty());
            self.note_sent(session, key, Some((Kind::Parse, Rule::Forward)));
        }
        if let Some(cause) = leaves {
            self.leaves_behind(session, key, cause, out);
        }
        Verdict::Forward
    }

    /// Keeps a statement of the proxy's own.
    fn keep_local(
        &mut self,
        session: &mut Session,
        name: &[u8],
        text: &[u8],
        kind: Option<sql::Kind>,
        out: &mut Outputs,
    ) -> Verdict {
        if let Some(verdict) = self.check_status(session, kind.as_ref(), out) {
            return verdict;
        }
        if !name.is_empty() && session.has_statement(name) {
            return self.fail_unit(session, &Refusal::duplicate_statement(name), out);
        }
        if text.len() > LOCAL_STATEMENT_BYTES_MAX {
            return self.fail_unit(session, &too_many("bytes in a prepared statement"), out);
        }
        let local = session.local.get_or_insert_default();
        if local.statements.len() >= LOCAL_STATEMENTS_MAX && !local.statements.contains_key(name) {
            return self.fail_unit(session, &too_many("prepared statements"), out);
        }
        let before = session.before(name);
        let statement = Rc::new(LocalStatement { text: text.into(), kind });
        session.local.get_or_insert_default().statements.insert(name.into(), statement);
        self.answer_step(session, backend::parse_complete(), Note::Local(name.into(), before), out);
        Verdict::Done
    }

    /// Bind.
    pub(super) fn bind(&mut self, session: &mut Session, message: &Message<'_>, out: &mut Outputs) -> Verdict {
        let Some(names) = frontend::bind_names(message.body) else { return self.malformed(session, out) };
        if session.is_unsettled(names.statement) {
            return self.hold_until_quiet(session, out);
        }
        let Some(statement) = session.local_statement(names.statement) else {
            if session.maps_statements() {
                return self.bind_prepared(session, message, &names, out);
            }
            if names.statement.is_empty() && session.unnamed_ended {
                return self.fail_unit(session, &Refusal::no_statement(b""), out);
            }
            let verdict = self.pass(session, Kind::Bind, "Bind", out);
            if matches!(verdict, Verdict::Forward) {
                drop_portal(session, names.portal);
            }
            return verdict;
        };
        let fields = if message.complete { frontend::bind_counts(message.body).ok() } else { None };
        let Some(fields) = fields else { return self.malformed(session, out) };
        if fields.parameters > 0 {
            let name = String::from_utf8_lossy(names.statement);
            let count = fields.parameters;
            let text = format!("bind message supplies {count} parameters, but prepared statement \"{name}\" requires 0");
            return self.fail_unit(session, &Refusal::protocol(text), out);
        }
        if let Some(verdict) = self.check_status(session, statement.kind.as_ref(), out) {
            return verdict;
        }
        let local = session.local.get_or_insert_default();
        if local.portals.len() >= LOCAL_STATEMENTS_MAX && !local.portals.contains_key(names.portal) {
            return self.fail_unit(session, &too_many("portals"), out);
        }
        local.portals.insert(names.portal.into(), statement);
        self.answer(session, backend::bind_complete(), out);
        Verdict::Done
    }

    /// A failed transaction takes no statement but its end.
    fn check_status(&mut self, session: &mut Session, kind: Option<&sql::Kind>, out: &mut Outputs) -> Option<Verdict> {
        if !session.knows_status() {
            return Some(self.hold_until_quiet(session, out));
        }
        if session.status != TransactionStatus::Failed || ends_failure(kind) {
            return None;
        }
        Some(self.fail_in_failed(session, out))
    }

    /// A statement that a failed transaction does not take, unless what is on its way to the backend ends that.
    pub(super) fn fail_in_failed(&mut self, session: &mut Session, out: &mut Outputs) -> Verdict {
        if !session.is_quiet() {
            return self.hold_until_quiet(session, out);
        }
        self.fail_unit(session, &Refusal::in_failed_transaction(), out)
    }

    /// Describe.
    pub(super) fn describe(&mut self, session: &mut Session, body: &[u8], out: &mut Outputs) -> Verdict {
        let Ok((target, name)) = frontend::describe_fields(body) else { return self.malformed(session, out) };
        if target == Target::Statement && session.is_unsettled(name) {
            return self.hold_until_quiet(session, out);
        }
        let statement = match target {
            Target::Statement => session.local_statement(name),
            Target::Portal => session.local_portal(name),
        };
        let Some(statement) = statement else {
            if session.maps_statements() && target == Target::Statement {
                return self.describe_prepared(session, name, out);
            }
            if session.maps_statements() {
                return self.describe_portal(session, name, out);
            }
            if target == Target::Statement && name.is_empty() && session.unnamed_ended {
                return self.fail_unit(session, &Refusal::no_statement(b""), out);
            }
            return self.pass(session, Kind::Describe, "Describe", out);
        };
        let parameters = matches!(target, Target::Statement).then(backend::parameter_description_empty);
        let rows =
            column(statement.kind.as_ref()).map_or_else(backend::no_data, |column| backend::row_description_text(column, 0));
        self.answer(session, super::plan::joined([parameters, Some(rows)]), out);
        Verdict::Done
    }

    /// Execute.
    pub(super) fn execute(&mut self, session: &mut Session, body: &[u8], out: &mut Outputs) -> Verdict {
        let Ok((portal, _max_rows)) = frontend::execute_fields(body) else { return self.malformed(session, out) };
        match session.local_portal(portal) {
            Some(statement) => self.perform(session, &statement, out),
            None => self.pass(session, Kind::Execute, "Execute", out),
        }
    }

    /// Close.
    pub(super) fn close(&mut self, session: &mut Session, body: &[u8], out: &mut Outputs) -> Verdict {
        let Ok((target, name)) = frontend::close_fields(body) else { return self.malformed(session, out) };
        if target == Target::Statement && session.is_unsettled(name) {
            return self.hold_until_quiet(session, out);
        }
        let unnamed_ended = session.unnamed_ended;
        session.unnamed_ended |= target == Target::Statement && name.is_empty();
        let local = session.local.as_mut().and_then(|local| match target {
            Target::Statement => local.statements.remove(name),
            Target::Portal => local.portals.remove(name),
        });
        if let Some(local) = local.clone().filter(|_| target == Target::Statement) {
            let serial = session.unnamed_serial;
            session.unnamed_serial += u64::from(name.is_empty());
            let before = Before { local: Some(local), unnamed: Unnamed::default(), unnamed_ended, serial };
            self.answer_step(session, backend::close_complete(), Note::Local(name.into(), before), out);
            return Verdict::Done;
        }
        if local.is_none()
            && session.maps_statements()
            && target == Target::Statement
            && let Some(verdict) = self.close_prepared(session, name, out)
        {
            return verdict;
        }
        // Closing what does not exist is no error, so without a backend there is nothing to ask for.
        if local.is_some() || session.backend.is_none() {
            self.answer(session, backend::close_complete(), out);
            return Verdict::Done;
        }
        if let Some(key) = session.backend.filter(|_| session.shadow && session.is_quiet())
            && !self.backend_in_transaction(session)
        {
            // A name can be given up in a failed transaction too, and this one the backend knows nothing of.
            let message = match target {
                Target::Statement => frontend::close_statement(name),
                Target::Portal => frontend::close_portal(name),
            };
            self.send(session, key, message, Some((Kind::Close, Rule::Forward)), out);
            self.send(session, key, frontend::sync(), Some((Kind::Sync, Rule::Swallow)), out);
            return Verdict::HoldBehind(Wait::Quiet);
        }
        self.pass(session, Kind::Close, "Close", out)
    }

    /// Sync: the unit ends.
    pub(super) fn sync(&mut self, session: &mut Session, body: &[u8], out: &mut Outputs) -> Verdict {
        let is_malformed = frontend::no_fields(tag::frontend::SYNC, body).is_err();
        let fails_transaction = is_malformed && !session.shadow && self.backend_in_transaction(session);
        match session.backend {
            // One with a body goes there too, and fails what it was to end.
            Some(backend) if session.unit.touched || !session.is_quiet() || fails_transaction => {
                // A server that reads COPY data ignores it, and then the unit goes on.
                if self.note_sent(session, backend, Some((Kind::Sync, Rule::Forward))) {
                    session.unit = Unit { failed: session.unit.failed, ..Unit::default() };
                }
                Verdict::Forward
            }
            Some(_) | None => {
                if is_malformed {
                    session.tell(Refusal::protocol("invalid message format").error(), out);
                    session.fail_transaction();
                    session.unit.failed = true;
                }
                self.settle_unit(session);
                let verdict = self.ready(session, out);
                self.pause_between(session);
                verdict
            }
        }
    }

    /// A unit is over: an implicit transaction ends with it.
    pub(super) fn settle_unit(&mut self, session: &mut Session) {
        if session.status == TransactionStatus::Idle {
            if session.unit.failed {
                session.region.rollback();
            } else {
                session.region.commit();
            }
            if let Some(local) = &mut session.local {
                local.portals.clear();
            }
        }
        session.unit = Unit::default();
    }

    /// A message for the backend: through the gate.
    fn pass(&mut self, session: &mut Session, kind: Kind, message: &'static str, out: &mut Outputs) -> Verdict {
        match self.gate(session, message, out) {
            Gate::Open(backend) => {
                session.is_used();
                self.note_sent(session, backend, Some((kind, Rule::Forward)));
                Verdict::Forward
            }
            Gate::Hold(wait) => Verdict::Hold(wait),
            Gate::Refuse(refusal) => self.fail_unit(session, &refusal, out),
        }
    }

    /// A body that does not parse: ERROR, and the unit is skipped, as PostgreSQL does.
    fn malformed(&mut self, session: &mut Session, out: &mut Outputs) -> Verdict {
        self.fail_unit(session, &Refusal::protocol("invalid message format"), out)
    }
}

fn drop_portal(session: &mut Session, name: &[u8]) {
    if let Some(local) = session.local.as_deref_mut() {
        let Local { portals, .. } = local;
        portals.remove(name);
    }
}

fn too_many(what: &str) -> Refusal {
    Refusal::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("too many {what} of the proxy's own in one session"))
}
