//! A thousand callers and one restart of what they call.
//!
//! Each caller makes a request every two seconds or so, whatever became of the
//! one before. The upstream has capacity for half as much again as they all need.
//! It is stopped: requests in flight are reset together, and for two seconds
//! every connection is refused. It comes back with a quarter of its capacity,
//! and takes five seconds to get all of it back.
//!
//! A request that waits in the upstream's queue for longer than its caller does
//! is served all the same, for nothing. That is what keeps an upstream down whose
//! callers try again without limit: see Bronson et al., "Metastable Failures in
//! Distributed Systems" (2021).

use std::time::Duration;

use ambassador::testing::clock::Instant;
use ambassador::testing::policy::breaker::{self, Breaker, Trial, Trip};
use ambassador::testing::policy::budget::Budget;
use ambassador::testing::policy::retry::{Cause, Retry};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

use crate::timeline::Timeline;
use crate::upstream::{self, Offer, Server, Upstream};

pub mod report;

/// Callers.
pub const CALLERS: u32 = 1_000;
/// Time between two requests of a caller, on average.
const INTERVAL: Duration = Duration::from_secs(2);
/// Requests that the warm upstream can answer in a second.
pub const CAPACITY_PER_SECOND: u32 = 750;
/// When the upstream is stopped.
pub const STOPPED: Duration = Duration::from_secs(3);
/// When it is back.
pub const RESTARTED: Duration = Duration::from_secs(5);
/// When the callers make no further request.
pub const END: Duration = Duration::from_secs(20);
/// `per_try`.
const TRY_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long what is offered is counted together.
pub const WINDOW: Duration = Duration::from_millis(100);
/// The seed of the plot in the documentation.
pub const PLOT_SEED: u64 = 1;

/// What the callers' requests pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Retries after waits that double and are the same for all.
    FixedWaits,
    /// Retries with full jitter.
    FullJitter,
    /// The same within a budget.
    Budget,
    /// The same behind a circuit breaker.
    Breaker,
}

/// What happened in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Tries that reached out for the upstream, by windows.
    pub offered: Vec<u32>,
    /// Requests that were answered, by windows.
    pub answered: Vec<u32>,
    /// Tries in all.
    pub tries: u32,
    /// Every request, by the time of its beginning: whether it was answered.
    pub requests: Vec<(Duration, bool)>,
}

/// Runs a variant.
pub fn run(variant: Variant, seed: u64) -> Outcome {
    let retry = Retry {
        attempts: 6,
        ..Retry::default()
    };
    let settings = breaker::Settings {
        trip: match variant {
            Variant::Breaker => breaker::Settings::default().trip,
            _ => Trip::Never,
        },
        sleep: Duration::from_secs(1),
        ..breaker::Settings::default()
    };
    let origin = Instant::now();
    let breaker = Breaker::new(origin, seed);
    let storm = Storm {
        variant,
        retry: &retry,
        budget: Budget::new(origin),
        breaker: &breaker,
        breaker_settings: &settings,
        upstream: Upstream::new(upstream_settings()),
        timeline: Timeline::new(origin),
        // Of their own, so that the variants differ in nothing else.
        arrivals: Xoshiro256PlusPlus::seed_from_u64(seed),
        services: Xoshiro256PlusPlus::seed_from_u64(seed + 1_000_000),
        waits: Xoshiro256PlusPlus::seed_from_u64(seed + 2_000_000),
        requests: Vec::new(),
        outcome: Outcome {
            offered: vec![0; windows()],
            answered: vec![0; windows()],
            tries: 0,
            requests: Vec::new(),
        },
    };
    storm.run()
}

fn upstream_settings() -> upstream::Settings {
    upstream::Settings {
        // Half a second each on average.
        servers: CAPACITY_PER_SECOND / 2,
        service: Duration::from_millis(250)..=Duration::from_millis(750),
        queue_max: 1_000,
        cold_share: 0.25,
        warm_up: Duration::from_secs(5),
    }
}

fn windows() -> usize {
    window(END)
}

