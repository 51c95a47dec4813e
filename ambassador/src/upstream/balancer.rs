//! One shard's choice among the endpoints of an upstream.
//!
//! Health is shared by all shards, load is not: the shards' callers are alike,
//! so that what one sees of it stands for all, and counting it costs no shared
//! write.
//!
//! An endpoint that failed last is a suspect until it does well. Where there are
//! others, every fourth first try at most goes to a suspect, and fewer the more
//! suspects there are: enough to eject those that are bad, and few enough for the
//! budget of retries, however many are bad. Retries go to suspects last.

mod grade;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::addr::EndpointAddr;
use crate::clock::Instant;
use crate::policy::balance::{
    Candidates, Listed, LoadBalancing, PeakEwma, Ring, Rotation, Zones, least_request,
};
use crate::policy::breaker;
use crate::policy::outlier::{self, Detector, Fitness, Health, Outcome, Standing, State, Trial};
use crate::upstream::endpoints::{Endpoint, Published};

pub use grade::Grade;

/// Good answers after something has failed, or a suspect was given a first try,
/// before the next goes to a suspect, for each suspect that there is. Answers, not
/// tries: at a high rate many are on their way before the first is known to fail.
/// With three, one bad endpoint is ejected after some twenty requests, and several
/// cost fewer retries than a budget of a fifth grants.
const ANSWERS_FOR_EACH_SUSPECT: u32 = 3;

/// The balancer of one upstream on one shard.
#[derive(Default)]
pub struct Balancer {
    /// That of the detector when the rest was made from its states.
    version: u64,
    list: Arc<[Endpoint]>,
    /// By their place in the list.
    loads: Vec<Rc<Load>>,
    listed: Vec<Listed>,
    candidates: Candidates,
    /// Those that are better for a try. Kept for its memory alone.
    better: Candidates,
    /// Good answers since something failed, or a suspect was given a first try.
    others: Rc<Cell<u32>>,
    /// The places of those that wait for a probe, and when the first is due.
    out: Vec<usize>,
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
    /// That of the balancer.
    others: Rc<Cell<u32>>,
}

/// What an endpoint is picked by.
#[derive(Clone, Copy)]
pub struct PickInput<'a> {
    /// How one is chosen.
    pub load_balancing: &'a LoadBalancing,
    /// The hash of the request's key, where it has one.
    pub key: Option<u64>,
    /// Endpoints that earlier tries were sent to; they are avoided where there
    /// is another.
    pub tried: &'a [EndpointAddr],
    /// Whether it may be the probe of an endpoint.
    pub probe: Probe,
    /// Draws 64 random bits, for a choice that needs them.
    pub random: &'a dyn Fn() -> u64,
    /// The shard's time.
    pub now: Instant,
}

/// Whether a try may be the probe of an endpoint that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Probe {
    /// Where one is due, and it is no retry.
    #[default]
    Allowed,
    /// Something hangs on its success: the circuit of the upstream.
    Avoided,
}

impl Probe {
    /// For the first try of a request that the circuit let through.
    pub fn beside(circuit: &breaker::Trial<'_>) -> Self {
        match circuit.is_probe() {
            true => Self::Avoided,
            false => Self::Allowed,
        }
    }
}

/// A picked endpoint. It counts as busy on this shard until the pick is dropped.
#[must_use]
pub struct Pick {
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

impl Balancer {
    /// An endpoint for a try; `None`: there are none.
    #[inline(always)]
    pub fn pick(&mut self, published: &Published, input: &PickInput<'_>) -> Option<Pick> {
        self.refresh(published);
        match &*self.list {
            [] => None,
            [only] => Some(Pick::unwatched(only.address)),
            _ => self
                .probe(published.detector(), input)
                .or_else(|| self.choose(published, input)),
        }
    }

    /// This endpoint, whatever its health, for a try without a choice.
    pub fn pick_bound(
        &mut self,
        published: &Published,
        endpoint: EndpointAddr,
        input: &PickInput<'_>,
    ) -> Pick {
        self.refresh(published);
        let load = self.loads.iter().find(|load| load.address == endpoint);
        match load.filter(|_| self.loads.len() > 1) {
            Some(load) => Pick::new(load, load.detector.begin(&load.health), input),
            None => Pick::unwatched(endpoint),
        }
    }

