//! Outlier ejection: an endpoint that does worse than is expected of it gets no
//! requests for a while, in the manner of Envoy's outlier detection.
//!
//! It is ejected for a run of failures, or for a share of successes far below
//! that of its peers; longer each time. When its time is over, exactly one
//! request of all shards is sent there as a probe, whose result returns it or
//! ejects it again. The last endpoint is never ejected.
//!
//! What shards read on the way of a request is one version for all endpoints of
//! an upstream, and the run of failures of the one that was called. A success
//! writes nothing unless it ends a run, or shares of successes are compared.
//! All changes of state are made under one lock. Each raises the endpoint's
//! epoch, and a request counts only in the epoch that it was sent in.

mod success_rate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};

/// An ejection lasts no longer than this, or than `base_ejection` where that is
/// longer. Envoy's `max_ejection_time`.
const EJECTION_MAX: Duration = Duration::from_secs(300);

/// `outlier` of an upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// So many failures without a success between them eject an endpoint;
    /// `None`: no number does.
    pub consecutive: Option<u32>,
    /// Whether an endpoint is ejected whose share of successes in an
    /// `interval` is more than 1.9 standard deviations below the mean of all
    /// that had 100 requests in it, if those are five or more.
    pub success_rate: bool,
    /// How often shares of successes are compared; and how long an endpoint
    /// has to do well until one of its ejections is forgotten.
    pub interval: Duration,
    /// How long the first ejection lasts; the second takes twice as long, and
    /// so on up to 300 s.
    pub base_ejection: Duration,
    /// The share of endpoints that may be ejected at a time, from 0 to 1. One
    /// may be in any case, but never the last.
    pub max_ejected: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consecutive: Some(5),
            success_rate: false,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejected: 0.1,
        }
    }
}

/// What a request says about the endpoint that it was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it is there for.
    Success,
    /// It could not be connected to, broke off, took too long, or answered
    /// with a status from 500 to 599.
    Failure,
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
    /// A probe is on its way.
    Probing,
}

/// The ejections among the endpoints of an upstream.
#[derive(Debug)]
pub struct Detector {
    started: Instant,
    /// Raised whenever the state of an endpoint or the list of them changes.
    version: AtomicU64,
    /// When shares of successes are compared next, in milliseconds since the
    /// start.
    comparison_ms: AtomicU64,
    members: Mutex<Vec<Arc<Health>>>,
}

/// What is known of an endpoint. The fields are changed under the lock of the
/// detector, but for `tally`.
#[derive(Debug, Default)]
pub struct Health {
    /// [`Self::USABLE`], [`Self::PROBING`], or when the ejection ends, in
    /// milliseconds since the detector's start.
    until_ms: AtomicU64,
    /// Raised by every change of `until_ms`.
    epoch: AtomicU32,
    /// Failures since the last success, or since it became usable.
    run: AtomicU32,
    /// Ejections as of `returned_ms`, less those that were forgotten.
    ejections: AtomicU32,
    returned_ms: AtomicU64,
    /// How long the last ejection was to take.
    length_ms: AtomicU64,
    tally: success_rate::Tally,
}

/// A request to an endpoint, whose end is to be told.
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
    const USABLE: u64 = 0;
    const PROBING: u64 = u64::MAX;
    /// 34 years.
    const UNTIL_MS_MAX: u64 = (1 << 40) - 1;

    /// Failures without a success between them.
    pub fn consecutive_failures(&self) -> u32 {
        self.run.load(Ordering::Relaxed)
    }

    fn is_usable(&self) -> bool {
        self.until_ms.load(Ordering::Relaxed) == Self::USABLE
    }

    fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }
}

/// Whether so few are usable that ejections are ignored: the fault then lies
/// elsewhere, or the rest would fall under the load of all. The half is Envoy's
/// panic threshold.
pub fn is_panic(usable: usize, total: usize) -> bool {
    usable * 2 < total
}

impl Detector {
    /// One of an upstream without endpoints.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
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

    /// The state of an endpoint.
    pub fn state(&self, health: &Health) -> State {
        match health.until_ms.load(Ordering::Relaxed) {
            Health::USABLE => State::Usable,
            Health::PROBING => State::Probing,
            until_ms => State::Ejected {
                until: self.started + Duration::from_millis(until_ms),
            },
        }
    }

