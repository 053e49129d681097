//! Prepared statements of the protocol in transaction mode, on real servers: they work as if each client had its own backend.

use domicile_tests::client::{Client, Login};
use domicile_tests::message as m;
use domicile_tests::proxy::{Configuration, Proxy};

use crate::world::{World, start, world};

/// Clients share two backends, and are served by the European server.
fn two_backends(world: &World) -> Configuration {
    Configuration { pools: "size = 2\nprepared_statements = 3\n".to_owned(), ..world.residency("unbound = \"eu-west\"") }
}

fn says(client: &mut Client, messages: &[Vec<u8>], expected: &str) {
    client.send(&[messages.concat(), m::sync()].concat());
    assert_eq!(client.until_ready().replies().to_string(), expected);
}

/// Has `client` served by another backend than the one that is free now, by keeping that one busy.
fn keep_busy(proxy: &Proxy) -> Client {
    let mut busy = proxy.connect();
    assert_eq!(busy.query("BEGIN; SELECT 1").status(), 'T');
    busy
}

#[test]
fn a_statement_meets_backends_that_have_never_seen_it() {
    let Some(world) = world() else { return };
    let proxy = start(&two_backends(world));
    let mut client = proxy.connect();
    for name in ["", "named"] {
        says(&mut client, &[m::parse(name, "SELECT 7 AS seven"), m::describe_statement(name)], "1 / t / T seven / Z I");
        says(&mut client, &[m::bind("", name, &[]), m::execute("", 0)], "2 / D 7 / C SELECT 1 / Z I");
        let busy = keep_busy(&proxy);
        says(
            &mut client,
            &[m::bind("", name, &[]), m::describe_portal(""), m::execute("", 0)],
            "2 / T seven / D 7 / C SELECT 1 / Z I",
        );
        drop(busy);
    }
    says(&mut client, &[m::parse("named", "SELECT 8")], "E 42P05 prepared statement \"named\" already exists / Z I");
    says(&mut client, &[m::close_statement("named"), m::parse("named", "SELECT 8")], "3 / 1 / Z I");
    says(&mut client, &[m::bind("", "named", &[]), m::execute("", 0)], "2 / D 8 / C SELECT 1 / Z I");
    assert_eq!(client.query("DEALLOCATE named").replies().to_string(), "C DEALLOCATE / Z I");
    says(&mut client, &[m::bind("", "named", &[])], "E 26000 prepared statement \"named\" does not exist / Z I");
}

/// What a portal of the unnamed statement returns was once taken for what the named statement returns that was bound before.
#[test]
fn a_portal_is_described_by_the_statement_that_it_is_of_now() {
    let Some(world) = world() else { return };
    let proxy = start(&two_backends(world));
    let mut client = proxy.connect();
    let named = [m::bind("", "named", &[]), m::execute("", 0)];
    says(&mut client, &[m::parse("named", "SELECT 7 AS seven")], "1 / Z I");
    says(&mut client, &named, "2 / D 7 / C SELECT 1 / Z I");
    says(&mut client, &[m::prepared("", "SELECT 'eight' AS eight")], "1 / 2 / T eight / D eight / C SELECT 1 / Z I");
    let busy = keep_busy(&proxy);
    says(&mut client, &named, "2 / D 7 / C SELECT 1 / Z I");
    drop(busy);
}

#[test]
fn more_statements_than_a_backend_keeps_all_work() {
    let Some(world) = world() else { return };
    let proxy = start(&two_backends(world));
    let mut clients = [proxy.connect(), proxy.connect(), proxy.connect()];
    for (own, client) in clients.iter_mut().enumerate() {
        for number in 0..8 {
            says(client, &[m::parse(&number.to_string(), &format!("SELECT {own} * 10 + {number}"))], "1 / Z I");
        }
    }
    for round in 0..4 {
        for (own, client) in clients.iter_mut().enumerate() {
            for number in (0..8).map(|number| (number + round) % 8) {
                let expected = format!("2 / D {} / C SELECT 1 / Z I", own * 10 + number);
                says(client, &[m::bind("", &number.to_string(), &[]), m::execute("", 0)], &expected);
            }
        }
    }
}

