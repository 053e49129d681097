//! The loom model of the published table, compiled without the rest of the proxy: under `--cfg loom` everything is built once
//! more, and the table needs nothing of it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --package domicile-tests --test loom`

#![cfg(loom)]

#[allow(dead_code, reason = "the model does not use every function of the table")]
#[path = "../proxy/src/table/mod.rs"]
mod table;
