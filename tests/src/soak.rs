//! Mixed load on a proxy between two regions, in which clients and servers are lost at random; and what must hold meanwhile and
//! afterwards.
//!
//! No client ever sees a row of another or of another region, the proxy counts its connections to servers as the servers do,
//! and once everybody has gone it holds what it held before.

mod load;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::demo::{self, HOMES};
use crate::process::{now, wait_for};
use crate::proxy::{Configuration, Proxy};
use load::{Chance, Visitor};

/// How long and how hard.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of the load; starting and settling come on top.
    pub duration: Duration,
    /// Clients at a time.
    pub clients: u64,
    /// How often a random backend is terminated.
    pub terminate_every: Duration,
    /// How often one of the servers is stopped as by a crash, and started again.
    pub crash_every: Duration,
}

/// What has been seen.
#[derive(Default)]
struct Tally {
    done: AtomicBool,
    answers: AtomicU64,
    cut: AtomicU64,
    terminated: AtomicU64,
    crashes: AtomicU64,
    /// Errors that a lost server explains, by SQLSTATE; `closed` for a connection that ended without a word.
    errors: Mutex<BTreeMap<String, u64>>,
    faults: Mutex<Vec<String>>,
}

impl Tally {
    fn error(&self, code: &str) {
        *self.errors.lock().unwrap_or_else(PoisonError::into_inner).entry(code.to_owned()).or_default() += 1;
    }

    fn fault(&self, text: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < FAULTS_MAX {
            faults.push(text);
        }
    }

    fn line(&self) -> String {
        let [answers, cut, terminated, crashes] =
            [&self.answers, &self.cut, &self.terminated, &self.crashes].map(|count| count.load(Ordering::Relaxed));
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{answers} answers, {cut} clients cut, {terminated} backends terminated, {crashes} crashes, errors {errors:?}")
    }
}

/// More than these say nothing new.
const FAULTS_MAX: usize = 20;
/// What memory may grow by, in KiB, between a third of the time and the end.
const GROWTH_KIB: u64 = 4 << 10;
/// How long until all is at rest once everybody has gone.
const SETTLE: Duration = Duration::from_secs(20);

/// Runs the load and returns what was seen, or every rule that did not hold. `say` is told how far it is every ten seconds.
pub fn run(plan: &Plan, say: &(dyn Fn(&str) + Sync)) -> Result<String, String> {
    let [mut eu, us] = start_servers()?;
    let nodes = [(HOMES[0].region, HOMES[0].node, eu.address()), (HOMES[1].region, HOMES[1].node, us.address())];
    let mut configuration = Configuration::new(&nodes);
    configuration.top = "pin_notice = false\n".to_owned();
    // Memory of the receive buffers is resident only once bytes have come into it; few are all used soon.
    configuration.more = "[engine]\nreceive_buffers = 64\n".to_owned();
    configuration.pools = "size = 6\nwait_timeout = \"30s\"\n".to_owned();
    let proxy = Proxy::start(&configuration)?;
    // The least of a second: the first probes of the nodes come and go.
    let samples = (0..20).map(|_| {
        thread::sleep(Duration::from_millis(50));
        proxy.descriptors()
    });
    let descriptors = samples.min().unwrap_or(0);
    let tally = Tally::default();
    let mut before = Vec::new();
    thread::scope(|scope| {
        let tally = &tally;
        for number in 0..plan.clients {
            let address = proxy.address();
            scope.spawn(move || Visitor::new(address, number, tally).stay());
        }
        // It may take a server down and up again, so it alone holds one of them for writing.
        let us = us.address();
        let eu = &mut eu;
        scope.spawn(move || disturb(plan, eu, us, tally));
        before = watch(plan, &proxy, tally, say);
        tally.done.store(true, Ordering::Relaxed);
    });
    let settled = settle(&proxy, [&eu, &us], descriptors);
    let mut faults = tally.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let summary = match settled {
        Ok(summary) => summary,
        Err(fault) => {
            faults.push(fault);
            String::new()
        }
    };
    let (third, last) = (before.get(before.len() / 3).copied().unwrap_or(0), proxy.memory_kib());
    if last.saturating_sub(third) > GROWTH_KIB {
        faults.push(format!("memory grew from {third} to {last} KiB: {before:?}"));
    }
    let report = format!("{}\n{summary}, memory {third} KiB after a third and {last} KiB at the end", tally.line());
    if faults.is_empty() { Ok(report) } else { Err(format!("{report}\n{}", faults.join("\n"))) }
}

