//! The report as one page of HTML that loads nothing.

use super::{Report, Row, figure, groups, plot, ratio, ratios};

const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2rem auto; padding: 0 1rem; \
color: light-dark(#1b1f24, #e6e8eb); background: light-dark(#fff, #14171a); }
h2 { margin-top: 2.5rem; border-bottom: 1px solid light-dark(#d0d4d9, #3a3f45); }
h3 { margin: 1.5rem 0 .3rem; font-size: 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin-bottom: 1rem; }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid light-dark(#e4e7ea, #2b3036); }
th:first-child, td:first-child { text-align: left; }
.low { color: light-dark(#1a7f37, #57c46f); } .high { color: light-dark(#b35900, #f0a24a); }
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
    let mut last = String::new();
    for (title, metric, rows) in groups(&report.rows) {
        if title != last {
            body += &format!("<h2>{}</h2>\n", escape(&title));
            for (cell, curves) in curves(report).iter().filter(|(cell, _)| *cell == title) {
                body += &format!("<h3>Latency: {}</h3>\n{}\n", escape(cell), plot::curves(curves)?);
            }
            last = title;
        }
        let unit = rows.first().map_or("", |row| &row.unit);
        body += &format!("<h3>{} <span class=\"quiet\">({})</span></h3>\n{}\n", escape(metric), escape(unit), plot::bars(&rows)?);
        body += &table(&report.peers, &rows);
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
    let cell = |value: Option<f64>| {
        let class = match value {
            Some(value) if value < 0.995 => " class=\"low\"",
            Some(value) if value > 1.005 => " class=\"high\"",
            Some(_) | None => "",
        };
        format!("<td{class}>{}</td>", ratio(value))
    };
    let line = |(index, row): (usize, &&Row)| {
        let [median, low, high] = [row.median, row.low, row.high].map(figure);
        let cells: String = ratios.iter().map(|(_, ratios)| cell(ratios[index])).collect();
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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
