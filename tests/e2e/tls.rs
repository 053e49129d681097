//! Encrypted connections: libpq and a bare client on the one side, real servers with certificates on the other.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use domicile_tests::client::{Client, Login, PATIENCE};
use domicile_tests::cluster::{Cluster, Options};
use domicile_tests::process::wait_for;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::tls::{Authority, Files};
use domicile_tests::transcript::Transcript;
use domicile_tests::{message, program, skip};

use rustix::process::Signal;

use crate::world::{start, tail, world};

const ALPN: &[u8] = b"postgresql";

/// The lines of `[tls]` for a certificate.
fn tls(files: &Files, more: &str) -> String {
    format!("[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n{more}", files.certificate.display(), files.key.display())
}

fn login() -> Login<'static> {
    Login { parameters: &[("helios.region", "eu-west")], ..Login::default() }
}

/// What a client is told that asks for a 1, without what its server reports at their first meeting.
fn reply(client: &mut Client) -> String {
    let said = client.query("SELECT 1 AS n");
    let rest = said.messages.into_iter().filter(|message| message.tag != b'S').collect();
    Transcript { messages: rest, ..said }.to_string()
}

/// What psql says, or is told.
fn psql(program: &Path, proxy: &Proxy, conninfo: &str, query: &str) -> String {
    let mut command: Command = program::command(program);
    let port = proxy.address().port();
    command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", query]);
    command.arg(format!("host=localhost hostaddr=127.0.0.1 port={port} user=postgres dbname=demo {conninfo}"));
    command.env("PGPASSWORD", "postgres").env("PGOPTIONS", "-c helios.region=eu-west");
    let output = program::run(command, "", PATIENCE).expect("psql runs");
    program::both(&output).trim().to_owned()
}

#[test]
fn psql_logs_in_bound_to_the_certificate() {
    let (Some(world), Some(program)) = (world(), skip::available(program::need("psql"))) else { return };
    let authority = Authority::new();
    let files = authority.issue("proxy", &[], &["localhost"]);
    let proxy = start(&Configuration { more: tls(&files, "mode = \"require\"\n"), ..world.configuration() });
    let trusting = format!("sslrootcert={} channel_binding=require", authority.certificate().display());
    let said = psql(&program, &proxy, &format!("sslmode=verify-full {trusting}"), "SHOW cluster_name");
    assert_eq!(said, "pg-eu-west", "{}", tail(&proxy.log()));
    let said = psql(&program, &proxy, "sslmode=disable", "SELECT 1");
    assert!(
        said.ends_with("FATAL:  connections to this server must be encrypted\nHINT:  Connect with sslmode=require or above."),
        "{said}"
    );
    let other = Authority::new();
    let said = psql(&program, &proxy, &format!("sslmode=verify-full sslrootcert={}", other.certificate().display()), "SELECT 1");
    assert!(said.contains("SSL error"), "{said}");
    for version in ["TLSv1.2", "TLSv1.3"] {
        let only = format!("sslmode=require ssl_min_protocol_version={version} ssl_max_protocol_version={version} {trusting}");
        assert_eq!(psql(&program, &proxy, &only, "SELECT 1"), "1", "{version}: {}", tail(&proxy.log()));
    }
    let (_, outcomes) = proxy.http("/metrics").expect("/metrics");
    assert!(outcomes.lines().any(|line| line.contains("outcome=\"tls\"") && !line.ends_with(" 0")), "{outcomes}");
}

#[test]
fn a_client_certificate_names_the_user() {
    let (Some(world), Some(program)) = (world(), skip::available(program::need("psql"))) else { return };
    let authority = Authority::new();
    let files = authority.issue("proxy", &[], &["localhost"]);
    let more = format!(
        "mode = \"require\"\nclient_ca = \"{}\"\nclient_certificate = \"verify-full\"\n",
        authority.certificate().display()
    );
    let proxy = start(&Configuration { more: tls(&files, &more), ..world.configuration() });
    let with = |files: &Files| format!("sslmode=require sslcert={} sslkey={}", files.certificate.display(), files.key.display());
    let own = authority.issue("postgres", &[], &[]);
    assert_eq!(psql(&program, &proxy, &with(&own), "SELECT 1"), "1", "{}", tail(&proxy.log()));
    let said = psql(&program, &proxy, &with(&authority.issue("alice", &[], &[])), "SELECT 1");
    assert!(said.ends_with("FATAL:  certificate authentication failed for user \"postgres\""), "{said}");
    let said = psql(&program, &proxy, "sslmode=require sslcert=none", "SELECT 1");
    assert!(said.contains("certificate required") || said.contains("handshake failure"), "{said}");
    let forged = Authority::new().issue("postgres", &[], &[]);
    let said = psql(&program, &proxy, &with(&forged), "SELECT 1");
    assert!(said.contains("alert") || said.contains("closed the connection"), "{said}");
}

