//! Scenarios, one each.

pub mod breaker_timeline;
pub mod rate_limit;
pub mod retry_storm;
