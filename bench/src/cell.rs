//! One thing that is done with several subjects, in turns, and the rows that come of it.

use std::thread;
use std::time::Duration;

use crate::report::{Curve, Report, Row};
use crate::rounds::{Figure, in_turns, ratio};
use crate::subjects::Subject;

/// What is done.
#[derive(Clone, Copy)]
pub struct Cell<'a> {
    /// See [`Row::workload`].
    pub workload: &'a str,
    /// See [`Row::protocol`].
    pub protocol: Option<&'a str>,
    /// See [`Row::clients`].
    pub clients: usize,
}

/// What was measured once: its name, its unit, and how much it was.
pub type Value = (&'static str, &'static str, f64);

/// What one round of one subject gave.
#[derive(Default)]
pub struct Sample {
    /// Its figures.
    pub values: Vec<Value>,
    /// Its latencies, if they are to be drawn.
    pub curve: Vec<(f64, f64)>,
}

impl Cell<'_> {
    /// The same things in words.
    pub fn title(&self) -> String {
        let protocol = self.protocol.map_or_else(String::new, |protocol| format!(", {protocol}"));
        let clients = if self.clients == 1 { "1 client".to_owned() } else { format!("{} clients", self.clients) };
        format!("{}{protocol}, {clients}", self.workload)
    }

    /// Measures and adds to the report. `told` is told after each sample.
    pub fn run(
        &self,
        report: &mut Report,
        subjects: &[&Subject],
        rounds: usize,
        told: &dyn Fn(&str),
        mut measure: impl FnMut(&Subject) -> Result<Sample, String>,
    ) {
        let mut failures = Vec::new();
        let samples = in_turns(
            rounds,
            subjects.len(),
            |subject, round| {
                // A machine that is busy with other things may lack something for a moment.
                let sample = measure(subjects[subject]).or_else(|_| {
                    thread::sleep(Duration::from_secs(1));
                    measure(subjects[subject])
                })?;
                let first = sample.values.first().map_or_else(String::new, |(_, unit, value)| format!("{value:.2} {unit}"));
                told(&format!("{}: round {} of {rounds}: {} {first}", self.title(), round + 1, subjects[subject].name));
                Ok(sample)
            },
            |subject, error| failures.push(format!("{}: {}: {error}", self.title(), subjects[subject].name)),
        );
        report.notes.extend(failures);
        let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
        self.add_rows(report, &names, &samples);
        self.add_curves(report, &names, samples);
    }

    fn add_rows(&self, report: &mut Report, names: &[&str], samples: &[Vec<Sample>]) {
        let mut metrics: Vec<(&str, &str)> = Vec::new();
        for (metric, unit, _) in samples.iter().flatten().flat_map(|sample| &sample.values) {
            if !metrics.contains(&(metric, unit)) {
                metrics.push((metric, unit));
            }
        }
        for (metric, unit) in metrics {
            let of = |subject: &Vec<Sample>| -> Vec<f64> {
                let values = subject.iter().flat_map(|sample| &sample.values);
                values.filter(|(name, ..)| *name == metric).map(|(_, _, value)| *value).collect()
            };
            let values: Vec<Vec<f64>> = samples.iter().map(of).collect();
            let more_is_better = is_more_better(metric);
            let by = |prefix: &str| {
                let is_kin = |name: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
                let kin = names.iter().zip(&values).filter(|(name, values)| is_kin(name) && !values.is_empty());
                let median = |values: &[f64]| Figure::of(values).map_or(0.0, |figure| figure.median);
                // The best of its settings.
                let order = |one: &[f64], other: &[f64]| median(one).total_cmp(&median(other));
                let kin = kin.map(|(_, values)| values.clone());
                if more_is_better { kin.max_by(|a, b| order(a, b)) } else { kin.min_by(|a, b| order(a, b)) }
            };
            let (pgbouncer, floor) = (by("pgbouncer"), by("floor"));
            let peers: Vec<_> = report.peers.iter().filter_map(|peer| Some((peer.clone(), by(peer)?))).collect();
            let first = values.iter().find(|values| !values.is_empty());
            for (name, values) in names.iter().zip(&values) {
                let Some(figure) = Figure::of(values) else { continue };
                report.rows.push(Row {
                    workload: self.workload.to_owned(),
                    protocol: self.protocol.map(str::to_owned),
                    clients: self.clients,
                    subject: (*name).to_owned(),
                    metric: metric.to_owned(),
                    unit: unit.to_owned(),
                    median: figure.median,
                    low: figure.low,
                    high: figure.high,
                    rounds: figure.rounds,
                    ratio_pgbouncer: pgbouncer.as_ref().and_then(|other| ratio(values, other)),
                    ratio_floor: floor.as_ref().and_then(|other| ratio(values, other)),
                    ratio_peers: peers.iter().filter_map(|(peer, other)| Some((peer.clone(), ratio(values, other)?))).collect(),
                    ratio_first: first.and_then(|other| ratio(values, other)),
                });
            }
        }
    }

    /// The curve of the round whose median latency is the median of all.
    fn add_curves(&self, report: &mut Report, names: &[&str], samples: Vec<Vec<Sample>>) {
        for (name, mut samples) in names.iter().zip(samples) {
            samples.retain(|sample| !sample.curve.is_empty());
            let middle = |sample: &Sample| sample.curve.iter().find(|(share, _)| *share >= 0.5).map_or(0.0, |(_, us)| *us);
            samples.sort_by(|one, other| middle(one).total_cmp(&middle(other)));
            if samples.is_empty() {
                continue;
            }
            let points = samples.swap_remove(samples.len() / 2).curve;
            report.curves.push(Curve { cell: self.title(), subject: (*name).to_owned(), points });
        }
    }
}

/// Whether more of it is better.
pub fn is_more_better(metric: &str) -> bool {
    matches!(metric, "qps" | "mb_per_s" | "logins_per_s")
}
