//! What an operator asks of pools: I18 (a backend is lent only when nothing is paused, and waiters keep their order), recalls, sums.

use super::*;

const DEMO: &str = "demo";

fn demo() -> Scope {
    Scope::Database(DEMO.into())
}

#[test]
fn a_paused_pool_lends_and_opens_nothing_and_its_waiters_keep_their_order() {
    for scope in [Scope::All, demo()] {
        let mut world = World::alone(PoolMode::Transaction, 2);
        let pool = world.enter();
        world.checkout(pool, 1);
        assert_eq!(world.orders(), ["open", "bind 1 to 0"]);
        world.pools.pause(&scope);
        assert!(world.pools.is_paused(pool));
        for who in [2, 3, 4] {
            assert_eq!(world.checkout(pool, who), Checkout::Waiting);
        }
        assert!(world.orders().is_empty(), "nothing is opened");
        world.pools.release(backend(0), world.now);
        assert_eq!(world.orders(), ["close 0 Terminate"], "nothing is lent");
        world.pools.tick(world.now);
        world.pools.quota_changed(world.now);
        assert!(world.orders().is_empty());
        assert_eq!(world.pools.quotas.open_in(&demo()), 0);
        world.pools.resume(&scope, world.now);
        assert_eq!(world.orders(), ["open", "open", "bind 2 to 0", "bind 3 to 1"]);
        world.pools.release(backend_of(0, 1), world.now);
        assert_eq!(world.orders(), ["bind 4 to 0"]);
    }
}

fn backend_of(index: u32, generation: u32) -> BackendKey {
    BackendKey { index, generation }
}

#[test]
fn a_pause_is_of_everything_or_of_one_database_and_each_ends_by_itself() {
    let mut world = World::alone(PoolMode::Transaction, 1);
    let pool = world.enter();
    world.pools.pause(&Scope::Database("other".into()));
    assert!(!world.pools.is_paused(pool));
    world.pools.pause(&Scope::All);
    world.pools.pause(&demo());
    world.pools.resume(&Scope::All, world.now);
    assert!(world.pools.is_paused(pool));
    world.pools.resume(&demo(), world.now);
    assert!(!world.pools.is_paused(pool));
    // A pool that is made during a pause is paused too.
    world.pools.leave(pool);
    world.pools.pause(&demo());
    let pool = world.enter();
    assert!(world.pools.is_paused(pool));
}

#[test]
fn a_pause_closes_idle_backends_and_those_that_are_being_opened() {
    let mut world = World::alone(PoolMode::Transaction, 2);
    let pool = world.enter();
    world.checkout(pool, 1);
    world.orders();
    world.pools.release(backend(0), world.now);
    world.pools.pause(&demo());
    assert_eq!(world.orders(), ["close 0 Terminate"]);
    world.pools.resume(&demo(), world.now);
    world.checkout(pool, 1);
    let Some(Order::Open(ticket, _)) = world.pools.take_orders().pop() else { panic!("nothing to open") };
    world.pools.pause(&demo());
    assert_eq!(world.pools.opened(ticket, info(region(0)), world.now), None);
    assert_eq!(world.pools.quotas.open_in(&Scope::All), 0);
    world.pools.resume(&demo(), world.now);
    assert_eq!(world.orders(), ["open", "bind 1 to 0"]);
}

#[test]
fn waiting_ends_at_its_deadline_during_a_pause_too() {
    let mut world = World::alone(PoolMode::Transaction, 1);
    let pool = world.enter();
    world.pools.pause(&Scope::All);
    world.checkout(pool, 1);
    world.pools.tick(world.now + Duration::from_secs(120));
    assert_eq!(world.orders(), ["1 waited too long"]);
}

#[test]
fn a_worker_whose_sessions_wait_for_the_end_of_a_pause_asks_no_other_for_backends() {
    let quotas = Arc::default();
    let mut one = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 0);
    let mut other = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 1);
    let (pool, pool_of_other) = (one.enter(), other.enter());
    one.checkout(pool, 1);
    one.orders();
    other.checkout(pool_of_other, 2);
    assert_eq!(other.orders(), ["tell worker 0"]);
    one.pools.pause(&demo());
    other.pools.pause(&demo());
    one.pools.release(backend(0), one.now);
    assert_eq!(one.orders(), ["close 0 Terminate"], "it does not travel");
    one.pools.resume(&demo(), one.now);
    other.pools.resume(&demo(), other.now);
    assert_eq!(other.orders(), ["open", "bind 2 to 0"]);
}

#[test]
fn a_recalled_backend_is_closed_when_it_is_given_back_and_another_one_opened() {
    let mut world = World::alone(PoolMode::Transaction, 2);
    let pool = world.enter();
    world.checkout(pool, 1);
    world.checkout(pool, 2);
    world.orders();
    world.pools.release(backend(1), world.now);
    world.checkout(pool, 3);
    world.pools.release(backend(1), world.now);
    world.pools.recall(&demo(), world.now);
    assert_eq!(world.orders(), ["close 1 Terminate"], "the idle one");
    let lent = world.pools.report_backends();
    assert_eq!(lent.iter().map(|backend| backend.close_needed).collect::<Vec<_>>(), [true]);
    assert!(!world.pools.get(backend(0)).unwrap().is_retired(), "its session keeps it");
    world.pools.release(backend(0), world.now);
    assert_eq!(world.orders(), ["close 0 Terminate"]);
    world.checkout(pool, 4);
    assert_eq!(world.orders(), ["open", "bind 4 to 0"]);
}