fn start_servers() -> Result<[Cluster; 2], String> {
    let start = |home| {
        let cluster = demo::start(home, None, 60)?;
        // Minutes of load would fill the disk with statements. A role's settings go before those of the command line.
        for setting in ["log_statement = 'none'", "log_min_duration_statement = -1"] {
            cluster.execute("postgres", &format!("ALTER ROLE postgres SET {setting}"))?;
        }
        Ok::<_, String>(cluster)
    };
    Ok([start(&HOMES[0])?, start(&HOMES[1])?])
}

/// Samples the proxy's memory until the time is over.
fn watch(plan: &Plan, proxy: &Proxy, tally: &Tally, say: &dyn Fn(&str)) -> Vec<u64> {
    let start = now();
    let mut memory = Vec::new();
    let mut told = start;
    while now() - start < plan.duration {
        thread::sleep(Duration::from_secs(1));
        memory.push(proxy.memory_kib());
        if now() - told >= Duration::from_secs(10) {
            told = now();
            let (seconds, memory, descriptors) = ((told - start).as_secs(), proxy.memory_kib(), proxy.descriptors());
            say(&format!("{seconds:>4} s  {}, {memory} KiB resident, {descriptors} descriptors", tally.line()));
        }
    }
    memory
}

/// Terminates backends and stops a server now and then.
fn disturb(plan: &Plan, eu: &mut Cluster, us: std::net::SocketAddr, tally: &Tally) {
    let mut chance = Chance::new(99);
    let mut crashed = now();
    while !tally.done.load(Ordering::Relaxed) {
        thread::sleep(plan.terminate_every);
        if now() - crashed > plan.crash_every {
            eu.crash();
            thread::sleep(Duration::from_millis(500));
            if let Err(error) = eu.start_again() {
                return tally.fault(error);
            }
            crashed = now();
            tally.crashes.fetch_add(1, Ordering::Relaxed);
        }
        let address = if chance.below(2) == 0 { eu.address() } else { us };
        let victim = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'demo' AND pid <> pg_backend_pid()
            ORDER BY random() LIMIT 1";
        if let Ok(mut client) = crate::client::Client::login(address, &crate::client::Login::default()) {
            tally.terminated.fetch_add(u64::from(client.query(victim).value().as_deref() == Some("t")), Ordering::Relaxed);
        }
    }
}

/// Waits until the proxy and the servers agree on how many connections there are between them, all of them idle.
fn settle(proxy: &Proxy, servers: [&Cluster; 2], descriptors: usize) -> Result<String, String> {
    let mut seen = String::new();
    let settled = wait_for(SETTLE, || {
        let metrics = proxy.http("/metrics").map(|(_, text)| text).unwrap_or_default();
        let sum = |name: &str| {
            let lines = metrics.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum::<u64>()
        };
        let (opened, closed) = (sum("domicile_backends_opened_total"), sum("domicile_backends_closed_total"));
        let (all, idle) = (sum("domicile_backends{"), sum("domicile_backends{state=\"idle\""));
        let sessions = sum("domicile_sessions ") + sum("domicile_sessions_waiting ");
        let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let on_servers: u64 = servers.iter().filter_map(|server| server.value("demo", count).parse::<u64>().ok()).sum();
        // The socket of each backend, and no more.
        let more = proxy.descriptors().saturating_sub(descriptors) as u64;
        seen = format!(
            "{opened} backends opened, {closed} closed, {idle} idle of {all}, {on_servers} on the servers, \
             {more} descriptors more than at the start, {sessions} sessions"
        );
        (opened.checked_sub(closed) == Some(idle) && [all, on_servers, more] == [idle; 3] && sessions == 0).then_some(())
    });
    if settled.is_some() { Ok(seen) } else { Err(format!("the arithmetic of pools: {seen}")) }
}
