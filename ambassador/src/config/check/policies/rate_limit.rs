//! `rate_limit`: off, or a rate and what goes with it.

use super::Reading;
use crate::config::raw;
use crate::config::read::{Either, Spanned};
use crate::config::values::Off;
use crate::policy::rate_limit::{OnLimit, Settings};

/// What the layers so far write.
#[derive(Debug, Clone, Copy)]
pub(super) struct RateLimit {
    requests_per_second: f64,
    /// `None`: no layer does, and it follows the rate.
    burst: Option<u32>,
    on_limit: OnLimit,
}

impl RateLimit {
    fn settings(&self) -> Settings {
        // A rate is far below what u32 holds.
        let one_second = self.requests_per_second.ceil() as u32;
        Settings {
            requests_per_second: self.requests_per_second,
            burst: self.burst.unwrap_or(one_second),
            on_limit: self.on_limit,
        }
    }
}

/// The settings of this layer and those before it; `None`: off.
pub(super) fn read(
    raw: &Spanned<Either<Off, raw::RateLimit>>,
    limit: &mut Option<RateLimit>,
    reading: &mut Reading<'_>,
) -> Option<Settings> {
    let line = raw.place.line;
    let raw_limit = match &raw.value {
        Either::Full(raw_limit) => raw_limit,
        Either::Short(Off) => {
            // What came before is gone, and where it came from.
            reading
                .origins
                .retain(|key, _| !key.starts_with("rate_limit"));
            reading.note("rate_limit", line);
            return limit.take().and(None);
        }
    };
    let rate = reading.get(
        "rate_limit.requests_per_second",
        &raw_limit.requests_per_second,
    );
    let inherited = limit.map(|limit| limit.requests_per_second);
    let Some(requests_per_second) = rate.map(|rate| rate.value.0).or(inherited) else {
        reading.mistake_unless_inside(&raw.place, "must have requests_per_second");
        return None;
    };
    let mut own = RateLimit {
        requests_per_second,
        burst: limit.and_then(|limit| limit.burst),
        on_limit: limit.map(|limit| limit.on_limit).unwrap_or_default(),
    };
    if let Some(burst) = reading.get("rate_limit.burst", &raw_limit.burst) {
        if burst.value.0 == 0 {
            reading.found.mistake_at(burst, "must be at least 1");
        }
        own.burst = Some(burst.value.0);
    }
    if let Some(on_limit) = reading.get("rate_limit.on_limit", &raw_limit.on_limit) {
        own.on_limit = on_limit.value.meaning();
    }
    *limit = Some(own);
    Some(own.settings())
}
