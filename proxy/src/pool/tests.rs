//! What a pool does with backends and with those who wait. Each test names the rule it holds to.

mod breakdowns;
mod operating;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::*;
use crate::region::RegionId;
use crate::target::TargetSessionAttrs;
use crate::wire::{TransactionStatus, tag::backend as tag};

struct Allowed(RegionId);

impl Proof for Allowed {
    fn region(&self) -> RegionId {
        self.0
    }
}

struct World {
    pools: Pools,
    now: Instant,
}

fn region(index: usize) -> RegionId {
    RegionId::new(index).unwrap()
}

fn settings(mode: PoolMode, size: u32, workers: usize) -> Settings {
    Settings {
        mode,
        size,
        per_region_max: None,
        wait_timeout: Duration::from_secs(120),
        reset_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(600),
        lifetime: Duration::from_secs(3600),
        prepared_statements: 200,
        reset_always: false,
        nodes: nodes(),
        workers,
    }
}

fn key(of: RegionId) -> PoolKey {
    PoolKey {
        region: of,
        database: "demo".into(),
        user: "app".into(),
        settings: Arc::new([]),
        target: TargetSessionAttrs::default(),
        replication: Default::default(),
    }
}

fn session(index: u32) -> SessionKey {
    SessionKey { index, generation: 0 }
}

/// The nodes of these tests: one object each, as one configuration has them.
fn nodes() -> Arc<[Arc<NodeIdentity>]> {
    static NODES: OnceLock<Arc<[Arc<NodeIdentity>]>> = OnceLock::new();
    let node = |index| Arc::new(NodeIdentity { name: format!("n{index}").into(), region: region(index) });
    NODES.get_or_init(|| [node(0), node(1)].into()).clone()
}

fn info(of: RegionId) -> BackendInfo {
    BackendInfo {
        node: nodes()[of.index()].clone(),
        route: Arc::default(),
        parameters: Arc::default(),
        process_id: 1,
        secret: (&b"key!"[..]).into(),
        tls: None,
    }
}

impl World {
    fn new(settings: Settings, quotas: &Arc<Quotas>, worker: usize) -> Self {
        #[expect(clippy::disallowed_methods, reason = "only differences of it are used")]
        let now = Instant::now();
        Self { pools: Pools::new(settings, quotas.clone(), worker), now }
    }

    fn alone(mode: PoolMode, size: u32) -> Self {
        Self::new(settings(mode, size, 1), &Arc::default(), 0)
    }

    fn enter(&mut self) -> PoolIndex {
        self.pools.enter(&key(region(0)))
    }

    fn checkout(&mut self, pool: PoolIndex, who: u32) -> Checkout {
        self.pools.checkout(Allowed(region(0)), pool, session(who), self.now).unwrap()
    }

    /// Opens what was ordered; the orders that are left, in words.
    fn orders(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let orders = self.pools.take_orders();
            if orders.is_empty() {
                return said;
            }
            for order in orders {
                match order {
                    Order::Open(ticket, request) => {
                        said.push("open".to_owned());
                        self.pools.opened(ticket, info(request.region), self.now);
                    }
                    Order::Close(key, farewell) => said.push(format!("close {} {farewell:?}", key.index)),
                    Order::Reset(key) => said.push(format!("reset {}", key.index)),
                    Order::Bind(session, key) => said.push(format!("bind {} to {}", session.index, key.index)),
                    Order::Fail(session, WaitFailure::TimedOut) => said.push(format!("{} waited too long", session.index)),
                    Order::Fail(session, WaitFailure::Open(_)) => said.push(format!("{} cannot be served", session.index)),
                    Order::Move(key, other, _) => said.push(format!("move {} to worker {other}", key.index)),
                    Order::QuotaChanged(other) => said.push(format!("tell worker {other}")),
                }
            }
        }
    }
}

fn backend(index: u32) -> BackendKey {
    BackendKey { index, generation: 0 }
}

fn reply(kind: Kind) -> Reply {
    Reply { session: Some(session(1)), kind, rule: Rule::Forward, noted: false }
}

