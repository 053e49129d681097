//! What is measured, in the order of importance; bench/README.md tells how each figure is made.

pub mod decision;
pub mod fence;
pub mod idle;
pub mod large;
pub mod latency;
pub mod logins;
pub mod metrics;
pub mod policy;
pub mod postgres;
pub mod profile;
pub mod queries;
pub mod tls;
pub mod workers;

use crate::stage::Stage;

/// A workload: its name, and what it does.
pub struct Workload {
    /// How it is asked for.
    pub name: &'static str,
    /// Whether it belongs to the three minutes of a quick run. By its name it can be had there, too.
    pub is_quick: bool,
    /// Measures, and adds rows to the report.
    pub run: Run,
}

type Run = fn(&mut Stage<'_>) -> Result<(), String>;

const fn workload(name: &'static str, run: Run) -> Workload {
    Workload { name, is_quick: true, run }
}

const fn slow(name: &'static str, run: Run) -> Workload {
    Workload { name, is_quick: false, run }
}

/// All of them.
pub const ALL: [Workload; 24] = [
    workload("query/row100", queries::small),
    workload("query/row8192", queries::wide),
    slow("large/select", large::select),
    workload("large/copy-out", large::copy_out),
    workload("large/copy-in", large::copy_in),
    workload("tls/client", tls::client),
    slow("tls/server", tls::server),
    workload("tls/both", tls::both),
    workload("idle", idle::run),
    slow("idle/tls", idle::tls),
    workload("latency", latency::run),
    workload("login/trust", logins::trust),
    workload("login/scram", logins::scram),
    workload("login/tls", logins::tls),
    workload("fence/query", fence::query),
    slow("fence/connect", fence::connect),
    workload("decision", decision::run),
    workload("metrics/query", metrics::query),
    workload("policy/query", policy::query),
    slow("policy/reload", policy::reload),
    slow("workers", workers::run),
    workload("profile", profile::run),
    workload("postgres/select", postgres::select),
    slow("postgres/tls", postgres::tls),
];
