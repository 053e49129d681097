//! Parse, Bind, Describe and Close of prepared statements in transaction mode: the backend is made to have what it is asked for.

use bytes::Bytes;

use super::client::Session;
use super::frontend::{Message, Verdict};
use super::gate::Gate;
use super::output::Outputs;
use super::pin::Cause;
use super::prepared::{Bound, Entry, Environment, Note, Statement, server_name};
use super::{Common, Refusal};
use crate::pool::{BackendKey, Kind, PoolMode, Rule, Standing};
use crate::sql::GuardSet;
use crate::wire::frontend::{BindNames, ParseFields};
use crate::wire::{TransactionStatus, backend, frontend};

impl Session {
    /// Whether its prepared statements are the proxy's to keep.
    pub(super) fn maps_statements(&self) -> bool {
        self.mode == PoolMode::Transaction
    }
}

impl Common {
    /// Parse of a statement that a backend runs. `definition` is the body behind the name.
    pub(super) fn prepare(
        &mut self,
        session: &mut Session,
        fields: &ParseFields<'_>,
        definition: &[u8],
        leaves: Option<Cause>,
        guards: GuardSet,
        out: &mut Outputs,
    ) -> Verdict {
        if session.status == TransactionStatus::Failed && !guards.is_empty() {
            return self.fail_in_failed(session, out);
        }
        if fields.name.is_empty() {
            return self.prepare_unnamed(session, definition, leaves, guards, out);
        }
        if session.status == TransactionStatus::Failed {
            return self.fail_in_failed(session, out);
        }
        let bounds = self.settings.session_statements;
        if let Some(refusal) = session.statements().refuses(fields.name.len() + definition.len(), bounds) {
            self.counters.statements_refused_total.add(1);
            return self.fail_unit(session, &refusal, out);
        }
        let key = match self.gate_guarded(session, guards, "Parse", out) {
            Gate::Open(key) => key,
            Gate::Hold(wait) => return Verdict::Hold(wait),
            Gate::Refuse(refusal) => return self.fail_unit(session, &refusal, out),
        };
        session.guards |= guards;
        // What a pinned session has made for itself may give the same text another meaning.
        let statement = self.shared.statement(definition, &session.told, leaves, session.pin.is_some());
        // The Parse goes to the server even if it has the statement: what the text refers to may have changed since.
        self.parse_there(session, key, &statement, Some(fields.name), out);
        session.statements().insert(fields.name.into(), Entry { statement, told: None });
        Verdict::Done
    }

    fn prepare_unnamed(
        &mut self,
        session: &mut Session,
        definition: &[u8],
        leaves: Option<Cause>,
        guards: GuardSet,
        out: &mut Outputs,
    ) -> Verdict {
        let key = match self.gate_guarded(session, guards, "Parse", out) {
            Gate::Open(key) => key,
            Gate::Hold(wait) => return Verdict::Hold(wait),
            Gate::Refuse(refusal) => return self.fail_unit(session, &refusal, out),
        };
        session.guards |= guards;
        let digest = self.shared.unique();
        let told = session.told.clone();
        let previous = session.statements().replace_unnamed(digest, definition, &told, leaves);
        let there = self.pools.get(key).and_then(|found| found.prepared.sent_unnamed(digest));
        session.unnamed_serial += 1;
        let local = session.local.as_mut().and_then(|local| local.statements.remove(&b""[..]));
        session.is_used();
        self.note_step(session, key, Kind::Parse, Rule::Forward, Note::Unnamed(digest, previous, there, local));
        Verdict::Forward
    }

    /// Bind of a statement that is not the proxy's own.
    pub(super) fn bind_prepared(
        &mut self,
        session: &mut Session,
        message: &Message<'_>,
        names: &BindNames<'_>,
        out: &mut Outputs,
    ) -> Verdict {
        let statement = match self.find(session, names.statement, out) {
            Ok(statement) => statement,
            Err(verdict) => return verdict,
        };
        let leaves = match &statement {
            Found::Shared(entry) => entry.statement.leaves,
            Found::Unnamed(leaves) => *leaves,
            Found::Native => None,
        };
        self.reads_sequence(session, leaves);
        let key = match self.provide(session, &statement, "Bind", out) {
            Ok(key) => key,
            Err(verdict) => return verdict,
        };
        if let Some(cause) = leaves {
            self.leaves_behind(session, key, cause, out);
        }
        self.note_sent(session, key, Some((Kind::Bind, Rule::Forward)));
        if let Some(local) = &mut session.local {
            local.portals.remove(names.portal);
        }
        let statements = session.statements();
        let Found::Shared(Entry { statement, told }) = statement else {
            // What a Describe of this portal tells is no longer about the named statement that was bound to it before.
            statements.bound = None;
            return Verdict::Forward;
        };
        statements.bound = told.is_none().then(|| Bound { portal: names.portal.into(), statement: names.statement.into() });
        let renamed = BindNames { portal: names.portal, statement: statement.server_name.as_bytes(), len: 0 };
        let len = message.len + statement.server_name.len() - names.statement.len();
        frontend::bind_head(&mut self.scratch, len, &renamed);
        Verdict::Rename { head: self.scratch.split().freeze(), from: names.len }
    }

