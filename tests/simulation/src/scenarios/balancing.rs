//! Requests that come at random and several endpoints, one of which is slow or
//! fails at once: how much of the traffic it gets, and what that costs.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use ambassador::testing::clock::Instant;
use ambassador::testing::policy::balance::{
    Candidates, Listed, PeakEwma, Rotation, Zones, least_request,
};
use ambassador::testing::policy::outlier::{Fitness, Standing};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

use crate::timeline::Timeline;
use crate::upstream::{Offer, Server, Settings, Upstream};

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// Of two the one with fewer requests.
    LeastRequest,
    /// Of two the one that is expected to answer sooner.
    PeakEwma,
}

/// What an endpoint does with a request.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// It answers, after a queue and a time like this.
    Answers(RangeInclusive<Duration>),
    /// It refuses at once, which takes no time at all.
    Fails,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Script {
    /// All endpoints have the same weight.
    pub endpoints: Vec<Endpoint>,
    /// Requests that each works on at the same time.
    pub servers: u32,
    /// Requests that come in a second, on average.
    pub per_second: f64,
    /// For how long they come.
    pub until: Duration,
    /// What chance comes from.
    pub seed: u64,
}

/// What happened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Requests sent to each endpoint.
    pub sent: Vec<u32>,
    /// How long each answer took, sorted.
    pub latencies: Vec<Duration>,
    /// Requests that failed.
    pub failed: u32,
}

enum Event {
    Arrival,
    Answered(usize, usize, Server),
}

struct Run<'a> {
    script: &'a Script,
    choice: Choice,
    origin: Instant,
    timeline: Timeline<Event>,
    rng: Xoshiro256PlusPlus,
    upstreams: Vec<Option<Upstream<usize>>>,
    candidates: Candidates,
    rotation: Rotation,
    turn: usize,
    active: Vec<u32>,
    latency: Vec<PeakEwma>,
    /// When each request that is under way was sent.
    sent_at: BTreeMap<usize, Duration>,
    next_request: usize,
    outcome: Outcome,
}

/// Runs a script.
pub fn run(choice: Choice, script: &Script) -> Outcome {
    let origin = Instant::now();
    let listed: Vec<Listed> = script.endpoints.iter().map(|_| LISTED).collect();
    let mut candidates = Candidates::default();
    candidates.select(&listed, Zones::Own, |_| false);
    let mut run = Run {
        script,
        choice,
        origin,
        timeline: Timeline::new(origin),
        rng: Xoshiro256PlusPlus::seed_from_u64(script.seed),
        upstreams: script
            .endpoints
            .iter()
            .map(|it| upstream(it, script))
            .collect(),
        rotation: Rotation::of(&candidates),
        candidates,
        turn: 0,
        active: vec![0; listed.len()],
        latency: vec![PeakEwma::default(); listed.len()],
        sent_at: BTreeMap::new(),
        next_request: 0,
        outcome: Outcome {
            sent: vec![0; listed.len()],
            ..Outcome::default()
        },
    };
    run.timeline.after(Duration::ZERO, Event::Arrival);
    while let Some(event) = run.timeline.advance() {
        match event {
            Event::Arrival => run.arrival(),
            Event::Answered(place, request, server) => run.answered(place, request, server),
        }
    }
    run.outcome.latencies.sort_unstable();
    run.outcome
}

impl Outcome {
    /// What this share of the answers took no longer than.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len() - 1;
        self.latencies[(last as f64 * share) as usize]
    }

    /// The share of the requests that an endpoint got.
    pub fn share_of(&self, place: usize) -> f64 {
        let all: u32 = self.sent.iter().sum();
        f64::from(self.sent[place]) / f64::from(all)
    }
}

const LISTED: Listed = Listed {
    weight: 1,
    in_zone: false,
    standing: Standing::Usable,
    fitness: Fitness::Healthy,
};

fn upstream(endpoint: &Endpoint, script: &Script) -> Option<Upstream<usize>> {
    match endpoint {
        Endpoint::Fails => None,
        Endpoint::Answers(service) => Some(Upstream::new(Settings {
            servers: script.servers,
            queue_max: usize::MAX,
            service: service.clone(),
            cold_share: 1.0,
            warm_up: Duration::ZERO,
        })),
    }
}

impl Run<'_> {
    fn arrival(&mut self) {
        let now = self.timeline.now();
        // Exponential times between arrivals: they know nothing of each other.
        let uniform: f64 = self.rng.random();
        let gap = -(1.0 - uniform).ln() / self.script.per_second;
        if now < self.script.until {
            self.timeline
                .after(Duration::from_secs_f64(gap), Event::Arrival);
        }
        let Some(place) = self.choose(now) else {
            return;
        };
        let request = self.next_request;
        self.next_request += 1;
        self.outcome.sent[place] += 1;
        let Some(upstream) = &mut self.upstreams[place] else {
            self.outcome.failed += 1;
            self.latency[place].penalize(Duration::ZERO, None, self.origin + now);
            return;
        };
        assert_eq!(
            upstream.offer(request),
            Offer::Queued,
            "queues have no limit"
        );
        self.active[place] += 1;
        self.sent_at.insert(request, now);
        self.begin(place);
    }

    fn choose(&mut self, now: Duration) -> Option<usize> {
        let random = self.rng.next_u64();
        let (active, latency) = (&self.active, &self.latency);
        match self.choice {
            Choice::RoundRobin => {
                self.turn += 1;
                self.rotation.at(self.turn)
            }
            Choice::Random => self.candidates.draw(random).map(|drawn| drawn.place),
            Choice::LeastRequest => {
                least_request::choose(&self.candidates, |place| active[place], random)
            }
            Choice::PeakEwma => {
                let state = |place: usize| (latency[place], active[place]);
                PeakEwma::choose(&self.candidates, state, random, self.origin + now)
            }
        }
    }

    /// Has the servers of an endpoint take what waits.
    fn begin(&mut self, place: usize) {
        let now = self.timeline.now();
        let Some(upstream) = &mut self.upstreams[place] else {
            return;
        };
        while let Some(started) = upstream.start_next(now, &mut self.rng) {
            let event = Event::Answered(place, started.job, started.server);
            self.timeline.after(started.takes, event);
        }
    }

    fn answered(&mut self, place: usize, request: usize, server: Server) {
        let now = self.timeline.now();
        if let Some(upstream) = &mut self.upstreams[place] {
            upstream.finish(server);
        }
        self.active[place] -= 1;
        if let Some(sent_at) = self.sent_at.remove(&request) {
            let took = now - sent_at;
            self.latency[place].observe(took, self.origin + now);
            self.outcome.latencies.push(took);
        }
        self.begin(place);
    }
}
