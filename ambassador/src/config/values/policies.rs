//! The kinds of value that policies have beside those of every key.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Percent, Time, number, value_schemas};
use crate::config::read::Scalar;
use crate::policy::breaker::Ratio;
use crate::policy::hedge::After;
use crate::policy::pace::MinRate;
use crate::proxy::memory;

/// Requests per second. The least is one in 17 minutes, and the most one in a
/// nanosecond: what a rate limit reckons in.
const RATES: RangeInclusive<f64> = 0.001..=1e9;
/// Statuses there can be (RFC 9110 section 15).
const STATUSES: RangeInclusive<u16> = 100..=599;
/// The kernel counts in seconds, up to 32,767 (TCP_KEEPIDLE, tcp(7)).
const KEEP_ALIVES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(9 * 3600);
const STATUSES_WANTED: &str = "a status from 100 to 599, or a range of them, as 500-599";
const SIZE_UNITS: [(&str, u64); 5] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("", 1),
];

/// A number of bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Size(pub(in crate::config) u64);

/// How fast something has to be; `None`: off.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct ByteRateOrOff(pub(in crate::config) Option<MinRate>);

/// How much memory the process may hold.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct MemoryLimit(pub(in crate::config) memory::Limit);

/// How long something may take, at all longer than nothing; `None`: any time.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct TimeLimit(pub(in crate::config) Option<Duration>);

/// After how much silence TCP asks for a sign of life; `None`: never.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct KeepAlive(pub(in crate::config) Option<Duration>);

/// How many it takes, at least 1; `None`: off.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct CountOrOff(pub(in crate::config) Option<u32>);

/// How many there may be, at least 1; `None`: any number.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct CountOrNone(pub(in crate::config) Option<u32>);

/// A share that something has to reach; `None`: off.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct RatioOrOff(pub(in crate::config) Option<Ratio>);

#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Flag(pub(in crate::config) bool);

/// Requests per second.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Rate(pub(in crate::config) f64);

/// One status, or all from one to another.
#[derive(Debug, Clone)]
pub(in crate::config) struct StatusRange(pub(in crate::config) RangeInclusive<u16>);

/// What a request is tried again for.
#[derive(Debug, Clone)]
pub(in crate::config) enum RetryCause {
    ConnectFailure,
    Reset,
    Statuses(StatusRange),
}

/// How slow a try has to be for a second one beside it.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct HedgeAfter(pub(in crate::config) After);

/// The word `off` in place of a mapping.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Off;

impl Scalar for Size {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, unit) = text.split_at(digits);
        let unit = SIZE_UNITS.iter().find(|(name, _)| *name == unit);
        match (number::<u64>(digits), unit) {
            (Some(number), Some((_, bytes))) => number
                .checked_mul(*bytes)
                .map(Self)
                .ok_or_else(|| "must be fewer bytes".to_owned()),
            _ => Err("must be a whole number and a unit (B, KiB, MiB, GiB), as 64KiB".to_owned()),
        }
    }
}

impl Scalar for ByteRateOrOff {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let size = Size::parse(text.strip_suffix("/s").unwrap_or(text)).ok();
        let rate = size.and_then(|size| u32::try_from(size.0).ok());
        match rate.and_then(NonZeroU32::new) {
            Some(rate) => Ok(Self(Some(MinRate(rate)))),
            None => Err("must be off or a size per second, as 1KiB, below 4GiB".to_owned()),
        }
    }
}

impl Scalar for MemoryLimit {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(memory::Limit::Auto)),
            "none" => Ok(Self(memory::Limit::None)),
            _ => match Size::parse(text) {
                Ok(Size(bytes)) => Ok(Self(memory::Limit::Bytes(bytes))),
                Err(what) => Err(format!("{what}, or auto or none")),
            },
        }
    }
}

impl Scalar for TimeLimit {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        match Time::parse(text) {
            Ok(Time(time)) if time.is_zero() => {
                Err("must be longer than nothing, or none".to_owned())
            }
            Ok(Time(time)) => Ok(Self(Some(time))),
            Err(what) => Err(format!("{what}, or none")),
        }
    }
}

impl Scalar for KeepAlive {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        match Time::parse(text) {
            Ok(Time(time)) if KEEP_ALIVES.contains(&time) && time.subsec_nanos() == 0 => {
                Ok(Self(Some(time)))
            }
            Ok(_) => Err("must be whole seconds, from 1s to 9h, or off".to_owned()),
            Err(what) => Err(format!("{what}, or off")),
        }
    }
}

impl Scalar for CountOrOff {
    fn parse(text: &str) -> Result<Self, String> {
        match (text, number(text)) {
            ("off", _) => Ok(Self(None)),
            (_, Some(count)) if count > 0 => Ok(Self(Some(count))),
            _ => Err("must be off or a whole number, at least 1".to_owned()),
        }
    }
}

