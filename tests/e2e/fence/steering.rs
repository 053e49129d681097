//! Which worker a client gets.

use std::thread;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::gate::Gate;
use domicile_tests::process::wait_for;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::skip::available;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::fenced;

/// Clients of each worker, as the kernel's map has them.
fn loads(gate: &Gate) -> [i64; 2] {
    let workers = gate.dump("workers").unwrap_or_else(|error| panic!("{error}"));
    [0, 1].map(|worker| workers[worker]["value"]["sessions"].as_i64().unwrap_or(-1))
}

fn is_even([one, two]: [i64; 2]) -> bool {
    (one - two).abs() * 10 <= one.max(two)
}

#[test]
fn a_thousand_clients_are_spread_evenly_also_after_half_of_them_have_left() {
    const CLIENTS: usize = 1000;
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let configuration = gate.around(&Configuration { method: "trust", ..fenced.configuration() }, "required");
    let proxy = fenced.network.edge.inside(|| Proxy::start(&configuration)).unwrap();
    let connect = |count: usize| -> Vec<Client> {
        fenced.network.edge.inside(|| (0..count).map(|_| proxy.login(&Login::default()).unwrap()).collect())
    };
    let settled = |clients: usize| {
        let all_counted = || {
            let loads = loads(&gate);
            (usize::try_from(loads.iter().sum::<i64>()) == Ok(clients)).then_some(loads)
        };
        wait_for(Duration::from_secs(10), all_counted).unwrap_or_else(|| panic!("{clients} clients, and {:?}", loads(&gate)))
    };
    let mut clients = connect(CLIENTS);
    let first = settled(CLIENTS);
    assert!(is_even(first), "{first:?}");
    // Those of one worker leave first: the kernel has to make up for it.
    clients.truncate(CLIENTS / 2);
    settled(CLIENTS / 2);
    clients.extend(connect(CLIENTS / 2));
    let second = settled(CLIENTS);
    assert!(is_even(second), "{second:?}");
}

#[test]
fn a_client_goes_to_the_worker_of_the_cpu_that_it_came_in_on() {
    const CLIENTS: usize = 20;
    let Some(fenced) = fenced() else { return };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let Some(()) = available(if cores > 1 { Ok(()) } else { Err("two processors".to_owned()) }) else { return };
    let gate = Gate::new().unwrap();
    let mut configuration = gate.around(&Configuration { method: "trust", ..fenced.configuration() }, "required");
    configuration.more += "steering = \"cpu\"\n";
    let proxy = fenced.network.edge.inside(|| Proxy::start(&configuration)).unwrap();
    // On loopback a packet comes in on the CPU that has sent it.
    let from = |cpu: usize| -> Vec<Client> {
        let connect = || {
            let mut only = CpuSet::new();
            only.set(cpu);
            sched_setaffinity(None, &only).unwrap();
            fenced.network.edge.inside(|| (0..CLIENTS).map(|_| proxy.login(&Login::default()).unwrap()).collect())
        };
        thread::scope(|scope| scope.spawn(connect).join().unwrap())
    };
    let _first = from(0);
    let counted = |expected: [i64; 2]| wait_for(Duration::from_secs(10), || (loads(&gate) == expected).then_some(()));
    assert!(counted([20, 0]).is_some(), "{:?}", loads(&gate));
    let _second = from(1);
    assert!(counted([20, 20]).is_some(), "{:?}", loads(&gate));
}

#[test]
fn one_worker_needs_no_steering() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let configuration = gate.around(&Configuration { workers: 1, ..fenced.configuration() }, "required");
    let proxy = fenced.network.edge.inside(|| Proxy::start(&configuration)).unwrap();
    let mut client = fenced.connect(&proxy);
    client.query("SET helios.region = 'us-east'");
    assert_eq!(client.query("SHOW cluster_name").value().as_deref(), Some("pg-us-east"));
    assert_eq!(loads(&gate), [1, 0]);
}
