//! The retry storm as `docs/resilience.md` shows it.

use std::time::Duration;

use super::{CALLERS, CAPACITY_PER_SECOND, END, Outcome, RESTARTED, STOPPED, Variant, WINDOW, run};
use crate::plot::{Axis, Line, Panel, Plot};

/// Every variant with the same seed.
#[derive(Debug)]
pub struct Report {
    outcomes: [(Variant, Outcome); 4],
}

impl Report {
    /// Runs them.
    pub fn new(seed: u64) -> Self {
        Self {
            outcomes: Variant::ALL.map(|variant| (variant, run(variant, seed))),
        }
    }

    /// What came to the upstream and what was answered, over time.
    pub fn svg(&self) -> String {
        let panels = self.outcomes.iter().map(|(variant, outcome)| Panel {
            title: variant.name().into(),
            lines: vec![
                line("tries offered", "#c8553d", &outcome.offered),
                line("requests answered", "#2a6f97", &outcome.answered),
            ],
        });
        let plot = Plot {
            title: format!("{CALLERS} callers and one restart of their upstream"),
            x: Axis {
                label: "time (s)".into(),
                most: END.as_secs_f64(),
                step: 1.0,
            },
            y: Axis {
                label: "per second".into(),
                most: 5_000.0,
                step: 1_000.0,
            },
            shaded: (
                STOPPED.as_secs_f64(),
                RESTARTED.as_secs_f64(),
                "upstream down".into(),
            ),
            level: (
                f64::from(CAPACITY_PER_SECOND),
                format!("capacity when warm ({CAPACITY_PER_SECOND}/s)"),
            ),
            panels: panels.collect(),
        };
        plot.svg()
    }

    /// The figures of each variant, as Markdown.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| | tries per request | tries in a second of the outage | most tries in 100 ms after it | requests answered | recovered after |\n\
             |---|---|---|---|---|---|\n",
        );
        for (variant, outcome) in &self.outcomes {
            let recovered = match outcome.recovered_after() {
                Some(Duration::ZERO) => "at once".into(),
                Some(time) => format!("{} s", time.as_secs()),
                None => "not in this time".into(),
            };
            table.push_str(&format!(
                "| {} | {:.2} | {:.1} | {} | {:.1} % | {recovered} |\n",
                variant.name(),
                outcome.tries_per_request(),
                outcome.tries_per_second_of_outage(),
                outcome.peak_after_restart(),
                outcome.answered_share() * 100.0,
            ));
        }
        table
    }
}

fn line(name: &str, colour: &str, windows: &[u32]) -> Line {
    let per_second = 1.0 / WINDOW.as_secs_f64();
    let values = windows.iter().map(|count| f64::from(*count) * per_second);
    Line {
        name: name.into(),
        colour: colour.into(),
        values: values.collect(),
    }
}
