//! Every interleaving of a small number of publications and readings, tried by loom.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release table`

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::cell::UnsafeCell;
use loom::thread;

use super::*;

/// A snapshot whose content loom watches: reading it without having synchronised with its writer fails the model.
struct Watched {
    value: UnsafeCell<u64>,
    alive: Arc<AtomicUsize>,
}

// SAFETY: the cell is written before the snapshot is shared and only read afterwards; that this order is kept is what loom checks.
unsafe impl Sync for Watched {}

impl Watched {
    fn new(value: u64, alive: &Arc<AtomicUsize>) -> Arc<Self> {
        // Loom runs one thread at a time: this count needs no model.
        alive.fetch_add(1, Ordering::SeqCst);
        Arc::new(Self { value: UnsafeCell::new(value), alive: Arc::clone(alive) })
    }

    fn value(&self) -> u64 {
        // SAFETY: nobody writes to a snapshot that was shared.
        self.value.with(|value| unsafe { *value })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

fn check(model: impl Fn(&Arc<AtomicUsize>) + Send + Sync + 'static) {
    loom::model(move || {
        let alive = Arc::new(AtomicUsize::new(0));
        model(&alive);
        assert_eq!(alive.load(Ordering::SeqCst), 0, "a snapshot was left behind");
    });
}

#[test]
fn a_reader_sees_whole_snapshots_in_order() {
    check(|alive| {
        let publisher = Publisher::new(Watched::new(0, alive));
        let mut reader = publisher.reader();
        let reading = thread::spawn(move || {
            let first = reader.get().value();
            let second = reader.get().value();
            assert!(first <= second);
            reader
        });
        publisher.publish(Watched::new(1, alive));
        publisher.publish(Watched::new(2, alive));
        let mut reader = reading.join().unwrap();
        assert_eq!(reader.get().value(), 2);
    });
}

#[test]
fn two_readers_are_served_each() {
    check(|alive| {
        let publisher = Publisher::new(Watched::new(0, alive));
        let readings: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = publisher.reader();
                thread::spawn(move || {
                    assert!(reader.get().value() <= 1);
                    reader
                })
            })
            .collect();
        publisher.publish(Watched::new(1, alive));
        for reading in readings {
            assert_eq!(reading.join().unwrap().get().value(), 1);
        }
    });
}

#[test]
fn a_reader_may_go_while_something_is_published() {
    check(|alive| {
        let publisher = Publisher::new(Watched::new(0, alive));
        let mut reader = publisher.reader();
        let reading = thread::spawn(move || {
            assert!(reader.get().value() <= 1);
        });
        publisher.publish(Watched::new(1, alive));
        reading.join().unwrap();
        publisher.free_retired();
        assert_eq!(alive.load(Ordering::SeqCst), 1, "only the current snapshot is left");
    });
}

#[test]
fn a_reader_may_come_while_something_is_published() {
    check(|alive| {
        let publisher = Arc::new(Publisher::new(Watched::new(0, alive)));
        let coming = thread::spawn({
            let publisher = Arc::clone(&publisher);
            move || publisher.reader()
        });
        publisher.publish(Watched::new(1, alive));
        let mut reader = coming.join().unwrap();
        assert_eq!(reader.get().value(), 1);
    });
}

#[test]
fn two_writers_leave_the_later_snapshot() {
    check(|alive| {
        let publisher = Arc::new(Publisher::new(Watched::new(0, alive)));
        let mut reader = publisher.reader();
        let writing = thread::spawn({
            let (publisher, alive) = (Arc::clone(&publisher), Arc::clone(alive));
            move || publisher.publish(Watched::new(1, &alive))
        });
        publisher.publish(Watched::new(2, alive));
        writing.join().unwrap();
        assert_eq!(reader.get().value(), publisher.current().value());
    });
}
