//! How many requests an upstream is sent in a second, over all shards.
//!
//! The generic cell rate algorithm (ITU-T I.371): one word holds the time at
//! which the next request would be due if all before it had come at the rate;
//! one may come up to `burst` requests ahead of it.

use std::time::Duration;

use super::sync::{AtomicU64, Ordering};
use crate::clock::Instant;

/// `rate_limit` of an upstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The rate, over 0.
    pub requests_per_second: f64,
    /// Requests that may come at once, at least 1.
    pub burst: u32,
    /// What happens to one over the limit.
    pub on_limit: OnLimit,
}

/// What happens to a request over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLimit {
    /// It is refused.
    #[default]
    Reject,
    /// It waits for its turn.
    Wait,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It goes on at once.
    Now,
    /// It goes on after this time: its turn is taken.
    After(Duration),
    /// It is over the limit; the next would not be after this time.
    Refused(Duration),
}

/// The state of a rate limit.
#[derive(Debug)]
pub struct RateLimit {
    started: Instant,
    /// The theoretical arrival time of the next request, in nanoseconds.
    due_ns: AtomicU64,
}

impl RateLimit {
    /// A rate limit without requests.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            due_ns: AtomicU64::new(0),
        }
    }

    /// Takes a turn. None is taken if it would be later than `patience` from now,
    /// or not now and the settings say `reject`.
    pub fn take(&self, settings: &Settings, patience: Duration, now: Instant) -> Turn {
        // 584 years fit.
        let now_ns = now.saturating_duration_since(self.started).as_nanos() as u64;
        let interval_ns = (1e9 / settings.requests_per_second).max(1.0) as u64;
        let ahead_ns = interval_ns.saturating_mul(u64::from(settings.burst.max(1)) - 1);
        let patience_ns = match settings.on_limit {
            OnLimit::Reject => 0,
            OnLimit::Wait => patience.as_nanos().min(u64::MAX.into()) as u64,
        };
        let mut turn = Turn::Now;
        let take = |due_ns: u64| {
            let due_ns = due_ns.max(now_ns);
            let wait_ns = (due_ns - now_ns).saturating_sub(ahead_ns);
            turn = match wait_ns {
                0 => Turn::Now,
                wait_ns if wait_ns <= patience_ns => Turn::After(Duration::from_nanos(wait_ns)),
                wait_ns => {
                    turn = Turn::Refused(Duration::from_nanos(wait_ns));
                    return None;
                }
            };
            due_ns.checked_add(interval_ns)
        };
        // Refused: nothing was taken.
        let _ = self
            .due_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn settings(on_limit: OnLimit) -> Settings {
        Settings {
            requests_per_second: 100.0,
            burst: 5,
            on_limit,
        }
    }

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let limit = RateLimit::new(start);
        let reject = settings(OnLimit::Reject);
        for _ in 0..5 {
            assert_eq!(limit.take(&reject, MS, start), Turn::Now);
        }
        assert_eq!(limit.take(&reject, MS, start), Turn::Refused(10 * MS));
        assert_eq!(limit.take(&reject, MS, start + 9 * MS), Turn::Refused(MS));
        assert_eq!(limit.take(&reject, MS, start + 10 * MS), Turn::Now);
        // A long rest gives one burst, not more.
        let later = start + 100_000 * MS;
        let passed = (0..50).filter(|_| limit.take(&reject, MS, later) == Turn::Now);
        assert_eq!(passed.count(), 5);
    }

    #[test]
    fn those_who_wait_keep_their_order_and_none_waits_longer_than_it_may() {
        let start = Instant::now();
        let limit = RateLimit::new(start);
        let wait = settings(OnLimit::Wait);
        for _ in 0..5 {
            assert_eq!(limit.take(&wait, 25 * MS, start), Turn::Now);
        }
        assert_eq!(limit.take(&wait, 25 * MS, start), Turn::After(10 * MS));
        assert_eq!(limit.take(&wait, 25 * MS, start), Turn::After(20 * MS));
        assert_eq!(limit.take(&wait, 25 * MS, start), Turn::Refused(30 * MS));
        let later = start + 10 * MS;
        assert_eq!(limit.take(&wait, 25 * MS, later), Turn::After(20 * MS));
    }

    #[test]
    fn threads_together_get_the_rate() {
        let start = Instant::now();
        let limit = RateLimit::new(start);
        let reject = settings(OnLimit::Reject);
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let turns = (0..1_000).map(|ms| limit.take(&reject, MS, start + MS * ms));
                        turns.filter(|turn| *turn == Turn::Now).count()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert!((99..=105).contains(&passed), "{passed}");
    }
}
