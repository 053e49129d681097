//! What a login entitles a session to: the bind rules, and the index that finds the first that matches.
//!
//! A rule is a pattern of three parts: a user or any, a database or any, a network or any. Rules with the same parts present (and
//! the same prefix length) have the same *shape*, and two rules of one shape match the same login only if they are equal. So one
//! hash map holds all rules, and a login is looked up once per shape that occurs: the hit with the lowest position is the first
//! match. A policy has a handful of shapes, and never more than 4 × (1 + 129), with one rule as with a million; no list of
//! rules is ever walked, but for those that ask for one and the same certificate or claim. A rule with a user and nothing else, of which there may be a million, stands with the user's name.
//!
//! Nothing here knows what a grant leads to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use ipnet::IpNet;

use super::decide::Class;
use super::{BindSource, Denial, Policy, Proof, Proven};
use crate::region::{RegionId, RegionSet, SessionRegion};
use crate::sql::Guard;
use crate::target::TargetSessionAttrs;

/// Who asks to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The user's name as authenticated.
    pub user: &'a str,
    /// The database asked for.
    pub database: &'a str,
    /// Where from; `None` is a Unix socket.
    pub address: Option<IpAddr>,
    /// What else the login has proved.
    pub proven: &'a Proven,
}

/// What a login entitles a session to, under one generation of the policy.
///
/// Asked again after a reload, since another policy answers it with [`super::Reason::StaleGrant`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    generation: u64,
    class: Class,
    rule: RuleId,
    start: Option<RegionId>,
    target: TargetSessionAttrs,
    replication: bool,
    /// Those of the class's regions that the login's token grants, if tokens do.
    claimed: Option<Arc<RegionSet>>,
}

impl Grant {
    /// The generation of the policy that gave it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The rule that gave it.
    pub fn rule(&self) -> RuleId {
        self.rule
    }

    /// Where a session starts that asks for no region: the first one of the rule; none where the client may choose any.
    pub fn start(&self) -> SessionRegion {
        self.start.map_or(SessionRegion::None, SessionRegion::Declared)
    }

    /// Which servers of a region serve it.
    pub fn target(&self) -> TargetSessionAttrs {
        self.target
    }

    /// Whether it may be for replication.
    pub fn may_replicate(&self) -> bool {
        self.replication
    }

    /// Whether no token keeps it from a region; `None` is one that nobody declared.
    pub(super) fn is_claimed(&self, region: Option<RegionId>) -> bool {
        self.claimed.as_ref().is_none_or(|claimed| region.is_some_and(|region| claimed.contains(region)))
    }

    pub(super) fn class(&self) -> Class {
        self.class
    }
}

/// A rule of one generation of the policy; [`Policy::rule_name`] has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId(u32);

impl RuleId {
    /// What holds where no bind rule matches; the number is behind that of every bind rule.
    const UNBOUND: Self = Self(u32::MAX);
    /// The first of the guards, for which there is room up to [`RuleId::UNBOUND`]; those of bind rules are below.
    const FIRST_GUARD: u32 = u32::MAX - 64;

    /// The guard as a rule.
    pub(super) fn of_guard(guard: Guard) -> Self {
        Self(Self::FIRST_GUARD + guard as u32)
    }

    fn guard(self) -> Option<Guard> {
        Guard::ALL.into_iter().find(|guard| Self::of_guard(*guard) == self)
    }

    fn first(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }
}

