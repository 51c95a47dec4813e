//! The text formats: Prometheus', or OpenMetrics 1.0.

use std::fmt::{Display, Write};

use super::super::cells::UpstreamCells;
use super::super::histogram::Histogram;

/// Which text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for.
    pub(crate) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The text so far.
pub(super) struct Text {
    pub(super) out: String,
    pub(super) format: Format,
}

impl Text {
    /// Opens a counter; `name` comes without `_total`, which OpenMetrics leaves
    /// out of the family's name and Prometheus does not.
    pub(super) fn counter(&mut self, name: &str, help: &str) {
        let suffix = match self.format {
            Format::Prometheus => "_total",
            Format::OpenMetrics => "",
        };
        self.put(format_args!(
            "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} counter\n"
        ));
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) {
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
    }

    pub(super) fn total(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        self.sample("_total", labels, value);
    }

    pub(super) fn total_if_any(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        if value > 0 {
            self.total(name, labels, value);
        }
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            self.put(format_args!("{before}{label}=\""));
            for c in value.chars() {
                match c {
                    '"' => self.out.push_str("\\\""),
                    '\\' => self.out.push_str("\\\\"),
                    '\n' => self.out.push_str("\\n"),
                    _ => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        self.put(format_args!(" {value}\n"));
    }

    pub(super) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        cells: &[(&str, &UpstreamCells)],
        of: fn(&UpstreamCells) -> &Histogram,
    ) {
        self.put(format_args!(
            "# HELP {name} {help}\n# TYPE {name} histogram\n"
        ));
        let bucket_name = format!("{name}_bucket");
        for (upstream, cells) in cells {
            let (histogram, count) = (of(cells), of(cells).count());
            if count == 0 {
                continue;
            }
            for (bound, below) in histogram.cumulative() {
                let le = bound.as_secs_f64().to_string();
                self.sample(&bucket_name, &[("upstream", upstream), ("le", &le)], below);
            }
            self.sample(
                &bucket_name,
                &[("upstream", upstream), ("le", "+Inf")],
                count,
            );
            self.out.push_str(name);
            self.sample("_count", &[("upstream", upstream)], count);
            self.out.push_str(name);
            let sum = histogram.sum().as_secs_f64();
            self.sample("_sum", &[("upstream", upstream)], sum);
        }
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.out
            .write_fmt(text)
            .expect("a String takes every write");
    }
}
