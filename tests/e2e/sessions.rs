//! Residency in one session at a time: what a client may say, what it is answered, and that nothing widens a grant.

use domicile_tests::client::{Client, Login};
use domicile_tests::message as m;
use domicile_tests::process::free_port;
use domicile_tests::proxy::{Configuration, Proxy};

use crate::world::{start, world};

const NODE: &str = "SELECT current_setting('cluster_node')";
const FROM_EU: &str = "T current_setting / D pg-eu-west / C SELECT 1 / Z I";

/// Sends queries one after the other and compares the replies, notices left out.
#[track_caller]
fn check(client: &mut Client, conversation: &[(&str, &str)]) {
    for (query, expected) in conversation {
        assert_eq!(client.query(query).replies().to_string(), *expected, "{query}");
    }
}

fn alice(proxy: &Proxy) -> Client {
    let login = Login { user: "alice", password: "alice", ..Login::default() };
    proxy.login(&login).unwrap_or_else(|said| panic!("alice is refused: {said}"))
}

#[test]
fn one_message_may_set_the_region_and_use_it() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    check(
        &mut proxy.connect(),
        &[
            (
                "SET helios.region = 'eu-west'; SELECT current_setting('cluster_node')",
                "C SET / T current_setting / D pg-eu-west / C SELECT 1 / Z I",
            ),
            ("SHOW helios.region", "T helios.region / D eu-west / C SHOW / Z I"),
            ("SHOW domicile.node", "T domicile.node / D pg-eu-west / C SHOW / Z I"),
            ("SELECT current_setting('helios.region')", FROM_EU.replace("pg-", "").as_str()),
            ("SELECT set_config('helios.region', 'us-east', false)", "T set_config / D us-east / C SELECT 1 / Z I"),
            (NODE, "T current_setting / D pg-us-east / C SELECT 1 / Z I"),
            (
                "BEGIN; SET LOCAL helios.region = 'eu-west'; SELECT current_setting('cluster_node')",
                "C BEGIN / C SET / T current_setting / D pg-eu-west / C SELECT 1 / Z T",
            ),
            ("COMMIT", "C COMMIT / Z I"),
            (NODE, "T current_setting / D pg-us-east / C SELECT 1 / Z I"),
            ("RESET helios.region", "C RESET / Z I"),
            (NODE, "E 42000 Query blocked by route plugin: no region is set for this session / Z I"),
        ],
    );
}

#[test]
fn a_blocked_transaction_is_failed_until_its_end() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let aborted = "E 25P02 current transaction is aborted, commands ignored until end of transaction block / Z E";
    check(
        &mut proxy.connect(),
        &[
            ("SET helios.region = 'eu-west'", "C SET / Z I"),
            ("BEGIN", "C BEGIN / Z T"),
            ("SET LOCAL helios.region = 'antarctica'", "C SET / Z T"),
            ("SELECT 1", "E 42000 Query blocked by route plugin: no in-region replica for user / Z E"),
            ("SELECT 1", aborted),
            ("ROLLBACK", "C ROLLBACK / Z I"),
            (NODE, FROM_EU),
        ],
    );
}

#[test]
fn the_region_stays_once_a_transaction_has_touched_a_server() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let mut client = proxy.connect();
    check(
        &mut client,
        &[
            ("SET helios.region = 'eu-west'", "C SET / Z I"),
            ("BEGIN", "C BEGIN / Z T"),
            (NODE, &FROM_EU.replace("Z I", "Z T")),
            ("SAVEPOINT s", "C SAVEPOINT / Z T"),
            ("SET helios.region = 'eu-west'", "C SET / Z T"),
        ],
    );
    let refused = client.query("SET helios.region = 'us-east'; SELECT 1").replies();
    assert_eq!((refused.sqlstate().as_str(), refused.status()), ("25001", 'E'));
    check(
        &mut client,
        &[
            ("ROLLBACK TO s", "C ROLLBACK / Z T"),
            (NODE, &FROM_EU.replace("Z I", "Z T")),
            ("COMMIT", "C COMMIT / Z I"),
            ("SHOW helios.region", "T helios.region / D eu-west / C SHOW / Z I"),
        ],
    );
}

#[test]
fn a_client_chooses_inside_its_grant_only() {
    let Some(world) = world() else { return };
    let mut configuration = world.residency("unbound = \"block\"");
    configuration.more = "[[residency.bind]]\nuser = \"alice\"\nregions = [\"eu-west\"]\n".to_owned();
    let proxy = start(&configuration);
    check(
        &mut alice(&proxy),
        &[
            (NODE, FROM_EU),
            ("SET helios.region = 'us-east'; SELECT 1", "E 42501 permission denied for region \"us-east\" / Z I"),
            ("SET helios.region = 'antarctica'", "E 42501 permission denied for region \"antarctica\" / Z I"),
            ("SHOW helios.region", "T helios.region / D eu-west / C SHOW / Z I"),
            ("SET helios.region = ''", "C SET / Z I"),
            (NODE, "E 42000 Query blocked by route plugin: no region is set for this session / Z I"),
            ("RESET ALL", "C RESET / Z I"),
            (NODE, FROM_EU),
        ],
    );
}