#[test]
fn a_backend_that_is_not_at_rest_is_closed_and_never_lent_again() {
    let disturb: [fn(&mut Backend); 5] = [
        |backend| backend.status = TransactionStatus::InTransaction,
        |backend| backend.status = TransactionStatus::Failed,
        |backend| assert!(backend.owed.push(reply(Kind::Query))),
        |backend| backend.unsynced = true,
        |backend| {
            let mode = |_: u8, _: usize| Ok::<_, crate::wire::Malformed>(crate::wire::Mode::Gather);
            assert_eq!(backend.splitter.next(b"D\0\0", &mut 0, mode), Ok(None));
        },
    ];
    for disturb in disturb {
        let mut world = World::alone(PoolMode::Transaction, 1);
        let pool = world.enter();
        assert_eq!(world.checkout(pool, 1), Checkout::Waiting);
        assert_eq!(world.orders(), ["open", "bind 1 to 0"]);
        disturb(world.pools.get(backend(0)).unwrap());
        world.pools.release(backend(0), world.now);
        assert_eq!(world.orders(), ["close 0 Abrupt"]);
        assert!(world.pools.get(backend(0)).is_none());
    }
}

#[test]
fn a_backend_with_unsent_bytes_waits_until_they_have_left() {
    let mut world = World::alone(PoolMode::Transaction, 1);
    let pool = world.enter();
    world.checkout(pool, 1);
    world.orders();
    world.pools.get(backend(0)).unwrap().unflushed = true;
    world.pools.release(backend(0), world.now);
    assert_eq!(world.checkout(pool, 2), Checkout::Waiting);
    assert!(world.orders().is_empty());
    world.pools.flushed(backend(0), world.now);
    assert_eq!(world.orders(), ["bind 2 to 0"]);
}

#[test]
fn a_reset_must_be_answered_before_the_next_session() {
    for (failed, after) in [(false, vec!["bind 2 to 0"]), (true, vec!["open", "close 0 Abrupt", "bind 2 to 0"])] {
        let mut world = World::alone(PoolMode::Session, 1);
        let pool = world.enter();
        world.checkout(pool, 1);
        world.orders();
        world.pools.release(backend(0), world.now);
        assert_eq!(world.orders(), ["reset 0"]);
        assert_eq!(world.checkout(pool, 2), Checkout::Waiting);
        assert!(world.orders().is_empty());
        world.pools.get(backend(0)).unwrap().owed.pop();
        world.pools.reset_answered(backend(0), failed, world.now);
        assert_eq!(world.orders(), after);
    }
}

#[test]
fn a_server_that_does_not_answer_a_reset_is_closed() {
    let mut world = World::alone(PoolMode::Session, 1);
    let pool = world.enter();
    world.checkout(pool, 1);
    world.orders();
    world.pools.release(backend(0), world.now);
    assert_eq!(world.orders(), ["reset 0"]);
    world.pools.checkout(Allowed(region(0)), pool, session(2), world.now);
    world.now += Duration::from_secs(4);
    world.pools.tick(world.now);
    assert_eq!(world.orders(), [""; 0]);
    world.now += Duration::from_secs(1);
    world.pools.tick(world.now);
    assert_eq!(world.orders(), ["open", "close 0 Abrupt", "bind 2 to 0"]);
}

#[test]
fn what_a_session_left_behind_is_reset_in_transaction_mode_too() {
    let mut world = World::alone(PoolMode::Transaction, 1);
    let pool = world.enter();
    world.checkout(pool, 1);
    world.orders();
    world.pools.get(backend(0)).unwrap().dirty = true;
    world.pools.release(backend(0), world.now);
    assert_eq!(world.orders(), ["reset 0"]);
}

#[test]
fn waiting_is_in_order_of_arrival_and_bounded_in_number_of_backends_and_time() {
    let mut world = World::alone(PoolMode::Transaction, 2);
    let pool = world.enter();
    for who in 1..=5 {
        world.checkout(pool, who);
    }
    assert_eq!(world.orders(), ["open", "open", "bind 1 to 0", "bind 2 to 1"]);
    world.pools.release(backend(1), world.now);
    assert_eq!(world.orders(), ["bind 3 to 1"]);
    world.pools.stop_waiting(pool, session(4));
    world.pools.release(backend(0), world.now);
    assert_eq!(world.orders(), ["bind 5 to 0"]);
    world.checkout(pool, 6);
    world.now += Duration::from_secs(120);
    world.pools.tick(world.now);
    assert_eq!(world.orders(), ["6 waited too long"]);
}

#[test]
fn a_permit_of_another_region_lends_nothing() {
    let mut world = World::alone(PoolMode::Transaction, 2);
    let pool = world.enter();
    assert_eq!(world.pools.checkout(Allowed(region(1)), pool, session(1), world.now), None);
    assert!(world.orders().is_empty());
}

