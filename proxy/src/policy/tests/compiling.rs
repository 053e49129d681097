//! What a source may not say, and what stays the same from one policy to the next.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::limits::REGIONS_MAX;
use crate::sql::GuardSet;

fn error(source: &Source) -> String {
    Policy::compile(source, None).unwrap_err().to_string()
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let check = |change: fn(&mut Source), expected: &str| {
        let mut source = source();
        change(&mut source);
        assert_eq!(error(&source), expected);
    };
    check(|source| source.binds[1].regions[1] = "eu-wset".to_owned(), "residency.bind[1]: region \"eu-wset\" is not declared");
    check(
        |source| source.unbound = Unbound::Region("atlantis".to_owned()),
        "residency.unbound: region \"atlantis\" is not declared",
    );
    check(
        |source| source.default_region = Some("atlantis".to_owned()),
        "residency.default_region: region \"atlantis\" is not declared",
    );
    check(|source| source.no_region = NoRegion::Default, "residency.no_region = \"default\" needs residency.default_region");
    check(|source| source.enforce = false, "residency.enforce = false needs residency.default_region");
    check(|source| source.binds[0].regions.clear(), "residency.bind[0]: regions is empty; a rule must grant at least one region");
    check(|source| source.regions.push(region("us-east", true)), "regions: \"us-east\" is declared twice");
    check(|source| source.regions.push(region("", true)), "regions: a region has an empty name");
    check(|source| source.block_message = "Blocked".to_owned(), "residency.block_message: {reason} is missing");
}

#[test]
fn regions_end_at_the_limit_removed_ones_included() {
    let mut source = Source { binds: Vec::new(), ..source() };
    source.regions = (0..REGIONS_MAX).map(|index| region(&format!("r{index}"), true)).collect();
    let full = compile(&source);
    source.regions = vec![region("one-more", true)];
    let error = Policy::compile(&source, Some(&full)).unwrap_err();
    assert_eq!(error, CompileError::TooManyRegions { region: "one-more".to_owned() });
    assert!(error.to_string().contains("at most 1024"));

    source.regions = vec![region("r1023", true)];
    let policy = Policy::compile(&Source { unbound: Unbound::Client, ..source }, Some(&full)).unwrap();
    assert_eq!(decided(&policy, "anyone", "r1023"), "r1023");
    assert_eq!(decided(&policy, "anyone", "r1022"), "42000 Query blocked by route plugin: no in-region replica for user");
}

#[test]
fn generations_count() {
    let first = compile(&source());
    let second = Policy::compile(&source(), Some(&first)).unwrap();
    assert_eq!((first.generation(), second.generation()), (1, 2));
}

#[test]
fn a_removed_region_is_a_region_without_nodes() {
    let before = compile(&Source { unbound: Unbound::Client, ..source() });
    let region = before.region("us-east");
    let after = Source { regions: vec![self::region("eu-west", true)], binds: Vec::new(), unbound: Unbound::Client, ..source() };
    let after = Policy::compile(&after, Some(&before)).unwrap();
    assert_eq!(after.region("us-east"), region);
    assert_eq!(after.region_name(&region), "us-east");
    let grant = after.grant(&user("anyone")).unwrap();
    assert_eq!(after.decide(&grant, &region, GuardSet::NONE).unwrap_err().reason, Reason::NoNode);
    assert_eq!(after.granted(&grant).iter().collect::<Vec<_>>(), [RegionId::new(0).unwrap()]);
}

#[test]
fn a_bind_rule_cannot_use_a_removed_region() {
    let before = compile(&source());
    let mut after = source();
    after.regions.remove(1);
    let error = Policy::compile(&after, Some(&before)).unwrap_err();
    assert_eq!(error.to_string(), "residency.bind[1]: region \"us-east\" is not declared");
}

#[test]
fn a_shrunken_grant_denies_the_region_the_session_is_in() {
    let before = compile(&source());
    let region = before.region("us-east");
    let mut after = source();
    after.binds[1].regions = vec!["eu-west".to_owned()];
    let after = Policy::compile(&after, Some(&before)).unwrap();
    let grant = after.grant(&user("bob")).unwrap();
    let denial = after.decide(&grant, &region, GuardSet::NONE).unwrap_err();
    assert_eq!(refused(&after, &denial), "42501 permission denied for region \"us-east\"");
}

#[test]
fn a_name_that_a_reload_declares_leads_to_its_nodes() {
    let before = compile(&Source { unbound: Unbound::Client, ..source() });
    let region = before.region("atlantis");
    assert!(matches!(region, SessionRegion::Undeclared(_)));
    let mut after = Source { unbound: Unbound::Client, ..source() };
    after.regions.push(self::region("atlantis", true));
    let after = Policy::compile(&after, Some(&before)).unwrap();
    let grant = after.grant(&user("anyone")).unwrap();
    assert_eq!(after.decide(&grant, &region, GuardSet::NONE).unwrap().region().index(), 3);
}

#[test]
fn a_number_of_a_later_policy_is_nowhere() {
    let before = compile(&Source { unbound: Unbound::Client, ..source() });
    let mut after = Source { unbound: Unbound::Client, ..source() };
    after.regions.push(self::region("atlantis", true));
    let after = Policy::compile(&after, Some(&before)).unwrap();
    let region = after.region("atlantis");
    let decide = |name: &str| before.decide(&before.grant(&user(name)).unwrap(), &region, GuardSet::NONE).unwrap_err().reason;
    assert_eq!(decide("anyone"), Reason::NoNode);
    assert_eq!(decide("alice"), Reason::NotGranted);
    assert_eq!(before.region_name(&region), "");
}

proptest! {
    /// Over any chain of reloads a name keeps the number it had first, and no number has two names.
    #[test]
    fn numbers_are_stable(chain in proptest::collection::vec(proptest::collection::vec(0..12_u8, 0..6), 1..8)) {
        let mut first = HashMap::new();
        let mut previous: Option<Policy> = None;
        for names in chain {
            let mut names: Vec<_> = names.into_iter().map(|name| format!("r{name}")).collect();
            let mut seen = std::collections::HashSet::new();
            names.retain(|name| seen.insert(name.clone()));
            let regions = names.iter().map(|name| region(name, true)).collect();
            let policy = Policy::compile(&Source { regions, binds: Vec::new(), ..source() }, previous.as_ref()).unwrap();
            for name in names {
                let SessionRegion::Declared(number) = policy.region(&name) else { panic!("{name} is declared") };
                first.entry(name).or_insert(number);
            }
            for (name, number) in &first {
                prop_assert_eq!(policy.region(name), SessionRegion::Declared(*number));
                prop_assert_eq!(policy.name(*number), name);
            }
            previous = Some(policy);
        }
    }
}
