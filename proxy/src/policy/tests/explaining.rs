//! The words of `explain`, as printed.

use expect_test::{Expect, expect};

use super::*;
use crate::sql::{Guard, GuardSet};

fn check(source: &Source, name: &str, region: Option<&str>, expected: Expect) {
    let subject = Subject { address: Some("10.0.0.7".parse().unwrap()), ..user(name) };
    expected.assert_eq(&explain(&compile(source), &subject, region).to_string());
}

#[test]
fn permitted_in_the_start_region() {
    let mut source = source();
    source.regions[0].jurisdiction = Some("EU".to_owned());
    check(
        &source,
        "alice",
        None,
        expect![[r#"
            subject    user "alice", database "demo", from 10.0.0.7
            rule       residency.bind[0]
            grant      eu-west
            start      eu-west
            decision   permitted: eu-west (EU)
            guards     all denied"#]],
    );
}

#[test]
fn permitted_in_the_region_asked_for() {
    check(
        &source(),
        "bob",
        Some("eu-west"),
        expect![[r#"
            subject    user "bob", database "demo", from 10.0.0.7
            rule       residency.bind[1]
            grant      eu-west, us-east, antarctica
            start      us-east
            asked      eu-west
            decision   permitted: eu-west
            guards     all denied"#]],
    );
}

#[test]
fn guards_are_told_where_something_is_permitted() {
    let guards = |guards, enforce| {
        let source = Source { guards, enforce, default_region: Some("eu-west".to_owned()), ..source() };
        let said = explain(&compile(&source), &user("alice"), None).to_string();
        said.lines().last().unwrap_or_default().to_owned()
    };
    let all: GuardSet = Guard::ALL.into_iter().collect();
    let some: GuardSet = [Guard::Dblink, Guard::Load].into_iter().collect();
    assert_eq!(guards(all, true), "guards     all denied");
    assert_eq!(guards(all, false), "guards     all counted");
    assert!(guards(some, true).starts_with("guards     denied: dblink, load; allowed: foreign_data, "));
    assert!(guards(GuardSet::NONE, true).starts_with("guards     allowed: dblink, foreign_data, "));
}

#[test]
fn permitted_in_the_default_region() {
    let source =
        Source { unbound: Unbound::Client, no_region: NoRegion::Default, default_region: Some("eu-west".to_owned()), ..source() };
    check(
        &source,
        "postgres",
        None,
        expect![[r#"
            subject    user "postgres", database "demo", from 10.0.0.7
            rule       residency.unbound
            grant      any region that the client names
            start      none
            decision   permitted: eu-west, the default region, since no region is set
            guards     all denied"#]],
    );
    check(
        &source,
        "alice",
        Some(""),
        expect![[r#"
            subject    user "alice", database "demo", from 10.0.0.7
            rule       residency.bind[0]
            grant      eu-west
            start      eu-west
            asked      none
            decision   permitted: eu-west, the default region, since no region is set
            guards     all denied"#]],
    );
}

#[test]
fn permitted_by_a_dry_run() {
    let source = Source { unbound: Unbound::Client, enforce: false, default_region: Some("eu-west".to_owned()), ..source() };
    check(
        &source,
        "postgres",
        Some("atlantis"),
        expect![[r#"
            subject    user "postgres", database "demo", from 10.0.0.7
            rule       residency.unbound
            grant      any region that the client names
            start      none
            asked      atlantis
            decision   permitted: eu-west, the default region, since enforce = false; would be denied: no in-region replica for user
            guards     all counted"#]],
    );
}

#[test]
fn denied_without_a_node() {
    check(
        &Source { unbound: Unbound::Client, ..source() },
        "postgres",
        Some("antarctica"),
        expect![[r#"
            subject    user "postgres", database "demo", from 10.0.0.7
            rule       residency.unbound
            grant      any region that the client names
            start      none
            asked      antarctica
            decision   denied: no in-region replica for user (42000)
            message    Query blocked by route plugin: no in-region replica for user"#]],
    );
}

#[test]
fn denied_outside_the_grant() {
    check(
        &source(),
        "alice",
        Some("us-east"),
        expect![[r#"
            subject    user "alice", database "demo", from 10.0.0.7
            rule       residency.bind[0]
            grant      eu-west
            start      eu-west
            asked      us-east
            decision   denied: the region is outside the grant (42501)
            message    permission denied for region "us-east""#]],
    );
}

#[test]
fn denied_at_login() {
    check(
        &source(),
        "mallory",
        Some("us-east"),
        expect![[r#"
            subject    user "mallory", database "demo", from 10.0.0.7
            rule       residency.unbound
            grant      nothing
            start      none
            asked      us-east
            decision   denied: no residency rule admits the user (28000)
            message    no residency rule admits user "mallory" to database "demo""#]],
    );
}

#[test]
fn what_a_login_has_proved_decides() {
    let mut source = source();
    let rule =
        BindSource { proofs: vec![Proof::Claim { name: "tenant".into(), value: "acme".into() }], ..source.binds[1].clone() };
    source.binds.insert(0, BindSource { user: None, label: "by the token".into(), ..rule });
    let texts = [("sub", "zoe"), ("tenant", "acme")].map(|(name, value)| (name.to_owned(), vec![value.to_owned()]));
    let certificate = CertificateNames { alternative_names: vec!["ops".to_owned()], ..CertificateNames::default() };
    let proven = Proven { certificate: Some(certificate), claims: Some(Claims { regions: None, texts: texts.into() }) };
    let subject = Subject { proven: &proven, ..user("zoe") };
    let said = explain(&compile(&source), &subject, None).to_string();
    let lines: Vec<&str> = said.lines().skip(1).take(2).collect();
    let proved = "proved     certificate \"ops\", claim sub = \"zoe\", claim tenant = \"acme\"";
    assert_eq!(lines, [proved, "rule       by the token"]);
}
