//! Conversations with the core, written down: what a client sends, what it gets, and what every server saw.
//!
//! [`world::check`] is the only way in. It plays a script several times, with the bytes of both sides delivered whole, one by one, and
//! cut at every point, and expects the same answers each time. The servers are played by [`model`], which knows just enough of
//! PostgreSQL to have a transaction status of its own.

mod alike;
mod broken;
mod cancels;
mod extended;
mod faults;
mod greetings;
mod guards;
mod losses;
mod memory;
mod model;
mod operating;
mod pins;
mod pipelines;
mod places;
mod prepared;
mod prepared_elsewhere;
mod replication;
mod savepoints;
mod servers;
mod settings;
mod simple;
mod simulation;
mod strings;
mod timeouts;
mod transactions;
mod world;
