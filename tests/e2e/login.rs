//! The door: who gets in, what a refusal gives away (nothing), and what nonsense is answered with.

use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::message as m;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::transcript::Transcript;

use crate::world::{start, world};

const ALICE: Login<'_> = Login { user: "alice", password: "alice", database: "demo", parameters: &[] };

fn refusal(proxy: &Proxy, login: &Login<'_>) -> Transcript {
    match proxy.login(login) {
        Err(said) => said,
        Ok(_) => panic!("{login:?} was admitted"),
    }
}

/// What a client says before its login, and what must come back until the connection is closed.
#[track_caller]
fn check_raw(proxy: &Proxy, bytes: &[u8], expected: &str) {
    let mut client = Client::connect(proxy.address()).expect("a connection");
    client.send(bytes);
    client.half_close();
    let said = client.until(|_| false).to_string();
    assert_eq!(said, expected, "{:?}", bytes.get(..40.min(bytes.len())));
}

#[test]
fn every_method_admits_the_right_password_and_tells_nothing_about_users() {
    let Some(world) = world() else { return };
    for (method, challenge) in [
        ("trust", ""),
        ("password", "R 3 / "),
        ("md5", "R 5 / "),
        ("scram-sha-256", "R 10 SCRAM-SHA-256 / R 11 salt of 24 characters, 4096 iterations / "),
    ] {
        let proxy = start(&Configuration { method, ..world.configuration() });
        let client = proxy.login(&ALICE).unwrap_or_else(|said| panic!("{method}: {said}"));
        let greeting = client.greeting.to_string();
        let admitted = if method == "scram-sha-256" { format!("{challenge}R 12 / R 0 / ") } else { format!("{challenge}R 0 / ") };
        assert!(greeting.starts_with(&admitted) && greeting.ends_with("K / Z I"), "{method}: {greeting}");
        if method == "trust" {
            continue;
        }
        let wrong = |user| refusal(&proxy, &Login { user, password: "wrong", ..ALICE }).to_string();
        let expected = format!("{challenge}E FATAL 28P01 password authentication failed for user \"alice\" / closed");
        assert_eq!(wrong("alice"), expected, "{method}");
        assert_eq!(wrong("nobody").replace("nobody", "alice"), expected, "{method}");
        let empty = |user| refusal(&proxy, &Login { user, password: "", ..ALICE }).to_string().replace(user, "somebody");
        assert_eq!(empty("alice"), empty("nobody"), "{method}");
    }
}

#[test]
fn a_verifier_is_as_good_as_a_password() {
    let Some(world) = world() else { return };
    let mut configuration = world.configuration();
    let verifier = world.eu.value("demo", "SELECT rolpassword FROM pg_authid WHERE rolname = 'alice'");
    configuration.users = vec![("alice".to_owned(), verifier)];
    let proxy = start(&configuration);
    assert!(proxy.login(&ALICE).is_ok());
    assert_eq!(refusal(&proxy, &Login { password: "wrong", ..ALICE }).sqlstate(), "28P01");
}

#[test]
fn the_challenge_of_a_user_who_does_not_exist_stays_the_same() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let salt = |user: &str| {
        let said = refusal(&proxy, &Login { user, password: "wrong", ..ALICE });
        let body = said.messages.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned());
        body.filter_map(|body| body.split(',').find_map(|part| part.strip_prefix("s=").map(str::to_owned))).next()
    };
    assert!(salt("nobody").is_some());
    assert_eq!(salt("nobody"), salt("nobody"));
    assert_ne!(salt("nobody"), salt("somebody"));
    assert_eq!(salt("alice"), salt("alice"));
}

#[test]
fn the_startup_packet_may_name_the_region() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    for parameters in [
        &[("helios.region", "us-east")][..],
        &[("domicile.region", "us-east")],
        &[("options", "-c helios.region=us-east")],
        &[("options", "--helios.region=us-east -c work_mem=1MB")],
        &[("options", "-c helios.region=eu-west"), ("helios.region", "us-east")],
    ] {
        let mut client = proxy.login(&Login { parameters, ..Login::default() }).unwrap_or_else(|said| panic!("{said}"));
        let said = client.query("SELECT current_setting('cluster_node')").replies();
        assert_eq!(said.to_string(), "T current_setting / D pg-us-east / C SELECT 1 / Z I", "{parameters:?}");
        client.query("SET helios.region = 'eu-west'");
        client.query("RESET helios.region");
        assert_eq!(client.query("SHOW helios.region").value().as_deref(), Some("us-east"), "{parameters:?}");
    }
}

