//! Every reason with its text, every row of the design's table, and monotonicity.

use proptest::prelude::*;

use super::*;
use crate::sql::GuardSet;

const NO_NODE: &str = "42000 Query blocked by route plugin: no in-region replica for user";
const NO_REGION: &str = "42000 Query blocked by route plugin: no region is set for this session";

#[test]
fn reason_no_region() {
    let policy = compile(&source());
    assert_eq!(decided(&policy, "bob", ""), NO_REGION);
    assert_eq!(Reason::NoRegion.as_str(), "no_region");
}

#[test]
fn reason_no_node() {
    let policy = compile(&source());
    assert_eq!(decided(&policy, "bob", "antarctica"), NO_NODE);
    assert_eq!(Reason::NoNode.as_str(), "no_node");
}

#[test]
fn reason_not_granted() {
    let policy = compile(&source());
    assert_eq!(decided(&policy, "alice", "us-east"), "42501 permission denied for region \"us-east\"");
    assert_eq!(decided(&policy, "alice", "atlantis"), "42501 permission denied for region \"atlantis\"");
    assert_eq!(Reason::NotGranted.as_str(), "not_granted");
}

#[test]
fn reason_unbound() {
    let policy = compile(&source());
    let denial = policy.grant(&user("mallory")).unwrap_err();
    assert_eq!(refused(&policy, &denial), "28000 no residency rule admits user \"mallory\" to database \"demo\"");
    assert_eq!((denial.reason, policy.rule_name(denial.rule)), (Reason::Unbound, "residency.unbound"));
    assert_eq!(Reason::Unbound.as_str(), "unbound");
}

#[test]
fn reason_guarded() {
    let guards = GuardSet::from(crate::sql::Guard::CopyFile) | crate::sql::Guard::Dblink.into();
    let decide = |source: &Source| {
        let policy = compile(source);
        let grant = policy.grant(&user("alice")).unwrap();
        let said = match policy.decide(&grant, &grant.start(), guards) {
            Ok(permit) => format!("{:?}, {}", permit.requirement(), policy.rule_name(permit.rule())),
            Err(denial) => format!("{}, {}", refused(&policy, &denial), policy.rule_name(denial.rule)),
        };
        (said, policy.may_run(&grant.start(), guards).is_ok())
    };
    let denied = "42501 permission denied: this statement could move data out of its region (guards.dblink), guards.dblink";
    assert_eq!(decide(&source()), (denied.to_owned(), false));
    // The other way is left open, or all are.
    let only = |guard: crate::sql::Guard| Source { guards: guard.into(), ..source() };
    assert!(decide(&only(crate::sql::Guard::CopyFile)).0.ends_with(", guards.copy_file"));
    assert_eq!(decide(&only(crate::sql::Guard::Load)), ("InRegion, residency.bind[0]".to_owned(), true));
    // A dry run.
    let dry = Source { enforce: false, default_region: Some("us-east".to_owned()), ..source() };
    assert_eq!(decide(&dry), ("WouldBlock(Guarded), guards.dblink".to_owned(), true));
    // A region that is blocked is blocked, whatever is to run there.
    let policy = compile(&source());
    let grant = policy.grant(&user("alice")).unwrap();
    let denial = policy.decide(&grant, &policy.region("us-east"), guards).unwrap_err();
    assert_eq!(denial.reason, Reason::NotGranted);
    assert_eq!(Reason::Guarded.as_str(), "guarded");
}

#[test]
fn reason_stale_grant() {
    let first = compile(&source());
    let second = Policy::compile(&source(), Some(&first)).unwrap();
    let grant = first.grant(&user("alice")).unwrap();
    let denial = second.decide(&grant, &grant.start(), GuardSet::NONE).unwrap_err();
    assert_eq!(refused(&second, &denial), "XX000 residency grant does not belong to the policy in force");
    assert_eq!(second.may_choose(&grant, &SessionRegion::None).unwrap_err().reason, Reason::StaleGrant);
    assert_eq!(Reason::StaleGrant.as_str(), "stale_grant");
}

#[test]
fn labels_of_reasons_are_distinct() {
    let labels: std::collections::HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(labels.len(), Reason::ALL.len());
}

#[test]
fn message_and_sqlstate_are_configured() {
    let source = Source { block_message: "{reason}, {reason}!".to_owned(), block_sqlstate: "P0001".parse().unwrap(), ..source() };
    let policy = compile(&source);
    assert_eq!(decided(&policy, "bob", "antarctica"), "P0001 no in-region replica for user, no in-region replica for user!");
    assert_eq!(decided(&policy, "alice", "us-east"), "42501 permission denied for region \"us-east\"");
}

