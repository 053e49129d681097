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
pub mod queries;
pub mod tls;
pub mod workers;

use crate::stage::Stage;

/// A workload: its name, and what it does.
pub struct Workload {
    /// How it is asked for.
    pub name: &'static str,
    /// Measures, and adds rows to the report.
    pub run: fn(&mut Stage<'_>) -> Result<(), String>,
}

/// All of them.
pub const ALL: [Workload; 23] = [
    Workload { name: "query/row100", run: queries::small },
    Workload { name: "query/row8192", run: queries::wide },
    Workload { name: "large/select", run: large::select },
    Workload { name: "large/copy-out", run: large::copy_out },
    Workload { name: "large/copy-in", run: large::copy_in },
    Workload { name: "tls/client", run: tls::client },
    Workload { name: "tls/server", run: tls::server },
    Workload { name: "tls/both", run: tls::both },
    Workload { name: "idle", run: idle::run },
    Workload { name: "idle/tls", run: idle::tls },
    Workload { name: "latency", run: latency::run },
    Workload { name: "login/trust", run: logins::trust },
    Workload { name: "login/scram", run: logins::scram },
    Workload { name: "login/tls", run: logins::tls },
    Workload { name: "fence/query", run: fence::query },
    Workload { name: "fence/connect", run: fence::connect },
    Workload { name: "decision", run: decision::run },
    Workload { name: "metrics/query", run: metrics::query },
    Workload { name: "policy/query", run: policy::query },
    Workload { name: "policy/reload", run: policy::reload },
    Workload { name: "workers", run: workers::run },
    Workload { name: "postgres/select", run: postgres::select },
    Workload { name: "postgres/tls", run: postgres::tls },
];
