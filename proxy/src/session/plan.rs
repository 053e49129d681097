//! What a Query with statements of interest will do, found out before any of it is done.
//!
//! The plan walks the statements in order on a copy of the session's region, and says for each whether the proxy answers it or a
//! backend runs it. Nothing has happened when a plan is refused, so a refusal means that nothing of the message runs.

use bytes::Bytes;

use super::Refusal;
use super::pin::Cause;
use super::place::RegionPlaces;
use super::region::RegionTrack;
use crate::policy::{Denial, Grant, Policy};
use crate::pool::{Effect, Parameters};
use crate::region::SessionRegion;
use crate::sql::{Facts, GuardSet, Kind, Statement};
use crate::wire::{Report, Severity, SqlState, TransactionStatus, backend, encode_notice};

/// Where the session stands as the message arrives.
pub(super) struct View<'a> {
    pub(super) policy: &'a Policy,
    pub(super) grant: &'a Grant,
    pub(super) region_places: &'a RegionPlaces,
    pub(super) region: RegionTrack,
    pub(super) status: TransactionStatus,
    /// A statement of the client has run in the open transaction, or in the unit before its Sync.
    pub(super) touched: bool,
    /// The open transaction is one that no backend has seen.
    pub(super) deferred: bool,
    /// A transaction was begun on the backend for this very message.
    pub(super) fresh: bool,
    /// The session has a backend.
    pub(super) bound: bool,
    /// It keeps it, and with it what it leaves there.
    pub(super) keeps: bool,
    /// It may leave nothing there.
    pub(super) refuses_state: bool,
    /// The settings that the client has been told of are not those it began with.
    pub(super) has_set: bool,
    /// Settings that servers report.
    pub(super) reported: &'a Parameters,
    /// Whether a prepared statement of this name is the proxy's.
    pub(super) has_statement: &'a dyn Fn(&[u8]) -> bool,
    /// Answer to `SHOW domicile.node`.
    pub(super) node: &'a str,
}

/// One statement of the message.
pub(super) enum Item {
    /// The proxy answers it, with this consequence.
    Local(Bytes, Option<Effect>),
    /// A backend runs it.
    Backend(Option<Effect>),
}

impl Item {
    fn local(answer: Bytes) -> Self {
        Self::Local(answer, None)
    }

    /// The same with a SET of the region.
    fn setting(self, region: SessionRegion, local: bool) -> Self {
        match self {
            Self::Local(answer, _) => Self::Local(answer, Some(Effect::Set(region, local))),
            Self::Backend(effect) => Self::Backend(effect),
        }
    }
}

/// The plan of a message.
pub(super) struct Plan {
    /// One for each statement.
    pub(super) items: Vec<Item>,
    /// The region with all that the message sets.
    pub(super) region: RegionTrack,
    /// The region that its statements run in.
    pub(super) runs_in: SessionRegion,
    /// The statement that is blocked, should the region be.
    pub(super) blocked: usize,
    /// The guards of its statements.
    pub(super) guards: GuardSet,
    /// What the backend will remember and the next session must not see.
    pub(super) leaves: Option<Cause>,
    /// BEGIN to be put off, and the SET TRANSACTION behind it: places in the list of statements.
    pub(super) defer: Vec<usize>,
    /// The status when the proxy alone answers.
    pub(super) status: TransactionStatus,
    /// A transaction that no backend has seen ends at this statement, before others need a backend: where, and the region then.
    pub(super) ended: Option<(usize, RegionTrack)>,
}

/// Why nothing of the message runs.
pub(super) enum Refuse {
    Denied(Denial),
    Answer(Refusal),
}

impl From<Refusal> for Refuse {
    fn from(refusal: Refusal) -> Self {
        Self::Answer(refusal)
    }
}

impl Plan {
    pub(super) fn needs_backend(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Backend(_)))
    }
}

