//! Where the proxy has the secrets of users from, and how backends are opened with them.

use std::time::Duration;

use domicile_tests::client::Login;
use domicile_tests::process::{free_port, wait_for};
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::transcript::Transcript;
use rustix::process::Signal;

use crate::world::{World, start, tail, world};

const PATIENCE: Duration = Duration::from_secs(10);

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

/// A configuration whose users file has nobody but the console's user, and which asks the European server as `asker`, a superuser of
/// this name alone.
fn asking(world: &World, asker: &str, more: &str) -> Configuration {
    world.eu.execute("demo", &format!("CREATE ROLE {asker} SUPERUSER LOGIN PASSWORD 'of-{asker}'")).expect("a role");
    let lines = format!(
        "[auth.query]\nregion = \"eu-west\"\nuser = \"{asker}\"\npassword = \"of-{asker}\"\ndatabase = \"demo\"\n{more}\n"
    );
    let users = vec![("postgres".to_owned(), "postgres".to_owned())];
    Configuration { users, more: lines, ..world.configuration() }
}

fn refused(proxy: &Proxy, user: &str, password: &str) -> String {
    proxy.login(&login(user, password)).err().map(|said| said.sqlstate()).unwrap_or_default()
}

/// The connections that ask as `asker`.
fn asking_connections(world: &World, asker: &str) -> String {
    world.eu.value("demo", &format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{asker}'"))
}

#[test]
fn who_is_not_in_the_users_file_is_looked_up_at_each_login() {
    let Some(world) = world() else { return };
    role_of_both(world, "petra");
    let asking = asking(world, "asker_each", "connections = 1");
    for method in ["scram-sha-256", "md5", "password"] {
        let proxy = start(&Configuration { method, ..asking.clone() });
        let mut client = proxy.login(&login("petra", "of-petra")).unwrap_or_else(|said| panic!("{said}"));
        assert_eq!(client.query("SELECT current_user").value().as_deref(), Some("petra"), "{method}");
        client.query("SET helios.region = 'us-east'");
        assert_eq!(client.query("SELECT current_user").value().as_deref(), Some("petra"), "{method}");
        assert_eq!(refused(&proxy, "petra", "wrong"), "28P01");
        assert_eq!(refused(&proxy, "nobody_at_all", "of-petra"), "28P01");
    }
    let proxy = start(&asking);
    for (change, undo) in [
        ("ALTER ROLE petra NOLOGIN", "ALTER ROLE petra LOGIN"),
        ("ALTER ROLE petra VALID UNTIL '2000-01-01'", "ALTER ROLE petra VALID UNTIL 'infinity'"),
    ] {
        world.eu.execute("demo", change).expect(change);
        assert_eq!(refused(&proxy, "petra", "of-petra"), "28P01", "{change}");
        world.eu.execute("demo", undo).expect(undo);
        assert_eq!(refused(&proxy, "petra", "of-petra"), "", "{undo}");
    }
    world.eu.execute("demo", "ALTER ROLE petra PASSWORD 'another'").expect("another password");
    assert_eq!(refused(&proxy, "petra", "of-petra"), "28P01");
    let mut client = proxy.login(&login("petra", "another")).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(client.query("SELECT current_user").value().as_deref(), Some("petra"));
}

#[test]
fn the_function_of_the_readme_lets_a_user_ask_who_may_do_nothing_else() {
    let Some(world) = world() else { return };
    world.eu.execute("demo", "CREATE ROLE flora LOGIN PASSWORD 'of-flora'").expect("a role");
    let readme = include_str!("../../README.md").split_once("### Users that a server knows").expect("its chapter").1;
    let sql = readme.split_once("```sql").and_then(|(_, rest)| rest.split_once("```")).expect("its function").0;
    world.eu.execute("demo", sql).unwrap_or_else(|error| panic!("{error}"));
    let mut configuration = asking(world, "asker_unused", "query = \"SELECT name, secret FROM domicile.secret_of($1)\"");
    configuration.more = configuration.more.replace("of-asker_unused", "…").replace("asker_unused", "domicile_auth");
    let proxy = start(&configuration);
    let mut client = proxy.login(&login("flora", "of-flora")).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(client.query("SELECT current_user").value().as_deref(), Some("flora"));
    assert_eq!(refused(&proxy, "asker_unused", "of-asker_unused"), "28P01", "superusers are not told of");
    assert_eq!(refused(&proxy, "nobody_at_all", "of-flora"), "28P01");
}

#[test]
fn nothing_of_a_client_but_its_name_gets_to_where_it_is_looked_up() {
    let Some(world) = world() else { return };
    let query = "query = \"SELECT $1::text, 'path ' || pg_catalog.current_setting('search_path') || ' end'\"";
    let proxy = start(&asking(world, "asker_path", query));
    let parameters: &[(&str, &str)] = &[("search_path", "evil, pg_catalog"), ("options", "-c search_path=evil")];
    for user in ["mallory", "mallory\"'; SELECT 1; --"] {
        // A login that gets as far as its password is all there is to see: no server has such a user.
        let login = Login { parameters, ..login(user, "path  end") };
        proxy.login(&login).unwrap_or_else(|said| panic!("{said}"));
        assert_eq!(refused(&proxy, user, "path evil end"), "28P01");
    }
}

#[test]
fn an_answer_that_is_not_clear_lets_nobody_in() {
    let Some(world) = world() else { return };
    let asking = asking(world, "asker_unclear", "");
    for (query, why) in [
        ("SELECT 'somebody else', $1", "the row of another user"),
        ("SELECT $1", "must give two"),
        ("SELECT $1, 'x' FROM pg_catalog.generate_series(1, 2)", "more than one row"),
        ("SELECT $1::text, secret FROM users_of_ours", "relation \\\"users_of_ours\\\" does not exist"),
        ("SELECT $1::text, 1 / 0", "division by zero"),
    ] {
        let more = format!("{}query = \"{query}\"\n", asking.more);
        let proxy = start(&Configuration { method: "password", more, ..asking.clone() });
        assert_eq!(refused(&proxy, "petra", "x"), "08006", "{query}");
        let why = why.replace('\\', "");
        assert!(proxy.log().replace('\\', "").contains(&why), "{query}: {}", tail(&proxy.log()));
        assert_eq!(refused(&proxy, "postgres", "postgres"), "", "who is in the file does not need it");
    }
}

#[test]
fn few_connections_look_up_many_and_a_lost_one_is_replaced() {
    let Some(world) = world() else { return };
    world.eu.execute("demo", "CREATE ROLE rosa LOGIN PASSWORD 'of-rosa'").expect("a role");
    let proxy = start(&asking(world, "asker_many", "connections = 2"));
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(refused(&proxy, "rosa", "of-rosa"), ""));
        }
    });
    let connections = asking_connections(world, "asker_many");
    assert!(["1", "2"].contains(&connections.as_str()), "{connections}");
    world.eu.value("demo", "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'asker_many'");
    let gone = || (asking_connections(world, "asker_many") == "0").then_some(());
    wait_for(PATIENCE, gone).expect("they are gone");
    assert_eq!(refused(&proxy, "rosa", "of-rosa"), "");
    // A reload begins anew.
    proxy.signal(Signal::HUP);
    wait_for(PATIENCE, gone).expect("the old ones are closed");
    assert_eq!(refused(&proxy, "rosa", "of-rosa"), "");
}

#[test]
fn without_a_server_to_ask_nobody_is_let_in_who_has_to_be_looked_up() {
    let Some(world) = world() else { return };
    let mut configuration = asking(world, "asker_down", "");
    configuration.nodes[0].2 = format!("127.0.0.1:{}", free_port());
    let proxy = start(&configuration);
    let said = proxy.login(&login("rosa", "of-rosa")).err().expect("nobody can be asked");
    assert_eq!(said.sqlstate(), "08006");
    assert_eq!(text(&said), "the password of user \"rosa\" could not be looked up");
    assert!(proxy.log().contains("pg-eu-west"), "{}", tail(&proxy.log()));
}
