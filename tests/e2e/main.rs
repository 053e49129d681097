//! Everything against real PostgreSQL: one file a subject, two clusters for all of them.
//!
//! Each test has a proxy of its own. The clusters are shared, so a test never changes what another could see; one that has to
//! (by killing servers, say) starts its own. `cargo xtask test e2e` runs these with the release build of the proxy;
//! `cargo test --package domicile-tests --test e2e` builds it with the dev profile.

mod abuse;
mod authentication;
mod cancel;
mod console;
mod escapes;
mod fence;
mod leaks;
mod limits;
mod login;
mod metrics;
mod nodes;
mod passwords;
mod pooling;
mod prepared;
mod reload;
mod replication;
mod residency;
mod secrets;
mod seeds;
mod sessions;
mod soak;
mod storm;
mod stretching;
mod strings;
mod supervision;
mod timeouts;
mod tls;
mod tokens;
mod world;
