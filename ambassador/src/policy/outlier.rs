//! Outlier ejection: an endpoint that does worse than is expected of it gets no
//! requests for a while, in the manner of Envoy's outlier detection.
//!
//! It is ejected for a run of failures, or for a share of successes far below
//! that of its peers; longer each time. When its time is over, exactly one
//! request of all shards is sent there as a probe, whose result returns it or
//! ejects it again. The last endpoint is never ejected. Probes come one after the
//! other: each ejection is longer by chance, and no two endpoints of an upstream
//! are probed at a time.
//!
//! Only a share of the endpoints may be ejected. One that fails as they do, but
//! has to stay, is avoided: it is probed in the same way, and gets requests only
//! where no usable one is left. So a share that is small bounds what is given up
//! for good, not what callers have to put up with.
//!
//! Beside that, checks may ask an endpoint how it is (`health_check`). One that they
//! find unhealthy gets no requests and counts as none of the upstream's, unless all
//! are: then what checks find is ignored.
//!
//! What shards read on the way of a request is one version for all endpoints of
//! an upstream, and the run of failures of the one that was called. A success
//! writes nothing unless it ends a run, or shares of successes are compared.
//! All changes of state are made under one lock. Each raises the endpoint's
//! epoch, and a request counts only in the epoch that it was sent in.

mod place;
mod settings;
mod success_rate;

use std::sync::Arc;
use std::time::Duration;

use super::jitter;
use super::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use crate::clock::Instant;

pub use settings::Settings;

use place::Place;

/// An ejection lasts no longer than this, or than `base_ejection` where that is
/// longer. Envoy's `max_ejection_time`.
const EJECTION_MAX: Duration = Duration::from_secs(300);

/// The result of a request, for its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it is there for.
    Success,
    /// It could not be connected to, broke off, took too long, or answered
    /// with a status from 500 to 599.
    Failure,
}

/// Whether an endpoint is fit for requests, as checks find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fitness {
    /// It is, like every endpoint that is not checked.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// The rank of an endpoint: usable ones come before avoided ones, ejected ones
/// get no requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It gets no requests.
    Ejected,
    /// It gets requests where there is no usable one: it fails as if it were to
    /// be ejected, but too many are.
    Avoided,
    /// It gets requests.
    Usable,
}

/// Whether an endpoint gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does.
    Usable,
    /// It gets none before this moment, and then one as a probe.
    Ejected {
        /// When the probe is due.
        until: Instant,
    },
    /// It gets none where there is a usable one, and from this moment on one as a
    /// probe.
    Avoided {
        /// When the probe is due.
        until: Instant,
    },
    /// A probe is on its way.
    Probing,
}

/// The ejections among the endpoints of an upstream.
#[derive(Debug)]
pub struct Detector {
    started: Instant,
    /// What the jitter of ejections is drawn from.
    seed: u64,
    /// Raised whenever the state of an endpoint or the list of them changes.
    version: AtomicU64,
    /// When shares of successes are compared next, in milliseconds since the
    /// start.
    comparison_ms: AtomicU64,
    members: Mutex<Vec<Arc<Health>>>,
}

/// The health of an endpoint. Its fields change under the lock of the detector,
/// except `tally`.
#[derive(Debug, Default)]
pub struct Health {
    /// A packed [`Place`].
    place: AtomicU64,
    /// Raised by every change of `place`.
    epoch: AtomicU32,
    /// Failures since the last success, or since it became usable.
    run: AtomicU32,
    /// Ejections as of `returned_ms`, less those that were forgotten.
    ejections: AtomicU32,
    returned_ms: AtomicU64,
    /// 0 where it is healthy.
    unfit: AtomicU32,
    tally: success_rate::Tally,
}

/// A request to an endpoint. Its result must be reported.
#[derive(Debug)]
#[must_use = "a probe that is not told of keeps its endpoint out"]
pub struct Trial {
    epoch: u32,
    /// When it was sent, where it is a probe.
    probe_since: Option<Instant>,
}

impl Trial {
    /// Whether it decides on the return of its endpoint.
    pub fn is_probe(&self) -> bool {
        self.probe_since.is_some()
    }
}

impl Health {
    /// Failures without a success between them.
    pub fn consecutive_failures(&self) -> u32 {
        self.run.load(Ordering::Relaxed)
    }

    /// Its rank.
    pub fn standing(&self) -> Standing {
        self.place().standing
    }

    /// Whether it is fit for requests.
    pub fn fitness(&self) -> Fitness {
        match self.unfit.load(Ordering::Relaxed) {
            0 => Fitness::Healthy,
            _ => Fitness::Unhealthy,
        }
    }

    fn place(&self) -> Place {
        Place::unpack(self.place.load(Ordering::Relaxed))
    }

    fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }
}

/// Whether so few are not ejected that ejections are ignored: the fault then lies
/// elsewhere, or the rest would fall under the load of all. The half is Envoy's
/// panic threshold.
pub(crate) fn is_panic(usable: usize, total: usize) -> bool {
    usable * 2 < total
}

