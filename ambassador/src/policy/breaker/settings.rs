//! What opens a breaker, and for how long.

use std::time::Duration;

use super::super::codes::Codes;
use super::super::statuses::Statuses;
use crate::message::grpc::Code;

/// Failures that a rolling window can be told to wait for.
pub const FAILURES_MAX: u32 = 10_000;

/// `circuit_breaker` of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What opens it.
    pub trip: Trip,
    /// How long it stays open before a probe, or up to a tenth longer.
    pub sleep: Duration,
    /// Responses that are failures.
    pub failure_statuses: Statuses,
    /// Calls that are.
    pub failure_codes: Codes,
    /// Whether connects to what only its upstream claims are refused, by the
    /// kernel, while it is open.
    pub kernel_fail_fast: bool,
}

/// What opens a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trip {
    /// Nothing does.
    Never,
    /// So many failures within a window.
    Rolling {
        /// How many, from 1 to [`FAILURES_MAX`].
        failures: u32,
        /// How long a failure counts.
        window: Duration,
        /// The share of all that was counted which they have to be besides, in
        /// the window or in its last tenth; `None`: any.
        ratio: Option<Ratio>,
    },
    /// So many failures without a success between them.
    Consecutive(u32),
}

/// A share, more than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    millionths: u32,
}

impl Ratio {
    /// One half.
    pub const HALF: Self = Self {
        millionths: Self::WHOLE / 2,
    };

    const WHOLE: u32 = 1_000_000;

    /// A share from a millionth to 1; `None`: it is none.
    pub fn new(share: f64) -> Option<Self> {
        let millionths = (share * f64::from(Self::WHOLE)).round();
        let is_one = millionths >= 1.0 && millionths <= f64::from(Self::WHOLE);
        is_one.then_some(Self {
            millionths: millionths as u32,
        })
    }

    /// As a number from 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.millionths) / f64::from(Self::WHOLE)
    }

    pub(super) fn is_reached(self, failed: u64, succeeded: u64) -> bool {
        let whole = u64::from(Self::WHOLE);
        failed * whole >= u64::from(self.millionths) * (failed + succeeded)
    }
}

impl Settings {
    /// The codes of failures where nothing else is said.
    pub const FAILURE_CODES: Codes = Codes::of(&[
        Code::Unknown,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
    ]);
}

impl Trip {
    /// The stretch in which an outage shows at once, behind much success.
    pub(super) fn last_tenth_ms(window_ms: u64) -> u64 {
        window_ms.div_ceil(10)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trip: Trip::Rolling {
                failures: 5,
                window: Duration::from_secs(10),
                ratio: Some(Ratio::HALF),
            },
            sleep: Duration::from_secs(30),
            failure_statuses: Statuses::default().with(500..=599),
            failure_codes: Self::FAILURE_CODES,
            kernel_fail_fast: false,
        }
    }
}
