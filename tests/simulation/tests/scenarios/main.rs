//! What the policies do over time.

mod bad_endpoints;
mod balancing;
mod breaker_timeline;
mod concurrency;
mod rate_limit;
mod retry_storm;
