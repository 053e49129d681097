//! Plots as SVG, in colours that can be seen on white and on black: whatever is black here takes the colour of the page's text.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::{Curve, Row, figure};

/// Colours of those who are nearly always there, the same in all plots.
const KNOWN: [(&str, [u8; 3]); 5] = [
    ("domicile", [0x2f, 0x81, 0xf7]),
    ("floor", [0x8a, 0x8f, 0x98]),
    ("pgbouncer", [0xe0, 0x7b, 0x00]),
    ("haproxy", [0x2d, 0xa0, 0x44]),
    ("direct", [0x8e, 0x62, 0xd9]),
];
/// Those of others, in their order.
const FURTHER: [[u8; 3]; 6] =
    [[0xd1, 0x4d, 0x8b], [0xc9, 0xa0, 0x00], [0x12, 0x9a, 0xa3], [0xb0, 0x5a, 0x3c], [0x5b, 0x6f, 0xd6], [0x7c, 0x9a, 0x2e]];

/// A colour for each subject.
pub fn colours(names: &[&str]) -> Vec<[u8; 3]> {
    let mut further = FURTHER.into_iter().cycle();
    let known = |name: &&str| KNOWN.iter().find(|(known, _)| known == name).map(|(_, colour)| *colour);
    names.iter().map(|name| known(name).or_else(|| further.next()).unwrap_or_default()).collect()
}

fn colour([red, green, blue]: [u8; 3]) -> RGBColor {
    RGBColor(red, green, blue)
}

/// Bars, one for each row, with their spread.
pub fn bars(rows: &[&Row]) -> Result<String, String> {
    let mut svg = String::new();
    let height = u32::try_from(rows.len()).unwrap_or(u32::MAX).saturating_mul(26) + 40;
    draw_bars(rows, SVGBackend::with_string(&mut svg, (860, height))).map_err(|error| error.to_string())?;
    Ok(of_page(svg))
}

fn draw_bars(rows: &[&Row], backend: SVGBackend<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let area = backend.into_drawing_area();
    let most = rows.iter().map(|row| row.high).fold(f64::MIN_POSITIVE, f64::max);
    let count = i32::try_from(rows.len())?;
    let colours = colours(&rows.iter().map(|row| row.subject.as_str()).collect::<Vec<_>>());
    let mut chart = ChartBuilder::on(&area)
        .margin_right(70)
        .x_label_area_size(30)
        .y_label_area_size(250)
        .build_cartesian_2d(0.0..most * 1.02, 0.0..f64::from(count))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_label_formatter(&|value| if *value == 0.0 { "0".to_owned() } else { figure(*value) })
        .draw()?;
    for (index, row) in rows.iter().enumerate() {
        // The first one stands above.
        let bottom = f64::from(count) - 1.0 - f64::from(u32::try_from(index)?);
        let colour = colour(colours[index]);
        let bar = Rectangle::new([(0.0, bottom + 0.18), (row.median, bottom + 0.82)], colour.mix(0.85).filled());
        chart.draw_series([bar])?;
        let middle = bottom + 0.5;
        chart.draw_series([PathElement::new([(row.low, middle), (row.high, middle)], BLACK.stroke_width(2))])?;
        let (x, y) = chart.backend_coord(&(0.0, middle));
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        area.draw(&Text::new(row.subject.clone(), (x - 245, y - 7), style.clone()))?;
        let (x, _) = chart.backend_coord(&(row.high, middle));
        area.draw(&Text::new(figure(row.median), (x + 6, y - 7), style))?;
    }
    area.present()?;
    Ok(())
}

/// Latencies as HdrHistogram's plots have them: each nine takes the same width.
pub fn curves(curves: &[&Curve]) -> Result<String, String> {
    let mut svg = String::new();
    draw_curves(curves, SVGBackend::with_string(&mut svg, (860, 380))).map_err(|error| error.to_string())?;
    Ok(of_page(svg))
}

fn draw_curves(curves: &[&Curve], backend: SVGBackend<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let area = backend.into_drawing_area();
    let all = || curves.iter().flat_map(|curve| &curve.points).map(|(_, us)| *us);
    let (least, most) = (all().fold(f64::MAX, f64::min).max(1.0), all().fold(10.0, f64::max));
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(40)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(Nines(4.0), (least * 0.8..most * 1.3).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .x_desc("of all answers")
        .y_desc("µs, at most")
        .y_label_formatter(&|us| figure(*us))
        .draw()?;
    let names: Vec<&str> = curves.iter().map(|curve| curve.subject.as_str()).collect();
    for (curve, of_subject) in curves.iter().zip(colours(&names)) {
        let points = curve.points.iter().map(|(share, us)| (-(1.0 - share).log10(), *us));
        chart.draw_series(LineSeries::new(points, colour(of_subject).stroke_width(2)))?;
    }
    area.present()?;
    Ok(())
}

/// An axis of nines: 0 is none of them, 2 is 99 of a hundred.
struct Nines(f64);

impl Ranged for Nines {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let width = f64::from(limit.1 - limit.0);
        #[expect(clippy::cast_possible_truncation, reason = "a place on a page")]
        let place = (value / self.0 * width).round() as i32;
        limit.0 + place
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999].map(|share: f64| -(1.0 - share).log10()).to_vec()
    }

    fn range(&self) -> std::ops::Range<f64> {
        0.0..self.0
    }
}

impl ValueFormatter<f64> for Nines {
    fn format_ext(&self, value: &f64) -> String {
        let share = 100.0 * (1.0 - 10_f64.powf(-value));
        let digits = if share > 99.95 { 2 } else { usize::from(share > 99.5) };
        format!("{share:.digits$} %")
    }
}

/// Black becomes the colour of the text, and the width that of the page.
fn of_page(svg: String) -> String {
    svg.replace("#000000", "currentColor").replacen("<svg ", "<svg role=\"img\" style=\"max-width: 100%; height: auto\" ", 1)
}
