//! From [`Source`] to [`Policy`]: everything that a policy says is checked here, once, and named if it is wrong.
//!
//! A source that contradicts itself gives no policy at all; nothing is repaired, guessed or left out.

use std::fmt;
use std::sync::Arc;

use super::decide::{Class, ClassesBuilder, Conditions, Table};
use super::grant::{Gives, Rules, UNBOUND_NAME};
use super::{NoRegion, Policy, Proof, Regions, Source, Unbound};
use crate::limits::REGIONS_MAX;
use crate::region::{RegionId, RegionSet};
use crate::target::TargetSessionAttrs;

/// What is wrong with a [`Source`], and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompileError {
    /// A region is declared with an empty name, which would be "no region".
    UnnamedRegion,
    /// A region is declared twice.
    RegionTwice {
        /// Its name.
        region: String,
    },
    /// More than [`REGIONS_MAX`] regions, with those that earlier policies of this process declared.
    TooManyRegions {
        /// The first that has no number left.
        region: String,
    },
    /// A region is used that is not declared.
    UnknownRegion {
        /// Who uses it: a bind rule's label, `residency.unbound` or `residency.default_region`.
        place: String,
        /// Its name.
        region: String,
    },
    /// A bind rule grants nothing.
    NoRegions {
        /// The rule's label.
        place: String,
    },
    /// A setting leads to the default region, and there is none.
    NoDefaultRegion {
        /// The setting: `residency.no_region = "default"` or `residency.enforce = false`.
        place: &'static str,
    },
    /// `block_message` has no `{reason}`: the client could not tell one denial from another.
    NoReasonInMessage,
    /// More bind rules than can be numbered.
    TooManyRules {
        /// The label of the first that has no number left.
        place: String,
    },
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnnamedRegion => write!(f, "regions: a region has an empty name"),
            Self::RegionTwice { region } => write!(f, "regions: \"{region}\" is declared twice"),
            Self::TooManyRegions { region } => write!(
                f,
                "regions: \"{region}\" is one too many: at most {REGIONS_MAX} may be declared between two starts, \
                 those that a reload removed included"
            ),
            Self::UnknownRegion { place, region } => write!(f, "{place}: region \"{region}\" is not declared"),
            Self::NoRegions { place } => write!(f, "{place}: regions is empty; a rule must grant at least one region"),
            Self::NoDefaultRegion { place } => write!(f, "{place} needs residency.default_region"),
            Self::NoReasonInMessage => write!(f, "residency.block_message: {{reason}} is missing"),
            Self::TooManyRules { place } => write!(f, "{place}: too many bind rules"),
        }
    }
}

impl std::error::Error for CompileError {}

impl Policy {
    /// Compiles `source`. Regions that `previous` knows keep their numbers, whether `source` declares them or not, so that
    /// sessions and pools of the previous policy go on meaning the same regions.
    ///
    /// # Errors
    /// The first thing that is wrong with `source`.
    pub fn compile(source: &Source, previous: Option<&Self>) -> Result<Self, CompileError> {
        if !source.block_message.contains("{reason}") {
            return Err(CompileError::NoReasonInMessage);
        }
        let regions = Regions::number(source, previous)?;
        let default_region =
            source.default_region.as_ref().map(|name| regions.declared("residency.default_region", name)).transpose()?;
        if default_region.is_none() && source.no_region == NoRegion::Default {
            return Err(CompileError::NoDefaultRegion { place: "residency.no_region = \"default\"" });
        }
        if default_region.is_none() && !source.enforce {
            return Err(CompileError::NoDefaultRegion { place: "residency.enforce = false" });
        }

        let (rules, classes) = compile_rules(source, &regions)?;
        let with_nodes = source.regions.iter().filter(|region| region.has_nodes);
        let conditions = Conditions {
            with_nodes: with_nodes.filter_map(|region| regions.numbers.get(region.name.as_str()).copied()).collect(),
            no_region: source.no_region,
            default_region,
            enforce: source.enforce,
        };
        Ok(Self {
            generation: previous.map_or(0, |previous| previous.generation) + 1,
            regions,
            rules,
            table: Table::new(classes.finish(), &conditions),
            guards: source.guards,
            enforce: source.enforce,
            block_message: source.block_message.as_str().into(),
            block_sqlstate: source.block_sqlstate,
        })
    }
}

fn compile_rules(source: &Source, regions: &Regions) -> Result<(Rules, ClassesBuilder), CompileError> {
    let mut classes = ClassesBuilder::new(regions.names.len());
    let too_many = |place: &str| CompileError::TooManyRules { place: place.to_owned() };

    // Whoever may replicate is named by a bind rule.
    let (target, replication) = (TargetSessionAttrs::default(), false);
    let unbound = match &source.unbound {
        Unbound::Block => None,
        Unbound::Client => Some(Gives { class: Class::ANY, start: None, target, replication }),
        Unbound::Region(name) => {
            let region = regions.declared(UNBOUND_NAME, name)?;
            let class = classes.class(&[region]).ok_or_else(|| too_many(UNBOUND_NAME))?;
            Some(Gives { class, start: Some(region), target, replication })
        }
    };

    let mut rules = Rules::new(unbound, source.binds.len());
    let mut granted = Vec::new();
    for bind in &source.binds {
        granted.clear();
        for name in &bind.regions {
            granted.push(regions.declared(&bind.label, name)?);
        }
        let Some(&start) = granted.first() else {
            return Err(CompileError::NoRegions { place: bind.label.clone() });
        };
        let class = classes.class(&granted).ok_or_else(|| too_many(&bind.label))?;
        // Where tokens say which regions, they say where to start.
        let start = (!bind.proofs.contains(&Proof::ClaimedRegions)).then_some(start);
        let gives = Gives { class, start, target: bind.target, replication: bind.replication };
        rules.push(bind, gives).ok_or_else(|| too_many(&bind.label))?;
    }
    Ok((rules.finish(), classes))
}

impl Regions {
    /// The regions of `previous` under their numbers, then the new ones of `source` in its order.
    fn number(source: &Source, previous: Option<&Policy>) -> Result<Self, CompileError> {
        let mut regions = previous.map_or_else(Self::default, |previous| previous.regions.clone());
        regions.declared = RegionSet::default();
        for region in &source.regions {
            if region.name.is_empty() {
                return Err(CompileError::UnnamedRegion);
            }
            let number = regions.add(&region.name).ok_or_else(|| CompileError::TooManyRegions { region: region.name.clone() })?;
            if regions.declared.contains(number) {
                return Err(CompileError::RegionTwice { region: region.name.clone() });
            }
            regions.declared.insert(number);
            if let Some(jurisdiction) = regions.jurisdictions.get_mut(number.index()) {
                *jurisdiction = region.jurisdiction.as_deref().map(Into::into);
            }
        }
        Ok(regions)
    }

    /// The number of a name, a new one if it has none; `None` past the limit.
    fn add(&mut self, name: &str) -> Option<RegionId> {
        if let Some(&number) = self.numbers.get(name) {
            return Some(number);
        }
        let number = RegionId::new(self.names.len())?;
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.jurisdictions.push(None);
        self.numbers.insert(name, number);
        Some(number)
    }

    /// The number of a region that `place` uses, which must be declared.
    fn declared(&self, place: &str, name: &str) -> Result<RegionId, CompileError> {
        let number = self.numbers.get(name).copied().filter(|number| self.declared.contains(*number));
        number.ok_or_else(|| CompileError::UnknownRegion { place: place.to_owned(), region: name.to_owned() })
    }
}
