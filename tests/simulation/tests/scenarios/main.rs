//! What the policies do over time.

mod balancing;
mod breaker_timeline;
mod concurrency;
mod rate_limit;
mod retry_storm;