impl Policy {
    /// What `subject` is entitled to: the first bind rule that matches, else what `unbound` says. Of that, no more than its token
    /// grants, if tokens grant regions; names in a token that this policy does not declare mean nothing.
    ///
    /// # Errors
    /// [`super::Reason::Unbound`] if no rule matches and `unbound = "block"`, or if the token leaves no region.
    pub fn grant(&self, subject: &Subject<'_>) -> Result<Grant, Denial> {
        let rule = self.rules.first_match(subject);
        let nothing = || Denial::unbound(rule, subject.user, subject.database);
        let Gives { class, start, target, replication } = self.rules.gives(rule).ok_or_else(nothing)?;
        let grant = Grant { generation: self.generation, class, rule, start, target, replication, claimed: None };
        let Some(names) = subject.proven.claimed_regions() else { return Ok(grant) };
        let declared = names.iter().filter_map(|name| self.regions.numbers.get(name.as_str()).copied());
        let granted = |region: &RegionId| self.regions.declared.contains(*region) && self.table.grants(class, *region);
        let claimed: Vec<RegionId> = declared.filter(granted).collect();
        let first = *claimed.first().ok_or_else(nothing)?;
        let start = start.filter(|start| claimed.contains(start)).unwrap_or(first);
        Ok(Grant { start: Some(start), claimed: Some(Arc::new(claimed.into_iter().collect())), ..grant })
    }

    /// The name of a rule of this policy, for logs and audit: `residency.bind[0]`, `residency.unbound`, `guards.dblink`.
    pub fn rule_name(&self, rule: RuleId) -> &str {
        if rule == RuleId::UNBOUND {
            UNBOUND_NAME
        } else if let Some(guard) = rule.guard() {
            guard.rule()
        } else {
            self.rules.names.get(rule.0).unwrap_or("")
        }
    }
}

/// What `residency.unbound` is called as a rule.
pub(super) const UNBOUND_NAME: &str = "residency.unbound";

/// The bind rules of one policy. A rule's number is its position.
pub(super) struct Rules {
    /// The user and database names that occur in rules.
    words: HashMap<Box<str>, Word>,
    /// The shapes of `first`.
    shapes: Vec<Shape>,
    /// The first rule of each pattern that is more or less than a user.
    first: HashMap<Pattern, RuleId>,
    /// The rules that ask for proofs, by the first of these.
    proving: HashMap<Proof, Vec<Proving>>,
    gives: Vec<Gives>,
    /// `None`: a login that no rule matches is refused.
    unbound: Option<Gives>,
    names: Names,
}

#[derive(Clone, Copy)]
struct Word {
    /// Stands for the name in patterns.
    number: NonZeroU32,
    /// The first rule for the user of that name and nothing else, or [`RuleId::UNBOUND`].
    alone: RuleId,
}

/// A rule that asks for proofs. Those that ask for the same one are few, and are looked at one by one.
struct Proving {
    rule: RuleId,
    pattern: Pattern,
    proofs: Vec<Proof>,
}

#[derive(Clone, Copy)]
pub(super) struct Gives {
    pub(super) class: Class,
    pub(super) start: Option<RegionId>,
    pub(super) target: TargetSessionAttrs,
    pub(super) replication: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Pattern {
    user: Option<NonZeroU32>,
    database: Option<NonZeroU32>,
    from: Option<IpNet>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    user: bool,
    database: bool,
    /// The prefix length.
    from: Option<u8>,
}

impl Rules {
    /// Room for `capacity` bind rules; `unbound` is what a login gets that none matches.
    pub(super) fn new(unbound: Option<Gives>, capacity: usize) -> Self {
        Self {
            words: HashMap::with_capacity(capacity),
            shapes: Vec::new(),
            first: HashMap::new(),
            proving: HashMap::new(),
            gives: Vec::with_capacity(capacity),
            unbound,
            names: Names::default(),
        }
    }

    /// Adds the next rule; `None` when there is no number left for one more.
    pub(super) fn push(&mut self, bind: &BindSource, gives: Gives) -> Option<()> {
        let rule = RuleId(u32::try_from(self.gives.len()).ok().filter(|rule| *rule < RuleId::FIRST_GUARD)?);
        match bind {
            BindSource { user, database, from, proofs, .. } if !proofs.is_empty() => {
                let pattern = Pattern { user: self.number(user)?, database: self.number(database)?, from: from.map(plain) };
                let proving = Proving { rule, pattern, proofs: proofs.clone() };
                self.proving.entry(proofs[0].clone()).or_default().push(proving);
            }
            BindSource { user: Some(user), database: None, from: None, .. } => {
                let word = self.word(user)?;
                word.alone = word.alone.first(rule);
            }
            BindSource { user, database, from, .. } => {
                let pattern = Pattern { user: self.number(user)?, database: self.number(database)?, from: from.map(plain) };
                let shape = pattern.shape();
                if !self.shapes.contains(&shape) {
                    self.shapes.push(shape);
                }
                self.first.entry(pattern).or_insert(rule);
            }
        }
        self.gives.push(gives);
        self.names.push(&bind.label);
        Some(())
    }

