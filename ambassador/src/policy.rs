//! Decisions about a request that are pure functions of state and `now`.

pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod codes;
pub(crate) mod concurrency;
pub(crate) mod fault;
pub(crate) mod health_check;
pub(crate) mod hedge;
mod jitter;
pub(crate) mod limits;
pub(crate) mod methods;
pub(crate) mod outlier;
pub(crate) mod pace;
pub(crate) mod rate_limit;
pub(crate) mod retry;
pub(crate) mod retry_after;
pub(crate) mod statuses;
pub(crate) mod sync;
