//! Which rule a login gets: first match wins, whatever the index does.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::sql::GuardSet;

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn from(index: usize, network: &str, regions: &[&str]) -> BindSource {
    BindSource { from: Some(network.parse().unwrap()), ..bind(index, None, regions) }
}

/// The name of the rule that a login gets.
fn rule<'a>(policy: &'a Policy, subject: &Subject<'_>) -> &'a str {
    match policy.grant(subject) {
        Ok(grant) => policy.rule_name(grant.rule()),
        Err(denial) => policy.rule_name(denial.rule),
    }
}

#[test]
fn a_session_starts_in_the_first_region_of_its_rule() {
    let start = |source: &Source, name: &str| {
        let policy = compile(source);
        let start = policy.grant(&user(name)).unwrap().start();
        policy.region_name(&start).to_owned()
    };
    assert_eq!(start(&source(), "alice"), "eu-west");
    assert_eq!(start(&source(), "bob"), "us-east");
    assert_eq!(start(&Source { unbound: Unbound::Client, ..source() }, "mallory"), "");
    assert_eq!(start(&Source { unbound: Unbound::Region("us-east".to_owned()), ..source() }, "mallory"), "us-east");
}

#[test]
fn an_unbound_region_grants_that_region_alone() {
    let policy = compile(&Source { unbound: Unbound::Region("us-east".to_owned()), ..source() });
    assert_eq!(decided(&policy, "mallory", "us-east"), "us-east");
    assert_eq!(decided(&policy, "mallory", "eu-west"), "42501 permission denied for region \"eu-west\"");
    assert_eq!(rule(&policy, &user("mallory")), "residency.unbound");
}

