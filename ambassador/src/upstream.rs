//! Connections to upstreams: dialled, pooled, capped.

pub mod dial;
pub mod permits;
pub mod pool;
pub mod shared;
