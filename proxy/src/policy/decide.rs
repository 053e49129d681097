//! The decision: a look into a table, and the only place where a [`Permit`] is made.
//!
//! The table has a row a *grant class* (logins whose grants have the same regions share one) and a column a region, plus one
//! column for "none" and one for all names that nobody declared. A cell depends on the class in two ways only: whether the region
//! is inside it, and whether the default region is. So the table is kept as a matrix of bits (class × column, is it inside?) and
//! two rows of finished answers, one for classes with the default region and one for those without: a million different grants
//! cost a few bits a region each, and a decision is still two bits and one answer looked up, whatever their number.
//!
//! A grant that a token narrows has its own set of regions beside its class, which is looked at too.
//!
//! Nothing is computed here that a session could influence, and nothing is waited for.

use std::collections::HashMap;

use super::{Denial, Grant, NoRegion, Policy, Reason, RuleId};
use crate::pool::Proof;
use crate::region::{RegionId, RegionSet, SessionRegion};
use crate::sql::GuardSet;

/// Proof that a session may be served by the backends of one region, now.
///
/// Checking out a backend takes a permit by value, so each is used once, for the message that it was made for.
#[must_use = "a permit is asked for in order to check out a backend"]
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    region: RegionId,
    requirement: Requirement,
    rule: RuleId,
}

impl Permit {
    /// The region whose pool may serve, and no other.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// What the session's region asked for.
    pub fn requirement(&self) -> Requirement {
        self.requirement
    }

    /// The rule that gave the grant; the guard that would have denied.
    pub fn rule(&self) -> RuleId {
        self.rule
    }
}

impl Proof for Permit {
    fn region(&self) -> RegionId {
        self.region
    }
}

/// Why a permit names the region that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// It is the session's region.
    InRegion,
    /// The session has none; it is the default region (`no_region = "default"`).
    NoRequirement,
    /// A denial for this reason, had the policy been enforced (`enforce = false`): it is the default region, or for
    /// [`Reason::Guarded`] what it would be without the guard.
    WouldBlock(Reason),
}

impl Policy {
    /// Whether a session with this grant may make `region` its region.
    ///
    /// # Errors
    /// [`Reason::NotGranted`] (42501) outside the grant. No region at all can always be chosen; a name that nobody declared
    /// only where the client may choose any.
    pub fn may_choose(&self, grant: &Grant, region: &SessionRegion) -> Result<(), Denial> {
        match self.granted_column(grant, region) {
            Ok(_) => Ok(()),
            Err(reason) => Err(Denial::new(reason, grant.rule(), region)),
        }
    }

    /// Whether a statement with these guards may run in `region`.
    ///
    /// # Errors
    /// [`Reason::Guarded`] (42501) if one of them is denied.
    pub fn may_run(&self, region: &SessionRegion, guards: GuardSet) -> Result<(), Denial> {
        match self.guards.first_common(guards) {
            Some(guard) if self.enforce => Err(Denial::new(Reason::Guarded, RuleId::of_guard(guard), region)),
            Some(_) | None => Ok(()),
        }
    }

    /// Which pool may serve a session with this grant whose region is `region`, now, for a message with these guards.
    ///
    /// # Errors
    /// [`Reason::NotGranted`] outside the grant (a reload may have shrunk it); [`Reason::NoRegion`] and [`Reason::NoNode`] where
    /// neither the region nor a default inside the grant can serve; then what [`Policy::may_run`] says.
    pub fn decide(&self, grant: &Grant, region: &SessionRegion, guards: GuardSet) -> Result<Permit, Denial> {
        let answer = match self.granted_column(grant, region) {
            Ok(column) => self.table.answer(grant, column),
            Err(reason) => Answer::Deny(reason),
        };
        match answer {
            Answer::Permit(served_by, requirement) => {
                self.may_run(region, guards)?;
                Ok(match self.guards.first_common(guards) {
                    Some(guard) => {
                        let (requirement, rule) = (Requirement::WouldBlock(Reason::Guarded), RuleId::of_guard(guard));
                        Permit { region: served_by, requirement, rule }
                    }
                    None => Permit { region: served_by, requirement, rule: grant.rule() },
                })
            }
            Answer::Deny(reason) => Err(Denial::new(reason, grant.rule(), region)),
        }
    }

    /// The column of `region`, if it is inside the grant.
    fn granted_column(&self, grant: &Grant, region: &SessionRegion) -> Result<usize, Reason> {
        if grant.generation() != self.generation {
            return Err(Reason::StaleGrant);
        }
        let number = match region {
            SessionRegion::None => return Ok(COLUMN_NONE),
            SessionRegion::Declared(region) => Some(*region),
            // A reload may have declared the name since.
            SessionRegion::Undeclared(name) => self.regions.numbers.get(name).copied(),
        };
        let column = number.map_or(COLUMN_UNDECLARED, |region| self.table.column(region));
        let is_inside = self.table.inside.contains(grant.class(), column) && grant.is_claimed(number);
        if is_inside { Ok(column) } else { Err(Reason::NotGranted) }
    }
}

