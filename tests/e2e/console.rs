//! The administration console: who gets in, what is shown, and what its commands do to clients and servers under load.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::message::{bind, describe_portal, describe_statement, execute, parse, query, sync};
use domicile_tests::process::wait_for;
use domicile_tests::program;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::skip::available;
use domicile_tests::transcript::Transcript;
use rustix::process::Signal;

use crate::world::{World, start, tail, while_running, world};

const PATIENCE: Duration = Duration::from_secs(10);
const ADMIN: Login<'_> = Login { user: "postgres", password: "postgres", database: "pgbouncer", parameters: &[] };
const STATS: Login<'_> = Login { user: "alice", password: "alice", database: "domicile", parameters: &[] };

/// Everybody is served in Europe; `postgres` may do everything on the console and `alice` may look.
fn configuration(world: &World, pool_mode: &'static str, pools: &str) -> Configuration {
    let more = "[admin]\nusers = [\"postgres\"]\nstats_users = [\"alice\"]\n".to_owned();
    Configuration { pool_mode, pools: format!("{pools}\n"), more, ..world.residency("unbound = \"eu-west\"") }
}

fn console(proxy: &Proxy) -> Client {
    proxy.login(&ADMIN).unwrap_or_else(|said| panic!("the console refuses: {said}\n{}", tail(&proxy.log())))
}

/// One column of the rows where the other columns have these values.
#[track_caller]
pub fn column(said: &Transcript, wanted: &str, conditions: &[(&str, &str)]) -> Vec<String> {
    let header = said.messages.iter().find(|message| message.tag == b'T').map(ToString::to_string).unwrap_or_default();
    let names: Vec<&str> = header.trim_start_matches("T ").split('|').collect();
    let place = |name: &str| names.iter().position(|known| *known == name).unwrap_or_else(|| panic!("no {name} in {header}"));
    let fits = |row: &&Vec<String>| conditions.iter().all(|(name, value)| row[place(name)] == *value);
    said.rows().iter().filter(fits).map(|row| row[place(wanted)].clone()).collect()
}

#[track_caller]
fn number(said: &Transcript, wanted: &str, conditions: &[(&str, &str)]) -> u64 {
    column(said, wanted, conditions).iter().map(|value| value.parse::<u64>().unwrap_or_else(|_| panic!("{said}"))).sum()
}

fn psql(proxy: &Proxy, user: &str, database: &str, text: &str) -> String {
    let mut command: Command = program::command(&program::find("psql").unwrap_or_else(|| "psql".into()));
    command.env("PGPASSWORD", user).args(["-X", "--host=127.0.0.1", "--no-align", "--tuples-only", "--command", text]);
    command.arg(format!("--username={user}")).arg(format!("--port={}", proxy.address().port())).arg(database);
    program::run_together(command, "", PATIENCE).expect("psql")
}

#[test]
fn only_those_of_the_configuration_get_in() {
    let Some(world) = world() else { return };
    let proxy = start(&configuration(world, "transaction", ""));
    for database in ["pgbouncer", "domicile"] {
        for (user, allowed) in [("postgres", true), ("alice", true), ("bench", false)] {
            let login = Login { user, password: user, database, parameters: &[("extra_float_digits", "3")] };
            let said = proxy.login(&login).err().map(|said| said.to_string());
            let refused = format!("FATAL 28000 user \"{user}\" is not allowed to use the administration console");
            let fits = said.as_ref().map_or(allowed, |said| !allowed && said.contains(&refused));
            assert!(fits, "{user} at {database}: {said:?}");
        }
    }
    let wrong = proxy.login(&Login { password: "wrong", ..ADMIN }).err().map(|said| said.sqlstate());
    assert_eq!(wrong.as_deref(), Some("28P01"));
    // Without [admin] nobody gets in, and the names are not those of databases either.
    let closed = start(&Configuration { more: String::new(), ..configuration(world, "transaction", "") });
    assert_eq!(closed.login(&ADMIN).err().map(|said| said.sqlstate()).as_deref(), Some("28000"));
}