#[test]
fn a_table_that_changes_is_noticed_before_a_row_is_misread() {
    let Some(world) = world() else { return };
    let proxy = start(&two_backends(world));
    let (mut first, mut second) = (proxy.connect(), proxy.connect());
    first.query("DROP TABLE IF EXISTS changing; CREATE TABLE changing AS SELECT 1 AS a");
    let text = "SELECT * FROM changing";
    let changed = "E 0A000 cached plan must not change result type / Z I";
    for client in [&mut first, &mut second] {
        says(client, &[m::parse("s", text), m::describe_statement("s")], "1 / t / T a / Z I");
    }
    let busy = keep_busy(&proxy);
    says(&mut first, &[m::bind("", "s", &[]), m::execute("", 0)], "2 / D 1 / C SELECT 1 / Z I");
    drop(busy);
    first.query("ALTER TABLE changing ADD COLUMN b int DEFAULT 2");
    // As from a server: the client was told of one column. It prepares the statement again, and goes on.
    says(&mut first, &[m::bind("", "s", &[]), m::execute("", 0)], changed);
    says(&mut first, &[m::close_statement("s"), m::parse("s", text), m::describe_statement("s")], "3 / 1 / t / T a|b / Z I");
    for _ in 0..2 {
        says(&mut first, &[m::bind("", "s", &[]), m::execute("", 0)], "2 / D 1|2 / C SELECT 1 / Z I");
        says(&mut second, &[m::bind("", "s", &[]), m::execute("", 0)], changed);
        let busy = keep_busy(&proxy);
        says(&mut first, &[m::bind("", "s", &[]), m::execute("", 0)], "2 / D 1|2 / C SELECT 1 / Z I");
        says(&mut second, &[m::bind("", "s", &[]), m::execute("", 0)], changed);
        drop(busy);
    }
    first.query("DROP TABLE changing");
    says(&mut first, &[m::parse("gone", text)], "E 42P01 relation \"changing\" does not exist / Z I");
}

#[test]
fn a_failed_pipeline_leaves_what_was_parsed_before_the_failure() {
    let Some(world) = world() else { return };
    let proxy = start(&two_backends(world));
    let mut client = proxy.connect();
    let division = "E 22012 division by zero / Z I";
    says(
        &mut client,
        &[
            m::parse("a", "SELECT 1"),
            m::parse("b", "SELECT 1/0"),
            m::bind("", "b", &[]),
            m::execute("", 0),
            m::parse("c", "SELECT 2"),
        ],
        &format!("1 / 1 / {division}"),
    );
    says(&mut client, &[m::bind("", "a", &[]), m::execute("", 0)], "2 / D 1 / C SELECT 1 / Z I");
    says(&mut client, &[m::bind("", "b", &[]), m::execute("", 0)], division);
    says(&mut client, &[m::bind("", "c", &[])], "E 26000 prepared statement \"c\" does not exist / Z I");
    says(&mut client, &[m::parse("c", "SELECT 2"), m::bind("", "c", &[]), m::execute("", 0)], "1 / 2 / D 2 / C SELECT 1 / Z I");
}

#[test]
fn errors_of_the_server_name_a_statement_as_its_client_does() {
    let Some(world) = world() else { return };
    let proxy = start(&two_backends(world));
    let mut client = proxy.connect();
    says(&mut client, &[m::parse("mine", "SELECT $1::int")], "1 / Z I");
    let text = "E 08P01 bind message supplies 2 parameters, but prepared statement \"mine\" requires 1 / Z I";
    says(&mut client, &[m::bind("", "mine", &["1", "2"])], text);
}

/// Pgpool-II's CVE-2024-45624: what it remembered of one user's statement it gave to another one, who had no right to it.
#[test]
fn cve_2024_45624_what_one_user_has_prepared_is_no_right_of_another() {
    let Some(world) = world() else { return };
    let table = "CREATE TABLE of_postgres (secret text); INSERT INTO of_postgres VALUES ('hidden')";
    world.eu.execute("demo", table).unwrap_or_else(|error| panic!("{error}"));
    let proxy = start(&two_backends(world));
    let alice = Login { user: "alice", password: "alice", ..Login::default() };
    let mut alice = proxy.login(&alice).unwrap_or_else(|said| panic!("{said}"));
    let mut postgres = proxy.connect();
    let prepares = [m::parse("s", "SELECT secret FROM of_postgres"), m::describe_statement("s")];
    let executes = [m::bind("", "s", &[]), m::execute("", 0)];
    says(&mut postgres, &[&prepares[..], &executes].concat(), "1 / t / T secret / 2 / D hidden / C SELECT 1 / Z I");
    alice.send(&[prepares.concat(), executes.concat(), m::sync()].concat());
    // What a table is like, PostgreSQL itself tells everybody.
    let said = alice.until_ready().replies().to_string();
    assert_eq!(said, "1 / t / T secret / E 42501 permission denied for table of_postgres / Z I");
    says(&mut postgres, &executes, "2 / D hidden / C SELECT 1 / Z I");
}
