//! The report: rows that machines read, a table for people, and a page to look at.

mod flame;
mod page;
mod plot;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cell::Cell;
pub use flame::Frame;

/// All that was measured in one run.
#[derive(Deserialize, Serialize)]
pub struct Report {
    /// The machine: kernel and processors.
    pub machine: String,
    /// The commit that was measured, as far as git knows.
    pub commit: String,
    /// Who is compared with besides PgBouncer and the floor: [`Row::ratio_peers`].
    #[serde(default)]
    pub peers: Vec<String>,
    /// What was measured.
    pub rows: Vec<Row>,
    /// How latencies are spread.
    #[serde(default)]
    pub curves: Vec<Curve>,
    /// Where the time goes.
    #[serde(default)]
    pub flames: Vec<Flame>,
    /// What was left out, and why; and what else a reader should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One figure.
#[derive(Clone, Deserialize, Serialize)]
pub struct Row {
    /// What was done.
    pub workload: String,
    /// `simple`, `extended` or `prepared`; nothing where it does not matter.
    pub protocol: Option<String>,
    /// Clients at once.
    pub clients: usize,
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
    /// By PgBouncer's, with the best of its settings that were measured.
    pub ratio_pgbouncer: Option<f64>,
    /// By the bare relay's.
    pub ratio_floor: Option<f64>,
    /// By those of [`Report::peers`].
    #[serde(default)]
    pub ratio_peers: BTreeMap<String, f64>,
    /// By the first subject's of the same workload.
    pub ratio_first: Option<f64>,
}

/// Latencies of one subject.
#[derive(Deserialize, Serialize)]
pub struct Curve {
    /// What was done, in words.
    pub cell: String,
    /// Who was measured.
    pub subject: String,
    /// A share of all answers, and the microseconds that none of them took longer than.
    pub points: Vec<(f64, f64)>,
}

/// A flame graph.
#[derive(Deserialize, Serialize)]
pub struct Flame {
    /// What was done, in words.
    pub title: String,
    /// All samples.
    pub graph: Frame,
}

impl Report {
    /// An empty report of this machine.
    pub fn new(commit: String) -> Self {
        let uname = rustix::system::uname();
        let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("an unnamed processor");
        let machine = format!(
            "{} {} {}, {} × {model}",
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy(),
            uname.machine().to_string_lossy(),
            crate::cpu::cores()
        );
        Self { machine, commit, peers: Vec::new(), rows: Vec::new(), curves: Vec::new(), flames: Vec::new(), notes: Vec::new() }
    }

    /// Whether a subject has a figure of a cell.
    pub fn has(&self, cell: &Cell<'_>, subject: &str) -> bool {
        self.rows.iter().any(|row| row.subject == subject && row.is_of(cell))
    }

    /// A figure of a cell.
    pub fn median(&self, cell: &Cell<'_>, subject: &str, metric: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.subject == subject && row.metric == metric && row.is_of(cell));
        row.map(|row| row.median)
    }

    /// Reads one that was written.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Writes `report.json` and `report.html`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), String> {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let write = |name: &str, text: String| {
            let file = directory.join(name);
            fs::write(&file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))
        };
        write("report.json", serde_json::to_string_pretty(self).map_err(|error| error.to_string())?)?;
        write("report.html", page::page(self)?)
    }
}

impl Row {
    fn is_of(&self, cell: &Cell<'_>) -> bool {
        self.workload == cell.workload && self.protocol.as_deref() == cell.protocol && self.clients == cell.clients
    }

    /// What was done, in words.
    fn title(&self) -> String {
        let cell = Cell { workload: &self.workload, protocol: self.protocol.as_deref(), clients: self.clients };
        cell.title()
    }
}

/// The rows that belong together: the same work, measured in the same way.
fn groups(rows: &[Row]) -> Vec<(String, &str, Vec<&Row>)> {
    let mut groups: Vec<(String, &str, Vec<&Row>)> = Vec::new();
    for row in rows {
        let title = row.title();
        match groups.iter_mut().find(|(known, metric, _)| *known == title && *metric == row.metric) {
            Some((.., rows)) => rows.push(row),
            None => groups.push((title, &row.metric, vec![row])),
        }
    }
    groups
}

/// Ratios of a group: what they are by, and the figure of each row. Only those that a row has; by the first one where no other is.
fn ratios<'a>(peers: &'a [String], rows: &[&Row]) -> Vec<(&'a str, Vec<Option<f64>>)> {
    type Of<'a> = Box<dyn Fn(&Row) -> Option<f64> + 'a>;
    let known: [(&str, Of<'_>); 2] =
        [("pgbouncer", Box::new(|row| row.ratio_pgbouncer)), ("floor", Box::new(|row| row.ratio_floor))];
    let by_hand = peers.iter().map(|peer| (peer.as_str(), Box::new(|row: &Row| row.ratio_peers.get(peer).copied()) as Of<'_>));
    let of = |(name, ratio): (&'a str, Of<'_>)| (name, rows.iter().map(|row| ratio(row)).collect::<Vec<_>>());
    let mut all: Vec<_> = known.into_iter().chain(by_hand).map(of).collect();
    all.retain(|(_, ratios)| ratios.iter().any(Option::is_some));
    if all.is_empty() && rows.len() > 1 {
        all.push(of(("first", Box::new(|row| row.ratio_first))));
    }
    all
}

/// A figure with as many digits as it deserves.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let digits = format!("{value:.0}");
            let first = digits.len() % 3;
            let rest = digits.as_bytes()[first..].chunks(3).map(|three| String::from_utf8_lossy(three).into_owned());
            let groups: Vec<String> = (first > 0).then(|| digits[..first].to_owned()).into_iter().chain(rest).collect();
            groups.join(" ")
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Text in a page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A ratio, or nothing.
fn ratio(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_as_many_digits_as_they_deserve() {
        assert_eq!([1.234, 12.34, 123.4, 1234.5, 123_456.0].map(figure), ["1.23", "12.3", "123", "1 234", "123 456"]);
    }

    pub fn row(subject: &str, median: f64) -> Row {
        Row {
            workload: "query/row100".to_owned(),
            protocol: Some("simple".to_owned()),
            clients: 64,
            subject: subject.to_owned(),
            metric: "cpu_us_per_query".to_owned(),
            unit: "µs a query".to_owned(),
            median,
            low: median - 1.0,
            high: median + 1.0,
            rounds: 3,
            ratio_pgbouncer: Some(0.5),
            ratio_floor: None,
            ratio_peers: BTreeMap::new(),
            ratio_first: Some(1.0),
        }
    }

    pub fn report() -> Report {
        let mut report = Report::new("abc".to_owned());
        report.rows = vec![row("domicile", 10.0), row("pgbouncer", 20.0)];
        report.curves = vec![Curve {
            cell: "latency/half, simple, 64 clients".to_owned(),
            subject: "domicile".to_owned(),
            points: vec![(0.0, 40.0), (0.5, 100.0), (0.99, 900.0), (0.999, 4000.0)],
        }];
        report
    }

    #[test]
    fn a_report_survives_its_file() {
        let directory = domicile_tests::process::Scratch::new().unwrap();
        report().write(directory.path()).unwrap();
        let read = Report::read(&directory.path().join("report.json")).unwrap();
        assert_eq!(read.rows[1].subject, "pgbouncer");
        let page = fs::read_to_string(directory.path().join("report.html")).unwrap();
        // The name of SVG is an address, which nobody loads.
        let addresses = page.replace("http://www.w3.org/2000/svg", "");
        assert!(page.contains("<svg") && !addresses.contains("http") && !page.contains("<script"), "{page}");
    }
}
