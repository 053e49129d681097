//! Where the proxy has the secrets of users from, and how backends are opened with them.

use domicile_tests::client::Login;
use domicile_tests::proxy::Configuration;
use domicile_tests::transcript::Transcript;

use crate::world::{World, start, world};

/// A login of `user`, whose password is `password`, with its region in the StartupMessage.
fn login<'a>(user: &'a str, password: &'a str) -> Login<'a> {
    Login { user, password, database: "demo", parameters: &[("helios.region", "eu-west")] }
}

fn text(said: &Transcript) -> String {
    said.error().map_or_else(|| said.to_string(), |report| report.field('M').to_owned())
}

/// The SCRAM verifier of a role that is made anew in both regions, with one password and one verifier in both.
fn role_of_both(world: &World, name: &str) -> String {
    world.eu.execute("demo", &format!("CREATE ROLE {name} LOGIN PASSWORD 'of-{name}'")).expect("a role");
    let verifier = world.eu.value("demo", &format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{name}'"));
    assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{verifier}");
    world.us.execute("demo", &format!("CREATE ROLE {name} LOGIN PASSWORD '{verifier}'")).expect("a role");
    verifier
}

#[test]
fn a_verifier_opens_backends_once_its_user_has_logged_in() {
    let Some(world) = world() else { return };
    let verifier = role_of_both(world, "vera");
    let mut configuration = world.configuration();
    configuration.users.push(("vera".to_owned(), verifier));
    for method in ["scram-sha-256", "password"] {
        let proxy = start(&Configuration { method, ..configuration.clone() });
        let mut client = proxy.login(&login("vera", "of-vera")).unwrap_or_else(|said| panic!("{said}"));
        assert_eq!(client.query("SELECT current_user").value().as_deref(), Some("vera"), "{method}");
        client.query("SET helios.region = 'us-east'");
        assert_eq!(client.query("SELECT current_user").value().as_deref(), Some("vera"), "{method}");
        assert_eq!(proxy.login(&login("vera", "wrong")).err().map(|said| said.sqlstate()).as_deref(), Some("28P01"));
    }
}

#[test]
fn a_server_with_another_verifier_is_named_and_gets_nothing() {
    let Some(world) = world() else { return };
    for cluster in [&world.eu, &world.us] {
        cluster.execute("demo", "CREATE ROLE odette LOGIN PASSWORD 'of-odette'").expect("a role");
    }
    let verifier = world.eu.value("demo", "SELECT rolpassword FROM pg_authid WHERE rolname = 'odette'");
    let mut configuration = world.configuration();
    configuration.users.push(("odette".to_owned(), verifier));
    let proxy = start(&configuration);
    let mut client = proxy.login(&login("odette", "of-odette")).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(client.query("SELECT current_user").value().as_deref(), Some("odette"));
    client.query("SET helios.region = 'us-east'");
    let said = client.query("SELECT current_user");
    assert_eq!((said.sqlstate().as_str(), said.status()), ("08006", 'I'), "{said}");
    assert!(text(&said).contains("pg-us-east") && text(&said).contains("another one than the proxy has"), "{said}");
}
