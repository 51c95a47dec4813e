//! What a breaker counts behind its lock.

use std::collections::VecDeque;

use super::super::sync::OnceLock;
use super::counts::{Moment, Recent};
use super::{Observer, Transitions};

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) last: LastFailures,
    /// How many failures there were lately, also where `last` does not hold them
    /// all.
    failed: OnceLock<Box<Recent>>,
    pub(super) transitions: Transitions,
    pub(super) observer: Option<Observer>,
}

/// When the last failures were: as many as open the breaker, by any of the
/// settings that it was told of since its last change, for the longest window of
/// these.
#[derive(Debug, Default)]
pub(super) struct LastFailures {
    /// In milliseconds since the start.
    times: VecDeque<u64>,
    kept: usize,
    window_ms: u64,
}

impl Tally {
    pub(super) fn count(&mut self, failures: usize, moment: Moment) {
        self.last.push(failures, moment);
        let recent = || Box::new(Recent::new(moment.window_ms));
        self.failed.get_or_init(recent).count(moment);
    }

    pub(super) fn failed_within(&self, span_ms: u64, moment: Moment) -> u64 {
        let recent = self.failed.get();
        recent.map_or(0, |recent| recent.within(span_ms, moment))
    }
}

impl LastFailures {
    pub(super) fn push(&mut self, failures: usize, moment: Moment) {
        self.kept = self.kept.max(failures);
        self.window_ms = self.window_ms.max(moment.window_ms);
        let oldest_ms = moment.now_ms.saturating_sub(self.window_ms);
        self.times.push_back(moment.now_ms);
        while self.times.len() > self.kept
            || self.times.front().is_some_and(|first| *first < oldest_ms)
        {
            self.times.pop_front();
        }
    }

    /// There may have been more.
    pub(super) fn is_full(&self) -> bool {
        self.times.len() >= self.kept
    }

    pub(super) fn within(&self, span_ms: u64, now_ms: u64) -> usize {
        let oldest_ms = now_ms.saturating_sub(span_ms);
        self.times.len() - self.times.partition_point(|time| *time < oldest_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failures_are_as_many_as_open_it_and_of_its_window() {
        let mut last = LastFailures::default();
        let mut push = |now_ms| {
            let moment = Moment {
                epoch: 0,
                now_ms,
                window_ms: 1_000,
            };
            last.push(3, moment);
            (Vec::from(last.times.clone()), last.is_full())
        };
        assert_eq!(push(0), (vec![0], false));
        assert_eq!(push(10), (vec![0, 10], false));
        assert_eq!(push(20), (vec![0, 10, 20], true));
        assert_eq!(push(30), (vec![10, 20, 30], true));
        assert_eq!(push(1_010), (vec![20, 30, 1_010], true));
        assert_eq!(push(1_031), (vec![1_010, 1_031], false));
    }
}