#[test]
fn granted_regions_are_those_of_the_rule() {
    let policy = compile(&Source { unbound: Unbound::Client, ..source() });
    let granted = |name: &str| {
        let grant = policy.grant(&user(name)).unwrap();
        policy.granted(&grant).iter().map(|region| policy.name(region)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(granted("alice"), "eu-west");
    assert_eq!(granted("bob"), "eu-west us-east antarctica");
    assert_eq!(granted("mallory"), "eu-west us-east antarctica");
}

#[test]
fn a_rule_without_a_user_wins_by_its_place() {
    let mut source = source();
    source.binds.insert(1, bind(7, None, &["us-east"]));
    let policy = compile(&source);
    assert_eq!(rule(&policy, &user("alice")), "residency.bind[0]");
    assert_eq!(rule(&policy, &user("bob")), "residency.bind[7]");
    assert_eq!(rule(&policy, &user("mallory")), "residency.bind[7]");
}

#[test]
fn networks_match_by_address_and_family() {
    let binds = vec![
        from(0, "10.1.2.3/32", &["eu-west"]),
        from(1, "10.1.99.99/16", &["eu-west"]),
        from(2, "2001:db8::/32", &["eu-west"]),
        from(3, "::ffff:192.168.0.0/112", &["eu-west"]),
        from(4, "::/0", &["eu-west"]),
        from(5, "::ffff:0:0/96", &["eu-west"]),
    ];
    let policy = compile(&Source { binds, ..source() });
    let rule = |address| rule(&policy, &Subject { address, ..user("anyone") });
    assert_eq!(rule(address("10.1.2.3")), "residency.bind[0]");
    assert_eq!(rule(address("10.1.2.4")), "residency.bind[1]");
    assert_eq!(rule(address("::ffff:10.1.2.4")), "residency.bind[1]");
    assert_eq!(rule(address("2001:db8:1::1")), "residency.bind[2]");
    assert_eq!(rule(address("192.168.7.7")), "residency.bind[3]");
    assert_eq!(rule(address("2001:db9::1")), "residency.bind[4]");
    assert_eq!(rule(address("11.0.0.1")), "residency.bind[5]");
    assert_eq!(rule(None), "residency.unbound");
}

#[test]
fn every_rule_of_many_is_found() {
    let binds: Vec<_> =
        (0..20_000).map(|index| bind(index, Some(&format!("user{index}")), &[["eu-west", "us-east"][index % 2]])).collect();
    let policy = compile(&Source { binds, ..source() });
    for index in 0..20_000 {
        assert_eq!(rule(&policy, &user(&format!("user{index}"))), format!("residency.bind[{index}]"));
    }
}

/// What a rule says, applied one by one.
fn oracle<'a>(source: &'a Source, subject: &Subject<'_>) -> &'a str {
    let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
    let mut matching = source.binds.iter().filter(|bind| {
        let from =
            bind.from.is_none_or(|network| subject.address.is_some_and(|address| network.contains(&address.to_canonical())));
        is(&bind.user, subject.user) && is(&bind.database, subject.database) && from
    });
    matching.next().map_or("residency.unbound", |bind| &bind.label)
}

fn small_network() -> impl Strategy<Value = IpNet> {
    let v4 = (0..4_u8, 0..4_u8, 0..=32_u8).prop_map(|(a, b, length)| IpNet::new([10, a, 0, b].into(), length).unwrap());
    let v6 = (0..2_u16, 0..2_u16, 0..=128_u8)
        .prop_map(|(a, b, length)| IpNet::new([0x2001, a, 0, 0, 0, 0, 0, b].into(), length).unwrap());
    prop_oneof![v4, v6]
}

fn small_binds() -> impl Strategy<Value = Vec<BindSource>> {
    let word = proptest::option::of(proptest::sample::select(vec!["x", "y", "z"]));
    let rule = (word.clone(), word, proptest::option::of(small_network()));
    proptest::collection::vec(rule, 0..30).prop_map(|rules| {
        let rule = |(index, (user, database, from)): (usize, (Option<&str>, Option<&str>, _))| BindSource {
            database: database.map(str::to_owned),
            from,
            ..bind(index, user, &["eu-west"])
        };
        rules.into_iter().enumerate().map(rule).collect()
    })
}

#[test]
fn only_a_rule_that_says_so_lets_a_login_replicate() {
    let replicator = BindSource { replication: true, ..bind(0, Some("replicator"), &["eu-west"]) };
    let source = Source { binds: vec![replicator, bind(1, Some("app"), &["eu-west"])], unbound: Unbound::Client, ..source() };
    let policy = compile(&source);
    let may =
        |user| policy.grant(&Subject { user, database: "shop", address: None, proven: Proven::NOTHING }).unwrap().may_replicate();
    assert_eq!((may("replicator"), may("app"), may("nobody")), (true, false, false));
}

proptest! {
    #[test]
    fn first_match_wins(
        binds in small_binds(),
        name in proptest::sample::select(vec!["x", "y", "z", "nobody"]),
        database in proptest::sample::select(vec!["x", "y", "z", "nothing"]),
        address in proptest::option::of(small_network().prop_map(|network| network.addr())),
    ) {
        let source = Source { binds, ..source() };
        let policy = compile(&source);
        let subject = Subject { user: name, database, address, proven: Proven::NOTHING };
        prop_assert_eq!(rule(&policy, &subject), oracle(&source, &subject));
    }
}

proptest! {
    #[test]
    fn a_token_never_widens_a_grant(
        names in proptest::collection::vec(proptest::sample::select(vec!["eu-west", "us-east", "antarctica", "mars", ""]), 0..4),
        name in proptest::sample::select(vec!["alice", "bob", "mallory"]),
        unbound in proptest::sample::select(vec![Unbound::Block, Unbound::Client, Unbound::Region("us-east".to_owned())]),
    ) {
        let policy = compile(&Source { unbound, default_region: Some("eu-west".to_owned()), no_region: NoRegion::Default, ..source() });
        let regions: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let claims = Claims { regions: Some(regions.clone()), ..Claims::default() };
        let proven = Proven { certificate: None, claims: Some(claims) };
        let Ok(narrowed) = policy.grant(&Subject { proven: &proven, ..user(name) }) else { return Ok(()) };
        let whole = policy.grant(&user(name)).unwrap();
        for region in ["eu-west", "us-east", "antarctica", "mars", ""].map(|name| policy.region(name)) {
            let is_claimed = |region: &str| regions.iter().any(|name| name == region);
            if let Ok(permit) = policy.decide(&narrowed, &region, GuardSet::NONE) {
                prop_assert!(is_claimed(policy.name(permit.region())));
                prop_assert_eq!(policy.decide(&whole, &region, GuardSet::NONE).map(|permit| permit.region()), Ok(permit.region()));
            }
            if policy.may_choose(&narrowed, &region).is_ok() && region != SessionRegion::None {
                prop_assert!(is_claimed(policy.region_name(&region)));
                prop_assert!(policy.may_choose(&whole, &region).is_ok());
            }
        }
        prop_assert!(is_inside(&policy, &narrowed));
    }
}

/// Whether a session starts in a region of its grant.
fn is_inside(policy: &Policy, grant: &Grant) -> bool {
    policy.may_choose(grant, &grant.start()).is_ok()
}
