//! `outlier` of an upstream.

use std::time::Duration;

/// `outlier` of an upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// So many failures without a success between them eject an endpoint;
    /// `None`: no number does.
    pub consecutive: Option<u32>,
    /// Whether an endpoint is ejected whose share of successes in an
    /// `interval` is more than 1.9 standard deviations below the mean of all
    /// that had 100 requests in it, if those are five or more.
    pub success_rate: bool,
    /// How often shares of successes are compared; and how long an endpoint
    /// has to do well until one of its ejections is forgotten.
    pub interval: Duration,
    /// How long the first ejection lasts; the second takes twice as long, and
    /// so on up to 300 s.
    pub base_ejection: Duration,
    /// The share of endpoints that may be ejected at a time, from 0 to 1. One
    /// may be in any case, but never the last. Others with as many failures are
    /// avoided.
    pub max_ejected: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consecutive: Some(5),
            success_rate: false,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejected: 0.1,
        }
    }
}
