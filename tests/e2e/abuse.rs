//! The abuse suite: everything a hostile client or a hostile server can send, and who notices.
//!
//! A case is a name, bytes or a short script, and what comes of it in PostgreSQL's words: SQLSTATE, and whether the connection is
//! closed or alive. The same case is played against PostgreSQL itself, and through the proxy in both pool modes; where the proxy
//! has to differ, the case says why. After each, a session that has nothing to do with it must be served.
//!
//! What poolers, PostgreSQL and drivers got wrong before is a case with the number of its CVE in its name, here or where it fits
//! better (`grep -ri cve tests`). No case here, because there is nothing that could go wrong in the same way:
//!
//! * CVE-2021-3672 (c-ares, in PgBouncer): host names of nodes come from the configuration, and the system's resolver reads DNS.
//! * CVE-2023-22332 (Pgpool-II, a password in its log): a test of its own looks for every secret in all that is written (`secrets.rs`).
//! * CVE-2018-1058, CVE-2024-10978 and others inside of a server: what it does with a statement is its own affair.
//! * A result cache that one user fills and another one reads (CVE-2024-45624): there is none; for what is remembered of prepared
//!   statements see `prepared.rs`.

mod authentication;
mod cancel;
mod case;
mod copy;
mod extended;
mod message;
mod peer;
mod pipeline;
mod server;
mod startup;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use domicile_tests::process::wait_for;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::tls::{Authority, encrypted};
use domicile_tests::wire::{Connect, tcp};

use self::case::Case;
use self::peer::Target;
use crate::world::{World, start, tail, world};

/// Cases that are played at once.
const PLAYERS: usize = 6;

/// All users are served by the European server without having to say so.
fn european(world: &World, pool_mode: &'static str) -> Configuration {
    Configuration { pool_mode, pools: "size = 40\n".to_owned(), ..world.residency("unbound = \"eu-west\"") }
}

/// Plays every case, some at a time, and gives what was wrong with them.
fn play_all<Case: Sync>(cases: &[Case], play: impl Fn(&Case) -> Option<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..PLAYERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(fault) = play(case) {
                        wrong.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
                    }
                }
            });
        }
    });
    wrong.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a session that has nothing to do with it is served: what is wrong, if it is not.
fn good_session(proxy: &Proxy) -> Option<String> {
    match proxy.login(&domicile_tests::client::Login::default()) {
        Ok(mut client) => {
            let said = client.query("SELECT 'good'").replies().to_string();
            (said != "T ?column? / D good / C SELECT 1 / Z I").then(|| format!("a good session was answered {said}"))
        }
        Err(said) => Some(format!("a good session was refused: {said}")),
    }
}

/// Plays the cases through a proxy: after each a good session is served, and in the end nothing of them is left.
fn play_through(proxy: &mut Proxy, connect: &Connect, cases: &[Case]) {
    let address = proxy.address();
    assert_eq!(good_session(proxy), None);
    let descriptors = proxy.descriptors();
    let wrong = {
        let proxy = &*proxy;
        play_all(cases, |case| {
            let fault = case.through_proxy(Target { address, connect });
            let other = good_session(proxy).map(|fault| format!("after {}: {fault}", case.name));
            fault.or(other)
        })
    };
    let ended = proxy.wait(Duration::ZERO);
    assert!(wrong.is_empty() && ended.is_none(), "{}\n{ended:?}\n{}", wrong.join("\n"), tail(&proxy.log()));
    assert!(!proxy.log().contains("panic"), "{}", tail(&proxy.log()));
    // What is open now belongs to pools.
    let bound = descriptors + 120;
    let closed = wait_for(Duration::from_secs(10), || (proxy.descriptors() <= bound).then_some(()));
    assert!(closed.is_some(), "{} descriptors, {descriptors} before", proxy.descriptors());
    let memory = proxy.memory_kib();
    assert!(memory < 400 << 10, "{memory} KiB of resident memory");
}

/// Every case there is; no two of one name.
fn cases() -> Vec<Case> {
    let groups = [
        startup::cases(),
        authentication::cases(),
        cancel::cases(),
        message::cases(),
        extended::cases(),
        copy::cases(),
        pipeline::cases(),
    ];
    let cases: Vec<Case> = groups.into_iter().flatten().collect();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert!(names.len() == cases.len() && names.len() >= 150, "{} names of {} cases", names.len(), cases.len());
    cases
}

#[test]
fn postgresql_answers_hostile_clients_as_the_cases_say() {
    let Some(world) = world() else { return };
    let target = Target { address: world.eu.address(), connect: &tcp };
    let wrong = play_all(&cases(), |case| case.against_postgresql(target));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hostile_clients_in_session_mode_harm_nobody() {
    let Some(world) = world() else { return };
    play_through(&mut start(&european(world, "session")), &tcp, &cases());
}

#[test]
fn hostile_clients_in_transaction_mode_harm_nobody() {
    let Some(world) = world() else { return };
    play_through(&mut start(&european(world, "transaction")), &tcp, &cases());
}

/// But for those that are about how encryption begins.
#[test]
fn hostile_clients_that_encrypt_harm_nobody() {
    let Some(world) = world() else { return };
    let authority = Authority::new();
    let files = authority.issue("proxy", &[], &["localhost"]);
    let tls = format!(
        "[tls]\nmode = \"allow\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
        files.certificate.display(),
        files.key.display()
    );
    let mut proxy = start(&Configuration { more: tls, ..european(world, "transaction") });
    let cases: Vec<Case> = cases().into_iter().filter(|case| !case.begins_unencrypted).collect();
    play_through(&mut proxy, &encrypted(authority.trust(&[])), &cases);
}
