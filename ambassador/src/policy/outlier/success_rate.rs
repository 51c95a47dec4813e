//! Endpoints whose share of successes is far below that of their peers. The
//! numbers are Envoy's.

use super::super::sync::{AtomicU64, Ordering};
use super::Outcome;

/// Requests in an interval that make a share worth comparing.
const REQUESTS_MIN: u32 = 100;

/// Endpoints with as many requests that make a comparison.
const ENDPOINTS_MIN: usize = 5;

/// Standard deviations below the mean from which on a share is an outlier.
const DEVIATIONS: f64 = 1.9;

/// Shares that differ by less are alike: the mean is rounded.
const ROUNDING: f64 = 1e-9;

/// The requests to an endpoint in this interval: all in the upper half, those
/// that did well in the lower.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    /// Counts one.
    pub(super) fn count(&self, outcome: Outcome) {
        let success = u64::from(outcome == Outcome::Success);
        self.0.fetch_add(1 << 32 | success, Ordering::Relaxed);
    }

    /// The share of successes, where there were enough requests; begins anew.
    pub(super) fn take(&self) -> Option<f64> {
        let counts = self.0.swap(0, Ordering::Relaxed);
        let (all, good) = ((counts >> 32) as u32, counts as u32);
        (all >= REQUESTS_MIN).then(|| f64::from(good) / f64::from(all))
    }
}

/// The places of outliers among these shares, the worst first.
pub(super) fn outliers(shares: impl Iterator<Item = Option<f64>>) -> Vec<usize> {
    let known = shares.enumerate();
    let mut known: Vec<(usize, f64)> = known
        .filter_map(|(place, share)| Some((place, share?)))
        .collect();
    if known.len() < ENDPOINTS_MIN {
        return Vec::new();
    }
    let count = known.len() as f64;
    let mean = known.iter().map(|(_, share)| share).sum::<f64>() / count;
    let squares = known.iter().map(|(_, share)| (share - mean).powi(2));
    let deviation = (squares.sum::<f64>() / count).sqrt();
    known.retain(|(_, share)| *share < mean - DEVIATIONS * deviation - ROUNDING);
    known.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    known.into_iter().map(|(place, _)| place).collect()
}