    /// Gives back the room that rules with equal parts did not need.
    pub(super) fn finish(mut self) -> Self {
        self.words.shrink_to_fit();
        self.first.shrink_to_fit();
        self
    }

    /// The number of a name that a rule may have; `None` when there is none left for one more.
    fn number(&mut self, name: &Option<String>) -> Option<Option<NonZeroU32>> {
        match name {
            Some(name) => self.word(name).map(|word| Some(word.number)),
            None => Some(None),
        }
    }

    fn word(&mut self, name: &str) -> Option<&mut Word> {
        let number = NonZeroU32::new(u32::try_from(self.words.len() + 1).ok()?)?;
        Some(self.words.entry(name.into()).or_insert(Word { number, alone: RuleId::UNBOUND }))
    }

    fn first_match(&self, subject: &Subject<'_>) -> RuleId {
        let user = self.words.get(subject.user);
        let database = self.words.get(subject.database);
        let address = subject.address.map(|address| address.to_canonical());
        let matching = |shape: &Shape| {
            // A part that the shape has must be there to be found; one that it does not have matches anything.
            let user = if shape.user { Some(user?.number) } else { None };
            let database = if shape.database { Some(database?.number) } else { None };
            let from = match shape.from {
                Some(length) => Some(IpNet::new(address?, length).ok()?.trunc()),
                None => None,
            };
            self.first.get(&Pattern { user, database, from }).copied()
        };
        let alone = user.map_or(RuleId::UNBOUND, |user| user.alone);
        let number = |word: Option<&Word>| word.map(|word| word.number);
        let proves = |Proving { pattern, proofs, .. }: &&Proving| {
            (pattern.user.is_none() || pattern.user == number(user))
                && (pattern.database.is_none() || pattern.database == number(database))
                && pattern.from.is_none_or(|from| address.is_some_and(|address| from.contains(&address)))
                && proofs.iter().all(|proof| subject.proven.has(proof))
        };
        let proofs = subject.proven.proofs().filter_map(|proof| self.proving.get(&proof));
        let proving = proofs.flat_map(|rules| rules.iter().find(proves)).map(|proving| proving.rule);
        self.shapes.iter().filter_map(matching).chain(proving).fold(alone, RuleId::first)
    }

    fn gives(&self, rule: RuleId) -> Option<Gives> {
        if rule == RuleId::UNBOUND { self.unbound } else { self.gives.get(rule.0 as usize).copied() }
    }
}

impl Pattern {
    fn shape(&self) -> Shape {
        Shape {
            user: self.user.is_some(),
            database: self.database.is_some(),
            from: self.from.map(|network| network.prefix_len()),
        }
    }
}

/// The network without host bits, and as IPv4 if it is one inside IPv6, as addresses are compared.
fn plain(network: IpNet) -> IpNet {
    let network = network.trunc();
    let inside_ipv4 = network.prefix_len().checked_sub(96).filter(|_| network.addr().to_canonical().is_ipv4());
    inside_ipv4.and_then(|length| IpNet::new(network.addr().to_canonical(), length).ok()).unwrap_or(network)
}

/// The rules' names, end to end: a million of them are one allocation.
#[derive(Default)]
struct Names {
    text: String,
    ends: Vec<usize>,
}

impl Names {
    fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len());
    }

    fn get(&self, index: u32) -> Option<&str> {
        let index = index as usize;
        let start = index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.text.get(start..*self.ends.get(index)?)
    }
}
