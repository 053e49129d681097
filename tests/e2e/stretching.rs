//! Iteration counts that others name: who asks for much work waits for it, and nobody else does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::fake::{FakeServer, authentication, error};
use domicile_tests::message as m;
use domicile_tests::process::{Scratch, wait_for};
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::skip;

use crate::world::start;

const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds of work, all of it together, for a proxy that is built for tests.
const ITERATIONS: u32 = 100_000;
const AT_ONCE: usize = 4;

/// How many logins have ended by a wrong password. Whoever answers this is the thread that logins run on.
fn refused(proxy: &Proxy) -> usize {
    let (_, text) = proxy.http("/metrics").expect("metrics");
    let name = "domicile_logins_total{outcome=\"password\"} ";
    text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
}

#[test]
fn others_log_in_while_guesses_are_checked() {
    if skip::available(skip::io_uring()).is_none() {
        return;
    }
    let server = FakeServer::start(|with| {
        with.begin()?;
        with.admit()?;
        with.serve(|_, _, _| Ok(false))
    });
    let server = server.expect("a server");
    let directory = Scratch::new().expect("a directory");
    let rules = directory.path().join("hba.conf");
    std::fs::write(&rules, "host all slow all password\nhost all all all trust\n").expect("a file");
    let mut configuration = Configuration::new(&[("eu-west", "pg-eu-west", server.address())]);
    let key = "A".repeat(43) + "=";
    configuration.users = vec![("slow".to_owned(), format!("SCRAM-SHA-256${ITERATIONS}:c2FsdA==${key}:{key}"))];
    configuration.method = "";
    configuration.auth = format!("hba_file = {rules:?}\n");
    let proxy = start(&configuration);
    let guesses: Vec<Client> = (0..AT_ONCE)
        .map(|_| {
            let mut client = Client::connect(proxy.address()).expect("a connection");
            client.set_patience(PATIENCE);
            client.send(&m::startup(m::PROTOCOL_3_0, &[("user", "slow"), ("database", "demo")]));
            assert_eq!(client.until(|_| true).to_string(), "R 3");
            client
        })
        .collect();
    let guesses: Vec<Client> = guesses
        .into_iter()
        .map(|mut client| {
            client.send(&m::password(&m::string("wrong")));
            client
        })
        .collect();
    let mut other = proxy.login(&Login { parameters: &[("helios.region", "eu-west")], ..Login::default() }).expect("a login");
    assert_eq!(other.query("SELECT 1").replies().to_string(), "T answer / D good / C SELECT 1 / Z I");
    let checked = refused(&proxy);
    assert!(checked < AT_ONCE, "nobody was let in before all guesses were checked");
    for mut client in guesses {
        let said = client.until(|_| false).to_string();
        assert_eq!(said, "E FATAL 28P01 password authentication failed for user \"slow\" / closed");
    }
}

#[test]
fn a_server_that_asks_for_much_holds_up_its_own_region_only() {
    if skip::available(skip::io_uring()).is_none() {
        return;
    }
    let (asked, proofs) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counts = Arc::clone(&proofs);
    let slow = FakeServer::start(move |with| {
        with.begin()?;
        with.send(&authentication(10, b"SCRAM-SHA-256\0\0"))?;
        let (_, first) = with.message()?;
        let nonce = String::from_utf8_lossy(&first).split("r=").nth(1).unwrap_or_default().to_owned();
        // Another salt each time, so that no work is done twice.
        let salt = format!("{:04}", asked.fetch_add(1, Ordering::Relaxed));
        with.send(&authentication(11, format!("r={nonce}x,s={salt},i={ITERATIONS}").as_bytes()))?;
        with.message()?;
        counts.fetch_add(1, Ordering::Relaxed);
        with.send(&error(&["SFATAL", "VFATAL", "C28P01", "Mwrong"]))
    });
    let good = FakeServer::start(|with| {
        with.begin()?;
        with.admit()?;
        with.serve(|_, _, _| Ok(false))
    });
    let (slow, good) = (slow.expect("a server"), good.expect("a server"));
    let nodes = [("eu-west", "pg-slow", slow.address()), ("us-east", "pg-us-east", good.address())];
    let mut configuration = Configuration::new(&nodes);
    configuration.method = "trust";
    configuration.pools = "size = 10\nconnect_timeout = 60\n".to_owned();
    let proxy = start(&configuration);
    let login = |region| proxy.login(&Login { parameters: &[("helios.region", region)], ..Login::default() }).expect("a login");
    let mut waiting: Vec<Client> = (0..AT_ONCE).map(|_| login("eu-west")).collect();
    waiting.iter_mut().for_each(|client| client.send(&m::query("SELECT 1")));
    assert!(wait_for(PATIENCE, || (slow.open() as usize == AT_ONCE).then_some(())).is_some(), "{}", slow.open());
    assert_eq!(login("us-east").query("SELECT 1").replies().to_string(), "T answer / D good / C SELECT 1 / Z I");
    let done = proofs.load(Ordering::Relaxed);
    assert!(done < AT_ONCE, "nobody was served before all proofs were made");
    // Each of them is made in the end.
    let all = wait_for(PATIENCE, || (proofs.load(Ordering::Relaxed) >= AT_ONCE).then_some(()));
    assert!(all.is_some(), "{}", proxy.log());
}