#[test]
fn a_denial_names_rule_and_region() {
    let policy = compile(&source());
    let grant = policy.grant(&user("bob")).unwrap();
    let denial = policy.decide(&grant, &policy.region("antarctica"), GuardSet::NONE).unwrap_err();
    assert_eq!(policy.rule_name(denial.rule), "residency.bind[1]");
    assert_eq!(policy.region_name(&denial.region), "antarctica");
}

#[test]
fn a_region_with_nodes_is_served_there() {
    let policy = compile(&source());
    assert_eq!(decided(&policy, "bob", "eu-west"), "eu-west");
    assert_eq!(decided(&policy, "bob", "us-east"), "us-east");
}

#[test]
fn no_region_leads_to_the_default_inside_the_grant_only() {
    let source = Source { no_region: NoRegion::Default, default_region: Some("us-east".to_owned()), ..source() };
    let policy = compile(&source);
    assert_eq!(decided(&policy, "bob", ""), "us-east NoRequirement");
    assert_eq!(decided(&policy, "alice", ""), NO_REGION);
    assert_eq!(decided(&policy, "bob", "antarctica"), NO_NODE);
}

#[test]
fn a_default_without_nodes_serves_nobody() {
    let source = Source {
        no_region: NoRegion::Default,
        default_region: Some("antarctica".to_owned()),
        enforce: false,
        unbound: Unbound::Client,
        ..source()
    };
    let policy = compile(&source);
    assert_eq!(decided(&policy, "bob", ""), NO_NODE);
    assert_eq!(decided(&policy, "bob", "antarctica"), NO_NODE);
    assert_eq!(decided(&policy, "mallory", "atlantis"), NO_NODE);
}

#[test]
fn a_dry_run_softens_no_node_and_nothing_else() {
    let dry = |default: &str| {
        let default_region = Some(default.to_owned());
        compile(&Source { enforce: false, default_region, unbound: Unbound::Client, ..source() })
    };
    let policy = dry("us-east");
    assert_eq!(decided(&policy, "bob", "antarctica"), "us-east WouldBlock(NoNode)");
    assert_eq!(decided(&policy, "mallory", "atlantis"), "us-east WouldBlock(NoNode)");
    assert_eq!(decided(&policy, "bob", "eu-west"), "eu-west");
    assert_eq!(decided(&policy, "bob", ""), NO_REGION);
    assert_eq!(decided(&policy, "alice", "us-east"), "42501 permission denied for region \"us-east\"");

    let mut outside = source();
    outside.binds[1].regions = vec!["us-east".to_owned(), "antarctica".to_owned()];
    let policy = compile(&Source { enforce: false, default_region: Some("eu-west".to_owned()), ..outside });
    assert_eq!(decided(&policy, "bob", "antarctica"), NO_NODE);
}

#[test]
fn a_client_that_may_name_any_region_is_served_where_there_are_nodes() {
    let policy = compile(&Source { unbound: Unbound::Client, ..source() });
    assert_eq!(decided(&policy, "mallory", "us-east"), "us-east");
    assert_eq!(decided(&policy, "mallory", "antarctica"), NO_NODE);
    assert_eq!(decided(&policy, "mallory", "atlantis"), NO_NODE);
    assert_eq!(decided(&policy, "mallory", ""), NO_REGION);
}

#[test]
fn names_match_exactly() {
    let policy = compile(&Source { unbound: Unbound::Client, ..source() });
    assert_eq!(decided(&policy, "mallory", "EU-WEST"), NO_NODE);
    assert_eq!(decided(&policy, "mallory", " eu-west"), NO_NODE);
}

