//! The test harness: real PostgreSQL clusters, the built proxy as a process, and a client that shows every byte.
//!
//! Nothing here names the product's own code. The proxy is driven as its users drive it, through its command line, its
//! configuration file, signals and sockets, so that a mistake in the product cannot hide behind the same mistake in its tests.
//! `cargo xtask demo` uses the same clusters and the same client.

pub mod client;
pub mod cluster;
pub mod demo;
pub mod fake;
pub mod gate;
pub mod intruder;
pub mod message;
pub mod network;
pub mod process;
pub mod program;
pub mod proxy;
pub mod scram;
pub mod skip;
pub mod soak;
pub mod tidy;
pub mod tls;
pub mod transcript;
pub mod wire;
