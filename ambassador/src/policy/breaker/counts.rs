//! What was counted lately, in tenths of a window: the successes of each shard,
//! and the failures of all.
//!
//! Each shard has counters of its own, made at its first success, on cache lines
//! of its own. It alone writes them, with plain stores. Whoever counts a failure
//! reads them all, under the lock of the breaker. A bucket holds its time and its
//! count in one word, so that no reader sees the count of another time.

use crate::policy::sync::{AtomicU32, AtomicU64, OnceLock, Ordering};

/// Shards whose counters are found by one index.
const CHUNK: usize = 16;

/// Windows that one breaker is told of by different routes, and that are counted
/// apart. Further ones are counted in the tenths of the last of these.
const WINDOWS_MAX: usize = 4;

/// A window, and the tenth that has begun.
const TENTHS: usize = 11;

/// A tenth, and the third of it that has begun.
const THIRDS: usize = 4;
const IN_A_TENTH: u64 = THIRDS as u64 - 1;

/// The successes of all shards.
#[derive(Debug, Default)]
pub(super) struct Successes {
    first: OnceLock<Box<Chunk>>,
}

#[derive(Debug, Default)]
struct Chunk {
    shards: [OnceLock<Box<Recent>>; CHUNK],
    next: OnceLock<Box<Self>>,
}

/// The recent counts of one writer: of a shard, or of the holder of the lock.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Recent {
    window_ms: u64,
    /// A tenth is three of these, so that one division finds both.
    third_ms: u64,
    /// That of the breaker which all counts in here are from.
    epoch: AtomicU32,
    tenths: [Bucket; TENTHS],
    thirds: [Bucket; THIRDS],
    /// The same for another window.
    next: OnceLock<Box<Self>>,
}

/// The number of a stretch of time and what was counted in it.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

/// When something is counted, and in which epoch and window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// That of the breaker.
    pub(super) epoch: u32,
    /// Milliseconds since the start of the breaker.
    pub(super) now_ms: u64,
    /// How long it counts.
    pub(super) window_ms: u64,
}

impl Successes {
    /// Counts one. Only `shard` itself may call it.
    #[inline(always)]
    pub(super) fn count(&self, shard: u16, moment: Moment) {
        let shard = usize::from(shard);
        let mut chunk = self.first.get_or_init(Box::default);
        for _ in 0..shard / CHUNK {
            chunk = chunk.next.get_or_init(Box::default);
        }
        let recent =
            chunk.shards[shard % CHUNK].get_or_init(|| Box::new(Recent::new(moment.window_ms)));
        recent.count(moment);
    }

    /// What it takes on the heap, where routes share a window.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let chunks = std::iter::successors(self.first.get(), |chunk| chunk.next.get());
        let (chunks, shards) = (chunks.clone(), chunks.flat_map(|chunk| &chunk.shards));
        let used = shards.filter_map(OnceLock::get).count();
        chunks.count() * size_of::<Chunk>() + used * size_of::<Recent>()
    }

    /// Those of the last `span_ms`.
    pub(super) fn within(&self, span_ms: u64, moment: Moment) -> u64 {
        let chunks = std::iter::successors(self.first.get(), |chunk| chunk.next.get());
        let shards = chunks.flat_map(|chunk| &chunk.shards);
        shards
            .filter_map(OnceLock::get)
            .map(|recent| recent.within(span_ms, moment))
            .sum()
    }
}

impl Recent {
    pub(super) fn new(window_ms: u64) -> Self {
        Self {
            window_ms,
            third_ms: window_ms.div_ceil((TENTHS as u64 - 1) * IN_A_TENTH).max(1),
            epoch: AtomicU32::new(0),
            tenths: Default::default(),
            thirds: Default::default(),
            next: OnceLock::new(),
        }
    }

    /// Counts one.
    #[inline(always)]
    pub(super) fn count(&self, moment: Moment) {
        let mut recent = self;
        for _ in 1..WINDOWS_MAX {
            if recent.window_ms == moment.window_ms {
                break;
            }
            let other = || Box::new(Self::new(moment.window_ms));
            recent = recent.next.get_or_init(other);
        }
        recent.count_here(moment);
    }

    #[inline(always)]
    fn count_here(&self, moment: Moment) {
        if self.epoch.load(Ordering::Relaxed) != moment.epoch {
            for bucket in self.tenths.iter().chain(&self.thirds) {
                bucket.0.store(0, Ordering::Relaxed);
            }
            // Who sees it sees none of the counts from before.
            self.epoch.store(moment.epoch, Ordering::Release);
        }
        let third = moment.now_ms / self.third_ms;
        self.thirds[third as usize % THIRDS].count(third);
        let tenth = third / IN_A_TENTH;
        self.tenths[tenth as usize % TENTHS].count(tenth);
    }

