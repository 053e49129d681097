//! How many clients there may be, of whom, and how often somebody may be wrong.

use std::thread;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::message as m;
use domicile_tests::process::{now, wait_for};
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::transcript::Transcript;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::world::{World, start, world};

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
fn a_login_has_its_deadline_from_the_first_moment_whatever_it_sends() {
    let Some(world) = world() else { return };
    let proxy = start(&limited(world, "login_timeout = \"1s\"\nmax_logins = 20"));
    let mut silent: Vec<Client> = (0..20).map(|_| Client::connect(proxy.address()).expect("a connection")).collect();
    let refused = wait_for(PATIENCE, || {
        let said = refusal(&proxy, &ALICE);
        (said.sqlstate() == "53300").then_some(said)
    });
    let refused = refused.expect("20 logins are under way");
    assert!(hint(&refused).contains("limits.max_logins"), "{refused}");
    assert_eq!(silent[0].until(|_| false).to_string(), "closed");
    let mut slow = wait_for(PATIENCE, || Client::connect(proxy.address()).ok()).expect("a connection");
    let since = now();
    let startup = m::startup(m::PROTOCOL_3_0, &[("user", "alice"), ("database", "demo"), ("application_name", &"x".repeat(500))]);
    slow.set_patience(Duration::from_millis(20));
    for byte in startup.iter().take(100) {
        slow.send(&[*byte]);
        thread::sleep(Duration::from_millis(30));
        if now().duration_since(since) > Duration::from_millis(1500) {
            break;
        }
    }
    slow.set_patience(Duration::from_secs(1));
    assert_eq!(slow.until(|_| false).to_string(), "closed");
    assert!(now().duration_since(since) < Duration::from_millis(3000));
    assert_eq!(proxy.connect().query("").to_string(), "I / Z I");
}

#[test]
fn without_descriptors_clients_wait_and_are_served_when_there_are_some_again() {
    let Some(world) = world() else { return };
    let proxy = start(&limited(world, ""));
    let mut good = proxy.connect();
    good.query("SET helios.region = 'eu-west'");
    assert_eq!(good.query("SELECT 1").value().as_deref(), Some("1"));
    let few = u64::try_from(proxy.descriptors()).expect("a number") + 20;
    let process = Pid::from_raw(i32::try_from(proxy.id()).expect("a number"));
    let before = prlimit(process, Resource::Nofile, Rlimit { current: Some(few), maximum: None }).expect("the limit is lowered");
    let crowd: Vec<Client> = (0..100).map(|_| Client::connect(proxy.address()).expect("room in the kernel's queue")).collect();
    wait_for(PATIENCE, || proxy.log().contains("no connections can be accepted").then_some(())).expect("it is said");
    // Who is there is served, and it is no busy loop.
    let used = proxy.processor_ticks();
    for _ in 0..20 {
        assert_eq!(good.query("SELECT 1").value().as_deref(), Some("1"));
        thread::sleep(Duration::from_millis(50));
    }
    let used = proxy.processor_ticks() - used;
    assert!(used < 50, "{used} hundredths of a second");
    drop(crowd);
    let mut next = wait_for(PATIENCE, || proxy.login(&Login::default()).ok()).expect("clients are taken again");
    assert_eq!(next.query("").to_string(), "I / Z I");
    // The limit of the process can be raised again too.
    prlimit(process, Resource::Nofile, before).expect("the limit is raised");
    assert_eq!(good.query("SELECT 1").value().as_deref(), Some("1"));
}

#[test]
fn a_session_prepares_so_much_and_no_more() {
    let Some(world) = world() else { return };
    let mut configuration = limited(world, "session_statements = 3\nsession_statement_bytes = \"2kB\"");
    configuration.residency = "unbound = \"eu-west\"\n".to_owned();
    let proxy = start(&configuration);
    let mut client = proxy.connect();
    let mut prepare = |name: &str, text: &str| client.ask(&[m::parse(name, text), m::sync()].concat()).to_string();
    for name in ["a", "b", "c"] {
        assert_eq!(prepare(name, "SELECT 1"), "1 / Z I");
    }
    let said = prepare("d", "SELECT 1");
    assert!(said.starts_with("E ERROR 54000 a session has at most 3 prepared statements"), "{said}");
    assert_eq!(client.ask(&[m::close_statement("a"), m::sync()].concat()).to_string(), "3 / Z I");
    let mut prepare = |name: &str, text: &str| client.ask(&[m::parse(name, text), m::sync()].concat()).to_string();
    let said = prepare("d", &format!("SELECT '{}'", "x".repeat(2000)));
    assert!(said.starts_with("E ERROR 54000 the prepared statements of a session have at most 2048 bytes"), "{said}");
    assert_eq!(prepare("d", "SELECT 2"), "1 / Z I");
    assert_eq!(metric(&proxy, "domicile_statements_refused_total"), 2);
}

#[test]
fn wrong_passwords_delay_the_next_try_of_their_user_and_nobody_else() {
    let Some(world) = world() else { return };
    let proxy = start(&limited(world, "failed_logins = 3\nfailed_login_delay = \"600ms\""));
    for name in ["alice", "nobody at all"] {
        let wrong = Login { user: name, password: "wrong", ..ALICE };
        let timed = |login: &Login<'_>| {
            let since = now();
            let said = proxy.login(login).err();
            (now().duration_since(since).as_millis(), said.map(|said| said.sqlstate()))
        };
        let times: Vec<u128> = (0..6)
            .map(|_| timed(&wrong))
            .map(|(time, said)| {
                assert_eq!(said.as_deref(), Some("28P01"));
                time
            })
            .collect();
        assert!(times[..4].iter().all(|time| *time < 240), "{name}: {times:?}");
        assert!(times[4] >= 240 && times[5] >= 490 && times[5] < 1500, "{name}: {times:?}");
        // While guesses wait, others do not.
        thread::scope(|scope| {
            let guesses: Vec<_> = (0..20).map(|_| scope.spawn(|| timed(&wrong))).collect();
            thread::sleep(Duration::from_millis(100));
            let (time, said) = timed(&Login::default());
            assert!(said.is_none() && time < 240, "{time} ms, {said:?}");
            let said: Vec<_> = guesses.into_iter().filter_map(|guess| guess.join().expect("a guess").1).collect();
            assert!(said.iter().filter(|code| *code == "53300").count() >= 10, "{said:?}");
        });
    }
    assert!(metric(&proxy, "domicile_logins_delayed_total") >= 4);
    assert!(metric(&proxy, "domicile_logins_refused_total{limit=\"failed_logins\"}") >= 20);
    // The right password waits once, and then everything is forgotten.
    assert!(proxy.login(&ALICE).is_ok());
    let since = now();
    assert!(proxy.login(&ALICE).is_ok() && now().duration_since(since) < Duration::from_millis(240));
}