#[test]
fn a_recall_reaches_what_is_being_opened_and_what_is_between_two_workers() {
    let mut world = World::alone(PoolMode::Transaction, 1);
    let pool = world.enter();
    world.checkout(pool, 1);
    let Some(Order::Open(ticket, _)) = world.pools.take_orders().pop() else { panic!("nothing to open") };
    world.pools.recall(&Scope::All, world.now);
    assert_eq!(world.pools.opened(ticket, info(region(0)), world.now), None);
    assert_eq!(world.orders(), ["open", "bind 1 to 0"], "in its place");

    let quotas = Arc::default();
    let mut one = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 0);
    let mut other = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 1);
    let (pool, pool_of_other) = (one.enter(), other.enter());
    one.checkout(pool, 1);
    one.orders();
    other.checkout(pool_of_other, 2);
    other.pools.take_orders();
    one.pools.release(backend(0), one.now);
    let Some(Order::Move(_, 1, moved)) = one.pools.take_orders().pop() else { panic!("it does not travel") };
    one.pools.recall(&demo(), one.now);
    other.pools.recall(&demo(), one.now);
    assert_eq!(other.pools.arrived(*moved, one.now), None);
    other.pools.tick(one.now);
    assert_eq!(other.orders(), ["open", "bind 2 to 0"]);
}

#[test]
fn everything_of_a_database_can_be_closed_whoever_has_it() {
    let mut world = World::alone(PoolMode::Session, 3);
    let pool = world.enter();
    for who in [1, 2, 3] {
        world.checkout(pool, who);
    }
    world.orders();
    world.pools.release(backend(1), world.now);
    assert_eq!(world.orders(), ["reset 1"]);
    world.pools.close_all(&Scope::Database("other".into()));
    assert!(world.orders().is_empty());
    world.pools.close_all(&demo());
    assert_eq!(world.orders(), ["close 0 Abrupt", "close 1 Abrupt", "close 2 Abrupt"]);
}

#[test]
fn what_was_done_is_not_forgotten_with_the_backend_or_the_pool() {
    let mut world = World::alone(PoolMode::Transaction, 1);
    let pool = world.enter();
    world.pools.count_client(pool, 50, 1);
    world.checkout(pool, 1);
    world.orders();
    let (asked, answered) = (world.now + Duration::from_secs(1), world.now + Duration::from_secs(3));
    let found = world.pools.get(backend(0)).unwrap();
    found.was_asked(Kind::Query, true, false, asked);
    found.has_answered(answered);
    let expected = Tally {
        logins: 1,
        received: 50,
        assignments: 1,
        queries: 1,
        xacts: 1,
        query_time: Duration::from_secs(2),
        xact_time: Duration::from_secs(2),
        ..Tally::default()
    };
    assert_eq!(world.pools.report(answered)[0].tally, expected);
    world.pools.recall(&Scope::All, answered);
    world.pools.release(backend(0), answered);
    assert_eq!(world.pools.report(answered)[0].tally, expected, "the backend is gone");
    world.pools.leave(pool);
    assert!(world.pools.report(answered).is_empty(), "the pool is gone");
    assert_eq!(world.pools.report_past()[0].tally, expected);
    // Of a pool that no server has ever served nothing is kept.
    let pool = world.pools.enter(&PoolKey { database: "made up".into(), ..key(region(0)) });
    world.pools.count_client(pool, 50, 1);
    world.pools.leave(pool);
    assert_eq!(world.pools.report_past().len(), 1);
}

#[test]
fn a_wait_is_measured_when_it_ends() {
    let mut world = World::alone(PoolMode::Transaction, 1);
    let pool = world.enter();
    world.checkout(pool, 1);
    world.orders();
    world.checkout(pool, 2);
    let later = world.now + Duration::from_secs(4);
    assert_eq!(world.pools.report(later)[0].waited, Duration::from_secs(4));
    world.pools.release(backend(0), later);
    let report = &world.pools.report(later)[0];
    assert_eq!((report.tally.assignments, report.tally.wait_time, report.waiting), (2, Duration::from_secs(4), 0));
}

/// The right to a backend travels with it: whoever has asked for it may have left before it arrives.
#[test]
fn a_backend_between_two_workers_is_counted_when_nobody_uses_its_pool_any_more() {
    let quotas: Arc<Quotas> = Arc::default();
    let mut one = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 0);
    let mut other = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 1);
    let (pool, pool_of_other) = (one.enter(), other.enter());
    one.checkout(pool, 1);
    one.orders();
    other.checkout(pool_of_other, 2);
    other.pools.take_orders();
    one.pools.release(backend(0), one.now);
    let Some(Order::Move(_, 1, moved)) = one.pools.take_orders().pop() else { panic!("it does not travel") };
    other.pools.stop_waiting(pool_of_other, session(2));
    other.pools.leave(pool_of_other);
    one.pools.leave(pool);
    assert_eq!(quotas.open_in(&Scope::All), 1);
    assert_eq!(other.pools.arrived(*moved, other.now), Some(backend(0)));
    other.pools.close(backend(0), Farewell::Terminate);
    assert_eq!(quotas.open_in(&Scope::All), 0);
    let pool = one.enter();
    one.checkout(pool, 1);
    assert_eq!(one.orders(), ["open", "bind 1 to 0"], "the pool can still be used");
}
