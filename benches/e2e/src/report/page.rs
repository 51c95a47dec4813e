//! The report as one page that needs nothing else.

use std::fmt::Write as _;

use super::rows::{COLUMNS, CPU};
use super::{Judged, Report, Spread, table};
use crate::targets::SATURATED;
use crate::variant::Variant;

/// Height of a bar with its gap, and width of the plot, in pixels.
const ROW: usize = 22;
const WIDTH: f64 = 420.0;

/// The page. Writing to a String does not fail.
pub fn html(report: &Report) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><title>ambassador benchmark</title>\n<style>\
         body{font:14px system-ui,sans-serif;max-width:1100px;margin:2em auto;color:#222}\
         h2{margin-top:2em}td{padding:.2em .6em;vertical-align:top}.plots{display:flex;flex-wrap:wrap;gap:1em}\
         pre{overflow-x:auto;background:#f6f6f4;padding:1em}text{font:12px system-ui,sans-serif}\
         </style>\n<h1>ambassador benchmark</h1>\n",
    );
    let _ = writeln!(
        page,
        "<p>{}. {} rounds of {} s. Bars are medians, and percentiles of all rounds together; lines are the range of the rounds.</p>",
        escaped(&report.machine),
        report.rounds,
        report.seconds
    );
    page.push_str(&targets(&report.targets));
    for scenario in &report.scenarios {
        let _ = writeln!(page, "<h2>{}</h2><div class=plots>", escaped(scenario.name));
        for column in COLUMNS {
            let bars = bars(report, scenario.name, column.heading);
            if !bars.is_empty() {
                page.push_str(&plot(column.heading, &bars));
            }
        }
        page.push_str("</div>\n");
    }
    let _ = writeln!(
        page,
        "<h2>All figures</h2><pre>{}</pre>",
        escaped(&table::text(report))
    );
    page
}

/// What was measured of the targets, and why those were missed that were.
fn targets(targets: &[Judged]) -> String {
    let mut table = String::from("<h2>Targets</h2><table>\n");
    for judged in targets {
        let Some(ratio) = judged.ratio else {
            continue;
        };
        let why = judged.why.map_or(String::new(), |why| {
            format!(
                "<br><i>{} ({})</i>",
                escaped(why.sentence),
                escaped(why.profile)
            )
        });
        let _ = writeln!(
            table,
            "<tr><td>{}<td>{:.2}<td>{}<td>{}{}{why}",
            judged.verdict(),
            ratio.shown,
            judged.bound,
            escaped(&judged.text),
            judged
                .scenario
                .map_or(String::new(), |scenario| format!(", {}", escaped(scenario))),
        );
    }
    table.push_str("</table>\n");
    table
}

/// The figure for the README: what a request costs at saturation.
pub fn summary(report: &Report) -> Option<String> {
    let scenario = SATURATED;
    let bars = bars(report, scenario, CPU);
    (!bars.is_empty()).then(|| {
        let title = format!("CPU of the proxy per request, us ({scenario})");
        let svg = plot(&title, &bars);
        svg.replacen(
            "<svg ",
            "<svg xmlns=\"http://www.w3.org/2000/svg\" font-family=\"system-ui,sans-serif\" font-size=\"12\" ",
            1,
        )
    })
}

/// What stands under a heading, by variant.
fn bars(report: &Report, scenario: &str, heading: &str) -> Vec<(Variant, Spread)> {
    report
        .rows_of(scenario)
        .filter_map(|row| Some((row.variant, row.figure(heading)?)))
        .collect()
}

/// Horizontal bars.
fn plot(title: &str, bars: &[(Variant, Spread)]) -> String {
    let most = bars
        .iter()
        .map(|(_, spread)| spread.greatest)
        .fold(0.0, f64::max);
    let scale = |value: f64| 190.0 + value / most.max(f64::MIN_POSITIVE) * (WIDTH - 190.0);
    let height = (bars.len() + 1) * ROW;
    let mut svg = format!(
        "<svg width=\"{}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\"><text x=\"0\" y=\"14\" font-weight=\"bold\">{title}</text>",
        WIDTH + 80.0
    );
    for (row, (variant, spread)) in bars.iter().enumerate() {
        let y = (row + 1) * ROW;
        let (middle, base) = (y + ROW / 2 - 3, y + ROW / 2 + 2);
        let colour = match (variant, variant.is_ours()) {
            (Variant::Direct, _) => "#999",
            (_, true) => "#2a6f97",
            (_, false) => "#d08c60",
        };
        let digits = if spread.shown < 100.0 { 1 } else { 0 };
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{base}\">{}</text>\
             <rect x=\"190\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"black\"/>\
             <text x=\"{:.1}\" y=\"{base}\">{:.digits$}</text>",
            variant.name(),
            scale(spread.shown) - 190.0,
            ROW - 6,
            scale(spread.least),
            scale(spread.greatest),
            scale(spread.greatest) + 6.0,
            spread.shown
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