/// The number of the window that a moment is in.
fn window(time: Duration) -> usize {
    (time.as_nanos() / WINDOW.as_nanos()) as usize
}

/// A run as it goes on.
struct Storm<'a> {
    variant: Variant,
    retry: &'a Retry,
    budget: Budget,
    breaker: &'a Breaker,
    breaker_settings: &'a breaker::Settings,
    upstream: Upstream<Try>,
    timeline: Timeline<Event>,
    arrivals: Xoshiro256PlusPlus,
    services: Xoshiro256PlusPlus,
    waits: Xoshiro256PlusPlus,
    requests: Vec<Request<'a>>,
    outcome: Outcome,
}

struct Request<'a> {
    began: Duration,
    tries: u16,
    /// Where a try is under way.
    trial: Option<Trial<'a>>,
    answered: bool,
}

/// The try of a request, by its index and count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Try {
    request: usize,
    number: u16,
}

enum Event {
    /// A caller makes a request.
    Call,
    /// The wait before a further try of this request is over.
    Again(usize),
    /// A server has done its work.
    Served(Try, Server),
    TryTimeout(Try),
    Stop,
    Restart,
}

impl<'a> Storm<'a> {
    fn run(mut self) -> Outcome {
        self.timeline.after(STOPPED, Event::Stop);
        self.timeline.after(RESTARTED, Event::Restart);
        for _ in 0..CALLERS {
            let first = self.arrivals.random_range(Duration::ZERO..INTERVAL);
            self.timeline.after(first, Event::Call);
        }
        // Requests end after so many tries, and callers at `END`.
        while let Some(event) = self.timeline.advance() {
            match event {
                Event::Call => self.call(),
                Event::Again(request) => self.attempt(request),
                Event::Served(tried, server) => self.served(tried, server),
                Event::TryTimeout(tried) => self.failed(tried, Cause::TryTimeout),
                Event::Stop => self.stop(),
                Event::Restart => self.upstream.restart(self.timeline.now()),
            }
        }
        let ended = self.requests.iter();
        self.outcome.requests = ended.map(|ended| (ended.began, ended.answered)).collect();
        self.outcome
    }

    fn call(&mut self) {
        let now = self.timeline.now();
        if now >= END {
            return;
        }
        let gap = INTERVAL.mul_f64(self.arrivals.random_range(0.9..1.1));
        self.timeline.after(gap, Event::Call);
        self.budget.deposit(1, self.timeline.instant());
        self.requests.push(Request {
            began: now,
            tries: 0,
            trial: None,
            answered: false,
        });
        self.attempt(self.requests.len() - 1);
    }

    fn attempt(&mut self, index: usize) {
        let now = self.timeline.instant();
        let Some(trial) = self.breaker.admit(self.breaker_settings, 0, now) else {
            // The circuit is open: the request ends.
            return;
        };
        let request = &mut self.requests[index];
        request.tries += 1;
        request.trial = Some(trial);
        self.outcome.tries += 1;
        count(&mut self.outcome.offered, self.timeline.now());
        let tried = Try {
            request: index,
            number: request.tries,
        };
        match self.upstream.offer(tried) {
            Offer::Queued => {
                self.timeline.after(TRY_TIMEOUT, Event::TryTimeout(tried));
                self.serve();
            }
            Offer::Full => self.failed(tried, Cause::Status(503)),
            Offer::Down => self.failed(tried, Cause::ConnectFailure),
        }
    }

    fn serve(&mut self) {
        let now = self.timeline.now();
        while let Some(started) = self.upstream.start_next(now, &mut self.services) {
            let served = Event::Served(started.job, started.server);
            self.timeline.after(started.takes, served);
        }
    }

    fn served(&mut self, tried: Try, server: Server) {
        if !self.upstream.finish(server) {
            return;
        }
        self.serve();
        if let Some(trial) = self.end(tried) {
            trial.succeeded(self.timeline.instant());
            self.requests[tried.request].answered = true;
            count(&mut self.outcome.answered, self.timeline.now());
        }
    }

