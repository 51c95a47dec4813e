//! Requests to an upstream of several endpoints, some of which are bad for a
//! while, through retries, budget, balancing, outlier ejection and circuit
//! breaker together, all with their defaults: what callers see of it.
//!
//! Each request is counted once by the circuit, by its last try; each try by the
//! outlier detection of its endpoint. Shards choose endpoints for themselves.

use std::ops::RangeInclusive;
use std::time::Duration;

use ambassador::testing::addr::EndpointAddr;
use ambassador::testing::clock::Instant;
use ambassador::testing::policy::balance::LoadBalancing;
use ambassador::testing::policy::breaker::{self, Breaker, Transitions, Trial};
use ambassador::testing::policy::budget::Budget;
use ambassador::testing::policy::limits::Timeouts;
use ambassador::testing::policy::outlier;
use ambassador::testing::policy::retry::{Cause, Retry};
use ambassador::testing::route::settings;
use ambassador::testing::upstream::balancer::{Balancer, Grade, Pick, PickInput, Probe};
use ambassador::testing::upstream::endpoints::Published;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

use crate::timeline::Timeline;

pub mod report;

/// How long a well endpoint takes to answer.
pub const WELL: Manner = Manner::Answers(Duration::from_millis(5)..=Duration::from_millis(15));
const MS: Duration = Duration::from_millis(1);

/// What an endpoint does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// It answers after a time like this.
    Answers(RangeInclusive<Duration>),
    /// It refuses the connection.
    Refuses,
    /// It resets the connection.
    Resets,
    /// It answers with status 500.
    Fails,
    /// It accepts the connection and never answers.
    Hangs,
    /// It does not accept the connection.
    Unreachable,
}

/// An endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where it is.
    pub zone: Option<&'static str>,
    /// What it does from these times on, in their order; before it is well.
    pub phases: Vec<(Duration, Manner)>,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Script {
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// The zone whose endpoints come first.
    pub zone: Option<&'static str>,
    /// `timeouts.per_try`.
    pub per_try: Option<Duration>,
    /// Requests that come in a second, on average.
    pub per_second: f64,
    /// For how long they come.
    pub until: Duration,
    /// Shards that they come to.
    pub shards: u16,
    /// What chance comes from.
    pub seed: u64,
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// By the second in which they began: requests, those that were served, tries
    /// in all, and tries of these at endpoints that were not well.
    pub seconds: Vec<Second>,
    /// When each request began that was not served.
    pub unserved: Vec<Duration>,
    /// How long a request took until it was served, at most.
    pub slowest: Duration,
    /// Tries that were under way at the same time, at most.
    pub in_flight_max: u32,
    /// Whether the circuit ever changed.
    pub transitions: Transitions,
}

/// What happened in a second.
#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    /// Requests that began.
    pub requests: u32,
    /// Those of them that were served.
    pub served: u32,
    /// Tries that began.
    pub tries: u32,
    /// Those at endpoints that were not well.
    pub at_bad: u32,
}

impl Endpoint {
    /// One that stays well.
    pub fn well() -> Self {
        Self {
            zone: None,
            phases: Vec::new(),
        }
    }

    /// One that does this from a time on.
    pub fn from(time: Duration, manner: Manner) -> Self {
        Self {
            zone: None,
            phases: vec![(time, manner)],
        }
    }

    /// The same until another time.
    pub fn until(mut self, time: Duration) -> Self {
        self.phases.push((time, WELL));
        self
    }

    fn manner(&self, now: Duration) -> &Manner {
        let current = self.phases.iter().rev().find(|(from, _)| *from <= now);
        current.map_or(&WELL, |(_, manner)| manner)
    }
}

impl Script {
    /// A minute of these, on two shards, with all defaults.
    pub fn of(endpoints: Vec<Endpoint>, per_second: f64) -> Self {
        Self {
            endpoints,
            zone: None,
            per_try: None,
            per_second,
            until: Duration::from_secs(60),
            shards: 2,
            seed: 1,
        }
    }
}

impl Outcome {
    /// Requests in all.
    pub fn requests(&self) -> u32 {
        self.sum(|second| second.requests)
    }

    /// Tries beyond the first of each request.
    pub fn extra(&self) -> u32 {
        // Those that the circuit refused had none.
        self.sum(|second| second.tries)
            .saturating_sub(self.requests())
    }

    /// Tries at endpoints that were not well.
    pub fn at_bad(&self) -> u32 {
        self.sum(|second| second.at_bad)
    }

    fn sum(&self, of: impl Fn(&Second) -> u32) -> u32 {
        self.seconds.iter().map(of).sum()
    }

    fn second(&mut self, time: Duration) -> &mut Second {
        let second = time.as_secs() as usize;
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        &mut self.seconds[second]
    }
}

/// How a try ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Answered(u16),
    Failed(Cause),
    /// Nothing came for half of the time of the request.
    Silent,
    /// The time of the request is over.
    OutOfTime,
}

