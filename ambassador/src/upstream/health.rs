//! The health of an upstream, by how its tries have ended: its circuit breaker,
//! and the adaptive limit of requests in flight.

use crate::clock::{self, Instant};
use crate::policy::breaker::Breaker;
use crate::policy::concurrency::Concurrency;
use crate::upstream::in_flight::InFlight;

/// The health of an upstream, shared by all callers of the same endpoints.
#[derive(Debug)]
pub struct UpstreamHealth {
    /// The circuit breaker.
    pub breaker: Breaker,
    /// How many requests may be in flight, where that is adaptive.
    pub concurrency: Concurrency,
    /// Requests that wait for their response, where the limit is adaptive.
    pub awaiting: InFlight,
}

impl UpstreamHealth {
    /// The health of an upstream without tries.
    pub fn new(now: Instant) -> Self {
        Self {
            breaker: Breaker::new(now, clock::random_u64()),
            concurrency: Concurrency::new(now),
            awaiting: InFlight::default(),
        }
    }
}
