//! `standard_conforming_strings`: under either value each text is read as the server reads it.

use domicile_tests::client::Client;
use domicile_tests::message as m;
use domicile_tests::proxy::{Configuration, Proxy};

use crate::world::{start, world};

/// Texts that mean one thing when a backslash begins an escape, and another when it does not: what a session in eu-west gets for them,
/// with the setting off and with it on, and the region that it is in afterwards.
const TEXTS: [(&str, [&str; 2]); 9] = [
    // A string with a quote in it, or a string and a comment.
    (r"SELECT '\' AS a, 1 --'", [r"' AS a, 1 --", r"\"]),
    (r"SELECT '\\'", [r"\", r"\\"]),
    (r"SELECT 'a\'b' --'", ["a'b", "42601"]),
    (r"SELECT E'\'' || 'c'", ["'c", "'c"]),
    ("SELECT 'x'\n'\\'y'", ["x'y", "42601"]),
    // What would change the region in one of two readings.
    (r"SELECT '\'; SET helios.region = ''us-east''; --'", ["'; SET helios.region = 'us-east'; --", "42601"]),
    (r"SET application_name = '\'; SET helios.region = ''us-east''; --'; SELECT 'x'", ["x", "42601"]),
    (r"SET helios.region = 'us\055east'; SHOW helios.region", ["us-east", r"us\055east"]),
    (r"SELECT U&'\0061'", ["0A000", "a"]),
];

fn ask(client: &mut Client, text: &str) -> String {
    let said = client.query(text);
    if said.error().is_some() { said.sqlstate() } else { said.value().unwrap_or_default() }
}

fn proxies() -> Option<[Proxy; 2]> {
    let world = world()?;
    Some(["session", "transaction"].map(|pool_mode| start(&Configuration { pool_mode, ..world.configuration() })))
}

#[test]
fn texts_are_read_as_the_server_reads_them() {
    let Some(proxies) = proxies() else { return };
    for proxy in &proxies {
        for (setting, place) in [("off", 0), ("on", 1)] {
            for (text, expected) in TEXTS {
                let mut client = proxy.connect();
                client.query("SET helios.region = 'eu-west'");
                client.query(&format!("SET standard_conforming_strings = {setting}; SET escape_string_warning = off"));
                assert_eq!(ask(&mut client, text), expected[place], "{setting}: {text}");
                let moved = text.starts_with("SET helios.region");
                let region = if moved { expected[place] } else { "eu-west" };
                assert_eq!(ask(&mut client, "SHOW helios.region"), region, "{setting}: {text}");
            }
        }
    }
}

#[test]
fn a_pipeline_that_changes_the_setting_is_read_with_each_value_in_its_turn() {
    let Some(proxies) = proxies() else { return };
    for proxy in &proxies {
        let mut client = proxy.connect();
        client.query("SET helios.region = 'eu-west'; SELECT 1");
        let hidden = r"SELECT '\'; SET helios.region = ''us-east''; --' AS a";
        let off = [m::query("SET standard_conforming_strings = off; SET escape_string_warning = off"), m::query(hidden)];
        let on = [m::query("SET standard_conforming_strings = on"), m::query(hidden)];
        client.send(&[off.concat(), on.concat()].concat());
        let mut said: Vec<_> = (0..4).map(|_| client.until_ready()).collect();
        assert_eq!(said.remove(3).sqlstate(), "42601");
        assert_eq!(said.remove(1).value().as_deref(), Some("'; SET helios.region = 'us-east'; --"));
        assert_eq!(ask(&mut client, "SHOW helios.region"), "eu-west");
        // The same within one unit, in which nobody is told what the setting is.
        let unit = [
            m::parse("", "SET standard_conforming_strings = off"),
            m::bind("", "", &[]),
            m::execute("", 0),
            m::parse("", hidden),
            m::sync(),
        ];
        assert_eq!(client.ask(&unit.concat()).sqlstate(), "0A000");
        assert_eq!(ask(&mut client, "SHOW helios.region"), "eu-west");
    }
}

#[test]
fn sessions_of_one_pool_have_each_their_own() {
    let Some(world) = world() else { return };
    let proxy = start(&Configuration { pools: "size = 1\n".to_owned(), ..world.configuration() });
    let mut clients = ["off", "on"].map(|setting| {
        let mut client = proxy.connect();
        client.query("SET helios.region = 'eu-west'");
        client.query(&format!("SET standard_conforming_strings = {setting}"));
        client
    });
    let prepared = |text: &str| [m::parse("s", text), m::bind("", "s", &[]), m::execute("", 0), m::sync()].concat();
    let again = || [m::bind("", "s", &[]), m::execute("", 0), m::sync()].concat();
    for (client, expected) in clients.iter_mut().zip([r"\", r"\\"]) {
        assert_eq!(client.ask(&prepared(r"SELECT '\\'")).value().as_deref(), Some(expected));
    }
    for _ in 0..3 {
        for (client, expected) in clients.iter_mut().zip([r"\", r"\\"]) {
            assert_eq!(client.query(r"SELECT '\\'").value().as_deref(), Some(expected));
            assert_eq!(client.ask(&again()).value().as_deref(), Some(expected));
        }
    }
    // A setting whose value has a backslash in it comes back as it was, also to a server that would read it otherwise.
    clients[1].query(r"SET application_name = 'a\b'");
    clients[0].query("SELECT 1");
    assert_eq!(clients[1].query("SHOW application_name").value().as_deref(), Some(r"a\b"));
    clients[0].query(r"SET application_name = 'a\\''b'");
    clients[1].query("SELECT 1");
    assert_eq!(clients[0].query("SHOW application_name").value().as_deref(), Some(r"a\'b"));
}

#[test]
fn a_role_may_have_it_off_from_the_start() {
    let Some(world) = world() else { return };
    world.eu.execute("demo", "CREATE ROLE backslash LOGIN PASSWORD 'backslash'; ALTER ROLE backslash SET standard_conforming_strings = off; ALTER ROLE backslash SET escape_string_warning = off; GRANT USAGE ON SCHEMA demo TO backslash").unwrap();
    for pool_mode in ["session", "transaction"] {
        let pools = if pool_mode == "session" { "size = 10\n" } else { "size = 1\nwait_timeout = 5\n" };
        let mut configuration = Configuration { pool_mode, pools: pools.to_owned(), ..world.configuration() };
        configuration.users.push(("backslash".to_owned(), "backslash".to_owned()));
        let proxy = start(&configuration);
        let login = domicile_tests::client::Login {
            user: "backslash",
            password: "backslash",
            parameters: &[("helios.region", "eu-west")],
            ..Default::default()
        };
        let mut client = proxy.login(&login).map_err(|said| said.to_string()).unwrap();
        // The first statement: the proxy has not met a server of this role before.
        assert_eq!(
            ask(&mut client, r"SELECT '\'; SET helios.region = ''us-east''; --'"),
            "'; SET helios.region = 'us-east'; --",
            "{pool_mode}"
        );
        assert_eq!(ask(&mut client, "SHOW helios.region"), "eu-west");
        // A server connection that a session has only got to find this out is given back.
        for text in [r"SELECT '\'; SELEC 1 --", r"SHOW helios.region; SELECT '\' --'"] {
            let mut clients =
                [proxy.login(&login), proxy.login(&login)].map(|client| client.map_err(|said| said.to_string()).unwrap());
            clients[0].query(text);
            assert_eq!(ask(&mut clients[1], "SELECT 1"), "1", "{pool_mode}");
        }
    }
    world.eu.execute("demo", "REVOKE USAGE ON SCHEMA demo FROM backslash; DROP ROLE backslash").unwrap();
}
