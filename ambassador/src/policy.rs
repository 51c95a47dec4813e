//! Decisions about a request that are pure functions of state and `now`.

pub mod balance;
pub mod breaker;
pub mod budget;
pub mod concurrency;
pub mod fault;
pub mod hedge;
mod jitter;
pub mod limits;
pub mod methods;
pub mod outlier;
pub mod pace;
pub mod rate_limit;
pub mod retry;
pub mod retry_after;
pub mod statuses;
pub(crate) mod sync;