    /// Describe of a statement that is not the proxy's own.
    pub(super) fn describe_prepared(&mut self, session: &mut Session, name: &[u8], out: &mut Outputs) -> Verdict {
        let statement = match self.find(session, name, out) {
            Ok(statement) => statement,
            Err(verdict) => return verdict,
        };
        let key = match self.provide(session, &statement, "Describe", out) {
            Ok(key) => key,
            Err(verdict) => return verdict,
        };
        let Found::Shared(Entry { statement, .. }) = statement else {
            self.note_sent(session, key, Some((Kind::Describe, Rule::Forward)));
            return Verdict::Forward;
        };
        let message = frontend::describe_statement(statement.server_name.as_bytes());
        let note = Note::Described(statement.digest, Some(name.into()));
        self.send_step(session, key, message, Kind::Describe, Rule::Forward, note, out);
        Verdict::Done
    }

    /// Close of a statement that is not the proxy's own. `None`: it may be one that the session has made with SQL.
    pub(super) fn close_prepared(&mut self, session: &mut Session, name: &[u8], out: &mut Outputs) -> Option<Verdict> {
        let note = if name.is_empty() {
            Note::UnnamedClosed(session.statements().drop_unnamed())
        } else {
            match session.statements().remove(name) {
                Some((name, entry)) => Note::Closed(name, entry),
                None if session.pin.is_some() => return None,
                None => {
                    self.answer(session, backend::close_complete(), out);
                    return Some(Verdict::Done);
                }
            }
        };
        self.answer_step(session, backend::close_complete(), note, out);
        Some(Verdict::Done)
    }

    /// What the client means by the name of a statement.
    fn find(&mut self, session: &mut Session, name: &[u8], out: &mut Outputs) -> Result<Found, Verdict> {
        let pinned = session.pin.is_some();
        let found = if name.is_empty() {
            session.statements().unnamed().map(|unnamed| Found::Unnamed(unnamed.leaves))
        } else {
            session.statements().get(name).cloned().map(Found::Shared).or(pinned.then_some(Found::Native))
        };
        found.ok_or_else(|| self.fail_unit(session, &Refusal::no_statement(name), out))
    }

    /// Gets a backend through the gate that has the statement.
    fn provide(
        &mut self,
        session: &mut Session,
        statement: &Found,
        message: &'static str,
        out: &mut Outputs,
    ) -> Result<BackendKey, Verdict> {
        let key = match self.gate(session, message, out) {
            Gate::Open(key) => key,
            Gate::Hold(wait) => return Err(Verdict::Hold(wait)),
            Gate::Refuse(refusal) => return Err(self.fail_unit(session, &refusal, out)),
        };
        match statement {
            Found::Native => {}
            Found::Shared(entry) => self.provide_shared(session, key, entry, out)?,
            Found::Unnamed(_) => self.provide_unnamed(session, key, out)?,
        }
        session.is_used();
        Ok(key)
    }

    /// Has the backend make a statement that it lacks, and one that may return something else than the client was told.
    fn provide_shared(
        &mut self,
        session: &mut Session,
        key: BackendKey,
        entry: &Entry,
        out: &mut Outputs,
    ) -> Result<(), Verdict> {
        let Entry { statement, told } = entry;
        let Some(found) = self.pools.get(key) else { return Err(Verdict::Fatal(Refusal::internal("a backend that is gone"))) };
        let standing = found.prepared.standing(statement.digest);
        let description = found.prepared.get(statement.digest).and_then(|there| there.description);
        if standing == Standing::Uncertain && !session.is_quiet() {
            return Err(self.hold_until_quiet(session, out));
        }
        let is_renewed = session.statements().renewed.take() == Some(statement.digest);
        if standing == Standing::Ready && (told.is_none() || *told == description) {
            return Ok(());
        }
        if is_renewed && standing == Standing::Ready {
            return Err(self.fail_unit(session, &Refusal::result_has_changed(), out));
        }
        self.parse_there(session, key, statement, None, out);
        if told.is_none() {
            return Ok(());
        }
        let describe = frontend::describe_statement(statement.server_name.as_bytes());
        let note = Note::Described(statement.digest, None);
        self.send_step(session, key, describe, Kind::Describe, Rule::Swallow, note, out);
        session.statements().renewed = Some(statement.digest);
        Err(self.hold_until_quiet(session, out))
    }