/// The decision table of one policy.
pub(super) struct Table {
    inside: Classes,
    /// If there is one.
    default_region: Option<RegionId>,
    /// By column: the answers for classes without the default region, then for those with it.
    answers: [Box<[Answer]>; 2],
}

#[derive(Clone, Copy)]
enum Answer {
    Permit(RegionId, Requirement),
    Deny(Reason),
}

/// What the finished answers depend on besides the grant.
pub(super) struct Conditions {
    pub(super) with_nodes: RegionSet,
    pub(super) no_region: NoRegion,
    pub(super) default_region: Option<RegionId>,
    pub(super) enforce: bool,
}

impl Table {
    pub(super) fn new(inside: Classes, conditions: &Conditions) -> Self {
        let answers = [None, conditions.default_region].map(|default| conditions.answers(inside.regions, default));
        Self { inside, default_region: conditions.default_region, answers }
    }

    /// Whether a region is inside a class.
    pub(super) fn grants(&self, class: Class, region: RegionId) -> bool {
        self.inside.contains(class, self.column(region))
    }

    /// A number that this table has no column for comes from a later policy: here it is a name like any other.
    fn column(&self, region: RegionId) -> usize {
        if region.index() < self.inside.regions { column_of(region) } else { COLUMN_UNDECLARED }
    }

    fn answer(&self, grant: &Grant, column: usize) -> Answer {
        let is_granted = |default| self.grants(grant.class(), default) && grant.is_claimed(Some(default));
        let default_granted = self.default_region.is_some_and(is_granted);
        self.answers[usize::from(default_granted)].get(column).copied().unwrap_or(Answer::Deny(Reason::NotGranted))
    }
}

impl Conditions {
    /// The answers of every column, given that it is inside the grant, where `default` is the default region if that is too.
    fn answers(&self, regions: usize, default: Option<RegionId>) -> Box<[Answer]> {
        let in_default = |requirement| match default {
            Some(default) if self.with_nodes.contains(default) => Answer::Permit(default, requirement),
            Some(_) | None => Answer::Deny(Reason::NoNode),
        };
        let none = match (self.no_region, default) {
            (NoRegion::Default, Some(_)) => in_default(Requirement::NoRequirement),
            (NoRegion::Default, None) | (NoRegion::Block, _) => Answer::Deny(Reason::NoRegion),
        };
        let no_node =
            if self.enforce { Answer::Deny(Reason::NoNode) } else { in_default(Requirement::WouldBlock(Reason::NoNode)) };
        let of_region = |region| {
            if self.with_nodes.contains(region) { Answer::Permit(region, Requirement::InRegion) } else { no_node }
        };
        [none, no_node].into_iter().chain((0..regions).filter_map(RegionId::new).map(of_region)).collect()
    }
}

const COLUMN_NONE: usize = 0;
const COLUMN_UNDECLARED: usize = 1;
const COLUMN_FIRST_REGION: usize = 2;

fn column_of(region: RegionId) -> usize {
    COLUMN_FIRST_REGION + region.index()
}

/// A grant class: a row of the table. Means nothing to another generation of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(u32);

impl Class {
    /// The class of a grant of whatever the client names.
    pub(super) const ANY: Self = Self(0);
}

/// The matrix of bits: which columns are inside which class.
pub(super) struct Classes {
    regions: usize,
    words: usize,
    rows: Vec<u64>,
}

impl Classes {
    fn contains(&self, class: Class, column: usize) -> bool {
        let word = class.0 as usize * self.words + column / 64;
        self.rows.get(word).is_some_and(|word| word & (1 << (column % 64)) != 0)
    }
}

/// Finds the class of each set of regions while a policy is compiled.
pub(super) struct ClassesBuilder {
    classes: Classes,
    known: HashMap<Box<[u64]>, Class>,
    row: Vec<u64>,
}

impl ClassesBuilder {
    /// For regions numbered below `regions`; the class [`Class::ANY`] is there from the start.
    pub(super) fn new(regions: usize) -> Self {
        let words = (COLUMN_FIRST_REGION + regions).div_ceil(64);
        let classes = Classes { regions, words, rows: vec![u64::MAX; words] };
        Self { classes, known: HashMap::new(), row: vec![0; words] }
    }

    /// The class of a grant of exactly these regions; `None` when there is no number left for one more.
    pub(super) fn class(&mut self, regions: &[RegionId]) -> Option<Class> {
        self.row.fill(0);
        let columns = regions.iter().map(|region| column_of(*region));
        for column in columns.chain([COLUMN_NONE]) {
            if let Some(word) = self.row.get_mut(column / 64) {
                *word |= 1 << (column % 64);
            }
        }
        if let Some(&class) = self.known.get(self.row.as_slice()) {
            return Some(class);
        }
        let class = Class(u32::try_from(self.classes.rows.len() / self.classes.words).ok()?);
        self.classes.rows.extend_from_slice(&self.row);
        self.known.insert(self.row.as_slice().into(), class);
        Some(class)
    }

    pub(super) fn finish(self) -> Classes {
        self.classes
    }
}
