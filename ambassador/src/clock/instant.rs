//! A moment on the kernel's monotonic clock, in one word.
//!
//! `std::time::Instant` counts seconds and nanoseconds apart: two words, and a
//! difference is some forty instructions. A request takes sixteen differences.

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

/// Nanoseconds of CLOCK_MONOTONIC, the clock that `bpf_ktime_get_ns` reads: they
/// count from the start of the machine and reach 584 years. What is beyond
/// either end is that end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Reads the clock.
    pub fn now() -> Self {
        let time = read(libc::CLOCK_MONOTONIC);
        Self(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// As the kernel side counts.
    pub const fn kernel_ns(self) -> u64 {
        self.0
    }

    /// Time since then, until now.
    pub fn elapsed(self) -> Duration {
        Self::now() - self
    }

    /// Time since an earlier moment; none since a later one.
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// The time of a clock, by the number that the kernel gives it.
#[expect(
    unsafe_code,
    reason = "std's times hide the value that the kernel side compares"
)]
pub(super) fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live timespec; both clocks that are asked for
    // always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time
}

/// The same in one word; 584 years are as good as more.
const fn nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(duration.subsec_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_what_was_added() {
        let now = Instant::now();
        for duration in [0, 1, 999_999_999, 1_000_000_000, 86_400_000_000_001] {
            let duration = Duration::from_nanos(duration);
            let then = now + duration;
            assert_eq!(then - now, duration);
            assert_eq!(then - duration, now);
        }
    }

    #[test]
    fn nothing_lies_beyond_the_ends() {
        let now = Instant::now();
        let last = now + Duration::MAX;
        assert_eq!(last + Duration::from_secs(1), last);
        assert_eq!(now - last, Duration::ZERO);
        assert_eq!((now - Duration::MAX).kernel_ns(), 0);
    }

    #[test]
    fn the_clock_is_the_one_of_std() {
        let std_before = std::time::Instant::now();
        let before = Instant::now();
        let after = Instant::now();
        let most = std_before.elapsed();
        assert!(after >= before && after - before <= most);
    }
}
