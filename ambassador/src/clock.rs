//! The only reader of time and randomness. Logic that depends on either takes
//! them as arguments, so that its tests run on virtual time and fixed seeds.

pub(crate) mod calendar;
mod instant;
#[cfg(test)]
pub(crate) mod virtual_time;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

pub use instant::Instant;

/// The monotonic clock.
pub fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = virtual_time::now() {
        return now;
    }
    Instant::now()
}

/// Milliseconds of wall time since 1970, for logs and request ids.
pub(crate) fn unix_ms() -> u64 {
    let time = instant::read(libc::CLOCK_REALTIME);
    time.tv_sec.max(0) as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000
}

/// Wall time, to compare with the dates of messages.
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Lets something happen once a second at most, over all threads, as a line in
/// the log about what goes on all the time.
#[derive(Debug)]
pub(crate) struct OncePerSecond(AtomicU64);

impl OncePerSecond {
    /// One that has not happened yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether it may happen now; it counts as having happened.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due_at(now().kernel_ns())
    }

    fn is_due_at(&self, now_ns: u64) -> bool {
        const SECOND_NS: u64 = 1_000_000_000;
        // The time from which on it may happen again.
        let again = self.0.load(Ordering::Relaxed);
        let next = now_ns + SECOND_NS;
        now_ns >= again
            && self
                .0
                .compare_exchange(again, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Default for OncePerSecond {
    fn default() -> Self {
        Self::new()
    }
}

/// 64 random bits from the thread's generator.
pub(crate) fn random_u64() -> u64 {
    #[cfg(test)]
    if let Some(bits) = virtual_time::random_u64() {
        return bits;
    }
    rand::random()
}

/// 128 random bits from the thread's generator.
pub(crate) fn random_u128() -> u128 {
    rand::random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_that_of_std() {
        let ms = || {
            wall()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_millis()
        };
        let before = ms();
        let now = u128::from(unix_ms());
        assert!((before..=ms()).contains(&now), "{before} {now}");
    }

    #[test]
    fn once_a_second_is_not_twice() {
        let line = OncePerSecond::new();
        let second = 1_000_000_000;
        let due = [7, 8, 7 + second - 1, 7 + second, 8 + second, 9 * second];
        let due = due.map(|now_ns| line.is_due_at(now_ns));
        assert_eq!(due, [true, false, false, true, false, true]);
    }
}