    /// Begins a request that is no probe, whatever the state of its endpoint.
    pub fn begin(&self, health: &Health) -> Trial {
        Trial {
            epoch: health.epoch(),
            probe_since: None,
        }
    }

    /// Begins the probe of an ejected endpoint. `None`: it is not due, or
    /// another has begun it.
    pub fn probe(&self, health: &Health, now: Instant) -> Option<Trial> {
        let is_due = || matches!(self.state(health), State::Ejected { until } if until <= now);
        // Looked at twice, so that only those take the lock who come first.
        if !is_due() {
            return None;
        }
        let _changing = self.lock();
        is_due().then(|| {
            self.set(health, Health::PROBING);
            Trial {
                epoch: health.epoch(),
                probe_since: Some(now),
            }
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

    /// Ends a request without one: its caller left, or it was never sent. A
    /// probe is then due again after as long as its endpoint was out before.
    pub fn abandon(&self, health: &Health, trial: Trial) {
        let Some(since) = trial.probe_since else {
            return;
        };
        let _changing = self.lock();
        if health.epoch() == trial.epoch {
            let length_ms = health.length_ms.load(Ordering::Relaxed);
            self.set_ejected(health, self.ms(since).saturating_add(length_ms));
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
        if trial.is_probe() {
            self.set(health, Health::USABLE);
            health.returned_ms.store(self.ms(now), Ordering::Relaxed);
        }
        if health.is_usable() {
            health.run.store(0, Ordering::Relaxed);
        }
    }

    fn failed(&self, health: &Health, trial: &Trial, settings: &Settings, now: Instant) {
        if !trial.is_probe() && settings.consecutive.is_none() {
            return;
        }
        let members = self.lock();
        if health.epoch() != trial.epoch {
            return;
        }
        if trial.is_probe() {
            let ejections = health.ejections.load(Ordering::Relaxed) + 1;
            return self.eject(health, ejections, settings, now);
        }
        if !health.is_usable() {
            return;
        }
        let run = health.consecutive_failures().saturating_add(1);
        health.run.store(run, Ordering::Relaxed);
        if settings.consecutive.is_some_and(|most| run >= most) {
            self.eject_where_allowed(health, &members, settings, now);
        }
    }

    /// Ejects a usable one, unless too many are out. What is not allowed now
    /// may be at its next failure.
    fn eject_where_allowed(
        &self,
        health: &Health,
        members: &[Arc<Health>],
        settings: &Settings,
        now: Instant,
    ) {
        let total = members.len();
        let ejected = members.iter().filter(|other| !other.is_usable()).count();
        let within_share = (ejected + 1) as f64 <= settings.max_ejected * total as f64;
        if ejected + 1 < total && (ejected == 0 || within_share) {
            let ejections = self.ejections(health, settings, now) + 1;
            self.eject(health, ejections, settings, now);
        }
    }

    /// Ejects an endpoint for the time that its `ejections` ask for.
    fn eject(&self, health: &Health, ejections: u32, settings: &Settings, from: Instant) {
        let longest = settings.base_ejection.max(EJECTION_MAX);
        let length = settings.base_ejection.saturating_mul(ejections);
        let length_ms = length.min(longest).as_millis() as u64;
        health.ejections.store(ejections, Ordering::Relaxed);
        health.length_ms.store(length_ms, Ordering::Relaxed);
        health.run.store(0, Ordering::Relaxed);
        self.set_ejected(health, self.ms(from).saturating_add(length_ms));
    }

    fn set_ejected(&self, health: &Health, until_ms: u64) {
        let until_ms = until_ms.clamp(Health::USABLE + 1, Health::UNTIL_MS_MAX);
        self.set(health, until_ms);
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
            if health.is_usable() {
                self.eject_where_allowed(health, &members, settings, now);
            }
        }
    }

    /// Changes the state; under the lock.
    fn set(&self, health: &Health, until_ms: u64) {
        health.until_ms.store(until_ms, Ordering::Relaxed);
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

#[cfg(test)]
mod tests;
