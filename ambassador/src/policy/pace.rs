//! `timeouts.min_rate`: whether a peer moves the bytes of a body fast enough.
//!
//! Only time in which this peer is waited for counts, so nobody answers for the
//! slowness of the other side. After each window of it the pace checks how much
//! has moved since the last check. That earns the peer the time that so many
//! bytes take at the rate, at most a window. A peer that has earned less than it
//! was waited for is too slow. Single pieces cost nothing.

use std::num::NonZeroU32;
use std::time::Duration;

/// For how long a peer is waited for before its rate is looked at. It covers
/// round trips, lost packets and pauses of a runtime.
const WINDOW: Duration = Duration::from_secs(10);

/// The kernel of one that reads slowly makes room in steps of up to this, the
/// size of a segment of the loopback device; less says nothing about it.
const READ_STEP: u64 = 64 * 1024;

/// How often one is looked at that is just fast enough.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Bytes in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate(pub NonZeroU32);

/// The role of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// It sends them.
    Sends,
    /// It reads them.
    Reads,
}

/// The verdict on a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should.
    Keeps,
    /// It moves too little.
    TooSlow,
}

/// The pace of one peer in one direction.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: MinRate,
    window: Duration,
    /// For how long it may be waited for before what comes next is looked at.
    credit: Duration,
    /// For how long it was, since the last look.
    waited: Duration,
    /// What it had moved by then.
    moved: i64,
}

impl MinRate {
    /// How long so many bytes take.
    fn time_of(self, bytes: u64) -> Duration {
        let rate = u64::from(self.0.get());
        let rest = Duration::from_secs(bytes % rate) / self.0.get();
        Duration::from_secs(bytes / rate) + rest
    }
}

impl Pace {
    /// That of a peer which is about to be waited for, and has moved so many
    /// bytes before. `silence` ends it in any case, so the window is half of it
    /// at most.
    pub(crate) fn new(rate: MinRate, part: Part, silence: Duration, moved: i64) -> Self {
        let window = WINDOW.min(silence / 2);
        let window = match part {
            Part::Sends => window,
            Part::Reads => window.max(rate.time_of(READ_STEP)),
        };
        Self {
            rate,
            window,
            credit: window,
            waited: Duration::ZERO,
            moved,
        }
    }

    /// For how long it may be waited for until the next look.
    pub(crate) fn until_look(&self) -> Duration {
        self.credit.max(LOOK_EVERY).saturating_sub(self.waited)
    }

    /// Adds time in which this peer was waited for.
    pub(crate) fn spend(&mut self, waited: Duration) {
        self.waited += waited;
    }

    /// Takes that time back: the other peer was waited for.
    pub(crate) fn excuse(&mut self) {
        self.waited = Duration::ZERO;
    }

