//! Who gets to the administration console, and what it is told.

use expect_test::expect;

use super::client::{Conversation, check, startup};
use super::*;
use crate::admin::console::Rights;
use crate::login::conversation::Step;

const ADMIN: &str = "[admin]\nusers = [\"bob\"]\nstats_users = [\"carol\"]\n[limits]\nmax_clients = 1";

#[test]
fn a_client_of_the_console_is_told_what_it_has_and_no_region() {
    check(
        &rules("trust", ADMIN),
        &[&startup(0, &[("user", "bob"), ("database", "pgbouncer"), ("helios.region", "nowhere"), ("DateStyle", "German")])],
        &expect![[r#"
            R \x00\x00\x00\x00
            S server_version\x001.25.0/domicile\x00
            S client_encoding\x00UTF8\x00
            S server_encoding\x00UTF8\x00
            S DateStyle\x00ISO, MDY\x00
            S TimeZone\x00UTC\x00
            S standard_conforming_strings\x00on\x00
            S integer_datetimes\x00on\x00
            S is_superuser\x00off\x00
            K \x00\x00\x00Mkey!
            Z I
            = admitted
        "#]],
    );
}

#[test]
fn nobody_else_gets_in_and_only_after_he_has_proved_who_he_is() {
    let refused = expect![[r#"
        E FATAL 28000 user "alice" is not allowed to use the administration console
        = denied
    "#]];
    check(&rules("trust", ADMIN), &[&startup(0, &[("user", "alice"), ("database", "domicile")])], &refused);
    check(&rules("trust", ""), &[&startup(0, &[("user", "alice"), ("database", "pgbouncer")])], &refused);
    // A login in clear text, whose question comes whoever asks.
    let asked = expect![[r#"
        R \x00\x00\x00\x03
        …
    "#]];
    check(&rules("password", ADMIN), &[&startup(0, &[("user", "alice"), ("database", "pgbouncer")])], &asked);
}

#[test]
fn rights_are_those_of_the_configuration_and_the_bound_of_clients_is_not_the_consoles() {
    let rules = rules("trust", ADMIN);
    let step = |user: &str, database: &str| {
        let mut login = super::super::conversation::ClientLogin::new(Transport::default(), super::client::chance());
        login.receive(&startup(0, &[("user", user), ("database", database)]));
        login.step(&rules, 1)
    };
    for (user, expected) in [("bob", Rights::Admin), ("carol", Rights::Stats)] {
        let Step::Console(_, client) = step(user, "domicile") else { panic!("{user} does not get in") };
        assert_eq!((client.rights, &*client.user), (expected, user));
    }
    assert!(matches!(step("bob", "shop"), Step::Refuse(_)), "there are too many clients");
    let mut conversation = Conversation::new(&rules);
    conversation.say(&startup(0, &[("user", "bob"), ("database", "PgBouncer")]));
    assert!(conversation.outcome().is_some(), "a database of another spelling is an ordinary one");
}
