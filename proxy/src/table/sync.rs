//! The synchronisation primitives of this module: the standard library's, or loom's doubles in a model run (`--cfg loom`).
//!
//! `Arc` and `Weak` are the standard library's in both: loom has no `Weak`, and what is modelled is our own handing over of a
//! pointer, not theirs of a count. Nothing else is chosen here.

#[cfg(loom)]
pub(super) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicPtr, Ordering},
};
#[cfg(not(loom))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicPtr, Ordering},
};