impl Scalar for CountOrNone {
    fn parse(text: &str) -> Result<Self, String> {
        match (text, number(text)) {
            ("none", _) => Ok(Self(None)),
            (_, Some(count)) if count > 0 => Ok(Self(Some(count))),
            _ => Err("must be none or a whole number, at least 1".to_owned()),
        }
    }
}

impl Scalar for RatioOrOff {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let share = Percent::parse(text).ok();
        match share.and_then(|share| Ratio::new(share.0)) {
            Some(ratio) => Ok(Self(Some(ratio))),
            None => Err("must be off or a percentage from 0.0001% to 100%".to_owned()),
        }
    }
}

impl Scalar for HedgeAfter {
    fn parse(text: &str) -> Result<Self, String> {
        let after = match text {
            "off" => After::Off,
            "p95" => After::P95,
            time => match Time::parse(time) {
                Ok(Time(time)) => After::Time(time),
                Err(what) => return Err(format!("{what}, or p95, or off")),
            },
        };
        Ok(Self(after))
    }
}

impl Scalar for Flag {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self(true)),
            "false" => Ok(Self(false)),
            _ => Err("must be true or false".to_owned()),
        }
    }
}

impl Scalar for Rate {
    fn parse(text: &str) -> Result<Self, String> {
        let decimal = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let rate = decimal.then(|| text.parse().ok()).flatten();
        match rate.filter(|rate| RATES.contains(rate)) {
            Some(rate) => Ok(Self(rate)),
            None => Err(format!(
                "must be a number from {} to {}",
                RATES.start(),
                RATES.end()
            )),
        }
    }
}

impl Scalar for StatusRange {
    fn parse(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last))
                if STATUSES.contains(&first) && STATUSES.contains(&last) && first <= last =>
            {
                Ok(Self(first..=last))
            }
            _ => Err(format!("must be {STATUSES_WANTED}")),
        }
    }
}

impl Scalar for RetryCause {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "connect-failure" => Ok(Self::ConnectFailure),
            "reset" => Ok(Self::Reset),
            _ => StatusRange::parse(text)
                .map(Self::Statuses)
                .map_err(|_| format!("must be connect-failure, reset, or {STATUSES_WANTED}")),
        }
    }
}

impl Scalar for Off {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self),
            _ => Err("must be off or a mapping".to_owned()),
        }
    }
}

value_schemas! {
    Size: { "anyOf": [
        { "type": "integer", "minimum": 0 },
        { "type": "string", "format": "size", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$" },
    ] },
    ByteRateOrOff: { "anyOf": [
        { "const": "off" },
        { "type": "integer", "minimum": 1, "maximum": u32::MAX },
        { "type": "string", "format": "size per second", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?(/s)?$" },
    ] },
    MemoryLimit: { "anyOf": [
        { "const": "auto" },
        { "const": "none" },
        { "type": "integer", "minimum": 0 },
        { "type": "string", "format": "size", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$" },
    ] },
    TimeLimit: { "anyOf": [
        { "const": "none" },
        { "type": "string", "format": "duration", "pattern": "^[0-9]+(ms|s|m|h|d)$" },
    ] },
    KeepAlive: { "anyOf": [
        { "const": "off" },
        { "type": "string", "format": "duration", "pattern": "^[0-9]+(ms|s|m|h)$" },
    ] },
    HedgeAfter: { "anyOf": [
        { "enum": ["off", "p95"] },
        { "type": "string", "format": "duration", "pattern": "^[0-9]+(ms|s|m|h|d)$" },
    ] },
    CountOrNone: { "anyOf": [
        { "const": "none" },
        { "type": "integer", "minimum": 1, "maximum": u32::MAX },
    ] },
    CountOrOff: { "anyOf": [
        { "const": "off" },
        { "type": "integer", "minimum": 1, "maximum": u32::MAX },
    ] },
    RatioOrOff: { "anyOf": [
        { "const": "off" },
        { "type": "string", "format": "percentage", "pattern": "^[0-9]+(\\.[0-9]+)?%$" },
    ] },
    Flag: { "type": "boolean" },
    Rate: { "type": "number", "minimum": RATES.start(), "maximum": RATES.end() },
    StatusRange: { "anyOf": [
        { "type": "integer", "minimum": STATUSES.start(), "maximum": STATUSES.end() },
        { "type": "string", "format": "range of statuses", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" },
    ] },
    RetryCause: { "anyOf": [
        { "const": "connect-failure" },
        { "const": "reset" },
        { "type": "integer", "minimum": STATUSES.start(), "maximum": STATUSES.end() },
        { "type": "string", "format": "range of statuses", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" },
    ] },
    Off: { "const": "off" },
}
