//! Times, and what may stand in their place.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{fills, value_schemas};
use crate::config::read::Scalar;
use crate::policy::hedge::HedgeDelay;

/// A year: longer than anything here has to wait, and far from overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// The kernel counts in seconds, up to 32,767 (TCP_KEEPIDLE, tcp(7)).
const KEEP_ALIVES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(9 * 3600);

#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Time(pub(in crate::config) Duration);

/// A time longer than nothing, from and up to so many seconds.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Period<
    const SECONDS_MAX: u64 = { DURATION_MAX.as_secs() },
    const SECONDS_MIN: u64 = 0,
>(Duration);

/// After how much silence TCP asks for a sign of life.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct KeepAlive(Duration);

/// How slow a try has to be for a second one beside it.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct HedgeAfter(HedgeDelay);

impl Time {
    /// As the file writes it, in the largest unit that holds it whole.
    pub(in crate::config) fn text(time: Duration) -> String {
        let ms = time.as_millis();
        let units = [
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1_000, "s"),
        ];
        let whole = units
            .iter()
            .find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
        match whole {
            Some((unit, name)) => format!("{}{name}", ms / unit),
            None if ms == 0 => "0s".to_owned(),
            None => format!("{ms}ms"),
        }
    }
}

impl Scalar for Time {
    fn parse(text: &str) -> Result<Self, String> {
        const WANTED: &str = "must be a whole number and a unit (ms, s, m, h, d), as 250ms or 10s";
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| WANTED)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(WANTED.to_owned()),
        };
        let duration = number.checked_mul(unit_ms).map(Duration::from_millis);
        match duration.filter(|duration| *duration <= DURATION_MAX) {
            Some(duration) => Ok(Self(duration)),
            None => Err("must be at most 365d".to_owned()),
        }
    }
}

impl<const SECONDS_MAX: u64, const SECONDS_MIN: u64> Scalar for Period<SECONDS_MAX, SECONDS_MIN> {
    fn parse(text: &str) -> Result<Self, String> {
        let Time(time) = Time::parse(text)?;
        let [min, max] = [SECONDS_MIN, SECONDS_MAX].map(Duration::from_secs);
        match time {
            time if time < min => Err(format!("must be at least {}", Time::text(min))),
            Duration::ZERO => Err("must be longer than zero".to_owned()),
            time if time > max => Err(format!("must be at most {}", Time::text(max))),
            time => Ok(Self(time)),
        }
    }
}

impl Scalar for KeepAlive {
    fn parse(text: &str) -> Result<Self, String> {
        match Time::parse(text)? {
            Time(time) if KEEP_ALIVES.contains(&time) && time.subsec_nanos() == 0 => Ok(Self(time)),
            _ => Err("must be whole seconds, from 1s to 9h".to_owned()),
        }
    }
}

impl Scalar for HedgeAfter {
    fn parse(text: &str) -> Result<Self, String> {
        let after = match text {
            "off" => HedgeDelay::Off,
            "p95" => HedgeDelay::P95,
            time => match Time::parse(time) {
                Ok(Time(time)) => HedgeDelay::Time(time),
                Err(what) => return Err(format!("{what}, or p95, or off")),
            },
        };
        Ok(Self(after))
    }
}

fills! {
    Time => Duration, |time| Some(Self::text(*time).into());
    // No file can write a period of nothing.
    Period<SECONDS_MAX: u64, SECONDS_MIN: u64> => Duration,
        |time| Some(Time::text(*time).into()).filter(|_| !time.is_zero());
    KeepAlive => Duration, |silence| Some(Time::text(*silence).into());
    HedgeAfter => HedgeDelay, |after| Some(match after {
        HedgeDelay::Off => "off".into(),
        HedgeDelay::P95 => "p95".into(),
        HedgeDelay::Time(after) => Time::text(*after).into(),
    });
}

value_schemas! {
    Time: { "type": "string", "format": "duration", "pattern": "^[0-9]+(ms|s|m|h|d)$" },
    Period<SECONDS_MAX: u64, SECONDS_MIN: u64>: { "type": "string", "format": "duration", "pattern": "^[0-9]+(ms|s|m|h|d)$" },
    KeepAlive: { "type": "string", "format": "duration", "pattern": "^[0-9]+(ms|s|m|h)$" },
    HedgeAfter: { "anyOf": [
        { "const": "off" },
        { "const": "p95" },
        { "type": "string", "format": "duration", "pattern": "^[0-9]+(ms|s|m|h|d)$" },
    ] },
}
