//! A worker that is no more leaves nothing taken, and what was meant for it means nothing to the next.

use super::*;

fn open_in_all(quotas: &Quotas) -> u32 {
    quotas.open_in(&Scope::All)
}

#[test]
fn what_a_worker_had_open_others_may_have() {
    let quotas = Arc::new(Quotas::default());
    let mut first = World::new(settings(PoolMode::Transaction, 3, 2), &quotas, 0);
    let mut second = World::new(settings(PoolMode::Transaction, 3, 2), &quotas, 1);
    let (pool, other) = (first.enter(), second.enter());
    // One is lent, one is idle, one is being opened, and one session waits in vain.
    first.checkout(pool, 1);
    first.checkout(pool, 2);
    first.orders();
    first.pools.release(backend(1), first.now);
    first.checkout(pool, 3);
    first.checkout(pool, 4);
    first.checkout(pool, 5);
    assert_eq!(open_in_all(&quotas), 3);
    second.checkout(other, 7);
    assert_eq!(second.orders(), ["tell worker 0"]);
    drop(first);
    assert_eq!(open_in_all(&quotas), 0);
    second.pools.quota_changed(second.now);
    assert_eq!(second.orders(), ["open", "bind 7 to 0"]);
    // Nobody is hungry any more: the backend stays.
    second.pools.release(backend(0), second.now);
    assert!(second.orders().is_empty());
    drop(second);
    assert_eq!(open_in_all(&quotas), 0);
}

#[test]
fn a_backend_that_is_lost_between_two_workers_gives_its_right_back() {
    let quotas = Arc::new(Quotas::default());
    let mut first = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 0);
    let mut second = World::new(settings(PoolMode::Transaction, 1, 2), &quotas, 1);
    let (pool, other) = (first.enter(), second.enter());
    first.checkout(pool, 1);
    first.orders();
    second.checkout(other, 7);
    second.orders();
    first.pools.release(backend(0), first.now);
    let moves = first.pools.take_orders();
    assert!(matches!(&moves[..], [Order::Move(_, 1, _)]));
    assert_eq!(open_in_all(&quotas), 1);
    drop(moves);
    assert_eq!(open_in_all(&quotas), 0);
}

#[test]
fn what_a_former_worker_asked_for_is_not_the_next_ones() {
    let quotas = Arc::new(Quotas::default());
    let mut former = World::new(settings(PoolMode::Transaction, 1, 1), &quotas, 0);
    let pool = former.enter();
    former.checkout(pool, 1);
    let orders = former.pools.take_orders();
    let [Order::Open(stale, request)] = &orders[..] else { panic!("nothing is opened") };
    let mut next = World::new(settings(PoolMode::Transaction, 1, 1), &quotas, 0);
    drop(former);
    next.pools = Pools::new(settings(PoolMode::Transaction, 1, 1), quotas.clone(), 0).in_life(1);
    let pool = next.enter();
    next.checkout(pool, 9);
    assert!(next.pools.opened(*stale, info(request.region), next.now).is_none());
    next.pools.open_failed(*stale, OpenError::NoNode, next.now);
    assert_eq!(next.orders().len(), 2, "it is opened and bound to the session that waits");
    // Nor is an answer about a backend of the former.
    assert!(next.pools.get(backend(0)).is_none());
    assert_eq!(open_in_all(&quotas), 1);
}