#[test]
fn whatever_its_size_what_is_encrypted_arrives_as_it_was_sent() {
    let Some(world) = world() else { return };
    let authority = Authority::new();
    let proxy = start(&Configuration {
        more: tls(&authority.issue("proxy", &[], &["localhost"]), "mode = \"allow\"\n"),
        ..world.configuration()
    });
    let connect = || {
        let client = Client::connect_encrypted(proxy.address(), authority.trust(&[]), false).expect("a handshake");
        client.begin(&login()).unwrap_or_else(|said| panic!("{said}"))
    };
    let mut client = connect();
    for length in [1, 1000, 16_384, 1 << 20, 16 << 20] {
        let said = client.query(&format!("SELECT repeat('0123456789abcdef', {length}/16 + 1)"));
        let value = said.value().unwrap_or_default();
        assert_eq!(value.len(), (length / 16 + 1) * 16, "{length}");
        assert!(value.as_bytes().chunks(16).all(|part| part == b"0123456789abcdef"), "{length}");
        let text = "x".repeat(length);
        assert_eq!(client.query(&format!("SELECT length('{text}')")).value(), Some(length.to_string()));
    }
    // A pipeline of many small ones.
    let mut pipeline = Vec::new();
    (0..1000).for_each(|number: u32| pipeline.extend(message::prepared("", &format!("SELECT {number}"))));
    pipeline.extend(message::sync());
    let said = client.ask(&pipeline);
    let rows: Vec<_> =
        said.messages.iter().filter(|message| message.tag == b'D').map(|message| message.body[6..].to_vec()).collect();
    assert_eq!(rows.len(), 1000);
    assert!(rows.iter().zip(0..).all(|(row, number): (_, u32)| *row == number.to_string().into_bytes()));
}

/// A European server with a certificate of `unit`, which its authority has issued for localhost.
fn server(authority: &Authority, unit: &str) -> Option<Cluster> {
    skip::available(program::need("initdb"))?;
    let files = authority.issue("server", &[unit], &["localhost"]);
    let (certificate, key) = (files.certificate.display().to_string(), files.key.display().to_string());
    let ca = authority.certificate().display().to_string();
    let settings =
        [("ssl", "on"), ("ssl_cert_file", certificate.as_str()), ("ssl_key_file", key.as_str()), ("ssl_ca_file", ca.as_str())];
    let settings = [&settings[..], &[("log_connections", "on")]].concat();
    let options = Options { name: "pg-tls", connections_max: 50, settings: &settings, ..Options::default() };
    Some(Cluster::start(&options).unwrap_or_else(|error| panic!("{error}")))
}

/// A proxy whose European node is `cluster`, reached as `tls` says, and has a user of its own.
fn proxy_to(cluster: &Cluster, tls: &str, more: &str) -> Proxy {
    let mut configuration = Configuration::new(&[("eu-west", "pg-tls", cluster.address())]);
    configuration.more = format!("tls = {tls}\n{more}");
    configuration.nodes[0].2 = format!("localhost:{}", cluster.address().port());
    start(&configuration)
}

fn query_through(proxy: &Proxy, query: &str) -> String {
    let login = Login { database: "postgres", ..login() };
    Client::login(proxy.address(), &login).map_or_else(|said| said.to_string(), |mut client| client.query(query).to_string())
}

const ENCRYPTED: &str = "SELECT ssl::text || ' ' || version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

