//! Dense numbers for names that come and go.
//!
//! A number is a place, and whose turn it is there: what still counts for a name
//! that has left does not count for the one that has its place now.

use std::collections::VecDeque;
use std::sync::Arc;

use super::labels::{CredentialOutcome, HealthCheckResult};

/// Bits of a number that are the place.
const PLACE_BITS: u32 = 20;
const PLACES_MAX: usize = 1 << PLACE_BITS;
const TURNS: u32 = 1 << (u32::BITS - PLACE_BITS);

/// The place that a number names.
pub(super) fn place(number: u32) -> usize {
    (number & (PLACES_MAX as u32 - 1)) as usize
}

fn turn(number: u32) -> u32 {
    number >> PLACE_BITS
}

/// Whether a number was given out after another of the same place. Turns begin
/// again after some thousands, so it is a question of who is nearer.
pub(super) fn is_newer(number: u32, than: u32) -> bool {
    let ahead = turn(number).wrapping_sub(turn(than)) % TURNS;
    ahead != 0 && ahead < TURNS / 2
}

/// The names of one kind.
#[derive(Debug, Default)]
pub(super) struct Places {
    all: Vec<Place>,
    /// Those that are free, the longest one first.
    free: VecDeque<usize>,
}

/// A name that has a number.
#[derive(Debug)]
pub(super) struct Place {
    /// Its number.
    pub number: u32,
    /// The name; empty while nobody has the place.
    pub name: Arc<str>,
    /// What the control side counts of it.
    pub counts: Counts,
    is_free: bool,
}

/// What the control side counts of a name.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Failed resolutions.
    pub dns_failures: u64,
    /// Fetched credentials, by how that went.
    pub credential_refreshes: [u64; CredentialOutcome::ALL.len()],
    /// Checks of endpoints, by what they found.
    pub health_checks: [u64; HealthCheckResult::ALL.len()],
}

impl Places {
    /// These names have the first numbers.
    pub(super) fn of(names: &[&str]) -> Self {
        let mut places = Self::default();
        for name in names {
            places.number_of(name);
        }
        places
    }

    /// The number of a name, given at its first call.
    pub(super) fn number_of(&mut self, name: &str) -> u32 {
        if let Some(known) = self.named().find(|place| &*place.name == name) {
            return known.number;
        }
        let at = self.free.pop_front().unwrap_or_else(|| {
            let number = u32::try_from(self.all.len());
            self.all.push(Place {
                number: number.expect("names come from a file of bounded size"),
                name: "".into(),
                counts: Counts::default(),
                is_free: true,
            });
            self.all.len() - 1
        });
        let place = &mut self.all[at];
        (place.name, place.is_free) = (name.into(), false);
        place.number
    }

    /// Nobody uses a number any more.
    pub(super) fn forget(&mut self, number: u32) {
        let Some(place) = self.get(number) else {
            return;
        };
        (place.name, place.is_free, place.counts) = ("".into(), true, Counts::default());
        place.number = place.number.wrapping_add(PLACES_MAX as u32);
        self.free.push_back(self::place(number));
    }

    /// What is known under a number.
    pub(super) fn get(&mut self, number: u32) -> Option<&mut Place> {
        let place = self.all.get_mut(place(number))?;
        (place.number == number && !place.is_free).then_some(place)
    }

    /// All that have a name.
    pub(super) fn named(&self) -> impl Iterator<Item = &Place> {
        self.all.iter().filter(|place| !place.is_free)
    }
}
