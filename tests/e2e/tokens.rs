//! Tokens: the claim of one is the grant of a session, and nothing of it is written anywhere.

use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::message as m;
use domicile_tests::process::{Scratch, wait_for};
use domicile_tests::proxy::Configuration;
use domicile_tests::{program, skip};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{World, start, world};

const PATIENCE: Duration = Duration::from_secs(10);
const PUBLIC_KEY: &str = include_str!("../keys/es256.pub.pem");

fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_ec_pem(include_bytes!("../keys/es256.pem")).expect("a key");
    encode(&Header::new(Algorithm::ES256), claims, &key).expect("a token")
}

/// A token of alice for these regions, that is good for as many seconds.
fn token(regions: &[&str], seconds: i64) -> String {
    let now = i64::try_from(get_current_timestamp()).expect("a time");
    signed(&json!({ "sub": "alice", "aud": "domicile", "exp": now + seconds, "regions": regions }))
}

fn configuration(world: &World, directory: &Scratch, method: &'static str) -> Configuration {
    let keys = directory.path().join("jwt.pem");
    std::fs::write(&keys, PUBLIC_KEY).expect("a file");
    let audit = directory.path().join("audit.jsonl");
    Configuration {
        method,
        auth: format!("jwt = {{ keys = {keys:?}, audience = \"domicile\", regions_claim = \"regions\" }}\n"),
        residency: "unbound = \"block\"\n".to_owned(),
        more: format!("[[residency.bind]]\nregions = \"claim\"\n[audit]\nfile = {audit:?}\n"),
        ..world.configuration()
    }
}

const ALICE: Login<'_> = Login { user: "alice", password: "", database: "demo", parameters: &[] };

#[test]
fn a_claim_is_the_grant() {
    let Some(world) = world() else { return };
    let directory = Scratch::new().expect("a directory");
    let proxy = start(&configuration(world, &directory, "jwt"));
    let (good, both, expired) = (token(&["eu-west"], 60), token(&["us-east", "eu-west"], 60), token(&["eu-west"], -600));
    let login = |password: &str| proxy.login(&Login { password, ..ALICE });
    let mut client = login(&good).unwrap_or_else(|said| panic!("{said}"));
    let node = "SELECT current_setting('cluster_node')";
    assert_eq!(client.query(node).value().as_deref(), Some("pg-eu-west"));
    let said = client.query("SET helios.region = 'us-east'").to_string();
    assert_eq!(said, "E 42501 permission denied for region \"us-east\" / Z I");
    assert_eq!(client.query(node).value().as_deref(), Some("pg-eu-west"));
    let audit = || std::fs::read_to_string(directory.path().join("audit.jsonl")).unwrap_or_default();
    let named = "\"region\":\"us-east\",\"reason\":\"not_granted\",\"rule\":\"residency.bind[0]\",\"sqlstate\":\"42501\"";
    assert!(wait_for(PATIENCE, || audit().contains(named).then_some(())).is_some(), "{}", audit());

    let mut client_of_both = login(&both).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(client_of_both.query(node).value().as_deref(), Some("pg-us-east"));
    client_of_both.query("SET helios.region = 'eu-west'");
    assert_eq!(client_of_both.query(node).value().as_deref(), Some("pg-eu-west"));

    // After a reload a session has what its token granted, and no more.
    proxy.signal(Signal::HUP);
    assert!(wait_for(PATIENCE, || proxy.log().contains("has been reloaded").then_some(())).is_some());
    assert_eq!(client.query(node).value().as_deref(), Some("pg-eu-west"));
    assert_eq!(client.query("SET helios.region = 'us-east'").sqlstate(), "42501");

    for (token, cause) in [(&expired, "the token has expired"), (&"alice".to_owned(), "the token is malformed")] {
        let said = login(token).err().map(|said| said.to_string());
        assert_eq!(said.as_deref(), Some("R 3 / E FATAL 28P01 password authentication failed for user \"alice\" / closed"));
        assert!(proxy.log().contains(cause), "{}", proxy.log());
    }
    let written = proxy.log() + &audit() + &client.greeting.to_string();
    for part in [&good, &both, &expired].iter().flat_map(|token| token.split('.').skip(1)) {
        assert!(!written.contains(part), "a part of a token is written: {part}");
    }
}

#[test]
fn psql_has_a_token_for_a_password() {
    let Some(world) = world() else { return };
    let Some(psql) = skip::available(program::need("psql")) else { return };
    let directory = Scratch::new().expect("a directory");
    let proxy = start(&configuration(world, &directory, "jwt"));
    let mut command = program::command(&psql);
    command.env("PGPASSWORD", token(&["us-east"], 60));
    command.args(["-h", "127.0.0.1", "-U", "alice", "-d", "demo", "-Atc", "SELECT current_setting('cluster_node')"]);
    command.arg("-p").arg(proxy.address().port().to_string());
    let output = program::run(command, "", PATIENCE).expect("psql runs");
    assert_eq!(program::both(&output).trim_end(), "pg-us-east");
}

#[test]
fn a_token_comes_by_oauthbearer() {
    let Some(world) = world() else { return };
    let directory = Scratch::new().expect("a directory");
    let proxy = start(&configuration(world, &directory, "oauth"));
    let begin = |token: &str| {
        let mut client = Client::connect(proxy.address()).expect("a connection");
        client.send(&m::startup(m::PROTOCOL_3_0, &[("user", "alice"), ("database", "demo")]));
        let asked = client.until(|_| true);
        assert!(asked.messages[0].body.ends_with(b"OAUTHBEARER\0\0"), "{asked}");
        let message = format!("n,,\u{1}auth=Bearer {token}\u{1}\u{1}");
        client.send(&m::password(&[m::string("OAUTHBEARER"), m::counted(&message)].concat()));
        client
    };
    let mut client = begin(&token(&["eu-west"], 60));
    assert!(client.until_ready().to_string().ends_with("K / Z I"));
    assert_eq!(client.query("SELECT current_setting('cluster_node')").value().as_deref(), Some("pg-eu-west"));
    let mut client = begin(&token(&["eu-west"], -600));
    let error = client.until(|_| true);
    assert!(error.messages[0].body.ends_with(b"{\"status\":\"invalid_token\"}"), "{error}");
    client.send(&m::password(b"\x01"));
    let said = client.until(|_| false).to_string();
    assert_eq!(said, "E FATAL 28000 OAuth bearer authentication failed for user \"alice\" / closed");
}
