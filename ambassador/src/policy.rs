//! Decisions about a request that are pure functions of state and `now`.

pub mod limits;
