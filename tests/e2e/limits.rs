//! How many clients there may be, of whom, and how often somebody may be wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::message as m;
use domicile_tests::process::{Scratch, now, wait_for};
use domicile_tests::proxy::{Configuration, Proxy, binary};
use domicile_tests::transcript::Transcript;
use rustix::process::Signal;

use crate::world::{World, start, tail, world};

const PATIENCE: Duration = Duration::from_secs(10);
const ALICE: Login<'_> = Login { user: "alice", password: "alice", database: "demo", parameters: &[] };

fn limited(world: &World, limits: &str) -> Configuration {
    Configuration { more: format!("[limits]\n{limits}\n"), ..world.residency("unbound = \"client\"") }
}

fn refusal(proxy: &Proxy, login: &Login<'_>) -> Transcript {
    proxy.login(login).err().unwrap_or_else(|| panic!("{login:?} was admitted"))
}

fn hint(said: &Transcript) -> String {
    said.error().map_or_else(String::new, |report| report.field('H').to_owned())
}

fn metric(proxy: &Proxy, name: &str) -> u64 {
    let (_, text) = proxy.http("/metrics").expect("metrics");
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).expect(name)
}

#[test]
fn clients_are_counted_by_user_database_and_region_and_a_place_is_free_again() {
    let Some(world) = world() else { return };
    let eu = Login { parameters: &[("helios.region", "eu-west")], ..Login::default() };
    let elsewhere = Login { database: "postgres", ..Login::default() };
    for (option, one, another, whose) in [
        ("max_clients_per_user", ALICE, Login::default(), "user \"alice\""),
        ("max_clients_per_database", ALICE, elsewhere, "database \"demo\""),
        ("max_clients_per_region", eu, Login::default(), "region \"eu-west\""),
    ] {
        let proxy = start(&limited(world, &format!("{option} = 4")));
        let mut clients: Vec<Client> = (0..4).map(|_| proxy.login(&one).expect("there is room")).collect();
        let said = refusal(&proxy, &one);

        assert!(said.to_string().contains(&format!("E FATAL 53300 too many clients of {whose} already")), "{said}");
        assert!(hint(&said).contains(&format!("limits.{option}")), "{said:?}");
        let other = proxy.login(&another).expect("this bound is not about it");
        assert_eq!(metric(&proxy, &format!("domicile_logins_refused_total{{limit=\"{option}\"}}")), 1);
        // The bound is looked at anew after a reload, and nobody is ended by it.
        proxy.configure(&limited(world, &format!("{option} = 2"))).expect("a configuration");
        proxy.signal(Signal::HUP);
        wait_for(PATIENCE, || proxy.log().contains("has been reloaded").then_some(())).expect("a reload");
        for client in &mut clients {
            assert_eq!(client.query("").to_string(), "I / Z I");
        }
        clients.truncate(2);
        thread::sleep(Duration::from_millis(200));
        assert_eq!(refusal(&proxy, &one).sqlstate(), "53300");
        // One that only goes away counts no more, and neither does one that is killed.
        clients.remove(0).reset_when_dropped();
        wait_for(PATIENCE, || proxy.login(&one).ok()).expect("a place is free");
        drop(other);
    }
}

#[test]
fn a_session_is_counted_in_the_region_that_it_is_in() {
    let Some(world) = world() else { return };
    let proxy = start(&limited(world, "max_clients_per_region = 2"));
    let eu = Login { parameters: &[("helios.region", "eu-west")], ..Login::default() };
    let mut clients: Vec<Client> = (0..2).map(|_| proxy.login(&eu).expect("there is room")).collect();
    assert_eq!(refusal(&proxy, &eu).sqlstate(), "53300");
    let mut other = proxy.login(&Login::default()).expect("it is in no region");
    let said = other.query("SET helios.region = 'eu-west'");
    assert_eq!(said.to_string(), "E 53300 too many clients of region \"eu-west\" already / Z I");
    assert!(hint(&said).contains("limits.max_clients_per_region"));
    // Whoever has gone to another region, for good, leaves a place.
    clients[0].query("BEGIN");
    clients[0].query("SET helios.region = 'us-east'");
    assert_eq!(clients[0].query("SELECT current_setting('cluster_node')").value().as_deref(), Some("pg-us-east"));
    assert_eq!(refusal(&proxy, &eu).sqlstate(), "53300");
    clients[0].query("COMMIT");
    assert_eq!(other.query("SET helios.region = 'eu-west'").to_string(), "C SET / Z I");
    assert_eq!(other.query("SELECT current_setting('cluster_node')").value().as_deref(), Some("pg-eu-west"));
    assert_eq!(refusal(&proxy, &eu).sqlstate(), "53300");
    assert_eq!(clients[0].query("SET helios.region = 'eu-west'").sqlstate(), "53300");
    drop(other);
    wait_for(PATIENCE, || proxy.login(&eu).ok()).expect("a place is free");
}

