//! The report as one page of HTML that loads nothing.

use super::{Report, Row, escape, figure, groups, plot, ratio, ratios};
use crate::cell::is_more_better;

const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; \
color: light-dark(#1b1f24, #e6e8eb); background: light-dark(#fff, #14171a); }
h2 { margin-top: 2.5rem; border-bottom: 1px solid light-dark(#d0d4d9, #3a3f45); }
h3 { margin: 1.5rem 0 .3rem; font-size: 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin-bottom: 1rem; }
th, td { padding: .15rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid light-dark(#e4e7ea, #2b3036); }
th:first-child, td:first-child { text-align: left; }
.better { color: light-dark(#1a7f37, #57c46f); } .worse { color: light-dark(#b35900, #f0a24a); }
.legend span { display: inline-block; margin-right: 1.2rem; } .legend i { display: inline-block; width: 1.2rem; height: .25rem; \
margin-right: .4rem; vertical-align: middle; }
.quiet { color: light-dark(#59626b, #9aa3ad); }";

/// The page.
pub fn page(report: &Report) -> Result<String, String> {
    let mut body = format!(
        "<h1>What a query costs</h1>\n<p class=\"quiet\">{} · commit {}</p>\n\
         <p>Subjects were measured side by side, in turns. A bar is the median of the rounds, the line on it reaches from the lowest \
         to the highest. Ratios are medians over the rounds of one subject's figure by another's of the same round; compare \
         those, not the figures. <code>floor</code> is a relay on Domicile's engine that understands nothing. \
         bench/README.md tells how each figure is made.</p>\n",
        escape(&report.machine),
        escape(&report.commit)
    );
    body += &summary(report);
    let mut last = String::new();
    for (title, metric, rows) in groups(&report.rows) {
        if title != last {
            body += &format!("<h2>{}</h2>\n", escape(&title));
            for (cell, curves) in curves(report).iter().filter(|(cell, _)| *cell == title) {
                body += &format!("<h3>Latency: {}</h3>\n{}{}\n", escape(cell), legend(curves), plot::curves(curves)?);
            }
            last = title;
        }
        let unit = rows.first().map_or("", |row| &row.unit);
        body += &format!("<h3>{} <span class=\"quiet\">({})</span></h3>\n{}\n", escape(metric), escape(unit), plot::bars(&rows)?);
        body += &table(&report.peers, &rows);
    }
    if !report.flames.is_empty() {
        body += "<h2>Where the time goes</h2>\n<p>What stands on something was called by it; the width is the share of the samples. Blue is \
                 Domicile, grey the kernel, orange the rest. Names that have no room appear when the pointer rests on their place.</p>\n";
    }
    for flame in &report.flames {
        body += &format!("<h3>{} <span class=\"quiet\">({} samples)</span></h3>\n", escape(&flame.title), flame.graph.samples);
        body += &flame.graph.svg();
    }
    if !report.notes.is_empty() {
        let notes: String = report.notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
        body += &format!("<h2>Notes</h2>\n<ul>\n{notes}</ul>\n");
    }
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Domicile: what a query costs</title>\n<style>\n{STYLE}\n</style>\n<body>\n{body}</body>\n</html>"
    ))
}

fn table(peers: &[String], rows: &[&Row]) -> String {
    let ratios = ratios(peers, rows);
    let more_is_better = rows.first().is_some_and(|row| is_more_better(&row.metric));
    let line = |(index, row): (usize, &&Row)| {
        let [median, low, high] = [row.median, row.low, row.high].map(figure);
        let cells: String = ratios.iter().map(|(_, ratios)| cell(ratios[index], more_is_better)).collect();
        let rounds = row.rounds;
        format!(
            "<tr><td>{}</td><td>{median}</td><td>{low}</td><td>{high}</td><td>{rounds}</td>{cells}</tr>\n",
            escape(&row.subject)
        )
    };
    let lines: String = rows.iter().enumerate().map(line).collect();
    let headings: String = ratios.iter().map(|(name, _)| format!("<th>÷ {}</th>", escape(name))).collect();
    format!(
        "<table>\n<tr><th>subject</th><th>median</th><th>low</th><th>high</th><th>rounds</th>{headings}</tr>\n{lines}</table>\n"
    )
}

/// A ratio in its colour.
fn cell(value: Option<f64>, more_is_better: bool) -> String {
    let class = match value {
        Some(value) if (0.995..=1.005).contains(&value) => "",
        Some(value) if (value < 1.0) != more_is_better => " class=\"better\"",
        Some(_) => " class=\"worse\"",
        None => "",
    };
    format!("<td{class}>{}</td>", ratio(value))
}

/// How metrics of what things cost begin.
const COSTS: [&str; 3] = ["cpu_", "syscalls_", "rss_bytes_"];

/// What Domicile costs by what others cost, and what its parts add, each in a table.
fn summary(report: &Report) -> String {
    let groups = groups(&report.rows);
    let others: Vec<&str> = ["pgbouncer", "floor"].into_iter().chain(report.peers.iter().map(String::as_str)).collect();
    let (mut compared, mut added) = (String::new(), String::new());
    for (title, metric, rows) in &groups {
        let ratios = ratios(&report.peers, rows);
        if ratios.iter().any(|(name, _)| *name == "first") {
            for (row, value) in rows.iter().zip(&ratios[0].1).skip(1) {
                let (what, who) = (escape(title), escape(&row.subject));
                let cell = cell(*value, is_more_better(metric));
                added += &format!("<tr><td>{what}</td><td>{metric}</td><td>{who}</td>{cell}</tr>\n");
            }
        } else if (COSTS.iter().any(|cost| metric.starts_with(cost)) || title.starts_with("latency"))
            && let Some(index) = rows.iter().position(|row| row.subject == "domicile")
        {
            let of = |name: &&str| ratios.iter().find(|(known, _)| known == name).and_then(|(_, ratios)| ratios[index]);
            let cells: String = others.iter().map(|name| cell(of(name), false)).collect();
            let figure = figure(rows[index].median);
            compared += &format!("<tr><td>{}</td><td>{metric}</td><td>{figure}</td>{cells}</tr>\n", escape(title));
        }
    }
    let headings: String = others.iter().map(|name| format!("<th>÷ {}</th>", escape(name))).collect();
    let table = |heading: &str, headings: &str, lines: &str| {
        if lines.is_empty() {
            String::new()
        } else {
            format!("<h2>{heading}</h2>\n<table>\n<tr>{headings}</tr>\n{lines}</table>\n")
        }
    };
    table("Domicile by others: less is better", &format!("<th>what</th><th>metric</th><th>domicile</th>{headings}"), &compared)
        + &table("What things add", "<th>what</th><th>metric</th><th>who</th><th>÷ first</th>", &added)
}

/// Which colour is whose.
fn legend(curves: &[&super::Curve]) -> String {
    let names: Vec<&str> = curves.iter().map(|curve| curve.subject.as_str()).collect();
    let entry = |(name, colour): (&&str, [u8; 3])| {
        let [red, green, blue] = colour;
        format!("<span><i style=\"background: rgb({red} {green} {blue})\"></i>{}</span>", escape(name))
    };
    let entries: String = names.iter().zip(plot::colours(&names)).map(entry).collect();
    format!("<p class=\"legend\">{entries}</p>\n")
}

/// Curves by what was done.
fn curves(report: &Report) -> Vec<(&str, Vec<&super::Curve>)> {
    let mut cells: Vec<(&str, Vec<&super::Curve>)> = Vec::new();
    for curve in &report.curves {
        match cells.iter_mut().find(|(cell, _)| *cell == curve.cell) {
            Some((_, curves)) => curves.push(curve),
            None => cells.push((&curve.cell, vec![curve])),
        }
    }
    cells
}
