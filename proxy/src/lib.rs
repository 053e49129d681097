//! Domicile: a PostgreSQL data-residency proxy and connection pooler.
//!
//! The modules stand in dependency order: each may name those above it, never those below. `cargo xtask tidy` checks it,
//! and ARCHITECTURE.md says why.

pub mod limits;
pub mod region;
pub mod target;

pub mod wire;

pub mod pool;
pub mod sql;
pub mod table;

pub mod policy;

pub mod session;

pub mod tls;

pub mod config;
pub mod observe;

pub mod fence;

pub mod admin;
pub mod engine;
pub mod login;

pub mod control;
