//! Durations in logarithmic buckets, ten per decade.
//!
//! The bounds are Renard's R10 series, so the 1 - 2.5 - 5 series that the
//! exposition shows is an exact subset, while percentiles read from all of them
//! are within one bucket of the truth: 28 % at most.

use std::time::Duration;

/// Upper bounds in nanoseconds, inclusive: 2.5 us to 60 s.
const BOUNDS_NS: [u64; 75] = bounds();
/// Each decade in hundredths of its first value.
const R10: [u64; 10] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800];
const FIRST_NS: u64 = 2_500;
const LAST_NS: u64 = 60_000_000_000;

const fn bounds() -> [u64; 75] {
    let mut bounds = [0; 75];
    let (mut at, mut decade) = (0, 1_000);
    while at < bounds.len() {
        let mut step = 0;
        while step < R10.len() && at < bounds.len() {
            let bound = decade / 100 * R10[step];
            if bound >= FIRST_NS {
                bounds[at] = if bound > LAST_NS { LAST_NS } else { bound };
                at += 1;
            }
            step += 1;
        }
        decade *= 10;
    }
    bounds
}

/// The first bound that a duration may belong to, by how many bits it has. At most
/// four bounds lie between a power of two and the next.
const FIRST_BY_BITS: [u8; u64::BITS as usize + 1] = {
    let mut first = [0; u64::BITS as usize + 1];
    let mut bits = 1;
    while bits < first.len() {
        let mut at = first[bits - 1];
        while (at as usize) < BOUNDS_NS.len() && BOUNDS_NS[at as usize] < 1 << (bits - 1) {
            at += 1;
        }
        first[bits] = at;
        bits += 1;
    }
    first
};

/// Counts of durations by bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// One per bound, and one for what is longer than the last.
    counts: [u64; BOUNDS_NS.len() + 1],
    sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [0; BOUNDS_NS.len() + 1],
            sum_ns: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket_of(ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// The duration that a share of all (0 to 1) did not exceed, interpolated
    /// within its bucket; `None` without any. What lies beyond the last bound is
    /// given as that bound, 60 s.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (share.clamp(0.0, 1.0) * count as f64).max(1.0);
        let mut below = 0;
        for (bucket, in_bucket) in self.counts.iter().copied().enumerate() {
            if in_bucket > 0 && (below + in_bucket) as f64 >= rank {
                let Some(upper) = BOUNDS_NS.get(bucket).copied() else {
                    break;
                };
                let lower = bucket.checked_sub(1).map_or(0, |at| BOUNDS_NS[at]);
                let part = (rank - below as f64) / in_bucket as f64;
                let ns = lower as f64 + part * (upper - lower) as f64;
                return Some(Duration::from_nanos(ns as u64));
            }
            below += in_bucket;
        }
        Some(Duration::from_nanos(LAST_NS))
    }

    /// The bounds of the 1 - 2.5 - 5 series, and 60 s, with the number of
    /// durations up to each.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut total = 0;
        BOUNDS_NS
            .iter()
            .zip(&self.counts)
            .filter_map(move |(bound, count)| {
                total += count;
                is_shown(*bound).then(|| (Duration::from_nanos(*bound), total))
            })
    }
}

fn bucket_of(ns: u64) -> usize {
    let first = usize::from(FIRST_BY_BITS[(u64::BITS - ns.leading_zeros()) as usize]);
    let below = BOUNDS_NS[first..].iter().take_while(|bound| **bound < ns);
    first + below.count()
}

fn is_shown(bound_ns: u64) -> bool {
    let mut mantissa = bound_ns;
    while mantissa.is_multiple_of(10) {
        mantissa /= 10;
    }
    matches!(mantissa, 1 | 25 | 5) || bound_ns == LAST_NS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bounds_rise_from_2500_ns_to_60_s() {
        assert_eq!(BOUNDS_NS[0], FIRST_NS);
        assert_eq!(BOUNDS_NS[74], LAST_NS);
        assert_eq!(BOUNDS_NS[73], 50_000_000_000);
        assert!(BOUNDS_NS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn the_bucket_is_that_of_the_first_bound_that_is_not_exceeded() {
        let powers = (0..u64::BITS).map(|bits| 1 << bits);
        let edges = BOUNDS_NS.into_iter().chain(powers).chain([0, u64::MAX]);
        for edge in edges {
            for ns in [edge.saturating_sub(1), edge, edge.saturating_add(1)] {
                let expected = BOUNDS_NS.partition_point(|bound| *bound < ns);
                assert_eq!(bucket_of(ns), expected, "{ns}");
            }
        }
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_micros(5));
        histogram.record(Duration::from_nanos(5_001));
        let shown: Vec<_> = histogram.cumulative().take(3).collect();
        assert_eq!(
            shown,
            [
                (Duration::from_nanos(2_500), 0),
                (Duration::from_micros(5), 1),
                (Duration::from_micros(10), 2),
            ]
        );
    }

    #[test]
    fn what_is_longer_than_the_last_bound_is_in_the_count_alone() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_secs(61));
        assert_eq!(histogram.cumulative().last().unwrap().1, 0);
        assert_eq!(histogram.count(), 1);
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_secs(60)));
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_a_bucket_of_the_truth(
            mut values in proptest::collection::vec(3_000u64..50_000_000_000, 1..200),
            share in 0.0f64..=1.0,
        ) {
            let mut histogram = Histogram::default();
            for ns in &values {
                histogram.record(Duration::from_nanos(*ns));
            }
            values.sort_unstable();
            let rank = ((share * values.len() as f64).ceil() as usize).max(1) - 1;
            let truth = values[rank] as f64;
            let found = histogram.quantile(share).unwrap().as_nanos() as f64;
            prop_assert!(found <= truth * 1.28 && found >= truth / 1.28, "{found} for {truth}");
        }

        #[test]
        fn merging_is_counting_together(
            left in proptest::collection::vec(0u64..100_000_000_000, 0..50),
            right in proptest::collection::vec(0u64..100_000_000_000, 0..50),
        ) {
            let count = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|ns| histogram.record(Duration::from_nanos(*ns)));
                histogram
            };
            let mut merged = count(&left);
            merged.merge(&count(&right));
            prop_assert_eq!(merged, count(&[left, right].concat()));
        }
    }
}