impl Detector {
    /// One of an upstream without endpoints. `seed` is 64 random bits.
    pub fn new(now: Instant, seed: u64) -> Self {
        Self {
            started: now,
            seed,
            version: AtomicU64::new(0),
            comparison_ms: AtomicU64::new(0),
            members: Mutex::default(),
        }
    }

    /// Watches these from now on, in place of those before.
    pub fn watch(&self, members: Vec<Arc<Health>>) {
        let mut watched = self.lock();
        *watched = members;
        self.raise_version();
    }

    /// Different after each change of an endpoint's state or of the list. Who
    /// reads states after it misses no change that it tells of.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether an endpoint gets requests and did not fail its last one.
    pub fn has_well(&self) -> bool {
        let is_well = |health: &Arc<Health>| {
            health.standing() == Standing::Usable && health.consecutive_failures() == 0
        };
        fit(&self.lock()).any(is_well)
    }

    /// The state of an endpoint.
    pub fn state(&self, health: &Health) -> State {
        let place = health.place();
        let until = || self.started + Duration::from_millis(place.until_ms);
        match place.standing {
            Standing::Usable => State::Usable,
            _ if place.is_probing() => State::Probing,
            Standing::Avoided => State::Avoided { until: until() },
            Standing::Ejected => State::Ejected { until: until() },
        }
    }

    /// Begins a request that is no probe, whatever the state of its endpoint.
    pub fn begin(&self, health: &Health) -> Trial {
        Trial {
            epoch: health.epoch(),
            probe_since: None,
        }
    }

    /// Begins the probe of an endpoint that is ejected or avoided. `None`: it is
    /// not due, or a probe is on its way, to this or another.
    pub fn probe(&self, health: &Health, now: Instant) -> Option<Trial> {
        let now_ms = self.ms(now);
        let is_due = || {
            let place = health.place();
            place.standing != Standing::Usable && place.until_ms <= now_ms
        };
        // Looked at twice, so that only those take the lock who come first.
        if !is_due() {
            return None;
        }
        let members = self.lock();
        if !is_due() || members.iter().any(|other| other.place().is_probing()) {
            return None;
        }
        let probing = Place {
            until_ms: Place::PROBING,
            ..health.place()
        };
        self.set(health, probing);
        Some(Trial {
            epoch: health.epoch(),
            probe_since: Some(now),
        })
    }

    /// Ends a request with a result.
    pub fn end(
        &self,
        health: &Health,
        trial: Trial,
        outcome: Outcome,
        settings: &Settings,
        now: Instant,
    ) {
        if settings.success_rate {
            health.tally.count(outcome);
            self.compare_when_due(settings, now);
        }
        match outcome {
            Outcome::Success => self.succeeded(health, &trial, now),
            Outcome::Failure => self.failed(health, &trial, settings, now),
        }
    }

    /// Ends a request without a result: its caller left, or it was never sent.
    /// The next request may be the probe at once.
    pub fn abandon(&self, health: &Health, trial: Trial) {
        let Some(since) = trial.probe_since else {
            return;
        };
        let _changing = self.lock();
        if health.epoch() == trial.epoch {
            self.set_out(health, health.standing(), self.ms(since));
        }
    }

    /// Notes whether an endpoint is fit, where that has changed. One that is healthy
    /// again is usable at once: what failed before says nothing of it now.
    pub fn set_fitness(&self, health: &Health, fitness: Fitness, now: Instant) {
        let _changing = self.lock();
        if health.fitness() == fitness {
            return;
        }
        match fitness {
            Fitness::Healthy => {
                health.unfit.store(0, Ordering::Relaxed);
                health.run.store(0, Ordering::Relaxed);
                self.return_to_use(health, now);
            }
            Fitness::Unhealthy => {
                health.unfit.store(1, Ordering::Relaxed);
                self.raise_version();
            }
        }
    }

    fn succeeded(&self, health: &Health, trial: &Trial, now: Instant) {
        // Shared by all shards: written only where there is something to undo.
        if !trial.is_probe() && health.consecutive_failures() == 0 {
            return;
        }
        let _changing = self.lock();
        if health.epoch() != trial.epoch {
            return;
        }
        let place = health.place();
        match place.standing {
            Standing::Usable => {}
            _ if trial.is_probe() => self.return_to_use(health, now),
            // It was asked though it is to be avoided, and is well.
            Standing::Avoided if !place.is_probing() => self.return_to_use(health, now),
            Standing::Avoided | Standing::Ejected => return,
        }
        health.run.store(0, Ordering::Relaxed);
    }

    fn return_to_use(&self, health: &Health, now: Instant) {
        self.set(health, Place::USABLE);
        health.returned_ms.store(self.ms(now), Ordering::Relaxed);
    }