    fn stop(&mut self) {
        self.upstream.stop();
        for index in 0..self.requests.len() {
            let tried = Try {
                request: index,
                number: self.requests[index].tries,
            };
            self.failed(tried, Cause::Reset);
        }
    }

    fn failed(&mut self, tried: Try, cause: Cause) {
        let Some(trial) = self.end(tried) else {
            return;
        };
        // A probe is never tried again.
        let ends = trial.is_probe() || tried.number >= self.retry.attempts;
        trial.failed(self.timeline.instant());
        if !ends && self.retry.applies_to(cause) && self.is_within_budget() {
            let random = match self.variant {
                // The bound itself.
                Variant::FixedWaits => u64::MAX,
                _ => self.waits.next_u64(),
            };
            let wait = self.retry.wait(tried.number, None, random);
            self.timeline.after(wait, Event::Again(tried.request));
        }
    }

    /// The trial of a try that is under way, which thereby ends.
    fn end(&mut self, tried: Try) -> Option<Trial<'a>> {
        let request = &mut self.requests[tried.request];
        if request.tries != tried.number {
            return None;
        }
        request.trial.take()
    }

    fn is_within_budget(&self) -> bool {
        match self.variant {
            Variant::FixedWaits | Variant::FullJitter => true,
            Variant::Budget | Variant::Breaker => self
                .budget
                .withdraw(&self.retry.budget, self.timeline.instant()),
        }
    }
}

fn count(windows: &mut [u32], now: Duration) {
    // What comes after the end belongs to nothing that is shown.
    if let Some(window) = windows.get_mut(window(now)) {
        *window += 1;
    }
}

impl Variant {
    /// All of them, each with one more than the one before.
    pub const ALL: [Self; 4] = [
        Self::FixedWaits,
        Self::FullJitter,
        Self::Budget,
        Self::Breaker,
    ];

    /// What it is called in plots and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::FixedWaits => "fixed waits",
            Self::FullJitter => "full jitter",
            Self::Budget => "full jitter, budget",
            Self::Breaker => "full jitter, budget, breaker",
        }
    }
}

impl Outcome {
    /// The most tries that came within a window once the upstream was back.
    pub fn peak_after_restart(&self) -> u32 {
        let after = &self.offered[window(RESTARTED)..];
        after.iter().copied().max().unwrap_or_default()
    }

    /// Tries while it was down, in a second, but for the first half second: so
    /// long the failures may be fewer than what went well just before.
    pub fn tries_per_second_of_outage(&self) -> f64 {
        let down = &self.offered[window(STOPPED) + 5..window(RESTARTED)];
        let time = WINDOW * down.len() as u32;
        f64::from(down.iter().sum::<u32>()) / time.as_secs_f64()
    }

    /// Tries of each request, on average.
    pub fn tries_per_request(&self) -> f64 {
        f64::from(self.tries) / self.requests.len() as f64
    }

    /// The share of the requests that were answered.
    pub fn answered_share(&self) -> f64 {
        let answered = self.requests.iter().filter(|(_, answered)| *answered);
        answered.count() as f64 / self.requests.len() as f64
    }

    /// How long after the upstream was back the first second began from which on
    /// 99 of 100 requests of every second were answered; `None`: never.
    pub fn recovered_after(&self) -> Option<Duration> {
        let seconds = (END - RESTARTED).as_secs() as usize;
        let mut begun = vec![0_u32; seconds];
        let mut answered = vec![0_u32; seconds];
        for (began, was_answered) in &self.requests {
            if let Some(since) = began.checked_sub(RESTARTED) {
                let second = since.as_secs() as usize;
                begun[second] += 1;
                answered[second] += u32::from(*was_answered);
            }
        }
        let is_bad = |second: &usize| answered[*second] * 100 < begun[*second] * 99;
        let good_from = (0..seconds).rev().find(is_bad).map_or(0, |last| last + 1);
        (good_from < seconds).then(|| Duration::from_secs(good_from as u64))
    }
}
