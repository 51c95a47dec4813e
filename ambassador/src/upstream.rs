//! Connections to upstreams: dialled, pooled, capped.

pub mod dial;
pub mod in_flight;
pub mod permits;
pub mod pool;
pub mod shared;