#[test]
fn no_bind_rule_and_no_place_is_needed() {
    let Some(world) = world() else { return };
    let mut configuration =
        Configuration { residency: "unbound = \"block\"\n".to_owned(), ..configuration(world, "transaction", "") };
    configuration.more.push_str("[limits]\nmax_clients = 1\n[[residency.bind]]\nuser = \"bench\"\nregions = [\"eu-west\"]\n");
    let proxy = start(&configuration);
    let bench = Login { user: "bench", password: "bench", ..Login::default() };
    let _only = proxy.login(&bench).expect("the only client");
    assert_eq!(proxy.login(&bench).err().map(|said| said.sqlstate()).as_deref(), Some("53300"));
    assert_eq!(proxy.login(&Login { database: "demo", ..ADMIN }).err().map(|said| said.sqlstate()).as_deref(), Some("53300"));
    assert!(console(&proxy).query("SHOW POOLS").error().is_none());
}

/// PgBouncer's CVE-2026-6667: KILL_CLIENT was everybody's.
#[test]
fn stats_users_only_look() {
    let Some(world) = world() else { return };
    let proxy = start(&configuration(world, "transaction", ""));
    let mut client = proxy.login(&STATS).expect("a session of the console");
    for text in ["SHOW POOLS", "show stats_averages;", "SET extra_float_digits = 3", ";", "-- ping", "Show Config ;"] {
        let said = client.query(text);
        assert!(said.error().is_none() && said.status() == 'I', "{text}: {said}");
    }
    for text in [
        "RELOAD",
        "PAUSE",
        "PAUSE demo",
        "RESUME",
        "KILL",
        "KILL demo",
        "KILL_CLIENT 1",
        "RECONNECT",
        "WAIT_CLOSE",
        "DISABLE demo",
        "ENABLE demo",
        "SHUTDOWN",
        "SHUTDOWN WAIT_FOR_CLIENTS",
    ] {
        assert_eq!(client.query(text).to_string(), "E 42501 admin access needed / Z I", "{text}");
        let said = client.extended(text).to_string();
        assert!(said.ends_with("/ n / E 42501 admin access needed / Z I"), "{text}: {said}");
    }
    assert_eq!(client.query("DROP TABLE users").to_string(), "E 42601 invalid command 'DROP TABLE users', use SHOW HELP; / Z I");
    assert!(client.query("SHOW VERSION").to_string().starts_with("T version / D Domicile "));
}

#[test]
fn psql_shows_every_table() {
    let Some(world) = world() else { return };
    if available(program::need("psql")).is_none() {
        return;
    }
    let proxy = start(&configuration(world, "transaction", ""));
    let mut client = proxy.connect();
    client.query("SELECT 'a secret statement'");
    for (table, expected) in [
        ("HELP", "NOTICE:  Console usage"),
        ("POOLS", "demo|postgres|1|0|0|0|0|0|0|1|0|0|0|0|0|transaction||eu-west|"),
        ("REGION_POOLS", "demo|postgres|1|"),
        ("CLIENTS", "C|postgres|demo|none|idle|127.0.0.1|"),
        ("SERVERS", "S|postgres|demo|none|idle|127.0.0.1|"),
        ("STATS", "demo|1|1|1|"),
        ("STATS_TOTALS", "demo|1|1|1|"),
        ("STATS_AVERAGES", "demo|0|0|0|"),
        ("TOTALS", "total_query_count|1"),
        ("DATABASES", "demo|127.0.0.1|"),
        ("LISTS", "used_clients|1"),
        ("CONFIG", "pool_mode|transaction|transaction|yes"),
        ("USERS", "alice||||0|0|0|0|stats"),
        ("VERSION", "Domicile "),
        ("STATE", "active|yes"),
        ("MEM", "client_cache|"),
        ("REGIONS", "eu-west||1|1|1|0|0|1|0|0||1|1|1|0"),
        ("NODES", "pg-eu-west|eu-west|primary|127.0.0.1|"),
        ("DECISIONS", "permit||eu-west|1"),
        ("PINS", ""),
    ] {
        // The node's health is known after its first probe.
        let said = wait_for(PATIENCE, || {
            let said = psql(&proxy, "postgres", "pgbouncer", &format!("SHOW {table};"));
            said.contains(expected).then_some(said)
        });
        let Some(said) = said else {
            panic!("SHOW {table} lacks {expected}: {}", psql(&proxy, "postgres", "pgbouncer", &format!("SHOW {table}")))
        };
        assert!(!said.contains("secret") && !said.contains("ERROR"), "SHOW {table}: {said}");
    }
}

