//! Connections to upstreams: dialled, pooled, capped.

pub(crate) mod balancer;
pub(crate) mod connection;
pub(crate) mod credential;
pub(crate) mod dial;
pub(crate) mod endpoints;
pub(crate) mod health;
pub(crate) mod holders;
pub(crate) mod in_flight;
pub(crate) mod key;
pub(crate) mod limits;
pub(crate) mod multiplexed;
pub(crate) mod other_namespaces;
pub(crate) mod permits;
pub(crate) mod placeholders;
pub(crate) mod pool;
pub(crate) mod secrets;
pub(crate) mod server;
pub(crate) mod shared;