enum Event {
    Arrival,
    Again(usize),
    End(usize, End),
}

struct Request<'a> {
    began: Duration,
    shard: u16,
    tried: Vec<EndpointAddr>,
    has_moved: bool,
    /// Where a try is under way.
    picked: Option<Pick>,
    /// Where another one is that was silent.
    silent: Option<Pick>,
    trial: Option<Trial<'a>>,
}

struct Run<'a> {
    script: &'a Script,
    published: &'a Published,
    breaker: &'a Breaker,
    settings: &'a breaker::Settings,
    budget: Budget,
    retry: Retry,
    timeouts: Timeouts,
    outlier: outlier::Settings,
    balancers: Vec<Balancer>,
    timeline: Timeline<Event>,
    rng: Xoshiro256PlusPlus,
    requests: Vec<Request<'a>>,
    in_flight: u32,
    outcome: Outcome,
}

/// Runs a script.
pub fn run(script: &Script) -> Outcome {
    let origin = Instant::now();
    let published = Published::new(origin, script.seed);
    let list = script.endpoints.iter().enumerate();
    let list = list.map(|(place, endpoint)| settings::Endpoint {
        address: address(place),
        weight: 1,
        zone: endpoint.zone.map(Into::into),
    });
    published.publish(list, script.zone);
    let breaker = Breaker::new(origin, script.seed);
    let settings = breaker::Settings::default();
    let run = Run {
        script,
        published: &published,
        breaker: &breaker,
        settings: &settings,
        budget: Budget::new(origin),
        retry: Retry::default(),
        timeouts: Timeouts::default(),
        outlier: outlier::Settings::default(),
        balancers: (0..script.shards).map(|_| Balancer::default()).collect(),
        timeline: Timeline::new(origin),
        rng: Xoshiro256PlusPlus::seed_from_u64(script.seed),
        requests: Vec::new(),
        in_flight: 0,
        outcome: Outcome::default(),
    };
    run.play()
}

fn address(place: usize) -> EndpointAddr {
    EndpointAddr(([10, 0, 0, 1], place as u16).into())
}