#[test]
fn the_extended_protocol_is_spoken() {
    let Some(world) = world() else { return };
    let proxy = start(&configuration(world, "transaction", ""));
    let mut client = console(&proxy);
    assert_eq!(
        client.extended("SHOW STATE").to_string(),
        "1 / 2 / T key|value / D active|yes / D paused|no / D suspended|no / D draining|no / C SHOW / Z I"
    );
    assert_eq!(client.extended("").to_string(), "1 / 2 / n / I / Z I");
    assert_eq!(client.extended("nonsense").to_string(), "E 42601 invalid command 'nonsense', use SHOW HELP; / Z I");
    // As drivers do it: described first, executed many times, in parts.
    client.send(&[parse("s", "SHOW STATE"), describe_statement("s"), sync()].concat());
    assert_eq!(client.until_ready().to_string(), "1 / t / T key|value / Z I");
    for _ in 0..2 {
        client.send(&[bind("p", "s", &[]), describe_portal("p"), execute("p", 3), execute("p", 0), sync()].concat());
        let said = client.until_ready().to_string();
        let parts = "D active|yes / D paused|no / D suspended|no / s / D draining|no / C SHOW";
        assert_eq!(said, format!("2 / T key|value / {parts} / Z I"));
    }
    client.send(&[bind("p", "gone", &[]), execute("p", 0), sync()].concat());
    assert_eq!(client.until_ready().to_string(), "E 26000 prepared statement \"gone\" does not exist / Z I");
    client.send(&[parse("s", "SHOW STATE"), sync()].concat());
    assert_eq!(client.until_ready().to_string(), "E 42P05 prepared statement \"s\" already exists / Z I");
    assert_eq!(client.query("SHOW client_encoding").to_string(), "T client_encoding / D UTF8 / C SHOW / Z I");
}

/// A client that asks without end; how often it was answered, and what it was answered when that was an error.
fn ask_without_end(proxy: &Proxy, goes_on: &dyn Fn() -> bool, answered: &AtomicU64) -> Result<(), String> {
    let mut client = proxy.login(&Login::default()).map_err(|said| said.to_string())?;
    client.set_patience(Duration::from_secs(30));
    while goes_on() {
        let said = client.query("SELECT 1").replies();
        if said.to_string() != "T ?column? / D 1 / C SELECT 1 / Z I" {
            return Err(said.to_string());
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Asks through `clients` connections while `work` runs.
fn under_load<T>(proxy: &Proxy, clients: usize, work: impl FnOnce(&AtomicU64) -> T) -> T {
    let answered = AtomicU64::new(0);
    let load = |goes_on: &dyn Fn() -> bool| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let stop = &stop;
            let answered = &answered;
            let all: Vec<_> = (0..clients)
                .map(|_| scope.spawn(move || ask_without_end(proxy, &|| !stop.load(Ordering::Relaxed), answered)))
                .collect();
            while goes_on() {
                thread::sleep(Duration::from_millis(20));
            }
            stop.store(true, Ordering::Relaxed);
            all.into_iter().map(|client| client.join().expect("a client")).collect::<Result<Vec<_>, _>>().map(drop)
        })
    };
    let (clean, worked) = while_running(load, || work(&answered));
    assert_eq!(clean, Ok(()), "{}", tail(&proxy.log()));
    worked
}

fn servers_of(world: &World, proxy: &Proxy) -> String {
    // Only this proxy's servers have the port of one of its sockets.
    let mut client = console(proxy);
    let said = client.query("SHOW SERVERS");
    let processes = column(&said, "remote_pid", &[]);
    let list = if processes.is_empty() { "0".to_owned() } else { processes.join(",") };
    world.eu.value("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE pid IN ({list})"))
}

