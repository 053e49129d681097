//! Who may be served where: the residency policy, compiled into a table and asked before any byte goes to a backend.
//!
//! ```text
//!   Source ──compile──▶ Policy ──grant(user, database, address, proofs)──▶ Grant      at login and after a reload
//!                         │
//!                         ├──may_choose(grant, region)                        when a client sets its region
//!                         ├──may_run(grant, region, guards)                   when a statement is planned
//!                         └──decide(grant, region, guards)──▶ Permit | Denial before every message that needs a backend
//! ```
//!
//! A [`Policy`] never changes: a reload compiles a new one, with the next generation, in which every region keeps its number.
//! Only [`Policy::decide`] can make a [`Permit`], and where nothing matches the answer is a [`Denial`].
//!
//! This module reads no files and no clock, knows no nodes (only whether a region has any), opens nothing, and never finds a
//! way around a denial.

#![forbid(unsafe_code)]

mod certificate;
mod compile;
mod decide;
mod denial;
mod explain;
mod grant;
mod proven;
mod source;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::region::{RegionId, RegionSet, SessionRegion};
use crate::sql::GuardSet;
use crate::wire::sqlstate::SqlState;

pub use certificate::CertificateNames;
pub use compile::CompileError;
pub use decide::{Permit, Requirement};
pub use denial::{Denial, Reason};
pub use explain::{Decision, Explanation, Granted, explain};
pub use grant::{Grant, RuleId, Subject};
pub use proven::{Claims, Proof, Proven};
pub use source::{BindSource, NoRegion, RegionSource, Source, Unbound};

/// One compiled generation of the residency policy.
pub struct Policy {
    generation: u64,
    regions: Regions,
    rules: grant::Rules,
    table: decide::Table,
    guards: GuardSet,
    enforce: bool,
    block_message: Box<str>,
    block_sqlstate: SqlState,
}

/// Every region that this policy or one before it declared; the place of a region in the lists is its number.
#[derive(Clone, Default)]
struct Regions {
    names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, RegionId>,
    jurisdictions: Vec<Option<Box<str>>>,
    /// Those that this policy declares.
    declared: RegionSet,
}

impl Policy {
    /// Counts the policies of this process: 1 for the first, one more for each that was compiled from a previous one.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The region of that exact name. No name (`""`) is no region; a name that neither this policy nor one before it declared
    /// is [`SessionRegion::Undeclared`]. A region that a reload removed keeps its number and has no node.
    pub fn region(&self, name: &str) -> SessionRegion {
        if name.is_empty() {
            return SessionRegion::None;
        }
        match self.regions.numbers.get(name) {
            Some(&region) => SessionRegion::Declared(region),
            None => SessionRegion::Undeclared(name.into()),
        }
    }

    /// The name as `SHOW` prints it: `""` for none.
    pub fn region_name<'a>(&'a self, region: &'a SessionRegion) -> &'a str {
        match region {
            SessionRegion::None => "",
            SessionRegion::Declared(region) => self.name(*region),
            SessionRegion::Undeclared(name) => name,
        }
    }

    /// The name of a declared region; `""` if the number comes from a later policy.
    pub fn name(&self, region: RegionId) -> &str {
        self.regions.names.get(region.index()).map_or("", AsRef::as_ref)
    }

    /// The jurisdiction that the region was declared with.
    pub fn jurisdiction(&self, region: RegionId) -> Option<&str> {
        self.regions.jurisdictions.get(region.index())?.as_deref()
    }

    /// The ways out of a server that are denied.
    pub fn guards(&self) -> GuardSet {
        self.guards
    }

    /// The declared regions of the grant; all that this policy declares if the client may choose any.
    pub fn granted(&self, grant: &Grant) -> RegionSet {
        let granted = |region: &RegionId| self.may_choose(grant, &SessionRegion::Declared(*region)).is_ok();
        self.regions.declared.iter().filter(granted).collect()
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("generation", &self.generation)
            .field("regions", &self.regions.names)
            .finish_non_exhaustive()
    }
}