#[test]
fn no_default_leaves_the_grant() {
    let Some(world) = world() else { return };
    let mut configuration = world.residency("no_region = \"default\"\ndefault_region = \"us-east\"\nenforce = false");
    configuration.more = "[[residency.bind]]\nuser = \"alice\"\nregions = [\"eu-west\"]\n".to_owned();
    let proxy = start(&configuration);
    check(
        &mut alice(&proxy),
        &[
            ("SET helios.region = ''", "C SET / Z I"),
            (NODE, "E 42000 Query blocked by route plugin: no region is set for this session / Z I"),
        ],
    );
}

#[test]
fn a_dry_run_serves_from_the_default_region() {
    let Some(world) = world() else { return };
    let proxy = start(&world.residency("unbound = \"client\"\ndefault_region = \"eu-west\"\nenforce = false"));
    check(&mut proxy.connect(), &[("SET helios.region = 'antarctica'", "C SET / Z I"), (NODE, FROM_EU)]);
}

#[test]
fn a_region_that_is_down_is_an_error_and_never_a_detour() {
    let Some(world) = world() else { return };
    let mut configuration = world.configuration();
    configuration.nodes.push(("ap-south".to_owned(), "pg-ap-south".to_owned(), format!("127.0.0.1:{}", free_port())));
    let proxy = start(&configuration);
    let mut client = proxy.connect();
    client.query("SET helios.region = 'ap-south'");
    let said = client.query("SELECT 'only in ap-south'").replies();
    let text = said.to_string();
    assert_eq!((said.sqlstate().as_str(), said.status()), ("08006", 'I'), "{text}");
    assert!(text.contains("ap-south") && text.contains("pg-ap-south"), "{text}");
    check(&mut client, &[("SET helios.region = 'eu-west'", "C SET / Z I"), (NODE, FROM_EU)]);
    for server in [&world.eu, &world.us] {
        assert!(!server.log().contains("only in ap-south"), "a detour to {}", server.name());
    }
}

#[test]
fn a_text_that_cannot_be_read_is_run_nowhere() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let mut client = proxy.connect();
    client.query("SET helios.region = 'eu-west'");
    for text in ["SET helios.region TO; SELECT 'unreadable'", "SELECT 'unreadable'; SELEC set"] {
        let said = client.query(text).replies();
        assert_eq!((said.sqlstate().as_str(), said.status(), said.messages.len()), ("42601", 'I', 2), "{text}: {said}");
    }
    let set_elsewhere = client.query("SELECT 'unreadable', set_config('helios.region', 'us-east', false)").replies();
    assert_eq!(set_elsewhere.sqlstate(), "0A000");
    let ran = |line: &str| line.contains("unreadable") && line.contains("LOG:");
    assert!(!world.eu.log().lines().any(ran) && !world.us.log().contains("unreadable"));
}

#[test]
fn a_mistake_in_a_text_is_told_in_the_servers_words_with_its_place() {
    let Some(world) = world() else { return };
    let texts = [
        "CREATE FUNCTION nothing() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$ SOMEHOW",
        "ALTER TABLE t ALTER CONSTRAINT c NOT VALID",
        "COPY t FROM stdin WITH (a, b) c",
        "SET x TO; SELECT 1",
        "SELECT 'é'; SELEC 1; SELECT 2",
        "/* never ends",
        "/**/ SELECT E'\\u12'",
        "/**/ SELECT U&'\\zzzz'",
    ];
    let mut direct = world.eu.connect("demo").unwrap_or_else(|error| panic!("{error}"));
    for pool_mode in ["session", "transaction"] {
        let proxy = start(&Configuration { pool_mode, ..world.configuration() });
        let mut client = proxy.connect();
        client.query("SET helios.region = 'eu-west'");
        for begin in ["SELECT 1", "BEGIN"] {
            for text in texts {
                let [told, said] = [&mut direct, &mut client].map(|client| {
                    client.query(begin);
                    let said = client.query(text);
                    // A second one finds a transaction that has failed.
                    let again = client.query(text);
                    client.query("ROLLBACK");
                    [said, again].map(|said| (said.error().map(|report| report.fields), said.status()))
                });
                assert_eq!(said, told, "{pool_mode} mode, {begin}: {text}");
            }
        }
    }
}

