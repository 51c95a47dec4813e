//! One shard's choice among the endpoints of an upstream.
//!
//! Health is shared by all shards, load is not: the shards' callers are alike,
//! so that what one sees of it stands for all, and counting it costs no shared
//! write.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::addr::EndpointAddr;
use crate::policy::balance::{
    Candidates, Listed, LoadBalancing, PeakEwma, Ring, Rotation, least_request,
};
use crate::policy::outlier::{self, Detector, Health, Outcome, State, Trial};
use crate::upstream::endpoints::{Endpoint, Published};

/// What a shard knows of an upstream's endpoints.
#[derive(Default)]
pub struct Balancer {
    /// That of the detector when the rest was made from its states.
    version: u64,
    list: Arc<[Endpoint]>,
    /// By their place in the list.
    loads: Vec<Rc<Load>>,
    listed: Vec<Listed>,
    candidates: Candidates,
    /// Those a retry has not been to. Kept for its memory alone.
    untried: Candidates,
    /// The places of those that wait for a probe, and when the first is due.
    ejected: Vec<usize>,
    probe_due: Option<Instant>,
    /// Made when they are asked for.
    rotation: Option<Rotation>,
    ring: Option<Ring>,
}

/// One endpoint as one shard sees it.
struct Load {
    address: EndpointAddr,
    health: Arc<Health>,
    detector: Arc<Detector>,
    active: Cell<u32>,
    latency: Cell<PeakEwma>,
}

/// Who asks for an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// How one is chosen.
    pub load_balancing: &'a LoadBalancing,
    /// The hash of the request's key, where it has one.
    pub key: Option<u64>,
    /// Endpoints that earlier tries were sent to; they are avoided where there
    /// is another.
    pub tried: &'a [EndpointAddr],
    /// 64 random bits.
    pub random: u64,
    /// The shard's time.
    pub now: Instant,
}

/// An endpoint that was chosen. It is active on this shard until this is
/// dropped.
#[must_use]
pub struct Picked {
    /// Where it listens.
    pub endpoint: EndpointAddr,
    /// `None`: there is nothing to choose from, and nothing is counted.
    watch: Option<Watch>,
}

struct Watch {
    load: Rc<Load>,
    since: Instant,
    measures_latency: bool,
    /// `None`: its end was told.
    trial: Option<Trial>,
}

/// How an endpoint did with a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// It did what it is there for.
    Good,
    /// It works, and asks for fewer requests: status 429.
    Throttled {
        /// For how long.
        retry_after: Option<Duration>,
    },
    /// It could not be connected to, broke off, took too long, or answered
    /// with a status from 500 to 599.
    Bad {
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
}

impl Grade {
    /// That of a response.
    pub fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            429 => Self::Throttled { retry_after },
            500..=599 => Self::Bad { retry_after },
            _ => Self::Good,
        }
    }
}

impl Balancer {
    /// An endpoint for a try; `None`: there are none.
    pub fn pick(&mut self, published: &Published, ask: &Ask<'_>) -> Option<Picked> {
        self.refresh(published);
        match &*self.list {
            [] => None,
            [only] => Some(Picked::unwatched(only.address)),
            _ => self
                .probe(published.detector(), ask)
                .or_else(|| self.choose(published, ask)),
        }
    }

    /// `endpoint`, whatever its health, for a try that has no choice.
    pub fn pick_bound(
        &mut self,
        published: &Published,
        endpoint: EndpointAddr,
        ask: &Ask<'_>,
    ) -> Picked {
        self.refresh(published);
        let load = self.loads.iter().find(|load| load.address == endpoint);
        match load.filter(|_| self.loads.len() > 1) {
            Some(load) => Picked::new(load, load.detector.begin(&load.health), ask),
            None => Picked::unwatched(endpoint),
        }
    }

    /// The endpoint whose turn it is, for what is no request.
    pub fn next_in_turn(&mut self, published: &Published) -> Option<EndpointAddr> {
        self.refresh(published);
        let place = self.in_turn(published)?;
        Some(self.list[place].address)
    }

    /// A request that comes when a probe is due is the probe, unless it is a
    /// retry, which has failed before.
    fn probe(&self, detector: &Detector, ask: &Ask<'_>) -> Option<Picked> {
        if self.probe_due.is_none_or(|due| ask.now < due) || !ask.tried.is_empty() {
            return None;
        }
        self.ejected.iter().find_map(|place| {
            let load = &self.loads[*place];
            let trial = detector.probe(&load.health, ask.now)?;
            Some(Picked::new(load, trial, ask))
        })
    }

