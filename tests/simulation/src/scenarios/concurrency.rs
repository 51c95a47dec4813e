//! Requests that come at random and an upstream whose capacity changes, with and
//! without an adaptive limit of those in flight.
//!
//! The upstream queues whatever it gets. Arrivals do not wait for answers: under
//! an overload only a limit keeps the queue from growing without end.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use ambassador::testing::clock::Instant;
use ambassador::testing::policy::concurrency::{Concurrency, Sample, Settings};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

use crate::timeline::Timeline;

/// A run.
#[derive(Debug, Clone)]
pub struct Script {
    /// What is in force one after the other, each until this time.
    pub phases: Vec<(Duration, Phase)>,
    /// How long a request waits for its answer.
    pub patience: Duration,
    /// What chance comes from.
    pub seed: u64,
}

/// What holds for a part of a run.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    /// Requests that come in a second, on average.
    pub per_second: f64,
    /// Requests that the upstream works on at the same time.
    pub servers: u32,
    /// How long one takes on average.
    pub service: Duration,
    /// How that varies.
    pub spread: Spread,
}

/// How service times are distributed.
#[derive(Debug, Clone, Copy)]
pub enum Spread {
    /// Evenly, from half the mean to half as much again.
    Even,
    /// Log-normally, with this standard deviation of the logarithm.
    LogNormal(f64),
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was answered after this time.
    Answered(Duration),
    /// Its caller gave up.
    TimedOut,
    /// It was over the limit.
    Refused,
}

/// What happened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Every request that ended, and when.
    pub ended: Vec<(Duration, End)>,
    /// The limit, each time that it changed.
    pub limits: Vec<(Duration, u32)>,
}

enum Event {
    Arrival,
    Served(usize),
    GivesUp(usize),
}

struct Run<'a> {
    script: &'a Script,
    settings: &'a Settings,
    concurrency: Concurrency,
    timeline: Timeline<Event>,
    rng: Xoshiro256PlusPlus,
    /// When each request came, while somebody waits for it.
    waiting: Vec<Option<Duration>>,
    queue: VecDeque<usize>,
    in_flight: u32,
    in_service: u32,
    outcome: Outcome,
}

/// Runs a script.
pub fn run(settings: &Settings, script: &Script) -> Outcome {
    let origin = Instant::now();
    let mut run = Run {
        script,
        settings,
        concurrency: Concurrency::new(origin),
        timeline: Timeline::new(origin),
        rng: Xoshiro256PlusPlus::seed_from_u64(script.seed),
        waiting: Vec::new(),
        queue: VecDeque::new(),
        in_flight: 0,
        in_service: 0,
        outcome: Outcome::default(),
    };
    run.timeline.after(Duration::ZERO, Event::Arrival);
    // No request comes after the last phase.
    while let Some(event) = run.timeline.advance() {
        match event {
            Event::Arrival => run.arrival(),
            Event::Served(request) => run.served(request),
            Event::GivesUp(request) => run.ended(request, Sample::Dropped, End::TimedOut),
        }
    }
    run.outcome
}

impl Outcome {
    /// The latencies of what was answered in this time, sorted.
    pub fn latencies(&self, time: &Range<Duration>) -> Vec<Duration> {
        let ended = self.ended.iter().filter(|(at, _)| time.contains(at));
        let mut latencies: Vec<Duration> = ended
            .filter_map(|(_, end)| match end {
                End::Answered(latency) => Some(*latency),
                End::TimedOut | End::Refused => None,
            })
            .collect();
        latencies.sort_unstable();
        latencies
    }

    /// The share of what ended in this time that was over the limit.
    pub fn refused_share(&self, time: &Range<Duration>) -> f64 {
        let ended = self.ended.iter().filter(|(at, _)| time.contains(at));
        let (mut all, mut refused) = (0, 0);
        for (_, end) in ended {
            all += 1;
            refused += u32::from(*end == End::Refused);
        }
        f64::from(refused) / f64::from(all.max(1))
    }

    /// What the limit was set to in this time.
    pub fn limits(&self, time: &Range<Duration>) -> impl Iterator<Item = u32> {
        let limits = self.limits.iter().filter(|(at, _)| time.contains(at));
        limits.map(|(_, limit)| *limit)
    }
}

impl Run<'_> {
    fn phase(&self) -> Option<Phase> {
        let now = self.timeline.now();
        let mut phases = self.script.phases.iter();
        phases
            .find(|(until, _)| now < *until)
            .map(|(_, phase)| *phase)
    }

    fn arrival(&mut self) {
        let Some(phase) = self.phase() else {
            return;
        };
        // A Poisson process.
        let gap = -self.rng.random_range(f64::MIN_POSITIVE..1.0).ln() / phase.per_second;
        self.timeline
            .after(Duration::from_secs_f64(gap), Event::Arrival);
        let limit = self.concurrency.limit(self.settings);
        if limit.is_some_and(|limit| self.in_flight >= limit) {
            self.outcome.ended.push((self.timeline.now(), End::Refused));
            return;
        }
        let request = self.waiting.len();
        self.waiting.push(Some(self.timeline.now()));
        self.in_flight += 1;
        self.queue.push_back(request);
        self.timeline
            .after(self.script.patience, Event::GivesUp(request));
        self.serve();
    }

    fn serve(&mut self) {
        let last = self.script.phases.last().map(|(_, phase)| *phase);
        let Some(phase) = self.phase().or(last) else {
            return;
        };
        while self.in_service < phase.servers
            && let Some(request) = self.queue.pop_front()
        {
            self.in_service += 1;
            let takes = phase.spread.draw(phase.service, &mut self.rng);
            self.timeline.after(takes, Event::Served(request));
        }
    }

    fn served(&mut self, request: usize) {
        self.in_service -= 1;
        if let Some(came) = self.waiting[request] {
            let latency = self.timeline.now() - came;
            self.ended(request, Sample::Answered(latency), End::Answered(latency));
        }
        self.serve();
    }

    fn ended(&mut self, request: usize, sample: Sample, end: End) {
        if self.waiting[request].take().is_none() {
            return;
        }
        let now = self.timeline.now();
        self.outcome.ended.push((now, end));
        let instant = self.timeline.instant();
        self.concurrency
            .report(self.settings, sample, self.in_flight, instant);
        let limits = &mut self.outcome.limits;
        if let Some(limit) = self.concurrency.limit(self.settings)
            && limits.last().is_none_or(|(_, last)| *last != limit)
        {
            limits.push((now, limit));
        }
        self.in_flight -= 1;
    }
}

impl Spread {
    fn draw(self, mean: Duration, rng: &mut impl Rng) -> Duration {
        match self {
            Self::Even => mean.mul_f64(rng.random_range(0.5..1.5)),
            Self::LogNormal(sigma) => {
                // Box and Muller (1958).
                let radius = (-2.0 * rng.random_range(f64::MIN_POSITIVE..1.0).ln()).sqrt();
                let normal = radius * rng.random_range(0.0..std::f64::consts::TAU).cos();
                mean.mul_f64((sigma * normal - sigma * sigma / 2.0).exp())
            }
        }
    }
}