#[test]
fn a_pipeline_is_refused_up_to_its_sync() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    let mut client = proxy.connect();
    client.query("SET helios.region = 'antarctica'");
    let said = client.ask(&[m::prepared("", "SELECT 1"), m::prepared("", "SELECT 2"), m::sync()].concat());
    assert_eq!(said.replies().to_string(), "E 42000 Query blocked by route plugin: no in-region replica for user / Z I");
    client.send(&[m::prepared("", "SET helios.region = 'eu-west'"), m::sync(), m::prepared("", NODE), m::sync()].concat());
    assert_eq!(client.until_ready().replies().to_string(), "1 / 2 / n / C SET / Z I");
    assert_eq!(client.until_ready().replies().to_string(), "1 / 2 / T current_setting / D pg-eu-west / C SELECT 1 / Z I");
}

#[test]
fn what_transaction_mode_cannot_keep_can_be_refused() {
    let Some(world) = world() else { return };
    let proxy = start(&Configuration { top: "session_state = \"refuse\"".to_owned(), ..world.configuration() });
    let mut client = proxy.connect();
    client.query("SET helios.region = 'eu-west'");
    for text in [
        "PREPARE p AS SELECT 1",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "LISTEN channel",
        "CREATE TEMPORARY TABLE t (a int)",
        "SELECT pg_advisory_lock(1)",
    ] {
        let said = client.query(text);
        let hint = said.error().map(|error| error.field('H').to_owned()).unwrap_or_default();
        assert!(said.sqlstate() == "0A000" && said.status() == 'I' && !hint.is_empty(), "{text}: {said}");
    }
    check(&mut client, &[(NODE, FROM_EU)]);
}

#[test]
fn a_session_keeps_its_backend_when_it_leaves_something_there() {
    let Some(world) = world() else { return };
    let proxy = start(&Configuration { pools: "size = 1\nwait_timeout = \"300ms\"\n".to_owned(), ..world.configuration() });
    let (mut keeper, mut other) = (proxy.connect(), proxy.connect());
    for client in [&mut keeper, &mut other] {
        client.query("SET helios.region = 'eu-west'");
    }
    keeper.query("SET DateStyle = 'German'");
    check(&mut other, &[("SHOW DateStyle", "T DateStyle / D ISO, MDY / C SHOW / Z I")]);
    check(&mut keeper, &[("SHOW DateStyle", "T DateStyle / D German, DMY / C SHOW / Z I")]);
    let said = keeper.query("CREATE TEMPORARY TABLE t AS SELECT 7 AS a").to_string();
    assert!(said.contains("N NOTICE 00000 this session keeps its server connection from now on: temporary table"), "{said}");
    check(&mut keeper, &[("SELECT a FROM t", "T a / D 7 / C SELECT 1 / Z I")]);
    assert_eq!(other.query("SELECT 1").sqlstate(), "53300");
    check(&mut keeper, &[("DISCARD ALL", "C DISCARD ALL / Z I")]);
    check(&mut other, &[("SELECT to_regclass('pg_temp.t')", "T to_regclass / D NULL / C SELECT 1 / Z I")]);
}

/// What a server reports is in the client's encoding.
#[test]
fn a_setting_that_is_no_utf8_is_reported_as_it_is_and_met_by_nobody_else() {
    let Some(world) = world() else { return };
    world.eu.execute("demo", "CREATE ROLE \"d\u{e9}j\u{e0}\" SUPERUSER").unwrap_or_else(|error| panic!("{error}"));
    let set = [&b"SET SESSION AUTHORIZATION 'd\xe9j\xe0'"[..], &[0]].concat();
    let report = [&b"session_authorization\0d\xe9j\xe0"[..], &[0]].concat();
    for pool_mode in ["transaction", "session"] {
        let pools = "size = 1\n".to_owned();
        let proxy = start(&Configuration { pool_mode, pools, ..world.residency("unbound = \"eu-west\"") });
        let mut client = proxy.connect();
        assert!(client.query("SET client_encoding = 'LATIN1'").error().is_none());
        let said = client.ask(&m::message(b'Q', &set));
        assert!(said.messages.iter().any(|message| message.tag == b'S' && message.body == report), "{pool_mode}: {said}");
        assert_eq!((said.status(), said.error().is_none()), ('I', true), "{pool_mode}: {said}");
        assert_eq!(client.query("SELECT current_user = U&'d\\00e9j\\00e0'").value().as_deref(), Some("t"), "{pool_mode}");
        drop(client);
        assert_eq!(proxy.connect().query("SELECT current_user").value().as_deref(), Some("postgres"), "{pool_mode}");
    }
}
