//! STATS and its parts: what was done for each database, in sums and lately.

use std::collections::BTreeMap;

use super::super::averages::{Figures, totals as figures};
use super::super::facts::Facts;
use super::Row;
use super::pools::joined;
use crate::pool::Tally;
use crate::wire::rows::Value;

pub(super) fn stats(facts: &Facts<'_>) -> Vec<Row> {
    rows(facts, |database, sums| [figures(sums), facts.averages.of(database, sums, facts.now)].concat())
}

pub(super) fn totals(facts: &Facts<'_>) -> Vec<Row> {
    rows(facts, |_, sums| figures(sums).to_vec())
}

pub(super) fn averages(facts: &Facts<'_>) -> Vec<Row> {
    rows(facts, |database, sums| facts.averages.of(database, sums, facts.now).to_vec())
}

pub(super) fn all(facts: &Facts<'_>) -> Vec<Row> {
    let mut sums = Tally::default();
    facts.sums().values().for_each(|tally| sums += tally);
    let named = |kind: &'static str, figures: Figures| {
        let name = move |name: &str| format!("{kind}_{name}");
        NAMES.iter().zip(figures).map(move |(of, figure)| vec![name(of).into(), figure.into()])
    };
    named("total", figures(&sums)).chain(named("avg", facts.averages.of_all(&sums, facts.now))).collect()
}

/// As TOTALS names the figures.
const NAMES: [&str; 12] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "client_bytes",
    "server_bytes",
    "xact_time",
    "query_time",
    "wait_time",
    "ps_client_parse_count",
    "ps_server_parse_count",
    "ps_bind_count",
    "client_login_count",
];

fn rows(facts: &Facts<'_>, shown: impl Fn(&str, &Tally) -> Vec<u64>) -> Vec<Row> {
    let sums = facts.sums();
    let sums: BTreeMap<&str, &Tally> = sums.iter().map(|(database, tally)| (&**database, tally)).collect();
    let regions = facts.regions_by_database();
    let row = |(database, tally): (&&str, &&Tally)| {
        let numbers = shown(database, tally).into_iter().map(Value::from);
        let region = joined(regions.get(database).into_iter().flatten().copied());
        [database.to_owned().into()].into_iter().chain(numbers).chain([region]).collect()
    };
    sums.iter().map(row).collect()
}
