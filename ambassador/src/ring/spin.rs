//! Polls instead of sleeping, while events come fast.
//!
//! Sleeping and waking costs tens of microseconds when the CPU has to leave an
//! idle state. A shard that spins reacts at once and keeps its CPU busy, so it
//! spins only while its last waits were short.

use std::time::Duration;

/// The longest spin before a sleep.
pub(super) const SPIN_MAX: Duration = Duration::from_micros(100);

const SPIN_MAX_NS: u64 = SPIN_MAX.as_nanos() as u64;

/// Whether a shard may spin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Spin {
    /// It sleeps as soon as there is nothing to do.
    #[default]
    Never,
    /// It looks for up to 100 us first, while news has come within that time
    /// lately.
    Adaptive,
}

/// How long the last waits were.
pub(super) struct WaitHistory {
    spin: Spin,
    /// Their moving average, in nanoseconds.
    usual_ns: u64,
}

impl WaitHistory {
    /// None yet: nothing says that news comes fast.
    pub(super) fn new(spin: Spin) -> Self {
        Self {
            spin,
            usual_ns: SPIN_MAX_NS * 4,
        }
    }

    /// How long to spin in a wait of `wait` at most (`None`: without end).
    pub(super) fn spin(&self, wait: Option<Duration>) -> Duration {
        let worthwhile = self.spin == Spin::Adaptive && self.usual_ns < SPIN_MAX_NS;
        match wait {
            Some(wait) if wait <= SPIN_MAX => Duration::ZERO,
            _ if worthwhile => SPIN_MAX,
            _ => Duration::ZERO,
        }
    }

    /// Takes note of a wait. One long silence counts as a few, not as many, so
    /// that a burst after it is served well soon.
    pub(super) fn note(&mut self, waited: Duration) {
        if self.spin == Spin::Never {
            return;
        }
        let waited_ns = waited.min(SPIN_MAX * 8).subsec_nanos();
        self.usual_ns = (self.usual_ns * 7 + u64::from(waited_ns)) / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(waits: &mut WaitHistory, count: usize, waited: Duration) -> Duration {
        for _ in 0..count {
            waits.note(waited);
        }
        waits.spin(None)
    }

    #[test]
    fn it_spins_only_while_news_comes_fast() {
        let mut waits = WaitHistory::new(Spin::Adaptive);
        let (short, long) = (SPIN_MAX / 5, SPIN_MAX * 2);
        assert_eq!(waits.spin(None), Duration::ZERO, "nothing has come yet");
        assert_eq!(after(&mut waits, 20, short), SPIN_MAX);
        assert_eq!(after(&mut waits, 20, long), Duration::ZERO);
        assert_eq!(after(&mut waits, 20, short), SPIN_MAX);
        let hour = Duration::from_secs(3_600);
        assert_eq!(after(&mut waits, 1, hour), Duration::ZERO, "a silence");
        assert_eq!(after(&mut waits, 16, short), SPIN_MAX, "is soon forgotten");
    }

    #[test]
    fn a_short_wait_is_not_spun_through() {
        let mut waits = WaitHistory::new(Spin::Adaptive);
        after(&mut waits, 50, Duration::ZERO);
        assert_eq!(waits.spin(Some(Duration::from_secs(1))), SPIN_MAX);
        assert_eq!(waits.spin(Some(SPIN_MAX)), Duration::ZERO);
        assert_eq!(waits.spin(Some(Duration::ZERO)), Duration::ZERO);
    }

    #[test]
    fn never_is_never() {
        let mut waits = WaitHistory::new(Spin::Never);
        assert_eq!(after(&mut waits, 50, Duration::ZERO), Duration::ZERO);
    }
}