#[test]
fn a_backend_of_another_region_than_its_pools_is_not_admitted() {
    let mut world = World::alone(PoolMode::Transaction, 2);
    let pool = world.enter();
    world.checkout(pool, 1);
    let Some(Order::Open(ticket, _)) = world.pools.take_orders().pop() else { panic!("nothing to open") };
    assert_eq!(world.pools.opened(ticket, info(region(1)), world.now), None);
}

#[test]
fn idle_backends_and_old_ones_are_closed() {
    let mut world = World::alone(PoolMode::Transaction, 2);
    let pool = world.enter();
    world.checkout(pool, 1);
    world.orders();
    world.pools.release(backend(0), world.now);
    world.now += Duration::from_secs(599);
    world.pools.tick(world.now);
    assert!(world.orders().is_empty());
    world.now += Duration::from_secs(1);
    world.pools.tick(world.now);
    assert_eq!(world.orders(), ["close 0 Terminate"]);
    world.checkout(pool, 1);
    assert_eq!(world.orders(), ["open", "bind 1 to 0"]);
    world.now += Duration::from_secs(3600);
    world.pools.release(BackendKey { index: 0, generation: 1 }, world.now);
    assert_eq!(world.orders(), ["close 0 Terminate"]);
}

#[test]
fn backends_that_were_opened_by_a_way_that_is_left_are_closed_as_they_are_given_back() {
    let mut world = World::alone(PoolMode::Transaction, 2);
    let pool = world.enter();
    for who in [1, 2] {
        world.checkout(pool, who);
    }
    let mut routes = Vec::new();
    for order in world.pools.take_orders() {
        let Order::Open(ticket, _) = order else { panic!("nothing else is wanted") };
        let info = info(region(0));
        routes.push(info.route.clone());
        world.pools.opened(ticket, info, world.now);
    }
    assert_eq!(world.orders(), ["bind 1 to 0", "bind 2 to 1"]);
    world.pools.release(backend(0), world.now);
    routes[0].leave();
    routes[1].leave();
    assert!(world.orders().is_empty(), "the one in use stays");
    world.pools.tick(world.now);
    assert_eq!(world.orders(), ["close 0 Terminate"]);
    world.pools.release(backend(1), world.now);
    assert_eq!(world.orders(), ["close 1 Terminate"]);
}

#[test]
fn a_server_that_cannot_be_reached_fails_those_who_wait_unless_others_serve() {
    let refuse = |world: &mut World| {
        let Some(Order::Open(ticket, _)) = world.pools.take_orders().pop() else { panic!("nothing to open") };
        world.pools.open_failed(ticket, OpenError::Refused { node: "n".into() }, world.now);
    };
    let mut world = World::alone(PoolMode::Transaction, 2);
    let pool = world.enter();
    world.checkout(pool, 1);
    refuse(&mut world);
    assert_eq!(world.orders(), ["1 cannot be served"]);
    // Two at once: the second failure ends the wait, and whoever comes next asks at once.
    world.checkout(pool, 1);
    world.checkout(pool, 2);
    let Some(Order::Open(ticket, _)) = world.pools.take_orders().into_iter().next_back() else { panic!("nothing to open") };
    world.pools.open_failed(ticket, OpenError::Refused { node: "n".into() }, world.now);
    assert!(world.orders().is_empty());
    let first = OpenTicket(ticket.0 - 1);
    world.pools.open_failed(first, OpenError::Refused { node: "n".into() }, world.now);
    assert_eq!(world.orders(), ["1 cannot be served", "2 cannot be served"]);
    world.checkout(pool, 1);
    assert_eq!(world.orders(), ["open", "bind 1 to 0"]);
    world.checkout(pool, 2);
    refuse(&mut world);
    assert!(world.orders().is_empty(), "2 goes on waiting for the backend of 1");
    world.pools.release(backend(0), world.now);
    assert_eq!(world.orders(), ["bind 2 to 0"]);
    // But not for long: the backend may be on the server that is gone.
    world.checkout(pool, 3);
    assert!(world.orders().is_empty(), "it is too early for another try");
    world.now += Duration::from_secs(1);
    world.checkout(pool, 4);
    refuse(&mut world);
    assert_eq!(world.orders(), ["3 cannot be served"], "4 has only just come");
}

