//! Endpoints that are bad for a while, as `docs/resilience.md` shows them.

use std::time::Duration;

use super::{Endpoint, Manner, Outcome, Script, Second, run};
use crate::plot::{Axis, Line, Panel, Plot};

/// The seed of the plot in the documentation.
pub const PLOT_SEED: u64 = 1;
/// Requests in a second.
const PER_SECOND: f64 = 200.0;
/// When endpoints turn bad.
const BAD_FROM: Duration = Duration::from_secs(10);
/// When they are well again.
const BAD_UNTIL: Duration = Duration::from_secs(70);
/// When the callers stop.
const END: Duration = Duration::from_secs(120);

/// Every case with the same seed.
#[derive(Debug)]
pub struct Report {
    cases: Vec<(&'static str, Outcome)>,
}

/// The cases: what each is called, and its endpoints, which are bad from one time
/// to another.
pub fn cases(from: Duration, until: Duration) -> Vec<(&'static str, Vec<Endpoint>)> {
    let bad = |manner: Manner| Endpoint::from(from, manner).until(until);
    let slow = Manner::Answers(Duration::from_millis(500)..=Duration::from_millis(1_500));
    let among = |bad: Endpoint, count: usize, all: usize| -> Vec<Endpoint> {
        let well = std::iter::repeat_n(Endpoint::well(), all - count);
        std::iter::repeat_n(bad, count).chain(well).collect()
    };
    let mut zones = among(bad(Manner::Refuses), 3, 6);
    for (place, endpoint) in zones.iter_mut().enumerate() {
        endpoint.zone = Some(if place < 3 { "a" } else { "b" });
    }
    vec![
        ("1 of 3 refuses", among(bad(Manner::Refuses), 1, 3)),
        ("2 of 3 refuse", among(bad(Manner::Refuses), 2, 3)),
        ("1 of 10 refuses", among(bad(Manner::Refuses), 1, 10)),
        ("2 of 3 reset", among(bad(Manner::Resets), 2, 3)),
        ("1 of 3 answers 500", among(bad(Manner::Fails), 1, 3)),
        ("2 of 3 answer 500", among(bad(Manner::Fails), 2, 3)),
        ("1 of 3 hangs", among(bad(Manner::Hangs), 1, 3)),
        (
            "1 of 3 is unreachable",
            among(bad(Manner::Unreachable), 1, 3),
        ),
        ("1 of 3 is slow", among(bad(slow), 1, 3)),
        ("1 of 3 comes and goes", among(flapping(from, until), 1, 3)),
        ("1 of 2 zones refuses", zones),
    ]
}

/// One that refuses for five seconds, is well for five, and so on.
fn flapping(from: Duration, until: Duration) -> Endpoint {
    let mut endpoint = Endpoint::well();
    let mut time = from;
    while time < until {
        endpoint.phases.push((time, Manner::Refuses));
        endpoint = endpoint.until(time + Duration::from_secs(5));
        time += Duration::from_secs(10);
    }
    endpoint
}

/// What a case runs as. The zone of the first endpoint is that of the upstream.
pub fn script(endpoints: Vec<Endpoint>, per_second: f64) -> Script {
    let zone = endpoints.first().and_then(|endpoint| endpoint.zone);
    Script {
        zone,
        ..Script::of(endpoints, per_second)
    }
}

impl Report {
    /// Runs them.
    pub fn new(seed: u64) -> Self {
        let run = |(name, endpoints)| {
            let script = Script {
                until: END,
                seed,
                ..script(endpoints, PER_SECOND)
            };
            (name, run(&script))
        };
        Self {
            cases: cases(BAD_FROM, BAD_UNTIL).into_iter().map(run).collect(),
        }
    }

    /// Requests, tries and failures over time.
    pub fn svg(&self) -> String {
        let panels = self.cases.iter().map(|(name, outcome)| Panel {
            title: (*name).into(),
            lines: vec![
                line("requests served", "#2a6f97", outcome, |second| {
                    second.served
                }),
                line("tries at bad endpoints", "#c8553d", outcome, |second| {
                    second.at_bad
                }),
                line("requests not served", "#111", outcome, |second| {
                    second.requests - second.served
                }),
            ],
        });
        let plot = Plot {
            title: "Endpoints that are bad for a minute".into(),
            x: Axis {
                label: "time (s)".into(),
                most: END.as_secs_f64(),
                step: 10.0,
            },
            y: Axis {
                label: "per second".into(),
                most: 250.0,
                step: 50.0,
            },
            shaded: (
                BAD_FROM.as_secs_f64(),
                BAD_UNTIL.as_secs_f64(),
                "they are bad".into(),
            ),
            level: (PER_SECOND, format!("requests on average ({PER_SECOND}/s)")),
            panels: panels.collect(),
        };
        plot.svg()
    }

    /// The figures of each case, as Markdown.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| | requests | not served | extra tries | tries at bad endpoints | slowest that was served | circuit opened |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for (name, outcome) in &self.cases {
            table.push_str(&format!(
                "| {name} | {} | {} | {} | {} | {:.2} s | {} |\n",
                outcome.requests(),
                outcome.unserved.len(),
                outcome.extra(),
                outcome.at_bad(),
                outcome.slowest.as_secs_f64(),
                match outcome.transitions.opened {
                    0 => "never".into(),
                    times => format!("{times} times"),
                },
            ));
        }
        table
    }
}

fn line(name: &str, colour: &str, outcome: &Outcome, of: impl Fn(&Second) -> u32) -> Line {
    let seconds = outcome.seconds.iter().take(END.as_secs() as usize);
    Line {
        name: name.into(),
        colour: colour.into(),
        values: seconds.map(|second| f64::from(of(second))).collect(),
    }
}