    /// How many of the last `span_ms` and of the bucket in which they begin, of
    /// all windows.
    pub(super) fn within(&self, span_ms: u64, moment: Moment) -> u64 {
        let windows = std::iter::successors(Some(self), |recent| recent.next.get().map(|it| &**it));
        windows
            .map(|recent| recent.within_here(span_ms, moment))
            .sum()
    }

    fn within_here(&self, span_ms: u64, moment: Moment) -> u64 {
        if self.epoch.load(Ordering::Acquire) != moment.epoch {
            return 0;
        }
        let tenth_ms = self.third_ms * IN_A_TENTH;
        let (buckets, length_ms) = match span_ms <= tenth_ms {
            true => (&self.thirds[..], self.third_ms),
            false => (&self.tenths[..], tenth_ms),
        };
        let first = moment.now_ms.saturating_sub(span_ms) / length_ms;
        // The clock of another shard may be ahead by a little.
        let last = moment.now_ms / length_ms + 1;
        buckets
            .iter()
            .map(|bucket| bucket.among(first..=last))
            .sum()
    }
}

impl Bucket {
    fn count(&self, number: u64) {
        let number = number as u32;
        let before = self.0.load(Ordering::Relaxed);
        let count = match (before >> 32) as u32 == number {
            true => (before as u32).saturating_add(1),
            false => 1,
        };
        let word = u64::from(number) << 32 | u64::from(count);
        self.0.store(word, Ordering::Relaxed);
    }

    /// What was counted in it, where its number is one of these.
    fn among(&self, numbers: std::ops::RangeInclusive<u64>) -> u64 {
        let word = self.0.load(Ordering::Relaxed);
        // Numbers come round after 2^32.
        let behind_first = ((word >> 32) as u32).wrapping_sub(*numbers.start() as u32);
        match u64::from(behind_first) <= numbers.end() - numbers.start() {
            true => u64::from(word as u32),
            false => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(now_ms: u64, window_ms: u64) -> Moment {
        Moment {
            epoch: 0,
            now_ms,
            window_ms,
        }
    }

    #[test]
    fn each_shard_has_counters_of_its_own() {
        let successes = Successes::default();
        for shard in 0..64 {
            successes.count(shard, at(0, 1_000));
        }
        let counters = 4 * size_of::<Chunk>() + 64 * size_of::<Recent>();
        assert_eq!(successes.bytes(), counters);
        assert_eq!(successes.within(1_000, at(0, 1_000)), 64);
    }

    #[test]
    fn each_window_is_counted_apart_up_to_a_limit() {
        let recent = Recent::new(1_000);
        let lengths = || {
            let first = Some(&recent);
            let all = std::iter::successors(first, |recent| recent.next.get().map(|it| &**it));
            all.map(|recent| recent.window_ms).collect::<Vec<_>>()
        };
        for (window_ms, expected) in [
            (1_000, &[1_000][..]),
            (2_000, &[1_000, 2_000]),
            (1_000, &[1_000, 2_000]),
            (3_000, &[1_000, 2_000, 3_000]),
            (4_000, &[1_000, 2_000, 3_000, 4_000]),
            (5_000, &[1_000, 2_000, 3_000, 4_000]),
        ] {
            recent.count(at(0, window_ms));
            assert_eq!(lengths(), expected, "{window_ms}");
        }
        assert_eq!(recent.within(9_000, at(0, 9_000)), 6);
    }

    #[test]
    fn what_counts_was_in_the_span_or_is_ahead_by_a_bucket() {
        // Tenths of 1,002 ms, thirds of 334 ms.
        for (counted_ms, span_ms, expected) in [
            (20_040, 10_000, 1),
            (21_042, 10_000, 1),
            (22_044, 10_000, 0),
            (30_060, 10_000, 0),
            (10_020, 10_000, 1),
            (10_019, 10_000, 0),
            (20_374, 1_002, 1),
            (20_708, 1_002, 0),
            (19_038, 1_002, 1),
            (19_037, 1_002, 0),
            (19_372, 668, 1),
            (19_371, 668, 0),
        ] {
            let recent = Recent::new(10_000);
            recent.count(at(counted_ms, 10_000));
            let found = recent.within(span_ms, at(20_040, 10_000));
            assert_eq!(found, expected, "{counted_ms} in {span_ms}");
        }
    }
}