    fn choose(&mut self, published: &Published, ask: &Ask<'_>) -> Option<Picked> {
        let is_retry = !ask.tried.is_empty();
        if is_retry {
            let list = &self.list;
            let was_tried = |place: usize| ask.tried.contains(&list[place].address);
            self.untried.select(&self.listed, was_tried);
        }
        let candidates = match is_retry && !self.untried.is_empty() {
            true => &self.untried,
            false => &self.candidates,
        };
        let loads = &self.loads;
        let random = || candidates.draw(ask.random).map(|drawn| drawn.place);
        let place = match ask.load_balancing {
            // A retry takes nobody's turn.
            LoadBalancing::RoundRobin if !is_retry => self.in_turn(published),
            LoadBalancing::RoundRobin | LoadBalancing::Random => random(),
            LoadBalancing::LeastRequest => {
                let active = |place: usize| loads[place].active.get();
                least_request::choose(candidates, active, ask.random)
            }
            LoadBalancing::PeakEwma => {
                let state = |place: usize| (loads[place].latency.get(), loads[place].active.get());
                PeakEwma::choose(candidates, state, ask.random, ask.now)
            }
            LoadBalancing::RingHash(_) => match ask.key {
                Some(key) => self
                    .ring
                    .get_or_insert_with(|| ring_of(&self.list))
                    .owner(key, |place| candidates.contains(place)),
                None => random(),
            },
        }?;
        let load = &self.loads[place];
        let trial = load.detector.begin(&load.health);
        Some(Picked::new(load, trial, ask))
    }

    fn in_turn(&mut self, published: &Published) -> Option<usize> {
        self.rotation
            .get_or_insert_with(|| Rotation::of(&self.candidates))
            .at(published.next_turn())
    }

    fn refresh(&mut self, published: &Published) {
        let detector = published.detector();
        let version = detector.version();
        if version == self.version {
            return;
        }
        let list = published.current();
        if !Arc::ptr_eq(&list, &self.list) {
            self.follow(list, detector);
        }
        self.look_at_states(detector);
        self.version = version;
    }

    /// Takes over a list that was replaced.
    fn follow(&mut self, list: Arc<[Endpoint]>, detector: &Arc<Detector>) {
        let loads = list.iter().map(|endpoint| {
            let is_it = |load: &&Rc<Load>| Arc::ptr_eq(&load.health, &endpoint.health);
            let known = self.loads.iter().find(is_it);
            known.map_or_else(|| Load::of(endpoint, detector), Rc::clone)
        });
        self.loads = loads.collect();
        self.list = list;
        self.ring = None;
    }

    fn look_at_states(&mut self, detector: &Detector) {
        (self.rotation, self.probe_due) = (None, None);
        self.ejected.clear();
        self.listed.clear();
        for (place, endpoint) in self.list.iter().enumerate() {
            let state = detector.state(&endpoint.health);
            if let State::Ejected { until } = state {
                self.ejected.push(place);
                self.probe_due = Some(self.probe_due.map_or(until, |due| due.min(until)));
            }
            self.listed.push(Listed {
                weight: endpoint.weight,
                in_zone: endpoint.in_zone,
                usable: state == State::Usable,
            });
        }
        self.candidates.select(&self.listed, |_| false);
    }
}

fn ring_of(list: &[Endpoint]) -> Ring {
    Ring::of(list.iter().map(|one| (one.address, one.weight)))
}

impl Load {
    fn of(endpoint: &Endpoint, detector: &Arc<Detector>) -> Rc<Self> {
        Rc::new(Self {
            address: endpoint.address,
            health: Arc::clone(&endpoint.health),
            detector: Arc::clone(detector),
            active: Cell::new(0),
            latency: Cell::default(),
        })
    }
}

impl Picked {
    /// One of which nothing is counted: there is no other to take its place.
    pub fn unwatched(endpoint: EndpointAddr) -> Self {
        Self {
            endpoint,
            watch: None,
        }
    }

    /// Whether there are other endpoints to take its place.
    pub fn has_alternatives(&self) -> bool {
        self.watch.is_some()
    }

    fn new(load: &Rc<Load>, trial: Trial, ask: &Ask<'_>) -> Self {
        load.active.set(load.active.get() + 1);
        Self {
            endpoint: load.address,
            watch: Some(Watch {
                load: Rc::clone(load),
                since: ask.now,
                measures_latency: *ask.load_balancing == LoadBalancing::PeakEwma,
                trial: Some(trial),
            }),
        }
    }

    /// Tells how it did, once its response head is there or will not come. The
    /// time since it was picked is its latency. Only the first telling counts;
    /// without one the try says nothing about it.
    pub fn ended(&mut self, grade: Grade, settings: &outlier::Settings, now: Instant) {
        if let Some(watch) = &mut self.watch {
            watch.ended(grade, settings, now);
        }
    }
}

impl Watch {
    fn ended(&mut self, grade: Grade, settings: &outlier::Settings, now: Instant) {
        let Some(trial) = self.trial.take() else {
            return;
        };
        let load = &*self.load;
        if self.measures_latency {
            let took = now.saturating_duration_since(self.since);
            let mut latency = load.latency.get();
            match grade {
                Grade::Good => latency.observe(took, now),
                Grade::Throttled { retry_after } | Grade::Bad { retry_after } => {
                    latency.penalize(took, retry_after, now);
                }
            }
            load.latency.set(latency);
        }
        let outcome = match grade {
            Grade::Good | Grade::Throttled { .. } => Outcome::Success,
            Grade::Bad { .. } => Outcome::Failure,
        };
        load.detector
            .end(&load.health, trial, outcome, settings, now);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let load = &*self.load;
        load.active.set(load.active.get() - 1);
        if let Some(trial) = self.trial.take() {
            load.detector.abandon(&load.health, trial);
        }
    }
}

#[cfg(test)]
mod tests;
