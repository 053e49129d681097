//! A query whose statement is known allocates nothing: counted by an allocator that counts.

mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use world::{STEPS, World};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's; beside it a number of this thread is counted up, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller has promised to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller has promised to us.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller has promised to us.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_query_whose_statement_is_known_allocates_nothing() {
    const TIMES: usize = 100;
    let mut world = World::new(3, 1);
    let mut found = Vec::new();
    for (name, step) in STEPS {
        // What is kept between two queries has its room by then.
        (0..TIMES).for_each(|_| step(&mut world));
        let before = ALLOCATIONS.with(Cell::get);
        (0..TIMES).for_each(|_| step(&mut world));
        let count = ALLOCATIONS.with(Cell::get) - before;
        found.push((name, count as f64 / TIMES as f64));
    }
    let nothing: Vec<_> = STEPS.iter().map(|(name, _)| (*name, 0.0)).collect();
    assert_eq!(found, nothing);
}
