//! A caller that calls at fixed intervals through a breaker, and what the breaker
//! does over time.

use std::ops::Range;
use std::time::Duration;

use ambassador::testing::clock::Instant;
use ambassador::testing::policy::breaker::{Breaker, Settings, State, Trial};

use crate::timeline::Timeline;

/// What happens, by the time since the start.
#[derive(Debug, Clone)]
pub struct Script {
    /// Time between two calls; the first is at the start.
    pub every: Duration,
    /// How long a call takes, and a failure.
    pub takes: Duration,
    /// Calls that begin in one of these fail.
    pub outages: Vec<Range<Duration>>,
    /// The callers of calls that begin in one of these go before the answer.
    pub absences: Vec<Range<Duration>>,
    /// What the breaker's jitter comes from.
    pub seed: u64,
    /// No call begins from then on.
    pub until: Duration,
}

enum Event<'a> {
    Call,
    End(Trial<'a>, End),
}

enum End {
    Success,
    Failure,
    Absence,
}

/// Every change of the breaker's state, and when it was.
pub fn run(settings: &Settings, script: &Script) -> Vec<(Duration, State)> {
    let origin = Instant::now();
    let breaker = Breaker::new(origin, script.seed);
    let mut timeline = Timeline::new(origin);
    let mut changes = vec![(Duration::ZERO, breaker.state())];
    timeline.after(Duration::ZERO, Event::Call);
    while let Some(event) = timeline.advance() {
        match event {
            Event::Call if timeline.now() >= script.until => {}
            Event::Call => {
                timeline.after(script.every, Event::Call);
                if let Some(trial) = breaker.admit(settings, 0, timeline.instant()) {
                    let end = script.end_of(timeline.now());
                    timeline.after(script.takes, Event::End(trial, end));
                }
            }
            Event::End(trial, End::Success) => trial.succeeded(timeline.instant()),
            Event::End(trial, End::Failure) => trial.failed(timeline.instant()),
            Event::End(trial, End::Absence) => trial.abandoned(),
        }
        let state = breaker.state();
        if changes.last().is_none_or(|(_, last)| *last != state) {
            changes.push((timeline.now(), state));
        }
    }
    changes
}

impl Script {
    fn end_of(&self, began: Duration) -> End {
        let is_in = |times: &[Range<Duration>]| times.iter().any(|times| times.contains(&began));
        if is_in(&self.absences) {
            End::Absence
        } else if is_in(&self.outages) {
            End::Failure
        } else {
            End::Success
        }
    }
}
