//! The rows of the table: what all rounds of a variant in a scenario show.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Spread;
use crate::distribution::{Distribution, Merged};
use crate::sample::Sample;
use crate::variant::Variant;

/// The name of the column that the README shows.
pub const CPU: &str = "CPU us/request";

/// A variant in a scenario.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The scenario.
    pub scenario: &'static str,
    /// The variant.
    pub variant: Variant,
    /// By the headings of [`COLUMNS`].
    figures: BTreeMap<&'static str, Spread>,
}

impl Row {
    /// From the rounds.
    pub fn new(scenario: &'static str, variant: Variant, rounds: &[&Sample]) -> Self {
        Self {
            scenario,
            variant,
            figures: COLUMNS
                .iter()
                .filter_map(|column| Some((column.heading, column.of(rounds)?)))
                .collect(),
        }
    }

    /// The figure under a heading.
    pub fn figure(&self, heading: &str) -> Option<Spread> {
        self.figures.get(heading).copied()
    }
}

/// A column of the table, and a plot of the page.
pub struct Column {
    /// What stands above it.
    pub heading: &'static str,
    of_round: fn(&Sample) -> Option<f64>,
    of_all: OfAll,
}

/// What is shown for all rounds together.
enum OfAll {
    /// The median of the rounds.
    Median,
    /// The quantile of all that was recorded in any round: a slow round of few
    /// answers counts for as many.
    Quantile(f64, fn(&Sample) -> &[Distribution]),
}

impl Column {
    fn of(&self, rounds: &[&Sample]) -> Option<Spread> {
        let values = rounds.iter().filter_map(|sample| (self.of_round)(sample));
        let spread = Spread::of(values.collect())?;
        let shown = match self.of_all {
            OfAll::Median => spread.shown,
            OfAll::Quantile(part, distributions) => {
                let all = rounds.iter().flat_map(|sample| distributions(sample));
                Merged::of(all)?.quantile(part)
            }
        };
        Some(Spread { shown, ..spread })
    }
}

/// All of them.
pub const COLUMNS: [Column; 6] = [
    Column {
        heading: "requests/s",
        of_round: |sample| Some(sample.per_second),
        of_all: OfAll::Median,
    },
    Column {
        heading: "p50 us",
        of_round: |sample| Some(sample.p50),
        of_all: OfAll::Quantile(0.5, |sample| &sample.latency),
    },
    Column {
        heading: "p99 us",
        of_round: |sample| Some(sample.p99),
        of_all: OfAll::Quantile(0.99, |sample| &sample.latency),
    },
    Column {
        heading: "p99.9 us",
        of_round: |sample| Some(sample.p999),
        of_all: OfAll::Quantile(0.999, |sample| &sample.latency),
    },
    Column {
        heading: "connect us",
        of_round: |sample| sample.connect_p50,
        of_all: OfAll::Quantile(0.5, |sample| &sample.connect),
    },
    Column {
        heading: CPU,
        of_round: |sample| sample.cpu,
        of_all: OfAll::Median,
    },
];
