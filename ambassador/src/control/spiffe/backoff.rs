//! How long to wait before the next attempt.

use std::time::Duration;

/// Before the first repetition.
const FIRST: Duration = Duration::from_millis(100);
/// Doubled until it is this long.
const LAST: Duration = Duration::from_secs(30);

/// Waits that double, each less a random share of up to a half, so that many do
/// not come back at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait; `random` is any number.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        let whole = FIRST
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(LAST);
        self.failures = self.failures.saturating_add(1);
        let share = (random % 1024) as u32;
        whole - whole / 2 * share / 1024
    }

    /// Begins anew: what was tried works.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_differ() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..11).map(|_| backoff.next(0)).collect();
        assert_eq!(waits[..4], [ms(100), ms(200), ms(400), ms(800)]);
        assert_eq!(waits[8..], [ms(25_600), ms(30_000), ms(30_000)]);
        for _ in 0..100 {
            let wait = backoff.next(1023);
            assert!(wait > ms(15_000) && wait < ms(15_100), "{wait:?}");
        }
        backoff.reset();
        assert_eq!(backoff.next(512), ms(75));
    }
}
