//! Scenarios, one each.

pub mod bad_endpoints;
pub mod balancing;
pub mod breaker_timeline;
pub mod concurrency;
pub mod rate_limit;
pub mod retry_storm;
