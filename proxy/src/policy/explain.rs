//! The decision for one login, put into words: what `domicile explain` and the demo print.
//!
//! It asks the policy what a session would ask, and decides nothing by itself. Which nodes stand behind a region the policy
//! does not know; the caller adds that line.

use std::fmt;

use super::decide::Class;
use super::{Denial, Grant, Policy, Proof, Proven, Reason, Requirement, Subject};
use crate::region::RegionId;
use crate::sql::{Guard, GuardSet};
use crate::wire::sqlstate::SqlState;

/// What the policy says about one login and the region it asks for.
///
/// Displayed as a few lines, a label of 11 characters before each, without a line end after the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Who asks.
    pub subject: String,
    /// What it has proved besides its user, as rules ask for it; empty for nothing.
    pub proved: String,
    /// The rule that gives the grant, or refuses one.
    pub rule: String,
    /// What is granted.
    pub granted: Granted,
    /// Where the session starts if it asks for nothing; `""` is no region.
    pub start: String,
    /// The region asked for, if any; `""` asks for no region.
    pub asked: Option<String>,
    /// What follows.
    pub decision: Decision,
    /// The ways out of a server that are denied, and whether they are, and not only counted.
    pub guards: (GuardSet, bool),
}

/// What a login is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Nothing: it is refused.
    Nothing,
    /// Any region that the client names.
    Any,
    /// These regions, in the order of their numbers.
    Regions(Vec<String>),
}

/// What happens, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The pool of a region serves.
    Permit {
        /// The region.
        region: RegionId,
        /// Its name.
        name: String,
        /// Its jurisdiction.
        jurisdiction: Option<String>,
        /// Why it is this region.
        requirement: Requirement,
    },
    /// Nothing serves.
    Denial {
        /// Why.
        reason: Reason,
        /// The SQLSTATE that the client gets.
        sqlstate: SqlState,
        /// The message that the client gets.
        message: String,
    },
}

/// Explains what happens to a session of `subject` that asks for `region`, at startup or with SET, or for none.
pub fn explain(policy: &Policy, subject: &Subject<'_>, region: Option<&str>) -> Explanation {
    let grant = policy.grant(subject);
    let (rule, granted, start, decision) = match &grant {
        Ok(grant) => {
            let start = grant.start();
            let session_region = region.map_or_else(|| start.clone(), |name| policy.region(name));
            let permit =
                policy.may_choose(grant, &session_region).and_then(|()| policy.decide(grant, &session_region, GuardSet::NONE));
            let decision = match permit {
                Ok(permit) => Decision::Permit {
                    region: permit.region(),
                    name: policy.name(permit.region()).to_owned(),
                    jurisdiction: policy.jurisdiction(permit.region()).map(str::to_owned),
                    requirement: permit.requirement(),
                },
                Err(denial) => Decision::denied(policy, &denial),
            };
            (grant.rule(), Granted::of(policy, grant), policy.region_name(&start).to_owned(), decision)
        }
        Err(denial) => (denial.rule, Granted::Nothing, String::new(), Decision::denied(policy, denial)),
    };
    Explanation {
        subject: subject.to_string(),
        proved: proved(subject.proven),
        rule: policy.rule_name(rule).to_owned(),
        granted,
        start,
        asked: region.map(str::to_owned),
        decision,
        guards: (policy.guards, policy.enforce),
    }
}

impl Decision {
    fn denied(policy: &Policy, denial: &Denial) -> Self {
        Self::Denial { reason: denial.reason, sqlstate: denial.sqlstate(policy), message: denial.message(policy) }
    }
}

impl Granted {
    fn of(policy: &Policy, grant: &Grant) -> Self {
        if grant.class() == Class::ANY && grant.is_claimed(None) {
            return Self::Any;
        }
        Self::Regions(policy.granted(grant).iter().map(|region| policy.name(region).to_owned()).collect())
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {:?}, database {:?}, ", self.user, self.database)?;
        match self.address {
            Some(address) => write!(f, "from {address}"),
            None => write!(f, "from a Unix socket"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "subject    {}", self.subject)?;
        if !self.proved.is_empty() {
            writeln!(f, "proved     {}", self.proved)?;
        }
        writeln!(f, "rule       {}", self.rule)?;
        writeln!(f, "grant      {}", self.granted)?;
        writeln!(f, "start      {}", or_none(&self.start))?;
        if let Some(asked) = &self.asked {
            writeln!(f, "asked      {}", or_none(asked))?;
        }
        write!(f, "decision   {}", self.decision)?;
        match &self.decision {
            Decision::Permit { .. } => write!(f, "\nguards     {}", guards(self.guards)),
            Decision::Denial { message, .. } => write!(f, "\nmessage    {message}"),
        }
    }
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing"),
            Self::Any => write!(f, "any region that the client names"),
            Self::Regions(names) => write!(f, "{}", names.join(", ")),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permit { name, jurisdiction, requirement, .. } => {
                write!(f, "permitted: {name}")?;
                if let Some(jurisdiction) = jurisdiction {
                    write!(f, " ({jurisdiction})")?;
                }
                match requirement {
                    Requirement::InRegion => Ok(()),
                    Requirement::NoRequirement => write!(f, ", the default region, since no region is set"),
                    Requirement::WouldBlock(reason) => {
                        write!(f, ", the default region, since enforce = false; would be denied: {}", reason.text())
                    }
                }
            }
            Self::Denial { reason, sqlstate, .. } => write!(f, "denied: {} ({sqlstate})", reason.text()),
        }
    }
}

fn proved(proven: &Proven) -> String {
    let shown = proven.proofs().filter_map(|proof| match proof {
        Proof::Certificate(name) => Some(format!("certificate {name:?}")),
        Proof::Claim { name, value } => Some(format!("claim {name} = {value:?}")),
        // It is shown as the claim that it is.
        Proof::ClaimedRegions => None,
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Which guards deny, and which do not.
fn guards((denied, enforce): (GuardSet, bool)) -> String {
    let listed = |is_denied| {
        let names: Vec<_> =
            Guard::ALL.into_iter().filter(|guard| denied.contains(*guard) == is_denied).map(Guard::as_str).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let verb = if enforce { "denied" } else { "counted" };
    match (listed(true), listed(false)) {
        (Some(_), None) => format!("all {verb}"),
        (denied, allowed) => {
            let parts = [denied.map(|names| format!("{verb}: {names}")), allowed.map(|names| format!("allowed: {names}"))];
            parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
        }
    }
}

fn or_none(region: &str) -> &str {
    if region.is_empty() { "none" } else { region }
}