struct Walk<'a> {
    view: &'a View<'a>,
    text: &'a [u8],
    region: RegionTrack,
    /// The region at the first statement that touches a backend.
    runs_in: Option<SessionRegion>,
    status: TransactionStatus,
    deferred: bool,
    touched: bool,
    /// The end of a transaction inside the message changes the region: nothing may follow it.
    changed_at_end: bool,
    /// A backend runs one of the statements so far.
    on_backend: bool,
    ended: Option<(usize, RegionTrack)>,
    leaves: Option<Cause>,
    defer: Vec<usize>,
    alone: bool,
}

/// Makes the plan of a message with these statements.
pub(super) fn plan(view: &View<'_>, facts: &Facts, text: &[u8]) -> Result<Plan, Refuse> {
    let mut walk = Walk {
        view,
        text,
        region: view.region.clone(),
        runs_in: None,
        status: view.status,
        deferred: view.deferred,
        touched: view.touched,
        changed_at_end: false,
        on_backend: view.fresh,
        ended: None,
        leaves: None,
        defer: Vec::new(),
        alone: facts.statements.len() == 1,
    };
    let mut items = Vec::with_capacity(facts.statements.len());
    let mut blocked = None;
    for (place, statement) in facts.statements.iter().enumerate() {
        let touched_before = walk.touched;
        let item = walk.item(place, statement)?;
        walk.on_backend |= matches!(item, Item::Backend(_));
        if walk.touched && !touched_before {
            blocked.get_or_insert(place);
        }
        items.push(item);
    }
    let last_backend = items.iter().rposition(|item| matches!(item, Item::Backend(_)));
    if last_backend.is_none() && !walk.deferred {
        walk.defer.clear();
    }
    Ok(Plan {
        blocked: blocked.or(last_backend).unwrap_or(0),
        runs_in: walk.runs_in.unwrap_or_else(|| walk.region.current().clone()),
        items,
        region: walk.region,
        guards: facts.statements.iter().fold(GuardSet::NONE, |all, statement| all | statement.guards),
        leaves: walk.leaves,
        defer: walk.defer,
        status: walk.status,
        ended: walk.ended,
    })
}

