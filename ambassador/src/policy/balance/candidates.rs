//! The endpoints that may be chosen at a moment, and draws by their weights.

use super::hash::nth;
use crate::policy::outlier::{self, Fitness, Standing};

/// Endpoints that may be chosen, in the order of their places.
#[derive(Debug, Default)]
pub struct Candidates(Vec<Candidate>);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the upstream's list of endpoints.
    pub place: usize,
    /// At least 1.
    pub weight: u32,
    /// The weights of all up to this one.
    end: u64,
}

/// An endpoint in the upstream's list, at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// How much of the traffic it gets, next to the others; 0 counts as 1.
    pub weight: u32,
    /// Whether it is in the zone of the upstream.
    pub in_zone: bool,
    /// Whether it gets requests before others, or none.
    pub standing: Standing,
    /// Whether it is one of the list at all.
    pub fitness: Fitness,
}

/// Which zones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zones {
    /// That of the upstream.
    Own,
    /// The others: what failed there may fail everywhere in it.
    Others,
}

impl Candidates {
    /// Replaces the candidates: the usable endpoints of those that are fit, or if there are
    /// none the avoided ones; of these the ones of the preferred zone, if there
    /// are some.
    pub fn select(&mut self, list: &[Listed], zones: Zones, left_out: impl Fn(usize) -> bool) {
        self.0.clear();
        let fit = || list.iter().filter(|one| one.fitness == Fitness::Healthy);
        let total = fit().count();
        let is_ejected = |one: &&Listed| one.standing == Standing::Ejected;
        let ejected = fit().filter(is_ejected).count();
        let panic = outlier::is_panic(total - ejected, total);
        let of_standing = |standing| {
            list.iter()
                .enumerate()
                .filter(|(_, one)| one.fitness == Fitness::Healthy)
                .filter(move |(_, one)| panic || one.standing == standing)
                .filter(|(place, _)| !left_out(*place))
        };
        let standing = match of_standing(Standing::Usable).next() {
            Some(_) => Standing::Usable,
            None => Standing::Avoided,
        };
        // In a panic the load is for all to bear, wherever they are.
        let in_first_zones = |one: &Listed| one.in_zone == (zones == Zones::Own);
        let zone_only = !panic && of_standing(standing).any(|(_, one)| in_first_zones(one));
        for (place, one) in of_standing(standing) {
            if in_first_zones(one) || !zone_only {
                let weight = one.weight.max(1);
                let end = self.0.last().map_or(0, |last| last.end) + u64::from(weight);
                self.0.push(Candidate { place, weight, end });
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Candidate> + Clone {
        self.0.iter().copied()
    }

    /// Whether the endpoint at this place is one.
    pub fn contains(&self, place: usize) -> bool {
        self.0.binary_search_by_key(&place, |one| one.place).is_ok()
    }

    /// Draws one at random, by weight. `None`: there are none.
    pub fn draw(&self, random: u64) -> Option<Candidate> {
        let total = self.total();
        (total > 0).then(|| self.at(below(total, random)))
    }

    /// Draws two at random, by weight; the same twice if there is only one.
    pub fn draw_two(&self, random: u64) -> Option<[Candidate; 2]> {
        let first = self.draw(random)?;
        let weight = u64::from(first.weight);
        let rest = self.total() - weight;
        if rest == 0 {
            return Some([first, first]);
        }
        // The line of all weights with that of the first cut out.
        let point = below(rest, nth(random, 0));
        let begin = first.end - weight;
        let second = if point < begin { point } else { point + weight };
        Some([first, self.at(second)])
    }

    /// Whose weight covers this point, which is below the total.
    fn at(&self, point: u64) -> Candidate {
        let place = self.0.partition_point(|one| one.end <= point);
        self.0[place]
    }

    fn total(&self) -> u64 {
        self.0.last().map_or(0, |last| last.end)
    }
}

/// A number below `bound`, from 64 random bits.
fn below(bound: u64, random: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}