#[test]
fn no_login_leaves_the_grant() {
    let Some(world) = world() else { return };
    let mut configuration = world.residency("unbound = \"block\"");
    configuration.more = "[[residency.bind]]\nuser = \"alice\"\nregions = [\"eu-west\"]\n".to_owned();
    let proxy = start(&configuration);
    for (login, expected) in [
        (
            Login { parameters: &[("helios.region", "us-east")], ..ALICE },
            "E FATAL 42501 permission denied for region \"us-east\"",
        ),
        (
            Login { parameters: &[("options", "-chelios.region=us-east")], ..ALICE },
            "E FATAL 42501 permission denied for region \"us-east\"",
        ),
        (Login::default(), "E FATAL 28000 no residency rule admits user \"postgres\" to database \"demo\""),
    ] {
        let said = refusal(&proxy, &login).to_string();
        assert!(said.ends_with(&format!("{expected} / closed")), "{said}");
    }
    // Who does not know the password does not learn about grants.
    assert_eq!(refusal(&proxy, &Login { password: "wrong", ..Login::default() }).sqlstate(), "28P01");
}

#[test]
fn a_login_touches_no_server() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let login = Login { parameters: &[("application_name", "touches_no_server")], ..Login::default() };
    let client = proxy.login(&login).unwrap_or_else(|said| panic!("{said}"));
    for name in ["client_encoding", "server_version", "standard_conforming_strings", "TimeZone"] {
        assert!(client.greeting.parameter(name).is_some(), "{name} is not told");
    }
    for server in [&world.eu, &world.us] {
        let backends = server.value("demo", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'touches_no_server'");
        assert_eq!(backends, "0", "{}", server.name());
    }
}

#[test]
fn encryption_is_declined_and_the_login_goes_on() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let mut client = Client::connect(proxy.address()).expect("a connection");
    for request in [m::gss_request(), m::ssl_request()] {
        client.send(&request);
        assert_eq!(client.byte(), Some(b'N'));
    }
    client.send(&m::startup(m::PROTOCOL_3_0, &[("user", "postgres"), ("database", "demo")]));
    client.authenticate(&Login::default()).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(client.query("").to_string(), "I / Z I");
}

#[test]
fn a_newer_minor_version_is_negotiated() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let mut client = Client::connect(proxy.address()).expect("a connection");
    client.send(&m::startup(m::PROTOCOL_3_0 + 9, &[("user", "postgres"), ("database", "demo"), ("_pq_.unknown", "1")]));
    client.authenticate(&Login::default()).unwrap_or_else(|said| panic!("{said}"));
    let first = &client.greeting.messages[0];
    assert_eq!((first.tag, first.body.as_slice()), (b'v', &b"\0\x03\0\x02\0\0\0\x01_pq_.unknown\0"[..]));
}

#[test]
fn nonsense_is_answered_as_postgresql_does_or_not_at_all() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let database = ("database", "demo");
    let unsupported = "E FATAL 0A000 unsupported frontend protocol 2.0: server supports 3.0 to 3.2 / closed";
    check_raw(&proxy, &m::packet(2 << 16, &[0]), unsupported);
    check_raw(
        &proxy,
        &m::startup(m::PROTOCOL_3_0, &[database]),
        "E FATAL 28000 no PostgreSQL user name specified in startup packet / closed",
    );
    let junk: [&[u8]; 7] = [
        b"",
        b"\0",
        b"\0\0\0\x04",
        b"\xff\xff\xff\xff\0\x03\0\0",
        b"\0\0\x27\x15\0\x03\0\0user\0x\0\0",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    ];
    junk.iter().for_each(|bytes| check_raw(&proxy, bytes, "closed"));
    check_raw(&proxy, &m::cancel_request(1, b"none"), "closed");
    // And the door is still open.
    assert_eq!(proxy.connect().query("").to_string(), "I / Z I");
}

#[test]
fn a_login_that_never_comes_holds_nobody_up() {
    let Some(world) = world() else { return };
    let mut configuration = world.configuration();
    configuration.more = "[limits]\nlogin_timeout = \"1s\"\n".to_owned();
    let proxy = start(&configuration);
    let before = proxy.descriptors();
    let mut idle: Vec<_> = (0..50).map(|_| Client::connect(proxy.address()).expect("a connection")).collect();
    assert_eq!(proxy.connect().query("").to_string(), "I / Z I");
    let first = &mut idle[0];
    first.set_patience(Duration::from_secs(5));
    assert_eq!(first.until(|_| false).to_string(), "closed");
    let gone = domicile_tests::process::wait_for(Duration::from_secs(5), || (proxy.descriptors() <= before + 1).then_some(()));
    assert!(gone.is_some(), "{} descriptors, {before} before", proxy.descriptors());
}
