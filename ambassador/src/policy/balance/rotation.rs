//! Round robin by weights: the order in which candidates take turns.

use super::Candidates;

/// Turns in an order at most, unless there are more candidates than that.
/// Weights whose sum is larger are rounded.
const TURNS_MAX: u64 = 4_096;

/// The order of turns, repeated without end. Each candidate has as many as its
/// weight says, spread out rather than in a row, as nginx does it ("smooth
/// weighted round robin"). Which turn it is, all shards count together.
#[derive(Debug)]
pub struct Rotation {
    places: Box<[u32]>,
}

impl Rotation {
    /// The order of turns of these candidates.
    pub fn of(candidates: &Candidates) -> Self {
        let turns = turns(candidates);
        let sum: i64 = turns.iter().sum();
        let places: Box<[u32]> = candidates.iter().map(|one| one.place as u32).collect();
        if turns.iter().all(|turns| *turns == 1) {
            return Self { places };
        }
        // Each saves up its turns in every round; the richest is next, and pays
        // for all.
        let mut saved = vec![0; turns.len()];
        let next = |_| {
            let mut richest = 0;
            for (one, turns) in turns.iter().enumerate() {
                saved[one] += turns;
                if saved[one] > saved[richest] {
                    richest = one;
                }
            }
            saved[richest] -= sum;
            places[richest]
        };
        Self {
            places: (0..sum).map(next).collect(),
        }
    }

    /// Whose turn it is; `None`: there are no candidates.
    pub fn at(&self, turn: usize) -> Option<usize> {
        let turn = turn.checked_rem(self.places.len())?;
        Some(self.places[turn] as usize)
    }
}

/// How many turns each has.
fn turns(candidates: &Candidates) -> Vec<i64> {
    let weights = candidates.iter().map(|one| u64::from(one.weight));
    let divisor = weights.clone().fold(0, greatest_common_divisor).max(1);
    let sum = weights.clone().sum::<u64>() / divisor;
    weights
        .map(|weight| match weight / divisor {
            turns if sum <= TURNS_MAX => turns as i64,
            turns => (turns * TURNS_MAX / sum).max(1) as i64,
        })
        .collect()
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        b => greatest_common_divisor(b, a % b),
    }
}