impl Run<'_> {
    fn play(mut self) -> Outcome {
        self.timeline.after(Duration::ZERO, Event::Arrival);
        while let Some(event) = self.timeline.advance() {
            match event {
                Event::Arrival => self.arrival(),
                Event::Again(request) => self.attempt(request),
                Event::End(request, end) => self.ended(request, end),
            }
        }
        self.outcome.transitions = self.breaker.transitions();
        self.outcome
    }

    fn arrival(&mut self) {
        let now = self.timeline.now();
        let uniform: f64 = self.rng.random();
        let gap = Duration::from_secs_f64(-(1.0 - uniform).ln() / self.script.per_second);
        if now + gap < self.script.until {
            self.timeline.after(gap, Event::Arrival);
        }
        self.outcome.second(now).requests += 1;
        self.budget.deposit(1, self.timeline.instant());
        let shard = self.rng.random_range(0..self.script.shards);
        let trial = self
            .breaker
            .admit(self.settings, shard, self.timeline.instant());
        if trial.is_none() {
            return self.outcome.unserved.push(now);
        }
        self.requests.push(Request {
            began: now,
            shard,
            tried: Vec::new(),
            has_moved: false,
            picked: None,
            silent: None,
            trial,
        });
        self.attempt(self.requests.len() - 1);
    }

    fn attempt(&mut self, index: usize) {
        let now = self.timeline.now();
        let random = self.rng.next_u64();
        let request = &mut self.requests[index];
        let probe = request.trial.as_ref().map(Probe::beside);
        let input = PickInput {
            load_balancing: &LoadBalancing::LeastRequest,
            key: None,
            tried: &request.tried,
            probe: probe.unwrap_or_default(),
            random: &|| random,
            now: self.timeline.instant(),
        };
        let balancer = &mut self.balancers[usize::from(request.shard)];
        let Some(picked) = balancer.pick(self.published, &input) else {
            return self.unserved(index, false);
        };
        let place = usize::from(picked.endpoint.0.port());
        request.picked = Some(picked);
        let left = self.left(index);
        let (takes, end) = self.end_of(place, left);
        let is_well = *self.script.endpoints[place].manner(now) == WELL;
        let second = self.outcome.second(now);
        second.tries += 1;
        second.at_bad += u32::from(!is_well);
        self.in_flight += 1;
        self.outcome.in_flight_max = self.outcome.in_flight_max.max(self.in_flight);
        self.timeline.after(takes, Event::End(index, end));
    }

    /// How long a request has left.
    fn left(&self, index: usize) -> Duration {
        let limit = self.timeouts.request.unwrap_or(Duration::MAX);
        let took = self.timeline.now() - self.requests[index].began;
        limit.saturating_sub(took)
    }

    /// How long a try at an endpoint takes, and how it ends.
    fn end_of(&mut self, place: usize, left: Duration) -> (Duration, End) {
        let now = self.timeline.now();
        let per_try = self.script.per_try.unwrap_or(Duration::MAX);
        let (takes, end) = match self.script.endpoints[place].manner(now) {
            Manner::Answers(time) => {
                let takes = self.rng.random_range(time.clone());
                (takes, End::Answered(200))
            }
            Manner::Refuses => (MS / 5, End::Failed(Cause::ConnectFailure)),
            Manner::Resets => (MS, End::Failed(Cause::Reset)),
            Manner::Fails => (2 * MS, End::Answered(500)),
            Manner::Hangs => (Duration::MAX, End::OutOfTime),
            Manner::Unreachable => (self.timeouts.connect, End::Failed(Cause::ConnectFailure)),
        };
        if takes <= per_try && takes <= left {
            return (takes, end);
        }
        let silence = self.timeouts.request.map(|limit| limit / 2);
        if let Some(silence) = silence.filter(|silence| *silence < per_try.min(left)) {
            return (silence, End::Silent);
        }
        match per_try < left {
            true => (per_try, End::Failed(Cause::TryTimeout)),
            false => (left, End::OutOfTime),
        }
    }

    fn ended(&mut self, index: usize, end: End) {
        self.in_flight -= 1;
        let now = self.timeline.instant();
        let request = &mut self.requests[index];
        let Some(mut picked) = request.picked.take() else {
            return;
        };
        let (grade, cause) = match end {
            End::Answered(status) => (Grade::of_status(status, None), Some(Cause::Status(status))),
            End::Failed(cause) => (Grade::Bad { retry_after: None }, Some(cause)),
            End::OutOfTime => (Grade::Bad { retry_after: None }, None),
            End::Silent => return self.silent(index, picked),
        };
        picked.ended(grade, &self.outlier, now);
        request.tried.push(picked.endpoint);
        if let End::Answered(200) = end {
            return self.served(index);
        }
        let others_are_well = picked.has_well_alternative();
        let cause = cause.filter(|cause| {
            let counts = matches!(cause, Cause::Status(500..=599));
            self.retry.applies_to(*cause) || self.retry.elsewhere && counts && others_are_well
        });
        match cause.and_then(|cause| self.wait_before_another(index, cause)) {
            Some(wait) => self.timeline.after(wait, Event::Again(index)),
            None => self.unserved(index, others_are_well),
        }
    }

    /// Another endpoint is asked beside one that is silent, where one is well.
    fn silent(&mut self, index: usize, picked: Pick) {
        self.in_flight += 1;
        let now = self.timeline.instant();
        let left = self.left(index);
        let request = &mut self.requests[index];
        let may_look_elsewhere = self.retry.elsewhere
            && request.tried.is_empty()
            && picked.has_well_alternative()
            && self.budget.withdraw(&self.retry.budget, now);
        if may_look_elsewhere {
            request.tried.push(picked.endpoint);
            request.silent = Some(picked);
            return self.attempt(index);
        }
        request.picked = Some(picked);
        self.timeline.after(left, Event::End(index, End::OutOfTime));
    }

    /// How long to wait before one more try; `None`: there is none.
    fn wait_before_another(&mut self, index: usize, cause: Cause) -> Option<Duration> {
        let random = self.rng.next_u64();
        let left = self.left(index);
        let request = &mut self.requests[index];
        let tries = request.tried.len() as u16;
        if tries >= self.retry.attempts {
            return None;
        }
        // The first move to another endpoint after a connect failure waits not,
        // and repeats nothing.
        if cause == Cause::ConnectFailure && !request.has_moved {
            request.has_moved = true;
            return Some(Duration::ZERO);
        }
        let wait = self.retry.wait(tries, None, random);
        let now = self.timeline.instant();
        (wait < left && self.budget.withdraw(&self.retry.budget, now)).then_some(wait)
    }

    fn served(&mut self, index: usize) {
        let now = self.timeline.now();
        let request = &mut self.requests[index];
        let began = request.began;
        let instant = self.timeline.instant();
        if let Some(mut silent) = request.silent.take() {
            self.in_flight -= 1;
            let grade = Grade::Bad { retry_after: None };
            silent.ended(grade, &self.outlier, instant);
        }
        if let Some(trial) = request.trial.take() {
            trial.succeeded(instant);
        }
        self.outcome.second(began).served += 1;
        self.outcome.slowest = self.outcome.slowest.max(now - began);
    }

    fn unserved(&mut self, index: usize, others_are_well: bool) {
        let request = &mut self.requests[index];
        let now = self.timeline.instant();
        if request.silent.take().is_some() {
            self.in_flight -= 1;
        }
        match request.trial.take() {
            Some(trial) if others_are_well => trial.failed_in_part(now),
            Some(trial) => trial.failed(now),
            None => {}
        }
        self.outcome.unserved.push(request.began);
    }
}
