//! What is known of an upstream by how its tries have ended: whether it is left
//! alone, and how many requests it bears at once.

use crate::clock::{self, Instant};
use crate::policy::breaker::Breaker;
use crate::policy::concurrency::Concurrency;
use crate::upstream::in_flight::InFlight;

/// What those who call the same endpoints share.
#[derive(Debug)]
pub struct Reputation {
    /// The circuit breaker.
    pub breaker: Breaker,
    /// How many requests may be in flight, where that is adaptive.
    pub concurrency: Concurrency,
    /// Those that wait for their response, where their limit is adaptive.
    pub awaiting: InFlight,
}

impl Reputation {
    /// That of an upstream of which nothing is known.
    pub fn new(now: Instant) -> Self {
        Self {
            breaker: Breaker::new(now, clock::random_u64()),
            concurrency: Concurrency::new(now),
            awaiting: InFlight::default(),
        }
    }
}
