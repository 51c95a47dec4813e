//! `rate_limit`: off, or a rate and what goes with it.

use crate::config::read::Place;
use crate::config::setting::{Layer, settings};
use crate::config::values::{Count, Rate, choice};
use crate::policy::rate_limit;

/// What the layers so far say.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::config) struct Written {
    /// `None`: no layer does, which is a mistake.
    requests_per_second: Option<f64>,
    /// `None`: no layer does, and it follows the rate.
    burst: Option<u32>,
    on_limit: rate_limit::OnLimit,
}

settings! {
    /// How many requests are sent in a second, over all threads.
    RateLimit for Written as limit, checked by has_rate {
        /// The rate. Required, unless inherited.
        requests_per_second: Rate = limit.requests_per_second,
        /// Requests that may come at once. Default: the requests of one second,
        /// at least 1.
        burst: Count<1> = limit.burst,
        /// What happens to a request over the limit.
        on_limit: OnLimit = limit.on_limit,
    }
}

choice! {
    /// What happens to a request over the limit.
    OnLimit: rate_limit::OnLimit {
        /// It is answered `rate-limited`.
        Reject = "reject" => rate_limit::OnLimit::Reject,
        /// It waits for its turn, as long as `timeouts.request` allows.
        Wait = "wait" => rate_limit::OnLimit::Wait,
    }
}

impl Written {
    /// `None`: there is no rate.
    pub(in crate::config) fn settings(self) -> Option<rate_limit::Settings> {
        let requests_per_second = self.requests_per_second?;
        // A rate is far below what u32 holds.
        let one_second = requests_per_second.ceil() as u32;
        Some(rate_limit::Settings {
            requests_per_second,
            burst: self.burst.unwrap_or(one_second),
            on_limit: self.on_limit,
        })
    }
}

impl From<rate_limit::Settings> for Written {
    fn from(settings: rate_limit::Settings) -> Self {
        Self {
            requests_per_second: Some(settings.requests_per_second),
            burst: Some(settings.burst),
            on_limit: settings.on_limit,
        }
    }
}

fn has_rate(_: &RateLimit, place: &Place, limit: &mut Written, layer: &mut Layer<'_>) {
    if limit.requests_per_second.is_none() {
        layer.mistake_unless_inside(place, "must have requests_per_second");
    }
}