    /// An endpoint of the other address family that gets requests.
    pub fn of_other_family(
        &mut self,
        published: &Published,
        endpoint: EndpointAddr,
    ) -> Option<EndpointAddr> {
        self.refresh(published);
        let family = endpoint.0.is_ipv4();
        let mut others = self.list.iter().zip(&self.listed);
        let (other, _) = others.find(|(other, listed)| {
            listed.standing == Standing::Usable
                && listed.fitness == Fitness::Healthy
                && other.address.0.is_ipv4() != family
        })?;
        Some(other.address)
    }

    /// The next endpoint in turn, for a connection without requests.
    pub fn next_in_turn(&mut self, published: &Published) -> Option<EndpointAddr> {
        self.refresh(published);
        let place = self.in_turn(published)?;
        Some(self.list[place].address)
    }

    /// A request that comes when a probe is due is the probe, unless it is a
    /// retry, which has failed before.
    fn probe(&self, detector: &Detector, input: &PickInput<'_>) -> Option<Pick> {
        let may_be = input.probe == Probe::Allowed && input.tried.is_empty();
        if !may_be || self.probe_due.is_none_or(|due| input.now < due) {
            return None;
        }
        self.out.iter().find_map(|place| {
            let load = &self.loads[*place];
            let trial = detector.probe(&load.health, input.now)?;
            Some(Pick::new(load, trial, input))
        })
    }

    fn choose(&mut self, published: &Published, input: &PickInput<'_>) -> Option<Pick> {
        let place = match input.tried.is_empty() {
            true => self.first_choice(published, input),
            false => self.next_choice(input),
        }?;
        let load = &self.loads[place];
        let trial = load.detector.begin(&load.health);
        Some(Pick::new(load, trial, input))
    }

    fn first_choice(&mut self, published: &Published, input: &PickInput<'_>) -> Option<usize> {
        let place = match input.load_balancing {
            LoadBalancing::RoundRobin => self.in_turn(published),
            _ => self.among(Among::All, input),
        }?;
        // Keys stay where they belong: their endpoint has what they need.
        let is_keyed = matches!(input.load_balancing, LoadBalancing::RingHash(_));
        if is_keyed || !self.loads[place].is_suspect() {
            return Some(place);
        }
        let (list, loads) = (&self.listed, &self.loads);
        let candidates = self.candidates.iter();
        let suspects = candidates.filter(|one| loads[one.place].is_suspect());
        let answers = ANSWERS_FOR_EACH_SUSPECT * suspects.count() as u32;
        let passed_over = self.others.get() < answers;
        if passed_over
            && is_better(&mut self.better, list, Zones::Own, |place| {
                loads[place].is_suspect()
            })
        {
            return self.among(Among::Better, input);
        }
        self.others.set(0);
        Some(place)
    }

    /// That of a retry: one that it has not been to and that is no suspect, else
    /// one that it has not been to, else any. Where all that it has been to are
    /// of the upstream's zone, other zones come first.
    fn next_choice(&mut self, input: &PickInput<'_>) -> Option<usize> {
        let (list, listed, loads) = (&self.list, &self.listed, &self.loads);
        let was_tried = |place: usize| input.tried.contains(&list[place].address);
        let is_elsewhere = |place: usize| was_tried(place) && !listed[place].in_zone;
        let zones = match (0..list.len()).any(is_elsewhere) {
            true => Zones::Own,
            false => Zones::Others,
        };
        let is_bad = |place: usize| was_tried(place) || loads[place].is_suspect();
        let better = &mut self.better;
        let is_better =
            is_better(better, listed, zones, is_bad) || is_better(better, listed, zones, was_tried);
        self.among(if is_better { Among::Better } else { Among::All }, input)
    }

    /// A choice that takes nobody's turn.
    fn among(&mut self, among: Among, input: &PickInput<'_>) -> Option<usize> {
        let candidates = match among {
            Among::All => &self.candidates,
            Among::Better => &self.better,
        };
        let loads = &self.loads;
        let random = || candidates.draw((input.random)()).map(|drawn| drawn.place);
        match input.load_balancing {
            LoadBalancing::RoundRobin | LoadBalancing::Random => random(),
            LoadBalancing::LeastRequest => {
                let active = |place: usize| loads[place].active.get();
                least_request::choose(candidates, active, (input.random)())
            }
            LoadBalancing::PeakEwma => {
                let state = |place: usize| (loads[place].latency.get(), loads[place].active.get());
                PeakEwma::choose(candidates, state, (input.random)(), input.now)
            }
            LoadBalancing::RingHash(_) => match input.key {
                Some(key) => self
                    .ring
                    .get_or_insert_with(|| ring_of(&self.list))
                    .owner(key, |place| candidates.contains(place)),
                None => random(),
            },
        }
    }

