//! The report as text.

use std::fmt::Write as _;

use super::rows::COLUMNS;
use super::{Judged, Report, Spread};

/// All of it. Writing to a String does not fail.
pub fn text(report: &Report) -> String {
    let mut text = format!(
        "{}\n{} rounds of {} s: medians, and percentiles of all rounds together; in brackets the least and the greatest round\n",
        report.machine, report.rounds, report.seconds
    );
    for scenario in &report.scenarios {
        let _ = writeln!(text, "\n{}", scenario.name);
        let _ = write!(text, "  {:<30}", "");
        for column in COLUMNS {
            let _ = write!(text, "{:>24}", column.heading);
        }
        text.push('\n');
        for row in report.rows_of(scenario.name) {
            let _ = write!(text, "  {:<30}", row.variant.name());
            for column in COLUMNS {
                let figure = row.figure(column.heading);
                let _ = write!(text, "{:>24}", figure.map_or(String::new(), with_range));
            }
            text.push('\n');
        }
    }
    text.push_str(
        "\nmemory, PSS in MiB: at rest, with 1000 idle connections, under load, after it\n",
    );
    for (variant, memory) in &report.memory {
        let mebibytes = |bytes: u64| bytes as f64 / 1048576.0;
        let _ = writeln!(
            text,
            "  {:<30}{:>8.2}{:>8}{:>8.2}{:>8.2}",
            variant.name(),
            mebibytes(memory.at_rest),
            memory
                .with_idle
                .map_or(String::new(), |bytes| format!("{:.2}", mebibytes(bytes))),
            mebibytes(memory.under_load),
            mebibytes(memory.after)
        );
    }
    text.push_str("\nmemory with TLS: PSS in MiB after a request to a TLS upstream, idle; KiB of an idle connection of a client\n");
    for (variant, memory) in &report.tls_memory {
        let _ = writeln!(
            text,
            "  {:<30}{:>8.2}{:>8.2}{:>8.2}",
            variant.name(),
            memory.after_request as f64 / 1048576.0,
            memory.idle as f64 / 1048576.0,
            memory.idle_connection / 1024.0
        );
    }
    if let Some(bytes) = report.program_size {
        let mebibytes = bytes as f64 / 1048576.0;
        let _ = writeln!(text, "\nthe program without symbols: {mebibytes:.2} MiB");
    }
    text.push_str("\nsystem calls per request: 1 connection, 64 connections\n");
    for (variant, calls) in &report.syscalls {
        let _ = writeln!(
            text,
            "  {:<30}{:>8.2}{:>8.2}",
            variant.name(),
            calls.one,
            calls.many
        );
    }
    text.push_str("\ntargets\n");
    for judged in &report.targets {
        let _ = writeln!(text, "  {}", line(judged));
    }
    let (repeats, disturbed) = report.disturbed();
    let _ = writeln!(
        text,
        "\n{repeats} samples were taken again because others had the machine, {disturbed} stayed disturbed"
    );
    for note in &report.notes {
        let _ = writeln!(text, "{note}");
    }
    text
}

fn with_range(spread: Spread) -> String {
    let digits = if spread.shown < 100.0 { 2 } else { 0 };
    format!(
        "{:.digits$} [{:.digits$}-{:.digits$}]",
        spread.shown, spread.least, spread.greatest
    )
}

fn line(judged: &Judged) -> String {
    let ratio = judged.ratio.map_or(String::new(), |ratio| {
        format!(
            "{:.2} [{:.2}-{:.2}]",
            ratio.shown, ratio.least, ratio.greatest
        )
    });
    let mut line = format!(
        "{:<13}{ratio:<22}{:<14}{}",
        judged.verdict(),
        judged.bound.to_string(),
        judged.text
    );
    if let Some(scenario) = judged.scenario {
        let _ = write!(line, ", {scenario}");
    }
    if let Some(why) = judged.why {
        let _ = write!(line, "\n  {:<13}{} ({})", "", why.sentence, why.profile);
    }
    line
}