#[test]
fn a_worker_without_a_backend_gets_one_of_another_worker() {
    let quotas = Arc::new(Quotas::default());
    let mut first = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 0);
    let mut second = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 1);
    let (pool, other) = (first.enter(), second.enter());
    first.checkout(pool, 1);
    first.orders();
    assert_eq!(second.checkout(other, 7), Checkout::Waiting);
    assert_eq!(second.orders(), ["tell worker 0"], "the quota is used up");
    first.checkout(pool, 2);
    assert_eq!(first.orders(), ["tell worker 1"]);
    first.pools.release(backend(0), first.now);
    let orders = first.pools.take_orders();
    let [Order::Move(_, 1, _)] = &orders[..] else { panic!("not moved") };
    let Some(Order::Move(_, _, moved)) = orders.into_iter().next() else { unreachable!() };
    assert!(second.pools.arrived(*moved, second.now).is_some());
    assert_eq!(second.orders(), ["bind 7 to 0"]);
    second.pools.release(backend(0), second.now);
    assert_eq!(second.orders(), ["move 0 to worker 0"], "session 2 of the first worker still waits");
}

#[test]
fn an_idle_backend_goes_to_a_worker_whose_sessions_wait() {
    let quotas = Arc::new(Quotas::default());
    let mut first = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 0);
    let mut second = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 1);
    let (pool, other) = (first.enter(), second.enter());
    first.checkout(pool, 1);
    first.orders();
    first.pools.release(backend(0), first.now);
    assert!(first.orders().is_empty());
    second.checkout(other, 7);
    assert_eq!(second.orders(), ["tell worker 0"]);
    first.pools.quota_changed(first.now);
    assert_eq!(first.orders(), ["move 0 to worker 1"]);
}

#[test]
fn quota_that_is_given_back_wakes_the_hungry() {
    let quotas = Arc::new(Quotas::default());
    let mut first = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 0);
    let mut second = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 1);
    let (pool, other) = (first.enter(), second.enter());
    first.checkout(pool, 1);
    first.orders();
    second.checkout(other, 7);
    assert_eq!(second.orders(), ["tell worker 0"]);
    first.pools.close(backend(0), Farewell::Abrupt);
    assert_eq!(first.orders(), ["tell worker 1", "close 0 Abrupt"]);
    second.pools.quota_changed(second.now);
    assert_eq!(second.orders(), ["open", "bind 7 to 0"]);
    assert_eq!(quotas.open_by_region(), [(region(0), 1)]);
}

#[test]
fn a_region_may_have_a_bound_over_its_pools() {
    let mut world = World::new(Settings { per_region_max: Some(1), ..settings(PoolMode::Transaction, 5, 1) }, &Arc::default(), 0);
    let pool = world.enter();
    world.checkout(pool, 1);
    world.checkout(pool, 2);
    assert_eq!(world.orders(), ["open", "bind 1 to 0"]);
}

#[test]
fn an_idle_backend_of_another_pool_makes_room_in_a_full_region() {
    let settings = Settings { per_region_max: Some(2), ..settings(PoolMode::Transaction, 5, 2) };
    let quotas = Arc::default();
    let [mut here, mut there] = [0, 1].map(|worker| World::new(settings.clone(), &quotas, worker));
    let other = |user: &str| PoolKey { user: user.into(), ..key(region(0)) };
    let (first, second) = (here.enter(), here.pools.enter(&other("bob")));
    here.checkout(first, 1);
    here.checkout(first, 2);
    assert_eq!(here.orders(), ["open", "open", "bind 1 to 0", "bind 2 to 1"]);
    // One in use, one idle: the idle one goes.
    here.pools.release(backend(0), here.now);
    here.checkout(second, 3);
    assert_eq!(here.orders(), ["close 0 Terminate", "open", "bind 3 to 0"]);
    // None is idle: whoever comes next waits, also in the other worker, which says so.
    let third = there.pools.enter(&other("carol"));
    there.checkout(third, 4);
    assert_eq!(there.orders(), ["tell worker 0", "tell worker 0"], "it wants a backend of its pool, or a place in the region");
    here.pools.quota_changed(here.now);
    assert_eq!(here.orders(), Vec::<String>::new());
    // As soon as one is idle here, its place is given to the worker that has asked.
    here.pools.release(backend(1), here.now);
    here.pools.quota_changed(here.now);
    assert_eq!(here.orders(), ["close 1 Terminate", "tell worker 1"]);
    there.pools.quota_changed(there.now);
    assert_eq!(there.orders(), ["open", "bind 4 to 0"]);
}