    fn failed(&self, health: &Health, trial: &Trial, settings: &Settings, now: Instant) {
        let members = self.lock();
        if health.epoch() != trial.epoch {
            return;
        }
        let place = health.place();
        let standing = place.standing;
        if trial.is_probe() {
            let ejections = health.ejections.load(Ordering::Relaxed) + 1;
            let standing = match standing {
                Standing::Avoided if may_eject(&members, settings) => Standing::Ejected,
                standing => standing,
            };
            return self.take_out(health, standing, ejections, settings, now);
        }
        if standing == Standing::Ejected || place.is_probing() {
            return;
        }
        let run = health.consecutive_failures().saturating_add(1);
        health.run.store(run, Ordering::Relaxed);
        if settings.consecutive.is_none_or(|most| run < most) {
            return;
        }
        let ejections = || self.ejections(health, settings, now) + 1;
        if may_eject(&members, settings) {
            self.take_out(health, Standing::Ejected, ejections(), settings, now);
        } else if standing == Standing::Usable {
            // It may leave at its next failure.
            self.take_out(health, Standing::Avoided, ejections(), settings, now);
        }
    }

    /// Ejects an endpoint, or has it avoided, for the time that its `ejections`
    /// ask for.
    fn take_out(
        &self,
        health: &Health,
        standing: Standing,
        ejections: u32,
        settings: &Settings,
        from: Instant,
    ) {
        let longest = settings.base_ejection.max(EJECTION_MAX);
        let length = settings.base_ejection.saturating_mul(ejections);
        // Different for each.
        let number = self.seed.wrapping_add(self.version());
        let length_ms = jitter::lengthened_ms(length.min(longest).as_millis() as u64, number);
        health.ejections.store(ejections, Ordering::Relaxed);
        // One that is avoided is returned by any success: its run goes on.
        if standing == Standing::Ejected {
            health.run.store(0, Ordering::Relaxed);
        }
        self.set_out(health, standing, self.ms(from).saturating_add(length_ms));
    }

    fn set_out(&self, health: &Health, standing: Standing, until_ms: u64) {
        let until_ms = until_ms.min(Place::UNTIL_MS_MAX);
        self.set(health, Place { standing, until_ms });
    }

    /// How often a usable endpoint was ejected; each interval since its return
    /// takes one off.
    fn ejections(&self, health: &Health, settings: &Settings, now: Instant) -> u32 {
        let well_ms = self
            .ms(now)
            .saturating_sub(health.returned_ms.load(Ordering::Relaxed));
        let forgotten = well_ms / (settings.interval.as_millis() as u64).max(1);
        let ejections = health.ejections.load(Ordering::Relaxed);
        ejections.saturating_sub(forgotten.min(u32::MAX.into()) as u32)
    }

    /// Compares shares of successes where an interval is over.
    fn compare_when_due(&self, settings: &Settings, now: Instant) {
        let now_ms = self.ms(now);
        let is_due = || self.comparison_ms.load(Ordering::Relaxed) <= now_ms;
        if !is_due() {
            return;
        }
        let members = self.lock();
        if !is_due() {
            return;
        }
        let next_ms = now_ms + (settings.interval.as_millis() as u64).max(1);
        self.comparison_ms.store(next_ms, Ordering::Relaxed);
        let tallies = members.iter().map(|health| health.tally.take());
        for outlier in success_rate::outliers(tallies) {
            let health = &members[outlier];
            if health.standing() == Standing::Usable && may_eject(&members, settings) {
                let ejections = self.ejections(health, settings, now) + 1;
                self.take_out(health, Standing::Ejected, ejections, settings, now);
            }
        }
    }

    /// Changes where it stands; under the lock.
    fn set(&self, health: &Health, place: Place) {
        health.place.store(place.pack(), Ordering::Relaxed);
        health.epoch.fetch_add(1, Ordering::Relaxed);
        self.raise_version();
    }

    fn raise_version(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }

    /// A panic under the lock cannot leave anything half changed: nothing in
    /// there can fail.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Health>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one more of these may be ejected. What is not allowed now may be
/// later.
fn may_eject(members: &[Arc<Health>], settings: &Settings) -> bool {
    let total = fit(members).count();
    let is_ejected = |member: &&Arc<Health>| member.standing() == Standing::Ejected;
    let ejected = fit(members).filter(is_ejected).count();
    let within_share = (ejected + 1) as f64 <= settings.max_ejected * total as f64;
    ejected + 1 < total && (ejected == 0 || within_share)
}

/// Those that are fit; all where none is.
fn fit(members: &[Arc<Health>]) -> impl Iterator<Item = &Arc<Health>> {
    let is_fit = |member: &Arc<Health>| member.fitness() == Fitness::Healthy;
    let is_any_fit = members.iter().any(is_fit);
    let counts = move |member: &&Arc<Health>| !is_any_fit || is_fit(member);
    members.iter().filter(counts)
}

#[cfg(test)]
mod tests;
