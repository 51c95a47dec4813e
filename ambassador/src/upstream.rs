//! Connections to upstreams: dialled, pooled, capped.

pub mod balancer;
pub mod connection;
pub mod dial;
pub mod elsewhere;
pub mod endpoints;
pub mod holders;
pub mod in_flight;
pub mod permits;
pub mod pool;
pub mod reputation;
pub mod shared;
