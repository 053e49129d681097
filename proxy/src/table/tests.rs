//! Publication with real threads, and what is freed when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::*;

/// Counts the snapshots that are alive.
struct Counted<'a>(u64, &'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(value: u64, alive: &'a AtomicUsize) -> Arc<Self> {
        alive.fetch_add(1, Ordering::SeqCst);
        Arc::new(Self(value, alive))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn a_reader_has_the_newest_snapshot() {
    let publisher = Publisher::new(Arc::new(1));
    let mut reader = publisher.reader();
    assert_eq!(**reader.get(), 1);
    assert!(!reader.refresh());
    publisher.publish(Arc::new(2));
    publisher.publish(Arc::new(3));
    assert_eq!(**reader.snapshot(), 1);
    assert!(reader.refresh());
    assert!(!reader.refresh());
    assert_eq!((**reader.get(), *publisher.current()), (3, 3));
    assert_eq!(**publisher.reader().get(), 3);
}

#[test]
fn readers_outlive_the_publisher() {
    let publisher = Publisher::new(Arc::new(1));
    let mut reader = publisher.reader();
    publisher.publish(Arc::new(2));
    drop(publisher);
    assert_eq!(**reader.get(), 2);
}

#[test]
fn replaced_and_unread_snapshots_are_freed() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    let alive = || ALIVE.load(Ordering::SeqCst);
    let publisher = Publisher::new(Counted::new(0, &ALIVE));
    let mut reader = publisher.reader();
    let unread = publisher.reader();
    for value in 1..100 {
        publisher.publish(Counted::new(value, &ALIVE));
    }
    assert_eq!(alive(), 2, "the newest, and the first that both readers still hold");
    assert_eq!(reader.get().0, 99);
    drop(unread);
    assert_eq!(alive(), 2, "a reader never frees a snapshot while there is a publisher");
    publisher.free_retired();
    assert_eq!(alive(), 1);
    publisher.publish(Counted::new(100, &ALIVE));
    drop(publisher);
    assert_eq!(alive(), 2, "the reader holds 99, its slot 100");
    drop(reader);
    assert_eq!(alive(), 0);
}

#[test]
fn readers_that_are_dropped_give_up_their_slots() {
    let publisher = Publisher::new(Arc::new(0));
    for _ in 0..100 {
        drop(publisher.reader());
    }
    assert_eq!(publisher.lock().slots.len(), 1);
    publisher.publish(Arc::new(1));
    assert_eq!(publisher.lock().slots.len(), 0);
}

#[test]
fn a_poisoned_lock_is_taken() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("boom");
        }
    }
    let publisher = Publisher::new(Arc::new(Some(Bomb)));
    let fails = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| publisher.publish(Arc::new(None))));
    assert!(fails.is_err());
    publisher.publish(Arc::new(None));
    assert!(publisher.reader().get().is_none());
}

#[test]
fn threads_see_whole_snapshots_in_order_and_leave_nothing_behind() {
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    const LAST: u64 = if cfg!(miri) { 50 } else { 20_000 };
    let publisher = Arc::new(Publisher::new(Counted::new(0, &ALIVE)));

    let steady = publisher.reader();
    let steady = thread::spawn(move || {
        let (mut reader, mut seen) = (steady, 0);
        while seen < LAST {
            let value = reader.get().0;
            assert!(value >= seen);
            seen = value;
        }
    });
    let coming_and_going = thread::spawn({
        let publisher = Arc::clone(&publisher);
        move || {
            let mut seen = 0;
            while !STOP.load(Ordering::SeqCst) {
                let mut reader = publisher.reader();
                let first = reader.snapshot().0;
                assert!(first >= seen);
                seen = reader.get().0;
                assert!(seen >= first);
            }
        }
    });
    for value in 1..=LAST {
        publisher.publish(Counted::new(value, &ALIVE));
    }
    steady.join().unwrap();
    STOP.store(true, Ordering::SeqCst);
    coming_and_going.join().unwrap();
    drop(publisher);
    assert_eq!(ALIVE.load(Ordering::SeqCst), 0);
}