#[test]
fn pause_and_resume_under_load_cost_no_error() {
    let Some(world) = world() else { return };
    let proxy = start(&configuration(world, "transaction", "size = 5"));
    under_load(&proxy, 16, |answered| {
        let mut client = console(&proxy);
        client.set_patience(Duration::from_secs(30));
        for (pause, resume) in [("PAUSE", "RESUME"), ("PAUSE demo;", "RESUME demo;"), ("pause", "resume")] {
            let before = answered.load(Ordering::Relaxed);
            wait_for(PATIENCE, || (answered.load(Ordering::Relaxed) > before + 50).then_some(())).expect("there is load");
            assert_eq!(client.query(pause).to_string(), "C PAUSE / Z I");
            let servers = client.query("SHOW SERVERS");
            assert!(servers.rows().is_empty(), "{servers}");
            let stopped_at = answered.load(Ordering::Relaxed);
            let waiting = wait_for(PATIENCE, || {
                let pools = client.query("SHOW POOLS");
                (number(&pools, "cl_waiting", &[("database", "demo")]) == 16).then_some(pools)
            });
            let pools = waiting.expect("all clients wait");
            assert_eq!(number(&pools, "paused", &[("database", "demo")]), 1);
            assert!(answered.load(Ordering::Relaxed) <= stopped_at + 16, "somebody was served during a pause");
            assert_eq!(
                client.query(resume).to_string(),
                format!("C {} / Z I", resume.trim_matches(';').to_uppercase().split(' ').next().unwrap_or(""))
            );
        }
        let before = answered.load(Ordering::Relaxed);
        wait_for(PATIENCE, || (answered.load(Ordering::Relaxed) > before + 50).then_some(())).expect("service goes on");
    });
    let mut client = console(&proxy);
    assert_eq!(client.query("RESUME").to_string(), "E 55000 the pooler is not paused / Z I");
    assert_eq!(client.query("RESUME demo").to_string(), "E 55000 database \"demo\" is not paused / Z I");
    assert!(client.query("PAUSE pgbouncer").sqlstate() == "0A000");
}

#[test]
fn a_pause_waits_for_transactions_and_other_databases_go_on() {
    let Some(world) = world() else { return };
    let proxy = start(&configuration(world, "transaction", "size = 5"));
    let mut busy = proxy.connect();
    assert_eq!(busy.query("BEGIN; SELECT 1").status(), 'T');
    let mut waiting = console(&proxy);
    waiting.send(&query("PAUSE demo"));
    waiting.set_patience(Duration::from_millis(700));
    assert!(waiting.until_ready().messages.is_empty(), "a transaction is still open");
    let mut other = proxy.login(&Login { database: "postgres", ..Login::default() }).expect("another database");
    assert_eq!(other.query("SELECT 1").replies().to_string(), "T ?column? / D 1 / C SELECT 1 / Z I");
    assert_eq!(busy.query("SELECT 2; COMMIT").status(), 'I');
    waiting.set_patience(PATIENCE);
    assert_eq!(waiting.until_ready().to_string(), "C PAUSE / Z I");
    // New clients come in, and wait.
    let mut newcomer = proxy.connect();
    newcomer.send(&query("SELECT 3"));
    newcomer.set_patience(Duration::from_millis(500));
    assert!(newcomer.until_ready().messages.is_empty());
    assert_eq!(waiting.query("RESUME demo").to_string(), "C RESUME / Z I");
    newcomer.set_patience(PATIENCE);
    assert_eq!(newcomer.until_ready().replies().to_string(), "T ?column? / D 3 / C SELECT 1 / Z I");
}

