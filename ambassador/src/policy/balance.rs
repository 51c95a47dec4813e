//! Which endpoint of an upstream a request goes to.
//!
//! The algorithms are pure: they are given the candidates, what is known of
//! each, and random bits or the hash of a key, and give the place of one in the
//! upstream's list of endpoints.

mod candidates;
mod hash;
pub mod least_request;
mod peak_ewma;
mod ring_hash;
mod rotation;

pub use candidates::{Candidates, Listed, Zones};
pub(crate) use hash::hash;
pub use peak_ewma::PeakEwma;
pub(crate) use ring_hash::Ring;
pub use rotation::Rotation;

/// The largest weight of an endpoint.
pub(crate) const WEIGHT_MAX: u32 = 65_535;

/// `load_balancing` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LoadBalancing {
    /// In turn, each as often as its weight says.
    RoundRobin,
    /// Of two random ones, the one with fewer requests on this shard for its
    /// weight.
    #[default]
    LeastRequest,
    /// Of two random ones, the one that is expected to answer sooner: by its
    /// latency, recent peaks above all, and the requests it has.
    PeakEwma,
    /// A random one.
    Random,
    /// The one that owns the request's key on a ring of hashes. A request
    /// without a key goes to a random one.
    RingHash(Key),
}

/// The part of a request that is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The value of a header; its name is in lower case.
    Header(Box<str>),
    /// The address of the client, without its port.
    SourceIp,
}

#[cfg(test)]
mod tests;