    fn in_turn(&mut self, published: &Published) -> Option<usize> {
        self.rotation
            .get_or_insert_with(|| Rotation::of(&self.candidates))
            .at(published.next_turn())
    }

    #[inline(always)]
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
            let new = || Load::of(endpoint, detector, &self.others);
            known.map_or_else(new, Rc::clone)
        });
        self.loads = loads.collect();
        self.list = list;
        self.ring = None;
    }

    fn look_at_states(&mut self, detector: &Detector) {
        (self.rotation, self.probe_due) = (None, None);
        self.out.clear();
        self.listed.clear();
        let mut is_probing = false;
        let is_fit = |endpoint: &Endpoint| endpoint.health.fitness() == Fitness::Healthy;
        // Where none is fit, all count.
        let checks_count = self.list.iter().any(is_fit);
        for (place, endpoint) in self.list.iter().enumerate() {
            let fitness = match checks_count && !is_fit(endpoint) {
                true => Fitness::Unhealthy,
                false => Fitness::Healthy,
            };
            match detector.state(&endpoint.health) {
                State::Usable => {}
                State::Probing => is_probing = true,
                // Checks find out whether it is back, no request does.
                _ if fitness == Fitness::Unhealthy => {}
                State::Ejected { until } | State::Avoided { until } => {
                    self.out.push(place);
                    self.probe_due = Some(self.probe_due.map_or(until, |due| due.min(until)));
                }
            }
            self.listed.push(Listed {
                weight: endpoint.weight,
                in_zone: endpoint.in_zone,
                standing: endpoint.health.standing(),
                fitness,
            });
        }
        // One at a time.
        if is_probing {
            self.probe_due = None;
        }
        self.candidates.select(&self.listed, Zones::Own, |_| false);
    }
}

/// What an endpoint is chosen among.
#[derive(Debug, Clone, Copy)]
enum Among {
    All,
    /// Those that are better for this try.
    Better,
}

/// Takes those into `better` that are not bad. Whether there are any: those that
/// are out are not better than what was tried or is suspect.
fn is_better(
    better: &mut Candidates,
    list: &[Listed],
    zones: Zones,
    is_bad: impl Fn(usize) -> bool,
) -> bool {
    better.select(list, zones, |place| {
        list[place].standing != Standing::Usable || is_bad(place)
    });
    !better.is_empty()
}

fn ring_of(list: &[Endpoint]) -> Ring {
    Ring::of(list.iter().map(|one| (one.address, one.weight)))
}

impl Load {
    fn of(endpoint: &Endpoint, detector: &Arc<Detector>, others: &Rc<Cell<u32>>) -> Rc<Self> {
        Rc::new(Self {
            address: endpoint.address,
            health: Arc::clone(&endpoint.health),
            detector: Arc::clone(detector),
            active: Cell::new(0),
            latency: Cell::default(),
            others: Rc::clone(others),
        })
    }

    /// Whether it failed last.
    fn is_suspect(&self) -> bool {
        self.health.consecutive_failures() > 0
    }
}

impl Pick {
    /// A pick without counting, for an upstream with one endpoint.
    pub fn unwatched(endpoint: EndpointAddr) -> Self {
        Self {
            endpoint,
            watch: None,
        }
    }

    /// Whether the upstream has other endpoints.
    pub fn has_alternatives(&self) -> bool {
        self.watch.is_some()
    }

    fn new(load: &Rc<Load>, trial: Trial, input: &PickInput<'_>) -> Self {
        load.active.set(load.active.get() + 1);
        Self {
            endpoint: load.address,
            watch: Some(Watch {
                load: Rc::clone(load),
                since: input.now,
                measures_latency: *input.load_balancing == LoadBalancing::PeakEwma,
                trial: Some(trial),
            }),
        }
    }

    /// Whether another endpoint of the upstream is healthy, or nothing bad is
    /// known of it.
    pub fn has_well_alternative(&self) -> bool {
        let detector = self.watch.as_ref().map(|watch| &watch.load.detector);
        detector.is_some_and(|detector| detector.has_well())
    }

    /// Reports the result, once the response head has arrived or will not come.
    /// The time since the pick is its latency. Only the first report counts.
    #[inline(always)]
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
            Grade::Good | Grade::Throttled { .. } => {
                load.others.set(load.others.get().saturating_add(1));
                Outcome::Success
            }
            Grade::Bad { .. } => {
                load.others.set(0);
                Outcome::Failure
            }
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