#[test]
fn choosing_asks_the_grant_and_not_the_nodes() {
    let policy = compile(&Source { unbound: Unbound::Client, ..source() });
    let may = |name: &str, region: &str| {
        let grant = policy.grant(&user(name)).unwrap();
        policy.may_choose(&grant, &policy.region(region)).map_err(|denial| refused(&policy, &denial))
    };
    assert_eq!(may("bob", "antarctica"), Ok(()));
    assert_eq!(may("alice", ""), Ok(()));
    assert_eq!(may("mallory", "atlantis"), Ok(()));
    assert_eq!(may("alice", "us-east"), Err("42501 permission denied for region \"us-east\"".to_owned()));
    assert_eq!(may("alice", "atlantis"), Err("42501 permission denied for region \"atlantis\"".to_owned()));
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Policies over four regions with one rule for "u", as the properties vary them.
fn small_source() -> impl Strategy<Value = Source> {
    let granted = proptest::sample::subsequence(NAMES.to_vec(), 1..=4).prop_shuffle();
    let nodes = proptest::array::uniform4(any::<bool>());
    let unbound = prop_oneof![Just(Unbound::Block), Just(Unbound::Client), Just(Unbound::Region("b".to_owned()))];
    (granted, nodes, unbound, any::<bool>(), any::<bool>(), 0..4_usize).prop_map(
        |(granted, nodes, unbound, no_region, enforce, default)| Source {
            regions: NAMES.iter().zip(nodes).map(|(name, has_nodes)| region(name, has_nodes)).collect(),
            binds: vec![bind(0, Some("u"), &granted)],
            unbound,
            no_region: if no_region { NoRegion::Default } else { NoRegion::Block },
            default_region: Some(NAMES[default].to_owned()),
            enforce,
            ..source()
        },
    )
}

/// Where a session of `name` in `region` is served, if anywhere.
fn served(policy: &Policy, name: &str, region: &str) -> Option<RegionId> {
    let grant = policy.grant(&user(name)).ok()?;
    policy.decide(&grant, &policy.region(region), GuardSet::NONE).ok().map(|permit| permit.region())
}

const ASKED: [&str; 6] = ["", "a", "b", "c", "d", "nowhere"];

proptest! {
    #[test]
    fn a_smaller_grant_permits_nothing_more(source in small_source(), remove in 0..4_usize) {
        let mut smaller = source.clone();
        smaller.binds[0].regions.retain(|region| region != NAMES[remove]);
        prop_assume!(!smaller.binds[0].regions.is_empty());
        let (before, after) = (compile(&source), compile(&smaller));
        for region in ASKED {
            if let Some(pool) = served(&after, "u", region) {
                prop_assert_eq!(Some(pool), served(&before, "u", region));
            }
        }
    }

    #[test]
    fn fewer_nodes_permit_nothing_more(source in small_source(), remove in 0..4_usize) {
        let mut fewer = source.clone();
        fewer.regions[remove].has_nodes = false;
        let (before, after) = (compile(&source), compile(&fewer));
        for name in ["u", "other"] {
            for region in ASKED {
                let (before, after) = (served(&before, name, region), served(&after, name, region));
                prop_assert!(after.is_none() || before.is_some());
                // Only a dry run may serve from elsewhere than before.
                prop_assert!(after.is_none() || !source.enforce || after == before);
            }
        }
    }

    #[test]
    fn nothing_is_served_outside_the_grant(source in small_source()) {
        let policy = compile(&source);
        let granted = |name: &str, pool: RegionId| match name {
            "u" => source.binds[0].regions.iter().any(|region| region == policy.name(pool)),
            _ => match &source.unbound {
                Unbound::Block => false,
                Unbound::Client => true,
                Unbound::Region(region) => region == policy.name(pool),
            },
        };
        for name in ["u", "other"] {
            for region in ASKED {
                if let Some(pool) = served(&policy, name, region) {
                    prop_assert!(granted(name, pool));
                    prop_assert!(source.regions[pool.index()].has_nodes);
                }
            }
        }
    }

    /// The design's table, written out, is what the compiled table answers.
    #[test]
    fn the_table_is_the_designs(source in small_source()) {
        let policy = compile(&source);
        let inside = |name: &str| source.binds[0].regions.iter().any(|region| region == name);
        let nodes = |name: &str| source.regions.iter().any(|region| region.name == name && region.has_nodes);
        let default = source.default_region.as_deref().unwrap();
        let in_default = |requirement| if nodes(default) { Ok((default.to_owned(), requirement)) } else { Err(Reason::NoNode) };
        let grant = policy.grant(&user("u")).unwrap();
        for region in ASKED {
            let expected = if region.is_empty() {
                if source.no_region == NoRegion::Default && inside(default) {
                    in_default(Requirement::NoRequirement)
                } else {
                    Err(Reason::NoRegion)
                }
            } else if !inside(region) {
                Err(Reason::NotGranted)
            } else if nodes(region) {
                Ok((region.to_owned(), Requirement::InRegion))
            } else if !source.enforce && inside(default) {
                in_default(Requirement::WouldBlock(Reason::NoNode))
            } else {
                Err(Reason::NoNode)
            };
            let answer = policy.decide(&grant, &policy.region(region), GuardSet::NONE);
            let answer = answer.map(|permit| (policy.name(permit.region()).to_owned(), permit.requirement()));
            prop_assert_eq!(answer.map_err(|denial| denial.reason), expected);
        }
    }
}