    /// Looks at it: it has moved so many bytes so far.
    pub(crate) fn look(&mut self, moved: i64) -> Verdict {
        let bytes = u64::try_from(moved.wrapping_sub(self.moved)).unwrap_or(0);
        let earned = self.credit + self.rate.time_of(bytes);
        self.moved = moved;
        match earned.checked_sub(std::mem::take(&mut self.waited)) {
            Some(credit) if !credit.is_zero() => {
                self.credit = credit.min(self.window);
                Verdict::Keeps
            }
            _ => Verdict::TooSlow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LONG: Duration = Duration::from_secs(300);

    fn rate(bytes: u32) -> MinRate {
        MinRate(NonZeroU32::new(bytes).unwrap())
    }

    /// For how long one is waited for that moves `bytes` each time it was waited
    /// for `every`; `None`: for an hour and longer.
    fn ends_after(pace: &mut Pace, bytes: i64, every: Duration) -> Option<Duration> {
        let (mut moved, mut waited) = (0, Duration::ZERO);
        while waited < 3_600 * SECOND {
            let mut left = every;
            while pace.until_look() <= left {
                let step = pace.until_look();
                pace.spend(step);
                (left, waited) = (left - step, waited + step);
                if pace.look(moved) == Verdict::TooSlow {
                    return Some(waited);
                }
            }
            pace.spend(left);
            (moved, waited) = (moved + bytes, waited + left);
        }
        None
    }

    fn sender(bytes: u32, silence: Duration) -> Pace {
        Pace::new(rate(bytes), Part::Sends, silence, 0)
    }

    #[test]
    fn who_keeps_the_rate_goes_on_for_ever() {
        for every in [1, 10, 100, 1_000, 5_000] {
            let every = Duration::from_millis(every);
            let bytes = 1_024 * every.as_millis() as i64 / 1_000 + 1;
            let ended = ends_after(&mut sender(1_024, LONG), bytes, every);
            assert_eq!(ended, None, "{every:?}");
        }
    }

    #[test]
    fn who_is_slower_ends_the_sooner_the_slower_it_is() {
        let ended = |bytes, every| ends_after(&mut sender(1_000, LONG), bytes, every);
        assert_eq!(ended(0, SECOND), Some(10 * SECOND));
        // Half of it earns half of the time again, and so on.
        let half = ended(50, SECOND / 10).unwrap();
        assert!(half > 19 * SECOND && half < 21 * SECOND, "{half:?}");
        let drip = ended(1, SECOND / 5).unwrap();
        assert!(drip > 10 * SECOND && drip < 11 * SECOND, "{drip:?}");
        let nearly = ended(99, SECOND / 10).unwrap();
        assert!(nearly < 1_010 * SECOND, "{nearly:?}");
    }

    #[test]
    fn what_is_ahead_lasts_for_a_window_at_most() {
        let mut pace = sender(1_000, LONG);
        pace.spend(SECOND);
        assert_eq!(pace.look(1_000_000_000), Verdict::Keeps);
        assert_eq!(pace.until_look(), 10 * SECOND);
        pace.spend(10 * SECOND);
        assert_eq!(pace.look(1_000_000_000), Verdict::TooSlow);
    }

    #[test]
    fn waits_for_the_other_side_cost_nothing() {
        let mut pace = sender(1_000, LONG);
        for _ in 0..100 {
            pace.spend(pace.until_look());
            pace.excuse();
        }
        assert_eq!(pace.until_look(), 10 * SECOND);
        pace.spend(SECOND);
        assert_eq!(pace.look(0), Verdict::Keeps);
        assert_eq!(pace.until_look(), 9 * SECOND);
    }

    #[test]
    fn a_window_is_over_before_silence() {
        let mut pace = sender(1_000, 2 * SECOND);
        assert_eq!(ends_after(&mut pace, 0, SECOND / 10), Some(SECOND));
    }

    #[test]
    fn who_reads_may_do_it_in_steps() {
        let reader = |bytes, silence| Pace::new(rate(bytes), Part::Reads, silence, 0);
        let step = READ_STEP as i64;
        // 64 KiB take 64 s at that rate.
        let mut slow = reader(1_024, LONG);
        assert_eq!(slow.until_look(), 64 * SECOND);
        assert_eq!(ends_after(&mut slow, step, 63 * SECOND), None);
        let ended = ends_after(&mut reader(1_024, LONG), step, 130 * SECOND);
        assert_eq!(ended, Some(64 * SECOND));
        assert_eq!(reader(1 << 20, LONG).until_look(), 10 * SECOND);
        assert_eq!(reader(1 << 20, 2 * SECOND).until_look(), SECOND);
    }

    #[test]
    fn one_that_is_just_fast_enough_is_not_looked_at_all_the_time() {
        let mut pace = sender(1_000, 2 * SECOND);
        pace.spend(SECOND);
        assert_eq!(pace.look(1), Verdict::Keeps);
        assert_eq!(pace.until_look(), LOOK_EVERY);
        // Which is no gift.
        pace.spend(LOOK_EVERY);
        assert_eq!(pace.look(2), Verdict::TooSlow);
    }

    #[test]
    fn counts_that_go_back_earn_nothing() {
        let mut pace = Pace::new(rate(1_000), Part::Reads, SECOND, 5_000);
        pace.spend(2 * SECOND);
        assert_eq!(pace.look(4_000), Verdict::Keeps);
        pace.spend(65 * SECOND);
        assert_eq!(pace.look(4_500), Verdict::TooSlow);
        let most = rate(u32::MAX).time_of(u64::MAX);
        assert!(most > SECOND && rate(1).time_of(u64::MAX) > most);
    }
}