#[test]
fn all_clients_have_a_bound_which_names_itself() {
    let Some(world) = world() else { return };
    let proxy = start(&limited(world, "max_clients = 3"));
    let clients: Vec<Client> = (0..3).map(|_| proxy.connect()).collect();
    let said = refusal(&proxy, &ALICE);
    assert!(said.to_string().ends_with("E FATAL 53300 sorry, too many clients already / closed"), "{said}");
    assert!(hint(&said).contains("limits.max_clients"));
    drop(clients);
    wait_for(PATIENCE, || proxy.login(&ALICE).ok()).expect("a place is free");
}

#[test]
fn logins_under_way_have_a_bound_which_names_itself() {
    let Some(world) = world() else { return };
    let proxy = start(&limited(world, "max_logins = 20"));
    let mut silent: Vec<Client> = (0..20).map(|_| Client::connect(proxy.address()).expect("a connection")).collect();
    let refused = wait_for(PATIENCE, || {
        let mut one_more = Client::connect(proxy.address()).ok()?;
        one_more.set_patience(Duration::from_secs(1));
        let said = one_more.until(|_| false);
        let is_refused = said.sqlstate() == "53300";
        // It may have come before one of the others, which was refused in its place.
        silent.push(one_more);
        is_refused.then_some(said)
    });
    let refused = refused.expect("20 logins are under way");
    assert!(hint(&refused).contains("limits.max_logins"), "{refused}");
    drop(silent);
    wait_for(PATIENCE, || proxy.login(&ALICE).ok()).expect("a place is free");
}