#[test]
fn kill_ends_clients_and_servers_and_pauses() {
    let Some(world) = world() else { return };
    let proxy = start(&configuration(world, "transaction", "size = 5"));
    let mut idle = proxy.connect();
    idle.query("SELECT 1");
    let mut busy = proxy.connect();
    busy.query("BEGIN; SELECT pg_advisory_xact_lock(79)");
    let mut spared = proxy.login(&Login { database: "postgres", ..Login::default() }).expect("another database");
    spared.query("SELECT 1");
    let mut client = console(&proxy);
    assert_eq!(client.query("KILL demo").to_string(), "C KILL / Z I");
    for victim in [&mut idle, &mut busy] {
        let said = victim.until(|_| false);
        assert_eq!(said.sqlstate(), "57P01", "{said}");
    }
    let servers = client.query("SHOW SERVERS");
    assert!(column(&servers, "remote_pid", &[("database", "demo")]).is_empty(), "{servers}");
    let free = wait_for(PATIENCE, || {
        (world.eu.value("demo", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 79") == "0").then_some(())
    });
    assert!(free.is_some(), "the lock of a killed client is still held");
    assert_eq!(spared.query("SELECT 1").replies().to_string(), "T ?column? / D 1 / C SELECT 1 / Z I");
    let databases = client.query("SHOW DATABASES");
    assert_eq!(column(&databases, "paused", &[("name", "demo")]), ["1"], "{databases}");
    let mut newcomer = proxy.connect();
    newcomer.send(&query("SELECT 1"));
    newcomer.set_patience(Duration::from_millis(400));
    assert!(newcomer.until_ready().messages.is_empty());
    client.query("RESUME demo");
    newcomer.set_patience(PATIENCE);
    assert_eq!(newcomer.until_ready().replies().to_string(), "T ?column? / D 1 / C SELECT 1 / Z I");
}

#[test]
fn kill_client_ends_the_one_it_names() {
    let Some(world) = world() else { return };
    let proxy = start(&configuration(world, "transaction", ""));
    let login = |name: &'static str| {
        let parameters: &'static [(&'static str, &'static str)] = Box::leak(Box::new([("application_name", name)]));
        proxy.login(&Login { parameters, ..Login::default() }).expect("a client")
    };
    let (mut one, mut other) = (login("one"), login("other"));
    one.query("SELECT 1");
    other.query("SELECT 1");
    let mut client = console(&proxy);
    let clients = client.query("SHOW CLIENTS");
    let id = column(&clients, "id", &[("application_name", "one")]);
    assert_eq!(id.len(), 1, "{clients}");
    assert_eq!(client.query(&format!("KILL_CLIENT {}", id[0])).to_string(), "C KILL_CLIENT / Z I");
    assert_eq!(one.until(|_| false).sqlstate(), "57P01");
    assert_eq!(other.query("SELECT 1").status(), 'I');
    assert_eq!(client.query(&format!("KILL_CLIENT {}", id[0])).to_string(), "E 42704 client not found / Z I");
}

#[test]
fn reconnect_replaces_servers_when_they_are_released() {
    let Some(world) = world() else { return };
    for mode in ["transaction", "session"] {
        let proxy = start(&configuration(world, mode, "size = 5"));
        let mut busy = proxy.connect();
        let process = |said: &Transcript| said.value().expect("a process id");
        busy.query("BEGIN");
        let before = process(&busy.query("SELECT pg_backend_pid()"));
        let mut client = console(&proxy);
        assert_eq!(client.query("RECONNECT demo").to_string(), "C RECONNECT / Z I");
        let said = client.query("SHOW SERVERS");
        assert_eq!(column(&said, "close_needed", &[("remote_pid", &before)]), ["1"], "{said}");
        client.send(&query("WAIT_CLOSE"));
        client.set_patience(Duration::from_millis(400));
        assert!(client.until_ready().messages.is_empty());
        assert_eq!(process(&busy.query("SELECT pg_backend_pid()")), before, "not in a transaction");
        busy.query("COMMIT");
        if mode == "session" {
            assert_eq!(process(&busy.query("SELECT pg_backend_pid()")), before, "a session keeps its server");
            drop(busy);
        } else {
            assert_ne!(process(&busy.query("SELECT pg_backend_pid()")), before);
        }
        client.set_patience(PATIENCE);
        assert_eq!(client.until_ready().to_string(), "C WAIT_CLOSE / Z I");
        assert_ne!(process(&proxy.connect().query("SELECT pg_backend_pid()")), before);
    }
    let proxy = start(&configuration(world, "transaction", "size = 5"));
    under_load(&proxy, 8, |answered| {
        let mut client = console(&proxy);
        for _ in 0..10 {
            let before = answered.load(Ordering::Relaxed);
            client.query("RECONNECT");
            wait_for(PATIENCE, || (answered.load(Ordering::Relaxed) > before + 50).then_some(())).expect("service goes on");
        }
    });
    assert_ne!(servers_of(world, &proxy), "0");
}

#[test]
fn disable_keeps_new_clients_out() {
    let Some(world) = world() else { return };
    let proxy = start(&configuration(world, "transaction", ""));
    let mut old = proxy.connect();
    let mut client = console(&proxy);
    assert_eq!(client.query("DISABLE demo").to_string(), "C DISABLE / Z I");
    let refused = proxy.login(&Login::default()).err().map(|said| said.sqlstate());
    assert_eq!(refused.as_deref(), Some("57P03"));
    assert_eq!(old.query("SELECT 1").status(), 'I');
    assert_eq!(column(&client.query("SHOW DATABASES"), "disabled", &[("name", "demo")]), ["1"]);
    assert_eq!(client.query("ENABLE demo").to_string(), "C ENABLE / Z I");
    proxy.connect();
}

#[test]
fn reload_says_whether_it_did() {
    let Some(world) = world() else { return };
    let good = configuration(world, "transaction", "size = 5");
    let proxy = start(&good);
    let mut client = console(&proxy);
    assert_eq!(client.query("RELOAD").to_string(), "C RELOAD / Z I");
    let bad = Configuration { pools: "size = \"many\"\n".to_owned(), ..good.clone() };
    proxy.configure(&bad).expect("the configuration file");
    assert_eq!(client.query("RELOAD;").sqlstate(), "F0000");
    let other = Configuration { pools: "size = 7\n".to_owned(), ..good.clone() };
    proxy.configure(&other).expect("the configuration file");
    assert_eq!(client.query("RELOAD").to_string(), "C RELOAD / Z I");
    assert_eq!(column(&client.query("SHOW CONFIG"), "value", &[("key", "pools.size")]), ["7"]);
    // Rights that are taken away are gone at the next command.
    let fewer = Configuration { more: "[admin]\nstats_users = [\"postgres\"]\n".to_owned(), ..good.clone() };
    proxy.configure(&fewer).expect("the configuration file");
    assert_eq!(client.query("RELOAD").to_string(), "C RELOAD / Z I");
    assert_eq!(client.query("RELOAD").to_string(), "E 42501 admin access needed / Z I");
    assert!(client.query("SHOW POOLS").error().is_none());
    proxy.configure(&Configuration { more: String::new(), ..good }).expect("the configuration file");
    proxy.signal(Signal::HUP);
    let refused = wait_for(PATIENCE, || (client.query("SHOW POOLS").sqlstate() == "42501").then_some(()));
    assert!(refused.is_some(), "a user that is not of the console any more still looks");
}

#[test]
fn shutdown_ends_the_process_in_three_ways() {
    let Some(world) = world() else { return };
    let mut proxy = start(&configuration(world, "transaction", ""));
    let mut client = console(&proxy);
    let _busy = proxy.connect().query("BEGIN; SELECT 1");
    client.send(&query("SHUTDOWN"));
    let status = proxy.wait(PATIENCE).expect("SHUTDOWN ends it at once");
    assert!(status.success(), "{status}");

    let mut proxy = start(&configuration(world, "transaction", ""));
    let (mut idle, mut busy) = (proxy.connect(), proxy.connect());
    busy.query("BEGIN; SELECT 1");
    assert_eq!(console(&proxy).query("SHUTDOWN WAIT_FOR_SERVERS").to_string(), "C SHUTDOWN / Z I");
    assert_eq!(idle.until(|_| false).sqlstate(), "57P01");
    assert_eq!(busy.query("COMMIT").to_string(), "C COMMIT / Z I");
    assert!(proxy.wait(PATIENCE).expect("the last transaction is over").success());

    let mut proxy = start(&configuration(world, "transaction", ""));
    let mut last = proxy.connect();
    assert_eq!(console(&proxy).query("SHUTDOWN WAIT_FOR_CLIENTS").to_string(), "C SHUTDOWN / Z I");
    assert!(proxy.login(&Login::default()).is_err(), "nobody new comes in");
    assert_eq!(last.query("SELECT 1").status(), 'I');
    assert!(proxy.wait(Duration::from_secs(2)).is_none(), "a client is left");
    drop(last);
    assert!(proxy.wait(PATIENCE).expect("the last client has left").success());
}

/// A pause during the end of the process would hold those who wait until the deadline.
#[test]
fn those_who_wait_for_a_paused_database_are_sent_away_at_the_end() {
    let Some(world) = world() else { return };
    let mut proxy = start(&configuration(world, "transaction", ""));
    let mut client = console(&proxy);
    client.query("PAUSE");
    let mut waiting = proxy.connect();
    waiting.send(&query("SELECT 1"));
    wait_for(PATIENCE, || (number(&client.query("SHOW POOLS"), "cl_waiting", &[]) == 1).then_some(())).expect("it waits");
    proxy.signal(Signal::TERM);
    assert_eq!(waiting.until(|_| false).sqlstate(), "57P01");
    assert!(proxy.wait(PATIENCE).expect("it ends").success());
}

/// Tools that know PgBouncer take (database, user) for the name of a pool: two rows of one name are an error to them.
#[test]
fn a_user_in_two_regions_has_one_row_for_tools_and_two_for_people() {
    let Some(world) = world() else { return };
    let proxy =
        start(&Configuration { residency: "unbound = \"client\"\n".to_owned(), ..configuration(world, "transaction", "") });
    for region in ["eu-west", "us-east"] {
        let login = Login { parameters: &[("helios.region", region)], ..Login::default() };
        let mut client = proxy.login(&login).expect("a client");
        assert_eq!(client.query("BEGIN; SELECT 1").status(), 'T');
        let mut console = console(&proxy);
        let pools = console.query("SHOW POOLS");
        assert_eq!(pools.rows().len(), 1, "{pools}");
        assert_eq!(number(&pools, "sv_active", &[]), 1, "{pools}");
        client.query("COMMIT");
    }
    let mut client = console(&proxy);
    assert_eq!(column(&client.query("SHOW POOLS"), "region", &[("database", "demo")]), ["eu-west,us-east"]);
    assert_eq!(column(&client.query("SHOW REGION_POOLS"), "sv_idle", &[("region", "us-east")]), ["1"]);
    assert_eq!(column(&client.query("SHOW STATS"), "total_query_count", &[("database", "demo")]), ["4"]);
    let databases = client.query("SHOW DATABASES");
    assert_eq!(column(&databases, "region", &[("name", "demo")]), ["eu-west", "us-east"], "{databases}");
    let nodes = client.query("SHOW NODES");
    assert_eq!(number(&nodes, "sv_idle", &[("node", "pg-us-east")]), 1, "{nodes}");
}

#[test]
fn statistics_add_up() {
    let Some(world) = world() else { return };
    let proxy = start(&configuration(world, "transaction", "size = 2"));
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.query("SELECT 1");
        client.query("BEGIN");
        client.query("SELECT 2");
        client.query("COMMIT");
        client.extended("SELECT 3");
    }
    drop(clients.pop());
    let mut client = console(&proxy);
    let said = client.query("SHOW STATS_TOTALS");
    let demo = |column: &str| number(&said, column, &[("database", "demo")]);
    // The BEGIN is the proxy's own: it leaves with the statement behind it.
    assert_eq!((demo("xact_count"), demo("query_count")), (12, 16), "{said}");
    assert_eq!((demo("client_parse_count"), demo("bind_count"), demo("client_login_count")), (4, 4, 4), "{said}");
    assert!(demo("server_assignment_count") == 12 && demo("bytes_received") > 300 && demo("bytes_sent") > 300, "{said}");
    let regions = client.query("SHOW REGIONS");
    assert_eq!(number(&regions, "query_count", &[("region", "eu-west")]), 16, "{regions}");
    assert_eq!(number(&regions, "sessions", &[("region", "eu-west")]), 3, "{regions}");
    // What was done stays when everybody has left and every server is closed.
    drop(clients);
    client.query("RECONNECT");
    wait_for(PATIENCE, || (client.query("SHOW POOLS").rows().is_empty()).then_some(())).expect("all have left");
    assert_eq!(number(&client.query("SHOW STATS_TOTALS"), "query_count", &[("database", "demo")]), 16);
    assert!(servers_of(world, &proxy) == "0");
}