    fn provide_unnamed(&mut self, session: &mut Session, key: BackendKey, out: &mut Outputs) -> Result<(), Verdict> {
        let Some(digest) = session.statements().unnamed().and_then(|unnamed| unnamed.digest) else {
            return Err(self.fail_unit(session, &Refusal::no_statement(b""), out));
        };
        let Some(found) = self.pools.get(key) else { return Err(Verdict::Fatal(Refusal::internal("a backend that is gone"))) };
        match found.prepared.unnamed_standing(digest) {
            Standing::Ready => Ok(()),
            Standing::Uncertain if !session.is_quiet() => Err(self.hold_until_quiet(session, out)),
            Standing::Absent | Standing::Stale | Standing::Uncertain => {
                let there = found.prepared.sent_unnamed(digest);
                let told = session.told.clone();
                let Some(unnamed) = session.statements().unnamed() else { return Ok(()) };
                let (message, environment) = (frontend::parse_definition(b"", &unnamed.definition), unnamed.environment(&told));
                let parse = Parse { message, rule: Rule::Swallow, note: Note::UnnamedAgain(digest, there) };
                self.parse_under(session, key, environment, parse, out);
                Ok(())
            }
        }
    }

    /// Describe of a portal. The client is told what the statement returns that it was bound from.
    pub(super) fn describe_portal(&mut self, session: &mut Session, portal: &[u8], out: &mut Outputs) -> Verdict {
        let bound = session.statements.as_mut().and_then(|statements| statements.bound.take_if(|bound| *bound.portal == *portal));
        let statement = bound.and_then(|bound| {
            let digest = session.statements().get(&bound.statement)?.statement.digest;
            Some(Note::Described(digest, Some(bound.statement)))
        });
        let key = match self.gate(session, "Describe", out) {
            Gate::Open(key) => key,
            Gate::Hold(wait) => return Verdict::Hold(wait),
            Gate::Refuse(refusal) => return self.fail_unit(session, &refusal, out),
        };
        session.is_used();
        match statement {
            Some(note) => self.note_step(session, key, Kind::Describe, Rule::Forward, note),
            None => drop(self.note_sent(session, key, Some((Kind::Describe, Rule::Forward)))),
        }
        Verdict::Forward
    }

    /// Prepares a statement on a backend, anew if it is there: for the client's own Parse if it has a `name`, else unseen by the client.
    fn parse_there(
        &mut self,
        session: &mut Session,
        key: BackendKey,
        statement: &Statement,
        name: Option<&[u8]>,
        out: &mut Outputs,
    ) {
        let bytes = statement.definition.len();
        let count_max = self.settings.pools.prepared_statements;
        let old = self.pools.get(key).and_then(|found| found.prepared.forget(statement.digest));
        let mut closed = old.map(|old| (statement.digest, old));
        while let Some((digest, evicted)) =
            closed.take().or_else(|| self.pools.get(key).and_then(|found| found.prepared.evict(bytes, count_max)))
        {
            let close = frontend::close_statement(server_name(digest).as_bytes());
            self.send_step(session, key, close, Kind::Close, Rule::Swallow, Note::Evicted(digest, evicted), out);
        }
        if let Some(found) = self.pools.get(key) {
            found.prepared.sent(statement.digest, bytes);
        }
        let message = frontend::parse_definition(statement.server_name.as_bytes(), &statement.definition);
        let rule = if name.is_some() { Rule::Forward } else { Rule::Swallow };
        let note = Note::Parse(statement.digest, name.map(Into::into));
        let environment = statement.environment(&session.told);
        self.parse_under(session, key, environment, Parse { message, rule, note }, out);
    }

    /// Sends a Parse, between what sets the settings of an earlier one and the present ones again if they differ.
    fn parse_under(
        &mut self,
        session: &mut Session,
        key: BackendKey,
        environment: Option<Environment>,
        parse: Parse,
        out: &mut Outputs,
    ) {
        let Parse { message, rule, note } = parse;
        session.is_used();
        let (earlier, present) = environment.map_or((None, None), |both| (Some(both.earlier), Some(both.present)));
        if let Some(text) = earlier {
            self.run_unseen(session, key, text.as_bytes(), out);
        }
        self.send_step(session, key, message, Kind::Parse, rule, note, out);
        if let Some(text) = present {
            self.run_unseen(session, key, text.as_bytes(), out);
        }
    }
}

/// A Parse to be sent.
struct Parse {
    message: Bytes,
    rule: Rule,
    note: Note,
}

/// What a name stands for.
enum Found {
    Shared(Entry),
    /// The unnamed statement, with what it leaves behind.
    Unnamed(Option<Cause>),
    /// Only the backend knows.
    Native,
}
