//! The report: rows that machines read, and a table for people.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::rounds::Figure;

/// All that was measured in one run.
#[derive(Serialize)]
pub struct Report {
    /// The machine: kernel and processors.
    pub machine: String,
    /// The commit that was measured, as far as git knows.
    pub commit: String,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// One figure.
#[derive(Serialize)]
pub struct Row {
    /// What was done.
    pub workload: String,
    /// `simple`, `extended` or `prepared`; nothing where it does not matter.
    pub protocol: Option<String>,
    /// Clients at once.
    pub clients: u32,
    /// Who was measured.
    pub subject: String,
    /// What was measured.
    pub metric: String,
    /// In which unit.
    pub unit: String,
    /// The figure.
    pub median: f64,
    /// Its lowest round.
    pub low: f64,
    /// Its highest.
    pub high: f64,
    /// Rounds.
    pub rounds: usize,
    /// By the first subject's of the same workload.
    pub ratio: f64,
}

impl Row {
    /// A row for each subject, the ratios by the first one's.
    pub fn each(of: &Measured<'_>, subjects: &[&str], figures: &[Figure]) -> Vec<Self> {
        let first = figures.first().map_or(1.0, |figure| figure.median);
        let row = |(subject, figure): (&&str, &Figure)| Self {
            workload: of.workload.to_owned(),
            protocol: of.protocol.map(str::to_owned),
            clients: of.clients,
            subject: (*subject).to_owned(),
            metric: of.metric.to_owned(),
            unit: of.unit.to_owned(),
            median: figure.median,
            low: figure.low,
            high: figure.high,
            rounds: figure.rounds,
            ratio: figure.median / first,
        };
        subjects.iter().zip(figures).map(row).collect()
    }
}

/// What a figure is of.
pub struct Measured<'a> {
    /// See [`Row::workload`].
    pub workload: &'a str,
    /// See [`Row::protocol`].
    pub protocol: Option<&'a str>,
    /// See [`Row::clients`].
    pub clients: u32,
    /// See [`Row::metric`].
    pub metric: &'a str,
    /// See [`Row::unit`].
    pub unit: &'a str,
}

impl Report {
    /// An empty report of this machine.
    pub fn new(commit: String) -> Self {
        let uname = rustix::system::uname();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let machine = format!(
            "{} {} {}, {cores} processors",
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy(),
            uname.machine().to_string_lossy()
        );
        Self { machine, commit, rows: Vec::new() }
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        fs::write(path, text + "\n").map_err(failed)
    }

    /// A line for each row.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<16} {:<22} {:>14} {:>10} {:>10} {:>10} {:>7}\n",
            "workload", "subject", "unit", "median", "low", "high", "ratio"
        );
        for row in &self.rows {
            text += &format!(
                "{:<16} {:<22} {:>14} {:>10.2} {:>10.2} {:>10.2} {:>7.3}\n",
                row.workload, row.subject, row.unit, row.median, row.low, row.high, row.ratio
            );
        }
        text
    }
}
