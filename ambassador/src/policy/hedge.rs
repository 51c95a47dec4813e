//! When a second try is made beside a slow one (Dean and Barroso, "The Tail at
//! Scale", 2013), and how slow that is.

use std::time::Duration;

use super::budget;
use crate::clock::Instant;
use crate::message::Method;

/// `hedge` of an upstream or route.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// When the second try is made.
    pub after: HedgeDelay,
    /// Second tries for each request, from 0 to 1.
    pub budget: f64,
}

/// When a second try is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeDelay {
    /// Never.
    Off,
    /// Once the first takes longer than 95 of 100 did lately.
    P95,
    /// Once it takes longer than this.
    Time(Duration),
}

/// Samples without which there is no percentile to speak of.
const SAMPLES_MIN: u32 = 64;
/// Samples after which it is looked at again.
const LOOKED_AT_EVERY: u32 = 32;
/// Above so many the older ones count half.
const SAMPLES_MAX: u32 = 2_048;
/// Buckets of a doubling: a bound is too high by 19 % at most.
const PER_DOUBLING: f64 = 4.0;
/// From 10 us to more than two minutes.
const BUCKETS: usize = 96;
const FLOOR: Duration = Duration::from_micros(10);

/// How long an upstream took to answer lately, as one thread has seen it.
#[derive(Debug, Clone)]
pub struct Latencies {
    counts: Box<[u16; BUCKETS]>,
    total: u32,
    /// As of a few answers ago; what is asked for with every request.
    p95: Option<Duration>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: Box::new([0; BUCKETS]),
            total: 0,
            p95: None,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            after: HedgeDelay::Off,
            budget: 0.05,
        }
    }
}

impl Settings {
    /// What the budget of second tries goes by.
    pub fn budget(&self) -> budget::Settings {
        budget::Settings {
            ratio: self.budget,
            min_per_second: 0,
        }
    }

    /// When the try that began at `now` counts as slow; `None`: unknown, or
    /// hedging is off.
    pub fn due(&self, latencies: Option<&Latencies>, now: Instant) -> Option<Instant> {
        let after = match self.after {
            HedgeDelay::Off => return None,
            HedgeDelay::Time(time) => time,
            HedgeDelay::P95 => latencies?.p95?,
        };
        Some(now + after)
    }
}

/// Whether requests with this method may be in two places at once: it asks for
/// nothing to be changed (RFC 9110 section 9.2.1).
pub(crate) fn is_safe(method: Method) -> bool {
    matches!(
        method,
        Method::Get | Method::Head | Method::Options | Method::Trace
    )
}

impl Latencies {
    /// Takes note of an answer.
    pub fn record(&mut self, took: Duration) {
        let count = &mut self.counts[bucket(took)];
        *count = count.saturating_add(1);
        self.total += 1;
        if self.total >= SAMPLES_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
        if self.total.is_multiple_of(LOOKED_AT_EVERY) {
            self.p95 = self.quantile(0.95);
        }
    }

    /// What `share` of the answers took no longer than; `None`: too few are
    /// known.
    fn quantile(&self, share: f64) -> Option<Duration> {
        if self.total < SAMPLES_MIN {
            return None;
        }
        let wanted = (f64::from(self.total) * share).ceil() as u32;
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += u32::from(*count);
            seen >= wanted
        })?;
        Some(upper_bound(place))
    }
}

fn bucket(took: Duration) -> usize {
    let ratio = took.as_secs_f64() / FLOOR.as_secs_f64();
    match ratio <= 1.0 {
        true => 0,
        false => ((ratio.log2() * PER_DOUBLING).ceil() as usize).min(BUCKETS - 1),
    }
}

fn upper_bound(bucket: usize) -> Duration {
    FLOOR.mul_f64((bucket as f64 / PER_DOUBLING).exp2())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_percentile_is_known_within_a_bucket() {
        let mut latencies = Latencies::default();
        for ms in 1..=1_000 {
            latencies.record(MS * ms);
        }
        for (share, exact_ms) in [(0.5, 500), (0.95, 950), (1.0, 1_000)] {
            let found = latencies.quantile(share).unwrap();
            let exact = MS * exact_ms;
            assert!(
                found >= exact && found <= exact.mul_f64(1.2),
                "{share}: {found:?}"
            );
        }
    }

    #[test]
    fn a_few_answers_are_no_percentile() {
        let mut latencies = Latencies::default();
        let settings = Settings {
            after: HedgeDelay::P95,
            ..Settings::default()
        };
        let now = Instant::now();
        for _ in 0..SAMPLES_MIN {
            assert_eq!(settings.due(Some(&latencies), now), None);
            latencies.record(MS);
        }
        let due = settings.due(Some(&latencies), now).unwrap();
        assert!(due >= now + MS && due <= now + MS.mul_f64(1.2));
        let fixed = Settings {
            after: HedgeDelay::Time(7 * MS),
            ..settings
        };
        assert_eq!(fixed.due(None, now), Some(now + 7 * MS));
        assert_eq!(Settings::default().due(Some(&latencies), now), None);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut latencies = Latencies::default();
        for _ in 0..100_000 {
            latencies.record(1_000 * MS);
        }
        for _ in 0..30_000 {
            latencies.record(MS);
        }
        assert!(latencies.quantile(0.95).unwrap() < 2 * MS);
    }

    #[test]
    fn what_is_halved_keeps_its_shares() {
        let mut latencies = Latencies::default();
        for answer in 0..SAMPLES_MAX {
            latencies.record(if answer % 8 == 0 { 1_000 * MS } else { MS });
        }
        assert_eq!(latencies.total, SAMPLES_MAX / 2);
        for (share, exact) in [(0.8, MS), (0.95, 1_000 * MS)] {
            let found = latencies.quantile(share).unwrap();
            assert!(found >= exact && found <= exact.mul_f64(1.2), "{found:?}");
        }
    }

    #[test]
    fn the_budget_of_second_tries_has_no_floor() {
        let settings = Settings {
            budget: 0.25,
            ..Settings::default()
        };
        let expected = budget::Settings {
            ratio: 0.25,
            min_per_second: 0,
        };
        assert_eq!(settings.budget(), expected);
    }

    #[test]
    fn any_time_has_a_bucket() {
        let mut latencies = Latencies::default();
        for took in [Duration::ZERO, FLOOR, Duration::MAX] {
            (0..100).for_each(|_| latencies.record(took));
        }
        assert!(latencies.quantile(1.0).unwrap() > Duration::from_secs(100));
        assert_eq!(latencies.quantile(0.1), Some(FLOOR));
    }

    #[test]
    fn only_what_changes_nothing_is_hedged() {
        for method in Method::STANDARD {
            let expected = matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE");
            assert_eq!(is_safe(method), expected, "{method:?}");
        }
        assert!(!is_safe(Method::Other));
    }
}