#[test]
fn a_login_has_its_deadline_from_the_first_moment_whatever_it_sends() {
    let Some(world) = world() else { return };
    let proxy = start(&limited(world, "login_timeout = \"4s\""));
    let mut silent = Client::connect(proxy.address()).expect("a connection");
    assert_eq!(silent.until(|_| false).to_string(), "closed");
    let mut slow = Client::connect(proxy.address()).expect("a connection");
    let since = now();
    let startup = m::startup(m::PROTOCOL_3_0, &[("user", "alice"), ("database", "demo"), ("application_name", &"x".repeat(500))]);
    for byte in startup.iter().take_while(|_| now().duration_since(since) < Duration::from_millis(4500)) {
        slow.send(&[*byte]);
        thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(slow.until(|_| false).to_string(), "closed");
    assert!(now().duration_since(since) < Duration::from_secs(16));
    assert_eq!(proxy.connect().query("").to_string(), "I / Z I");
}

#[test]
fn without_descriptors_clients_wait_and_are_served_when_there_are_some_again() {
    let Some(world) = world() else { return };
    let directory = Scratch::new().expect("a directory");
    let program = directory.path().join("with-few-descriptors");
    let script = format!("#!/bin/sh\nulimit -n 48\nexec {} \"$@\"\n", binary().expect("the proxy").display());
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("a program");
    let proxy = Proxy::start_program(&program, &limited(world, "")).unwrap_or_else(|error| panic!("{error}"));
    let mut good = proxy.connect();
    good.query("SET helios.region = 'eu-west'");
    assert_eq!(good.query("SELECT 1").value().as_deref(), Some("1"));
    let crowd: Vec<Client> = (0..100).map(|_| Client::connect(proxy.address()).expect("room in the kernel's queue")).collect();
    let is_said = || proxy.log().contains("no connections can be accepted").then_some(());
    assert!(wait_for(PATIENCE, is_said).is_some(), "{} descriptors: {}", proxy.descriptors(), tail(&proxy.log()));
    // Who is there is served, and it is no busy loop.
    let used = proxy.processor_ticks();
    for _ in 0..20 {
        assert_eq!(good.query("SELECT 1").value().as_deref(), Some("1"));
        thread::sleep(Duration::from_millis(50));
    }
    let used = proxy.processor_ticks() - used;
    assert!(used < 60, "{used} hundredths of a second");
    drop(crowd);
    let mut next = wait_for(PATIENCE, || proxy.login(&Login::default()).ok()).expect("clients are taken again");
    assert_eq!(next.query("").to_string(), "I / Z I");
}

#[test]
fn a_session_prepares_so_much_and_no_more() {
    let Some(world) = world() else { return };
    let mut configuration = limited(world, "session_statements = 3\nsession_statement_bytes = \"2kB\"");
    configuration.residency = "unbound = \"eu-west\"\n".to_owned();
    let proxy = start(&configuration);
    let mut client = proxy.connect();
    let mut prepare = |name: &str, text: &str| client.ask(&[m::parse(name, text), m::sync()].concat()).replies().to_string();
    for name in ["a", "b", "c"] {
        assert_eq!(prepare(name, "SELECT 1"), "1 / Z I");
    }
    let said = prepare("d", "SELECT 1");
    assert!(said.contains(" 54000 a session has at most 3 prepared statements"), "{said}");
    assert_eq!(client.ask(&[m::close_statement("a"), m::sync()].concat()).to_string(), "3 / Z I");
    let mut prepare = |name: &str, text: &str| client.ask(&[m::parse(name, text), m::sync()].concat()).to_string();
    let said = prepare("d", &format!("SELECT '{}'", "x".repeat(2100)));
    assert!(said.contains(" 54000 the prepared statements of a session have at most 2048 bytes"), "{said}");
    assert_eq!(prepare("d", "SELECT 2"), "1 / Z I");
    assert_eq!(metric(&proxy, "domicile_statements_refused_total"), 2);
}

#[test]
fn memory_has_a_bound_that_those_who_send_much_come_up_against() {
    let Some(world) = world() else { return };
    let proxy = start(&limited(world, "memory_limit = \"256MB\""));
    let mut good = proxy.connect();
    good.query("SET helios.region = 'eu-west'");
    let (statement, piece) = (200usize << 20, vec![b' '; 1 << 20]);
    let greedy: Vec<Client> = (0..20).map(|_| proxy.connect()).collect();
    // Each begins a statement of 200 MB, a megabyte at a time for as long as it is read.
    let ended = thread::scope(|scope| {
        let sending: Vec<_> = greedy
            .into_iter()
            .map(|mut client| {
                let piece = &piece;
                scope.spawn(move || {
                    let length = u32::try_from(statement + 5).expect("a length");
                    client.send(&[&b"Q"[..], &length.to_be_bytes()].concat());
                    client.set_patience(Duration::from_millis(500));
                    let sent = (0..200).take_while(|_| client.try_send(piece)).count();
                    (sent, client.until(|_| false).sqlstate())
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(1500));
        // Who sends little is served.
        assert_eq!(good.query("SELECT 1").value().as_deref(), Some("1"));
        let refused = wait_for(PATIENCE, || proxy.login(&ALICE).err()).expect("no new clients are taken");
        assert_eq!(refused.sqlstate(), "53200");
        sending.into_iter().map(|sending| sending.join().expect("a client")).collect::<Vec<_>>()
    });
    assert!(proxy.memory_peak_kib() < 700 << 10, "{} KiB", proxy.memory_peak_kib());
    assert!(ended.iter().all(|(sent, code)| *sent < 200 || code == "53200"), "{ended:?}");
    assert_eq!(metric(&proxy, "domicile_logins_refused_total{limit=\"memory_limit\"}").min(1), 1);
    let mut next = wait_for(PATIENCE, || proxy.login(&Login::default()).ok()).expect("clients are taken again");
    assert_eq!(next.query("").to_string(), "I / Z I");
    assert_eq!(good.query("SELECT 1").value().as_deref(), Some("1"));
}

#[test]
fn wrong_passwords_delay_the_next_try_of_their_user_and_nobody_else() {
    let Some(world) = world() else { return };
    let proxy = start(&limited(world, "failed_logins = 3\nfailed_login_delay = \"2s\""));
    let timed = |login: &Login<'_>| {
        let since = now();
        let said = proxy.login(login).err();
        (now().duration_since(since), said.map(|said| said.sqlstate()))
    };
    for name in ["alice", "nobody at all"] {
        let wrong = Login { user: name, password: "wrong", ..ALICE };
        let times: Vec<Duration> = (0..7)
            .map(|_| {
                let (time, said) = timed(&wrong);
                assert_eq!(said.as_deref(), Some("28P01"));
                time
            })
            .collect();
        // 250, 500 and 1000 ms after the first four.
        let delays = [250, 500, 1000].map(Duration::from_millis);
        assert!(times[4..].iter().zip(delays).all(|(time, delay)| *time >= delay), "{name}: {times:?}");
        // While guesses wait (the first of them for 2 s), others do not.
        thread::scope(|scope| {
            let guesses: Vec<_> = (0..20).map(|_| scope.spawn(|| timed(&wrong))).collect();
            let (time, said) = timed(&Login::default());
            assert!(said.is_none() && time < Duration::from_millis(1500), "{time:?}, {said:?}");
            let said: Vec<_> = guesses.into_iter().map(|guess| guess.join().expect("a guess")).collect();
            let refused = said.iter().filter(|(_, code)| code.as_deref() == Some("53300")).count();
            let waited = said.iter().filter(|(time, _)| *time >= Duration::from_secs(2)).count();
            assert!(refused >= 10 && waited >= 1 && refused + waited == 20, "{said:?}");
        });
    }
    assert!(metric(&proxy, "domicile_logins_delayed_total") >= 4);
    assert!(metric(&proxy, "domicile_logins_refused_total{limit=\"failed_logins\"}") >= 20);
    // The right password waits once, and then everything is forgotten.
    let waits = |(time, said): (Duration, Option<String>)| said.is_none() && time >= Duration::from_millis(1900);
    assert!(waits(timed(&ALICE)) && !waits(timed(&ALICE)));
}
