//! Requests that come at random, and at times faster than the rate limit, and
//! wait for their turn.

use std::time::Duration;

use ambassador::testing::clock::Instant;
use ambassador::testing::policy::rate_limit::{RateLimit, Settings, Turn};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::timeline::Timeline;

/// How requests come.
#[derive(Debug, Clone)]
pub struct Arrivals {
    /// How many.
    pub requests: usize,
    /// Time between two of them: uniform from zero to twice this.
    pub gap: Duration,
    /// How long each of them would wait.
    pub patience: Duration,
    /// What chance comes from.
    pub seed: u64,
}

/// A request that went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Its place among all that came.
    pub number: usize,
    /// When it came.
    pub arrived: Duration,
    /// When it went on.
    pub went: Duration,
}

enum Event {
    Arrival(usize),
    Departure { number: usize, arrived: Duration },
}

/// Those that went on, in the order in which they did.
pub fn run(settings: &Settings, arrivals: &Arrivals) -> Vec<Passed> {
    let origin = Instant::now();
    let limit = RateLimit::new(origin);
    let mut timeline = Timeline::new(origin);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(arrivals.seed);
    let mut passed = Vec::new();
    timeline.after(Duration::ZERO, Event::Arrival(0));
    while let Some(event) = timeline.advance() {
        let now = timeline.now();
        match event {
            Event::Arrival(number) => {
                if number + 1 < arrivals.requests {
                    let gap = rng.random_range(Duration::ZERO..=arrivals.gap * 2);
                    timeline.after(gap, Event::Arrival(number + 1));
                }
                let wait = match limit.take(settings, arrivals.patience, timeline.instant()) {
                    Turn::Now => Duration::ZERO,
                    Turn::After(wait) => wait,
                    Turn::Refused(_) => continue,
                };
                let arrived = now;
                timeline.after(wait, Event::Departure { number, arrived });
            }
            Event::Departure { number, arrived } => passed.push(Passed {
                number,
                arrived,
                went: now,
            }),
        }
    }
    passed
}
