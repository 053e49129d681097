//! The policy as its callers see it: texts, the decision table of the design, rule order, and what a reload may not change.

mod compiling;
mod deciding;
mod explaining;
mod granting;

use super::*;
use crate::target::TargetSessionAttrs;

/// Regions eu-west and us-east with nodes, antarctica without; alice may be in eu-west, bob in both; nobody else gets in.
fn source() -> Source {
    Source {
        regions: vec![region("eu-west", true), region("us-east", true), region("antarctica", false)],
        binds: vec![bind(0, Some("alice"), &["eu-west"]), bind(1, Some("bob"), &["us-east", "eu-west", "antarctica"])],
        unbound: Unbound::Block,
        no_region: NoRegion::Block,
        default_region: None,
        guards: crate::sql::Guard::ALL.into_iter().collect(),
        enforce: true,
        block_message: "Query blocked by route plugin: {reason}".to_owned(),
        block_sqlstate: SqlState::SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
    }
}

fn region(name: &str, has_nodes: bool) -> RegionSource {
    RegionSource { name: name.to_owned(), jurisdiction: None, has_nodes }
}

fn bind(index: usize, user: Option<&str>, regions: &[&str]) -> BindSource {
    BindSource {
        user: user.map(str::to_owned),
        database: None,
        from: None,
        proofs: Vec::new(),
        regions: regions.iter().map(|region| (*region).to_owned()).collect(),
        target: TargetSessionAttrs::default(),
        replication: false,
        label: format!("residency.bind[{index}]"),
    }
}

fn compile(source: &Source) -> Policy {
    Policy::compile(source, None).unwrap()
}

fn user(name: &str) -> Subject<'_> {
    Subject { user: name, database: "demo", address: None, proven: Proven::NOTHING }
}

/// One decision in words: `eu-west`, `eu-west NoRequirement`, or `42501 permission denied …`.
fn decided(policy: &Policy, name: &str, region: &str) -> String {
    let grant = policy.grant(&user(name)).unwrap();
    match policy.decide(&grant, &policy.region(region), GuardSet::NONE) {
        Ok(permit) => match permit.requirement() {
            Requirement::InRegion => policy.name(permit.region()).to_owned(),
            other @ (Requirement::NoRequirement | Requirement::WouldBlock(_)) => {
                format!("{} {other:?}", policy.name(permit.region()))
            }
        },
        Err(denial) => refused(policy, &denial),
    }
}

fn refused(policy: &Policy, denial: &Denial) -> String {
    format!("{} {}", denial.sqlstate(policy), denial.message(policy))
}