impl Walk<'_> {
    fn item(&mut self, place: usize, statement: &Statement) -> Result<Item, Refuse> {
        self.view.policy.may_run(self.region.current(), statement.guards).map_err(Refuse::Denied)?;
        let first = self.text.get(statement.range.start).copied().unwrap_or_default();
        match &statement.kind {
            Kind::SetRegion { value, local } => {
                Refusal::of_region_name(value).map_or(Ok(()), Err)?;
                let region = self.view.policy.region(value);
                self.set_region(&region, *local)?;
                let warn = *local && self.alone && self.status == TransactionStatus::Idle;
                let answer = joined([warn.then(set_local_warning), Some(backend::command_complete("SET"))]);
                Ok(Item::local(answer).setting(region, *local))
            }
            Kind::ResetRegion { local } => {
                let start = self.region.start().clone();
                self.set_region(&start, *local)?;
                let tag = if first.eq_ignore_ascii_case(&b's') { "SET" } else { "RESET" };
                Ok(Item::local(backend::command_complete(tag)).setting(start, *local))
            }
            Kind::SetConfigRegion { value, local, column } => {
                value.as_deref().and_then(Refusal::of_region_name).map_or(Ok(()), Err)?;
                let region = match value {
                    Some(value) => self.view.policy.region(value),
                    None => self.region.start().clone(),
                };
                self.set_region(&region, *local)?;
                let answer = one_row(column, Some(self.view.policy.region_name(&region)), "SELECT 1");
                Ok(Item::local(answer).setting(region, *local))
            }
            Kind::ResetAll => {
                let start = self.region.start().clone();
                self.set_region(&start, false)?;
                let is_settled = self.alone && self.status == TransactionStatus::Idle && !self.view.bound;
                if self.view.has_set && !is_settled {
                    return Ok(self.backend(None));
                }
                Ok(self.backend_if_bound("RESET").setting(start, false))
            }
            Kind::DiscardAll if self.alone && self.status == TransactionStatus::Idle => {
                let start = self.region.start().clone();
                self.set_region(&start, false)?;
                Ok(self.backend_if_bound("DISCARD ALL").setting(start, false))
            }
            Kind::DiscardAll => {
                let text = "DISCARD ALL cannot run inside a transaction block";
                Err(Refusal::new(SqlState::ACTIVE_SQL_TRANSACTION, text).into())
            }
            Kind::ShowRegion { column } => {
                let name = self.view.policy.region_name(self.region.current());
                Ok(Item::local(one_row(column, Some(name), "SHOW")))
            }
            Kind::ShowNode { column } => Ok(Item::local(one_row(column, Some(self.view.node), "SHOW"))),
            Kind::Begin => Ok(self.begin(place, first)),
            Kind::Commit { chain } => self.end(place, *chain, true),
            Kind::Rollback { chain } => self.end(place, *chain, false),
            Kind::PrepareTransaction => {
                self.note_end();
                Ok(self.ends_on_backend())
            }
            Kind::Savepoint { name } => {
                if !self.region.has_room() {
                    return Err(
                        Refusal::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many savepoints after a change of region").into()
                    );
                }
                Ok(self.backend(Some(Effect::Savepoint(name.clone()))))
            }
            Kind::Release { name } => Ok(self.backend(Some(Effect::Release(name.clone())))),
            Kind::RollbackTo { name } => Ok(self.backend(Some(Effect::RollbackTo(name.clone())))),
            Kind::SetTransaction => {
                if self.deferred && !self.touched && self.alone {
                    self.defer.push(place);
                    return Ok(Item::local(backend::command_complete("SET")));
                }
                Ok(Item::Backend(None))
            }
            Kind::SetOther { .. } => {
                self.leaves_behind(&statement.kind)?;
                self.check_place()?;
                Ok(Item::Backend(None))
            }
            Kind::Deallocate { name } => self.deallocate(name.as_deref()),
            Kind::Refused(refused) => {
                Err(Refusal { hint: refused.hint, ..Refusal::new(refused.sqlstate, refused.message.to_string()) }.into())
            }
            Kind::Other { .. } => {
                self.leaves_behind(&statement.kind)?;
                self.check_place()?;
                Ok(self.backend(None))
            }
        }
    }

    /// A statement that a backend runs, and that the region may not change after.
    fn backend(&mut self, effect: Option<Effect>) -> Item {
        if self.runs_in.is_none() {
            self.runs_in = Some(self.region.current().clone());
        }
        self.touched = true;
        Item::Backend(effect)
    }

    /// RESET ALL and DISCARD ALL concern the backend only if there is one.
    fn backend_if_bound(&mut self, tag: &str) -> Item {
        let moved = self.region.current() != self.view.region.current();
        if self.view.bound && !moved && !self.deferred { self.backend(None) } else { Item::local(backend::command_complete(tag)) }
    }

    fn check_place(&self) -> Result<(), Refusal> {
        if self.changed_at_end { Err(Refusal::region_changes_at_end()) } else { Ok(()) }
    }

    /// The session goes to another region, if it may and if nothing has run yet.
    fn set_region(&mut self, region: &SessionRegion, local: bool) -> Result<(), Refuse> {
        self.view.policy.may_choose(self.view.grant, region).map_err(Refuse::Denied)?;
        self.check_place()?;
        if region != self.region.current() && self.touched {
            return Err(Refusal::region_changes_too_late().into());
        }
        if !self.region.reserve(region, self.view.region_places) {
            return Err(Refusal::region_is_full(self.view.policy.region_name(region)).into());
        }
        self.region.set(region.clone(), local);
        Ok(())
    }

    fn begin(&mut self, place: usize, first: u8) -> Item {
        let tag = if first.eq_ignore_ascii_case(&b's') { "START TRANSACTION" } else { "BEGIN" };
        if self.touched {
            return self.backend(None);
        }
        if self.status != TransactionStatus::Idle {
            return Item::local(joined([Some(already_warning()), Some(backend::command_complete(tag))]));
        }
        self.status = TransactionStatus::InTransaction;
        self.deferred = true;
        self.defer.push(place);
        Item::local(backend::command_complete(tag))
    }

    fn end(&mut self, place: usize, chain: bool, commits: bool) -> Result<Item, Refuse> {
        let tag = if commits { "COMMIT" } else { "ROLLBACK" };
        if self.touched || self.on_backend {
            let before = self.changed_at_end;
            self.note_end();
            if chain && self.changed_at_end && !before {
                return Err(Refusal::region_changes_at_end().into());
            }
            return Ok(self.ends_on_backend());
        }
        if self.status == TransactionStatus::Idle {
            if chain {
                let text = format!("{tag} AND CHAIN can only be used in transaction blocks");
                return Err(Refusal::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, text).into());
            }
            return Ok(Item::local(joined([Some(none_warning()), Some(backend::command_complete(tag))])));
        }
        // The transaction has not reached a backend: the proxy ends it.
        let after = if commits { self.region.after_commit() } else { self.region.after_rollback() };
        if chain && after != self.region.current() {
            return Err(Refusal::region_changes_at_end().into());
        }
        if commits {
            self.region.commit();
        } else {
            self.region.rollback();
        }
        if !chain {
            self.status = TransactionStatus::Idle;
            self.deferred = false;
            self.defer.clear();
            self.ended = Some((place, self.region.clone()));
        }
        Ok(Item::local(backend::command_complete(tag)))
    }

    fn ends_on_backend(&mut self) -> Item {
        self.backend(Some(Effect::End))
    }

    /// The transaction ends on the backend, and only the backend knows how.
    fn note_end(&mut self) {
        let current = self.region.current();
        if self.region.after_commit() != current || self.region.after_rollback() != current {
            self.changed_at_end = true;
        }
    }

    fn leaves_behind(&mut self, kind: &Kind) -> Result<(), Refusal> {
        let Some(cause) = Cause::of(kind, self.view.reported) else { return Ok(()) };
        if self.view.refuses_state {
            return Err(cause.refusal());
        }
        self.leaves = Some(self.leaves.map_or(cause, |earlier| earlier.and(cause)));
        Ok(())
    }

    /// What the proxy has prepared is taken from the session; what SQL's PREPARE has made is the backend's.
    fn deallocate(&mut self, name: Option<&str>) -> Result<Item, Refuse> {
        let known = name.is_some_and(|name| (self.view.has_statement)(name.as_bytes()));
        if (self.view.keeps && self.view.bound || self.leaves.is_some()) && !known {
            return Ok(self.backend(None));
        }
        match name {
            // An error of the statements before it comes first, and the server does not know the name either.
            Some(_) if !known && !self.alone => Ok(self.backend(None)),
            Some(name) if !known => {
                let text = format!("prepared statement \"{name}\" does not exist");
                Err(Refusal::new(SqlState::INVALID_SQL_STATEMENT_NAME, text).into())
            }
            _ => {
                let tag = if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" };
                Ok(Item::Local(backend::command_complete(tag), Some(Effect::Deallocate(name.map(Into::into)))))
            }
        }
    }
}

/// The answer of a statement that returns one text.
pub(super) fn one_row(column: &str, value: Option<&str>, tag: &str) -> Bytes {
    joined([
        Some(backend::row_description_text(column, 0)),
        Some(backend::data_row_text(value)),
        Some(backend::command_complete(tag)),
    ])
}

pub(super) fn joined<const N: usize>(parts: [Option<Bytes>; N]) -> Bytes {
    parts.into_iter().flatten().flatten().collect()
}

pub(super) fn set_local_warning() -> Bytes {
    warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, "SET LOCAL can only be used in transaction blocks")
}

pub(super) fn already_warning() -> Bytes {
    warning(SqlState::ACTIVE_SQL_TRANSACTION, "there is already a transaction in progress")
}

pub(super) fn none_warning() -> Bytes {
    warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress")
}

fn warning(sqlstate: SqlState, message: &str) -> Bytes {
    encode_notice(&Report { severity: Severity::Warning, sqlstate, message, detail: None, hint: None, position: None })
}
