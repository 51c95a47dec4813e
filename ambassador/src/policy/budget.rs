//! How many of an upstream's requests may be tried again, over all shards.
//!
//! Requests and extra tries are counted in slots of a second, ten of them. An
//! extra try is granted where, itself included, those of the last ten seconds
//! stay within `ratio` of the requests, or those of this second within
//! `min_per_second`: the larger of the two holds, not their sum. After
//! Finagle's `RetryBudget`.

use super::sync::{AtomicU64, Ordering};
use crate::clock::Instant;
use std::time::Duration;

/// Seconds that are looked back on.
const SLOTS: u64 = 10;

/// `budget` of `retry` and `hedge`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Extra tries for each request, from 0 to 1.
    pub ratio: f64,
    /// Extra tries in a second that are always granted.
    pub min_per_second: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ratio: 0.2,
            min_per_second: 10,
        }
    }
}

/// The requests and extra tries of the last seconds, counted by all shards.
#[derive(Debug)]
pub struct Budget {
    started: Instant,
    requests: [Slot; SLOTS as usize],
    extra: [Slot; SLOTS as usize],
}

/// What is left of a budget; for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Requests in the last ten seconds.
    pub requests: u64,
    /// Extra tries in the same time.
    pub extra: u64,
}

impl Budget {
    /// A budget without history.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            requests: Default::default(),
            extra: Default::default(),
        }
    }

    /// Counts requests. Shards report theirs in batches: until then they are
    /// missing here, so that the budget errs on the small side.
    pub fn deposit(&self, requests: u32, now: Instant) {
        let second = self.second(now);
        self.requests[(second % SLOTS) as usize].add(second, requests);
    }

    /// Asks for one more try. A granted one counts from now on.
    pub fn withdraw(&self, settings: &Settings, now: Instant) -> bool {
        let second = self.second(now);
        let slot = &self.extra[(second % SLOTS) as usize];
        // Counted first, so that two that ask at once see each other.
        let this_second = slot.add(second, 1);
        if this_second <= u64::from(settings.min_per_second) {
            return true;
        }
        let Spent { requests, extra } = self.spent(now);
        if extra as f64 <= requests as f64 * settings.ratio {
            return true;
        }
        slot.take_back(second);
        false
    }

    /// The counts as they are.
    pub fn spent(&self, now: Instant) -> Spent {
        let second = self.second(now);
        let sum = |slots: &[Slot]| slots.iter().map(|slot| slot.since(second)).sum();
        Spent {
            requests: sum(&self.requests),
            extra: sum(&self.extra),
        }
    }

    fn second(&self, now: Instant) -> u64 {
        // Never 0, which an unused slot has.
        now.saturating_duration_since(self.started).as_secs() + SLOTS
    }
}

/// The count of one second: the second in the upper half, modulo 2^32, the count
/// in the lower.
#[derive(Debug, Default)]
struct Slot(AtomicU64);

impl Slot {
    /// Adds to the count of `second` and returns it. A slot of an older second
    /// begins anew.
    fn add(&self, second: u64, count: u32) -> u64 {
        let tag = second << 32;
        let add = |word: u64| match word & !COUNT == tag {
            true => tag | (word & COUNT).saturating_add(count.into()).min(COUNT),
            false => tag | u64::from(count),
        };
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(add(word)))
            .unwrap_or_default();
        add(before) & COUNT
    }

    /// Takes one back, unless the slot has begun anew since.
    fn take_back(&self, second: u64) {
        let take = |word: u64| (word & !COUNT == second << 32).then(|| word - 1);
        // Begun anew: it is gone already.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    /// The count, if it is of the ten seconds that end with `second`.
    fn since(&self, second: u64) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        let age = (second as u32).wrapping_sub((word >> 32) as u32);
        match u64::from(age) < SLOTS {
            true => word & COUNT,
            false => 0,
        }
    }
}

const COUNT: u64 = u32::MAX as u64;

/// Longer than any slot is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(SLOTS);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn granted(budget: &Budget, settings: &Settings, asked: u32, now: Instant) -> u32 {
        (0..asked)
            .filter(|_| budget.withdraw(settings, now))
            .count() as u32
    }

    #[test]
    fn the_floor_is_granted_without_any_request_and_each_second_anew() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let settings = Settings::default();
        for second in 0..30 {
            assert_eq!(
                granted(&budget, &settings, 100, start + SECOND * second),
                10
            );
        }
    }

    #[test]
    fn the_ratio_holds_over_the_window_and_the_floor_is_not_added_to_it() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let settings = Settings::default();
        budget.deposit(1_000, start);
        assert_eq!(granted(&budget, &settings, 1_000, start), 200);
        assert_eq!(granted(&budget, &settings, 1_000, start + SECOND), 10);
        budget.deposit(1_000, start + SECOND * 2);
        assert_eq!(granted(&budget, &settings, 1_000, start + SECOND * 2), 190);
        let forgotten = start + REMEMBERED + SECOND * 2;
        assert_eq!(granted(&budget, &settings, 1_000, forgotten), 10);
    }

    #[test]
    fn what_was_refused_does_not_count() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let settings = Settings {
            ratio: 0.1,
            min_per_second: 0,
        };
        assert_eq!(granted(&budget, &settings, 1_000, start), 0);
        assert_eq!(budget.spent(start).extra, 0);
        budget.deposit(10, start);
        assert_eq!(granted(&budget, &settings, 5, start), 1);
    }

    #[test]
    fn threads_are_never_granted_more_than_there_is() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let settings = Settings {
            ratio: 0.5,
            min_per_second: 0,
        };
        budget.deposit(1_000, start);
        let granted: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| granted(&budget, &settings, 1_000, start)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert!(granted <= 500, "{granted}");
        assert_eq!(budget.spent(start).extra, u64::from(granted));
    }
}