#[test]
fn an_unused_pool_is_forgotten() {
    let mut world = World::alone(PoolMode::Transaction, 1);
    let pool = world.enter();
    world.checkout(pool, 1);
    world.orders();
    world.pools.release(backend(0), world.now);
    world.pools.leave(pool);
    assert_eq!(world.pools.totals(), (1, 0, 0, 0));
    world.pools.close(backend(0), Farewell::Terminate);
    assert_eq!(world.pools.totals(), (0, 0, 0, 0));
    let again = world.enter();
    assert_eq!(again, pool, "the slot is free for the next pool");
}

#[test]
fn replies_are_owed_in_order_and_errors_empty_the_queue_up_to_sync() {
    let mut owed = OwedReplies::default();
    for kind in [Kind::Parse, Kind::Bind, Kind::Execute, Kind::Sync, Kind::Parse] {
        assert!(owed.push(reply(kind)));
    }
    assert_eq!(owed.progress(tag::BIND_COMPLETE), Err(Unexpected(tag::BIND_COMPLETE)));
    assert_eq!(owed.progress(tag::READY_FOR_QUERY), Err(Unexpected(tag::READY_FOR_QUERY)));
    assert_eq!(owed.progress(tag::NOTICE_RESPONSE), Ok(Progress::Asynchronous));
    assert_eq!(owed.progress(tag::PARSE_COMPLETE), Ok(Progress::Ends));
    owed.pop();
    assert_eq!(owed.progress(tag::ERROR_RESPONSE), Ok(Progress::Fails));
    assert_eq!(owed.fail().len(), 2);
    assert!(!owed.is_skipping(), "the Sync has been sent already");
    assert_eq!(owed.progress(tag::READY_FOR_QUERY), Ok(Progress::Ends));
    owed.pop();
    assert_eq!(owed.progress(tag::ERROR_RESPONSE), Ok(Progress::Fails));
    assert_eq!(owed.fail().len(), 1);
    assert!(owed.is_skipping());
    assert!(!owed.push(reply(Kind::Bind)), "the server skips it");
    assert!(owed.push(reply(Kind::Sync)));
    assert!(!owed.is_skipping());
}

#[test]
fn syncs_inside_copy_data_owe_nothing() {
    let mut owed = OwedReplies::default();
    for kind in [Kind::Execute, Kind::Sync, Kind::CopyEnd, Kind::Sync] {
        assert!(owed.push(reply(kind)));
    }
    assert_eq!(owed.copy_in_begins(), [session(1)]);
    assert_eq!(owed.len(), 3);
    let mut owed = OwedReplies::default();
    owed.push(reply(Kind::Execute));
    assert!(owed.copy_in_begins().is_empty());
    assert!(!owed.push(reply(Kind::Sync)));
    assert!(owed.push(reply(Kind::CopyEnd)));
    assert!(owed.push(reply(Kind::Sync)));
}

#[test]
fn a_reload_closes_the_backends_of_a_node_that_is_not_in_its_region_any_more() {
    let lent = |world: &mut World| {
        let pool = world.enter();
        world.checkout(pool, 1);
        world.orders();
    };
    let node = |name: &str, of| Arc::new(NodeIdentity { name: name.into(), region: region(of) });
    // Moved to another region: closed while a session has it.
    let mut world = World::alone(PoolMode::Transaction, 1);
    lent(&mut world);
    let moved = Settings { nodes: [node("n0", 1)].into(), ..world.pools.settings().clone() };
    assert_eq!(world.pools.apply(moved), [(State::Bound(session(1)), false)]);
    assert_eq!(world.orders(), ["close 0 Abrupt"]);
    // The same node with another address: closed when it is given back.
    let mut world = World::alone(PoolMode::Transaction, 1);
    lent(&mut world);
    let changed = Settings { nodes: [node("n0", 0)].into(), ..world.pools.settings().clone() };
    assert_eq!(world.pools.apply(changed), []);
    assert!(world.orders().is_empty());
    world.pools.release(backend(0), world.now);
    assert_eq!(world.orders(), ["close 0 Terminate"]);
}

#[test]
fn a_backend_that_was_opened_under_another_configuration_is_not_admitted() {
    let mut world = World::alone(PoolMode::Transaction, 1);
    let pool = world.enter();
    world.checkout(pool, 1);
    let Some(Order::Open(ticket, _)) = world.pools.take_orders().pop() else { panic!("nothing to open") };
    world.pools.apply(Settings { nodes: Arc::new([]), ..world.pools.settings().clone() });
    assert_eq!(world.pools.opened(ticket, info(region(0)), world.now), None);
    assert_eq!(world.pools.totals().1, 0);
}
