//! The report as text.

use super::{Report, Row, figure, groups, ratio, ratios};

impl Report {
    /// A line for each row, in groups.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut last = String::new();
        for (title, metric, rows) in groups(&self.rows) {
            if title != last {
                text += &format!("\n{title}\n");
                last = title;
            }
            let unit = rows.first().map_or("", |row| &row.unit);
            let ratios = ratios(&self.peers, &rows);
            let widths: Vec<usize> = ratios.iter().map(|(name, _)| (name.chars().count() + 2).max(8)).collect();
            let line = |first: &str, figures: [&str; 3], ratios: &mut dyn Iterator<Item = String>| {
                let [median, low, high] = figures;
                let ratios: String = ratios.zip(&widths).map(|(ratio, width)| format!(" {ratio:>width$}")).collect();
                format!("  {first:<46} {median:>10} {low:>10} {high:>10}{ratios}\n")
            };
            let headings = &mut ratios.iter().map(|(name, _)| format!("÷ {name}"));
            text += &line(&format!("{metric} ({unit})"), ["median", "low", "high"], headings);
            for (index, row) in rows.iter().enumerate() {
                let [median, low, high] = &[row.median, row.low, row.high].map(figure);
                let of_row = &mut ratios.iter().map(|(_, of_rows)| ratio(of_rows[index]));
                text += &line(&format!("  {}", row.subject), [median, low, high], of_row);
            }
        }
        for note in &self.notes {
            text += &format!("\n{note}");
        }
        text
    }

    /// What has moved since another report: rows whose medians differ, with the spread of both beside them.
    pub fn since(&self, before: &Self) -> String {
        let mut text = format!(
            "Since {} (noise: the larger spread of the two, low to high, by the median; * beyond it)\n  {:<64} {:<26} {:>10} {:>10} {:>8} {:>8}\n",
            before.commit, "what", "who", "before", "now", "change", "noise"
        );
        for row in &self.rows {
            let same = |other: &&Row| {
                (other.title(), &other.subject, &other.metric) == (row.title(), &row.subject, &row.metric) && other.median > 0.0
            };
            let Some(old) = before.rows.iter().find(same) else { continue };
            let change = row.median / old.median - 1.0;
            let spread = |row: &Row| (row.high - row.low) / row.median.max(f64::MIN_POSITIVE);
            let noise = spread(row).max(spread(old));
            if change.abs() < 0.01 {
                continue;
            }
            // One round has no spread, and says nothing of the noise.
            let is_known = row.rounds.min(old.rounds) > 1;
            let mark = if is_known && change.abs() > noise { "*" } else { "" };
            let noise = if is_known { format!("{:.1}%", 100.0 * noise) } else { "?".to_owned() };
            text += &format!(
                "  {:<64} {:<26} {:>10} {:>10} {:>+7.1}% {noise:>8} {mark}\n",
                format!("{} {}", row.title(), row.metric),
                row.subject,
                figure(old.median),
                figure(row.median),
                100.0 * change,
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{report, row};

    #[test]
    fn what_moved_is_shown_with_its_noise() {
        let (before, mut after) = (report(), report());
        after.rows[0] = row("domicile", 15.0);
        let said = after.since(&before);
        let lines: Vec<&str> = said.lines().skip(2).collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(lines[0].contains("domicile") && lines[0].contains("+50.0%") && lines[0].ends_with('*'), "{said}");
    }

    #[test]
    fn a_group_has_one_heading() {
        let table = report().table();
        assert_eq!(table.matches("query/row100, simple, 64 clients").count(), 1, "{table}");
        assert!(table.contains("cpu_us_per_query (µs a query)"), "{table}");
    }
}
