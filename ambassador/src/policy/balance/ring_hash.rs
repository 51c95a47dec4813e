//! Consistent hashing (Karger et al., 1997) on a ring of points, many for each
//! endpoint, as ketama does it: when an endpoint comes or goes, only keys move
//! that it gets or had.

use super::hash::{hash, nth};
use crate::addr::EndpointAddr;

/// Points for each unit of weight at most. The load of equal endpoints then
/// differs by about 9 %.
const POINTS_PER_WEIGHT: u64 = 128;

/// Points on a ring, about: 256 KiB. More endpoints get fewer points each, and
/// never less than one.
const POINTS_MAX: u64 = 16_384;

/// A ring.
#[derive(Debug)]
pub(crate) struct Ring {
    /// In the order of their hashes.
    points: Box<[Point]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u64,
    place: u32,
}

impl Ring {
    /// The ring of these endpoints, each with its weight, by their places. It
    /// depends on their addresses and weights alone: every process makes the
    /// same.
    pub(crate) fn of(endpoints: impl Iterator<Item = (EndpointAddr, u32)> + Clone) -> Self {
        let weights = endpoints
            .clone()
            .map(|(_, weight)| u64::from(weight.max(1)));
        let total: u64 = weights.sum();
        // Halved until they fit, never in between: points that a change of the
        // list leaves are where they were.
        let mut halvings = 0;
        while (total * POINTS_PER_WEIGHT) >> halvings > POINTS_MAX {
            halvings += 1;
        }
        let mut points = Vec::with_capacity(POINTS_MAX.min(total * POINTS_PER_WEIGHT) as usize);
        for (place, (address, weight)) in endpoints.enumerate() {
            let seed = hash(address.to_string().as_bytes());
            let count = (u64::from(weight.max(1)) * POINTS_PER_WEIGHT) >> halvings;
            points.extend((0..count.max(1)).map(|n| Point {
                hash: nth(seed, n),
                place: place as u32,
            }));
        }
        points.sort_unstable();
        Self {
            points: points.into(),
        }
    }

    /// The owner of a key among the endpoints that `may_be_chosen`; others are
    /// skipped. `None`: there is none.
    pub(crate) fn owner(&self, key: u64, may_be_chosen: impl Fn(usize) -> bool) -> Option<usize> {
        let first = self.points.partition_point(|point| point.hash < key);
        let (before, after) = self.points.split_at(first);
        let clockwise = after.iter().chain(before);
        clockwise
            .map(|point| point.place as usize)
            .find(|place| may_be_chosen(*place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(weights: &[u32]) -> Ring {
        let address = |port: usize| EndpointAddr(([10, 1, 2, 3], port as u16).into());
        let endpoints = weights.iter().enumerate();
        Ring::of(endpoints.map(|(port, weight)| (address(port), *weight)))
    }

    #[test]
    fn points_are_halved_until_they_fit_and_each_endpoint_has_one() {
        for (weights, expected) in [
            (&[1][..], &[128][..]),
            (&[1, 0, 3], &[128, 128, 384]),
            (&[128], &[16_384]),
            (&[127, 1], &[16_256, 128]),
            (&[128, 1], &[8_192, 64]),
            (&[65_535, 1], &[16_383, 1]),
        ] {
            let ring = ring(weights);
            let of = |place| ring.points.iter().filter(|one| one.place == place).count();
            let counts: Vec<usize> = (0..weights.len() as u32).map(of).collect();
            assert_eq!(counts, expected, "{weights:?}");
        }
    }

    #[test]
    fn a_key_on_a_point_is_owned_by_that_point() {
        let ring = ring(&[1, 1, 1]);
        for point in &ring.points {
            let owner = ring.owner(point.hash, |_| true);
            assert_eq!(owner, Some(point.place as usize));
        }
    }
}
