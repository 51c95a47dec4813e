//! Active health checks: when an endpoint is asked how it is, and which answers in a row
//! decide whether it gets requests.

use std::time::Duration;

use super::jitter;
use super::outlier::Fitness;

/// `health_check` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The service whose health is asked for by `grpc.health.v1`, empty for that of the
    /// server; `None`: nothing is asked.
    pub grpc: Option<String>,
    /// How long after one check the next one follows.
    pub interval: Duration,
    /// How long a check may take, from the dial on.
    pub timeout: Duration,
    /// This many good checks in a row give an endpoint requests again.
    pub healthy: u32,
    /// This many failed ones take them away.
    pub unhealthy: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grpc: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
        }
    }
}

impl Settings {
    /// How long after it became known an endpoint is checked first: anywhere in an
    /// interval, so that not all are checked at once. The same `number` gives the same.
    pub(crate) fn first_after(&self, number: u64) -> Duration {
        const PARTS: u64 = 1 << 10;
        let part = jitter::mixed(number) % PARTS;
        self.interval.mul_f64(part as f64 / PARTS as f64)
    }

    /// How long after a check the next one follows: longer by a tenth at most, so that
    /// those that fell together part again.
    pub(crate) fn next_after(&self, number: u64) -> Duration {
        let interval_ms = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(jitter::lengthened_ms(interval_ms, number))
    }
}

/// The checks of an endpoint, as they have ended.
#[derive(Debug)]
pub(crate) struct CheckRecord {
    fitness: Fitness,
    /// Checks since the last one that agreed with `fitness`.
    contrary: u32,
}

impl CheckRecord {
    /// One of an endpoint that was found so before.
    pub(crate) fn of(fitness: Fitness) -> Self {
        Self {
            fitness,
            contrary: 0,
        }
    }

    /// Notes what a check has found; gives what the endpoint is from now on, if that has
    /// changed.
    pub(crate) fn note(&mut self, found: Fitness, settings: &Settings) -> Option<Fitness> {
        if found == self.fitness {
            self.contrary = 0;
            return None;
        }
        self.contrary += 1;
        let wanted = match found {
            Fitness::Healthy => settings.healthy,
            Fitness::Unhealthy => settings.unhealthy,
        };
        if self.contrary < wanted {
            return None;
        }
        *self = Self::of(found);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::Fitness::{Healthy, Unhealthy};
    use super::*;

    #[test]
    fn checks_in_a_row_decide() {
        let settings = Settings::default();
        let mut record = CheckRecord::of(Healthy);
        for (found, changed) in [
            (Healthy, None),
            (Unhealthy, None),
            (Unhealthy, None),
            // The row begins anew.
            (Healthy, None),
            (Unhealthy, None),
            (Unhealthy, None),
            (Unhealthy, Some(Unhealthy)),
            (Unhealthy, None),
            (Healthy, None),
            (Unhealthy, None),
            (Healthy, None),
            (Healthy, Some(Healthy)),
            (Healthy, None),
        ] {
            assert_eq!(record.note(found, &settings), changed);
        }
        let mut record = CheckRecord::of(Unhealthy);
        assert_eq!(record.note(Healthy, &settings), None);
        assert_eq!(record.note(Healthy, &settings), Some(Healthy));
    }

    #[test]
    fn checks_are_spread() {
        let settings = Settings::default();
        let all = |after: &dyn Fn(u64) -> Duration| {
            let mut all: Vec<Duration> = (0..1_000).map(after).collect();
            all.sort_unstable();
            all
        };
        let first = all(&|number| settings.first_after(number));
        assert!(first[0] < settings.interval / 50 && first[999] < settings.interval);
        assert!(first[999] > settings.interval * 49 / 50);
        let half = first.partition_point(|after| *after < settings.interval / 2);
        assert!((450..550).contains(&half), "{half}");
        let next = all(&|number| settings.next_after(number));
        assert!(next[0] >= settings.interval && next[999] <= settings.interval * 11 / 10);
        assert!(next[0] < next[500] && next[500] < next[999]);
    }
}
