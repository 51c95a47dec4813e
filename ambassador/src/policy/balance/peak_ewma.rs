//! Peak EWMA: the latency to expect of an endpoint, in the manner of Finagle's
//! `PeakEwma` balancer and Linkerd's.

use std::time::Duration;

use super::Candidates;
use crate::clock::Instant;

/// How fast the past is forgotten: after this time an observation weighs 1/e.
/// Finagle's and Linkerd's default.
const DECAY: Duration = Duration::from_secs(10);

/// What a failure, or a request to come back later, counts as at least: far
/// above what an endpoint that does its job is expected to take. After a minute
/// it has decayed to 2.5 ms.
const PENALTY: Duration = Duration::from_secs(1);

/// How long an endpoint's `Retry-After` is respected: it is a hint for the
/// choice among several, and traffic must find its way back.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A moving average of latencies that follows a rise at once and a fall slowly.
/// Without observations it falls to nothing, so that an endpoint that was slow
/// is tried again.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeakEwma {
    seconds: f64,
    /// From when on `seconds` decays. `None`: nothing was observed.
    since: Option<Instant>,
}

impl PeakEwma {
    /// Takes in how long a request took that did well.
    pub fn observe(&mut self, latency: Duration, now: Instant) {
        let kept = self.kept(now);
        let latency = latency.as_secs_f64();
        let average = self.seconds * kept + latency * (1.0 - kept);
        self.seconds = latency.max(average);
        self.since = self.since.max(Some(now));
    }

    /// Takes in a failure, or a response that asks to come back later, after
    /// `latency`. It counts as slow, and does not begin to be forgotten before
    /// the time that was asked for.
    pub fn penalize(&mut self, latency: Duration, retry_after: Option<Duration>, now: Instant) {
        self.observe(latency.max(PENALTY), now);
        let pause = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        self.since = self.since.max(Some(now + pause));
    }

    /// The seconds that one request more is expected to take on an endpoint
    /// that has `active` already.
    pub fn cost(&self, active: u32, now: Instant) -> f64 {
        let latency = match (self.since, active) {
            (Some(_), _) => self.seconds * self.kept(now),
            // Nothing is known: it is tried, with one request at first.
            (None, 0) => 0.0,
            (None, _) => PENALTY.as_secs_f64(),
        };
        latency * (f64::from(active) + 1.0)
    }

    /// Of two that are drawn by weight, the one of lower cost for its weight.
    /// `state` tells of the endpoint at a place: its latency and its active
    /// requests.
    pub fn choose(
        candidates: &Candidates,
        state: impl Fn(usize) -> (Self, u32),
        random: u64,
        now: Instant,
    ) -> Option<usize> {
        let [first, second] = candidates.draw_two(random)?;
        let [of_first, of_second] = [first, second].map(|one| {
            let (latency, active) = state(one.place);
            latency.cost(active, now) / f64::from(one.weight)
        });
        let cheaper = if of_second < of_first { second } else { first };
        Some(cheaper.place)
    }

    /// The share of what was observed that still counts.
    fn kept(&self, now: Instant) -> f64 {
        let Some(since) = self.since else {
            return 0.0;
        };
        let age = now.saturating_duration_since(since);
        (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}
