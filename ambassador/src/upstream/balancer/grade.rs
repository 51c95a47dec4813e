//! What a try says of its endpoint.

use std::time::Duration;

/// The result of a try, for its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// It did what it is there for.
    Good,
    /// It works, and asks for fewer requests: status 429.
    Throttled {
        /// For how long.
        retry_after: Option<Duration>,
    },
    /// It could not be connected to, broke off, took too long, or answered
    /// with a status from 500 to 599.
    Bad {
        /// How long it asks for no requests (`Retry-After`).
        retry_after: Option<Duration>,
    },
}

impl Grade {
    /// The grade of a response status.
    pub fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            429 => Self::Throttled { retry_after },
            500..=599 => Self::Bad { retry_after },
            _ => Self::Good,
        }
    }
}
