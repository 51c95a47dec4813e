//! The only reader of time and randomness. Logic that depends on either takes
//! them as arguments, so that its tests run on virtual time and fixed seeds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds of wall time since 1970, for logs and request ids.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Wall time, to compare with the dates of messages.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Nanoseconds of CLOCK_MONOTONIC, the clock that `bpf_ktime_get_ns` reads.
#[expect(
    unsafe_code,
    reason = "Instant hides the raw value that the kernel side compares"
)]
pub fn kernel_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec; CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// An instant in the nanoseconds of [`kernel_ns`]. It may come out later by what
/// lies between two readings of the clock, never earlier.
pub fn kernel_ns_at(then: Instant) -> u64 {
    let now = now();
    let now_ns = kernel_ns();
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    match then.checked_duration_since(now) {
        Some(ahead) => now_ns.saturating_add(ns(ahead)),
        None => now_ns.saturating_sub(ns(now.saturating_duration_since(then))),
    }
}

/// Lets something happen once a second at most, over all threads, as a line in
/// the log about what goes on all the time.
#[derive(Debug)]
pub struct OncePerSecond(AtomicU64);

impl OncePerSecond {
    /// One that has not happened yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether it may happen now; it counts as having happened.
    pub fn is_due(&self) -> bool {
        self.is_due_at(kernel_ns())
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
pub fn random_u64() -> u64 {
    rand::random()
}

/// 128 random bits from the thread's generator.
pub fn random_u128() -> u128 {
    rand::random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_second_is_not_twice() {
        let line = OncePerSecond::new();
        let second = 1_000_000_000;
        let due = [7, 8, 7 + second - 1, 7 + second, 8 + second, 9 * second];
        let due = due.map(|now_ns| line.is_due_at(now_ns));
        assert_eq!(due, [true, false, false, true, false, true]);
    }

    #[test]
    fn an_instant_has_a_place_on_the_kernels_clock() {
        let before = kernel_ns();
        let then = now();
        let after = kernel_ns();
        assert!(kernel_ns_at(then) >= before);
        let hour = Duration::from_secs(3600);
        let ahead = kernel_ns_at(then + hour) - 3_600_000_000_000;
        assert!((before..=kernel_ns()).contains(&ahead) && ahead <= after + 1_000_000_000);
    }
}
