//! What the load says of itself when it is done: one JSON object, read by who has started it.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A way of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// Query.
    Simple,
    /// Parse, Bind, Describe, Execute, Sync.
    Extended,
    /// The same without Parse, which came once before.
    Prepared,
}

impl Protocol {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// What a time of load came to.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Outcome {
    /// Questions that were answered.
    pub queries: u64,
    /// The time they took together.
    pub seconds: f64,
    /// CPU time of the process that was looked at.
    pub cpu_seconds: f64,
    /// That of the load itself.
    pub own_cpu_seconds: f64,
    /// How long answers took.
    pub latency: Latency,
    /// Questions of an open loop that had not been asked at the end.
    pub late: usize,
}

/// Latencies, in microseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Latency {
    /// Half are shorter.
    pub p50_us: f64,
    /// 99 of a hundred.
    pub p99_us: f64,
    /// 999 of a thousand.
    pub p999_us: f64,
    /// All of them.
    #[serde(default)]
    pub max_us: f64,
    /// The whole curve: a share of all, and what that many are not longer than.
    pub curve: Vec<(f64, f64)>,
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |share: f64| histogram.value_at_quantile(share) as f64 / 1000.0;
        // Ten points for every further nine: 0, 0.1, … 0.9, 0.91, … 0.99, 0.991 …
        let steps = (0..4).flat_map(|nines: i32| {
            let open = 0.1_f64.powi(nines);
            (0..9).map(move |step| (1e5 * (1.0 - open * (1.0 - 0.1 * f64::from(step)))).round() / 1e5)
        });
        let curve = if histogram.is_empty() { Vec::new() } else { steps.map(|share| (share, at(share))).collect() };
        Self { p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999), max_us: histogram.max() as f64 / 1000.0, curve }
    }
}