#[test]
fn a_server_is_reached_encrypted_and_believed_by_its_certificate() {
    let authority = Authority::new();
    let (Some(cluster), Some(())) = (server(&authority, "eu-west"), skip::available(skip::io_uring())) else { return };
    let ca = authority.certificate().display().to_string();
    let stranger = Authority::new();
    let encrypted = "T ?column? / D true TLSv1.3 / C SELECT 1 / Z I";
    for tls in [
        "\"prefer\"".to_owned(),
        "\"require\"".to_owned(),
        format!("{{ mode = \"verify-ca\", ca = \"{ca}\", region = \"ou\" }}"),
        format!("{{ mode = \"verify-full\", ca = \"{ca}\", region = \"ou\", minimum_version = \"1.3\" }}"),
        format!("{{ mode = \"verify-full\", ca = \"{ca}\", name = \"localhost\" }}"),
    ] {
        let proxy = proxy_to(&cluster, &tls, "");
        let said = query_through(&proxy, ENCRYPTED);
        assert!(said.ends_with(encrypted), "{tls}: {said}\n{}", tail(&proxy.log()));
    }
    for (tls, why) in [
        (format!("{{ mode = \"verify-ca\", ca = \"{}\" }}", stranger.certificate().display()), "invalid peer certificate"),
        (format!("{{ mode = \"verify-full\", ca = \"{ca}\", name = \"db.example\" }}"), "not valid for name"),
    ] {
        let proxy = proxy_to(&cluster, &tls, "");
        let said = query_through(&proxy, "SELECT 1");
        assert!(said.contains("E 08001 node \"pg-tls\" of region \"eu-west\" cannot be reached securely"), "{said}");
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_certificate_of_another_region_is_not_used_and_is_audited() {
    let authority = Authority::new();
    let (Some(cluster), Some(())) = (server(&authority, "us-east"), skip::available(skip::io_uring())) else { return };
    let ca = authority.certificate().display().to_string();
    let proxy = proxy_to(&cluster, &format!("{{ mode = \"verify-full\", ca = \"{ca}\", region = \"ou\" }}"), "");
    let said = query_through(&proxy, "SELECT 'never there'");
    let expected = "E 08001 node \"pg-tls\" of region \"eu-west\" cannot be reached securely: its certificate is not one of region \
                    \"eu-west\"; it names us-east";
    assert!(said.contains(expected), "{said}");
    assert!(!cluster.log().contains("never there"));
    assert!(!cluster.log().contains("connection authorized: user=postgres database=postgres SSL"), "nobody has logged in");
    let audited = proxy.log().lines().any(|line| line.contains("certificate_deny") && line.contains("us-east"));
    assert!(audited, "{}", tail(&proxy.log()));
}

#[test]
fn a_server_that_does_not_encrypt_is_used_only_if_it_need_not() {
    let Some(world) = world() else { return };
    let with = |mode: &str| {
        let mut configuration = world.configuration();
        configuration.nodes.truncate(1);
        configuration.more = format!("tls = \"{mode}\"\n");
        configuration
    };
    let ask = |proxy: &Proxy| {
        let client = Client::login(proxy.address(), &login());
        client.map_or_else(|said| said.to_string(), |mut client| reply(&mut client))
    };
    let (prefers, requires) = (start(&with("prefer")), start(&with("require")));
    assert_eq!(ask(&prefers), "T n / D 1 / C SELECT 1 / Z I");
    let said = ask(&requires);
    assert!(said.contains("E 08001") && said.contains("it does not encrypt connections"), "{said}");
}

#[test]
fn a_new_certificate_is_shown_after_a_reload_and_nobody_is_dropped() {
    let Some(world) = world() else { return };
    let (old, new) = (Authority::new(), Authority::new());
    let files = old.issue("proxy", &[], &["localhost"]);
    let proxy = start(&Configuration { more: tls(&files, "mode = \"require\"\n"), ..world.configuration() });
    let connect = |authority: &Authority| Client::connect_encrypted(proxy.address(), authority.trust(&[]), false);
    let mut first = connect(&old).expect("the old certificate").begin(&login()).unwrap_or_else(|said| panic!("{said}"));
    assert!(connect(&new).is_err());
    let replacement = new.issue("proxy", &[], &["localhost"]);
    fs::copy(&replacement.certificate, &files.certificate).expect("a new certificate");
    fs::copy(&replacement.key, &files.key).expect("a new key");
    proxy.signal(Signal::HUP);
    let shown = wait_for(Duration::from_secs(10), || connect(&new).ok());
    assert!(shown.is_some(), "{}", tail(&proxy.log()));
    assert_eq!(reply(&mut first), "T n / D 1 / C SELECT 1 / Z I");
    // A file that is no certificate changes nothing.
    fs::write(&files.certificate, "nonsense").expect("nonsense");
    proxy.signal(Signal::HUP);
    let refused = wait_for(Duration::from_secs(10), || proxy.log().contains("has no certificate in it").then_some(()));
    assert!(refused.is_some(), "{}", tail(&proxy.log()));
    assert!(connect(&new).is_ok());
}

#[test]
fn tls_begins_at_once_with_the_protocol_named() {
    let Some(world) = world() else { return };
    let authority = Authority::new();
    let files = authority.issue("proxy", &[], &["localhost"]);
    let proxy = start(&Configuration { more: tls(&files, "mode = \"require\"\n"), ..world.configuration() });
    let client = Client::connect_encrypted(proxy.address(), authority.trust(&[ALPN]), true).expect("a handshake");
    let mut client = client.begin(&login()).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(reply(&mut client), "T n / D 1 / C SELECT 1 / Z I");
    // Without it, it could be another protocol that somebody has turned on us (PostgreSQL 17, "SSL Session Encryption").
    let mut nameless = Client::connect_encrypted(proxy.address(), authority.trust(&[]), true).expect("a handshake");
    nameless.send(&message::startup(message::PROTOCOL_3_0, &[("user", "postgres")]));
    assert_eq!(nameless.until_ready().to_string(), "closed");
    assert!(Client::connect_encrypted(proxy.address(), authority.trust(&[b"http/1.1"]), true).is_err());
}

#[test]
fn a_session_is_resumed() {
    let Some(world) = world() else { return };
    let authority = Authority::new();
    let files = authority.issue("proxy", &[], &["localhost"]);
    let proxy = start(&Configuration { more: tls(&files, "mode = \"require\"\n"), ..world.configuration() });
    let config = authority.trust(&[]);
    let connect = || {
        let client = Client::connect_encrypted(proxy.address(), config.clone(), false).expect("a handshake");
        client.begin(&login()).unwrap_or_else(|said| panic!("{said}"))
    };
    assert!(!connect().is_resumed());
    let mut second = connect();
    assert!(second.is_resumed());
    assert_eq!(reply(&mut second), "T n / D 1 / C SELECT 1 / Z I");
}

#[test]
fn a_statement_is_cancelled_over_encrypted_connections_only() {
    let authority = Authority::new();
    let (Some(cluster), Some(())) = (server(&authority, "eu-west"), skip::available(skip::io_uring())) else { return };
    let ca = authority.certificate().display().to_string();
    let files = authority.issue("proxy", &[], &["localhost"]);
    let node = format!("{{ mode = \"verify-full\", ca = \"{ca}\" }}");
    let proxy = proxy_to(&cluster, &node, &tls(&files, "mode = \"require\"\n"));
    let connect = || Client::connect_encrypted(proxy.address(), authority.trust(&[]), false).expect("a handshake");
    let login = Login { database: "postgres", ..login() };
    let mut client = connect().begin(&login).unwrap_or_else(|said| panic!("{said}"));
    let (process_id, secret) = client.cancel_key().expect("a key");
    client.send(&message::query("SELECT pg_sleep(60)"));
    let asleep = || {
        (cluster.value("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active' AND pid <> pg_backend_pid()") == "1").then_some(())
    };
    assert!(wait_for(PATIENCE, asleep).is_some());
    connect().send(&message::cancel_request(process_id, &secret));
    let said = client.until_ready().to_string();
    assert!(said.ends_with("T pg_sleep / E 57014 canceling statement due to user request / Z I"), "{said}");
}

#[test]
fn the_console_is_served_encrypted_and_shows_what_is() {
    let (Some(world), Some(program)) = (world(), skip::available(program::need("psql"))) else { return };
    let authority = Authority::new();
    let files = authority.issue("proxy", &[], &["localhost"]);
    let more = format!("{}[admin]\nusers = [\"postgres\"]\n", tls(&files, "mode = \"require\"\n"));
    let proxy = start(&Configuration { more, ..world.configuration() });
    let client = Client::connect_encrypted(proxy.address(), authority.trust(&[]), false).expect("a handshake");
    let _client = client.begin(&login()).unwrap_or_else(|said| panic!("{said}"));
    let mut command = program::command(&program);
    command.args(["--no-psqlrc", "--no-align", "--command", "SHOW CLIENTS", "--command", "SHOW CONFIG"]);
    command.arg(format!("host=127.0.0.1 port={} user=postgres dbname=pgbouncer sslmode=require", proxy.address().port()));
    command.env("PGPASSWORD", "postgres");
    let said = program::both(&program::run(command, "", PATIENCE).expect("psql runs"));
    assert!(said.contains("|TLSv1.3/TLS_AES_256_GCM_SHA384|"), "{said}");
    assert!(said.contains("\ntls.mode|require|disable|yes"), "{said}");
}
