//! Numbers and shares, and what may stand in their place.

use std::ops::RangeInclusive;

use serde_json::Value as Json;

use super::{fills, number, value_schemas};
use crate::config::checked::Workers as WorkerCount;
use crate::config::read::Scalar;
use crate::config::setting::Value;
use crate::policy::breaker::Ratio;

/// Requests per second. The least is one in 17 minutes, and the most one in a
/// nanosecond: what a rate limit reckons in.
const RATES: RangeInclusive<f64> = 0.001..=1e9;
/// Shards; more than any machine has CPUs for.
const WORKERS_MAX: u16 = 1024;

/// A whole number within bounds.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Count<const MIN: u32 = 0, const MAX: u32 = { u32::MAX }>(
    pub(in crate::config) u32,
);

/// A share, from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Percent(pub(in crate::config) f64);

/// A share that something has to reach.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct LeastShare(Ratio);

/// Requests per second.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Rate(f64);

#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Flag(bool);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::config) struct Port(pub(in crate::config) u16);

/// How many shards.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Workers(pub(in crate::config) WorkerCount);

impl Percent {
    /// As the file writes it, without the dust of binary fractions.
    pub(in crate::config) fn text(share: f64) -> String {
        format!("{}%", (share * 1e10).round() / 1e8)
    }
}

impl<const MIN: u32, const MAX: u32> Scalar for Count<MIN, MAX> {
    fn parse(text: &str) -> Result<Self, String> {
        match number(text) {
            Some(count) if (MIN..=MAX).contains(&count) => Ok(Self(count)),
            Some(_) if MAX == u32::MAX => Err(format!("must be at least {MIN}")),
            // One that is larger than any is a number as well.
            None if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) => {
                Err(format!("must be a whole number from {MIN} to {MAX}"))
            }
            Some(_) | None => Err(format!("must be from {MIN} to {MAX}")),
        }
    }
}

impl Scalar for Percent {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text
            .strip_suffix('%')
            .filter(|number| number.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
        let number = number.and_then(|number| number.parse::<f64>().ok());
        match number {
            Some(number) if (0.0..=100.0).contains(&number) => Ok(Self(number / 100.0)),
            _ => Err("must be a percentage from 0% to 100%".to_owned()),
        }
    }
}

impl Scalar for LeastShare {
    fn parse(text: &str) -> Result<Self, String> {
        let share = Percent::parse(text).ok();
        match share.and_then(|share| Ratio::new(share.0)) {
            Some(ratio) => Ok(Self(ratio)),
            None => Err("must be a percentage from 0.0001% to 100%".to_owned()),
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

impl Scalar for Flag {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self(true)),
            "false" => Ok(Self(false)),
            _ => Err("must be true or false".to_owned()),
        }
    }
}

impl Scalar for Port {
    fn parse(text: &str) -> Result<Self, String> {
        match number(text) {
            Some(0) | None => Err("must be a port from 1 to 65535".to_owned()),
            Some(port) => Ok(Self(port)),
        }
    }
}

impl Scalar for Workers {
    fn parse(text: &str) -> Result<Self, String> {
        match (text, number(text)) {
            ("auto", _) => Ok(Self(WorkerCount::Auto)),
            (_, Some(count)) if (1..=WORKERS_MAX).contains(&count) => {
                Ok(Self(WorkerCount::Count(count)))
            }
            _ => Err(format!("must be auto or a number from 1 to {WORKERS_MAX}")),
        }
    }
}

/// A count that has to fit into less.
impl<const MIN: u32, const MAX: u32> Value<u16> for Count<MIN, MAX> {
    fn meaning(&self) -> u16 {
        const { assert!(MAX <= u16::MAX as u32) };
        self.0 as u16
    }

    fn written(count: &u16) -> Option<Json> {
        <Self as Value<u32>>::written(&u32::from(*count))
    }
}

fills! {
    // What is out of bounds is not said yet.
    Count<MIN: u32, MAX: u32> => u32,
        |count| Some((*count).into()).filter(|_| (MIN..=MAX).contains(count));
    Percent => f64, |share| Some(Self::text(*share).into());
    LeastShare => Ratio, |ratio| Some(Percent::text(ratio.share()).into());
    // 100, not 100.0.
    Rate => f64, |rate| Some(match rate.fract() == 0.0 {
        true => (*rate as u64).into(),
        false => (*rate).into(),
    });
    Port => u16, |port| Some((*port).into());
    Flag => bool, |flag| Some((*flag).into());
    Workers => WorkerCount, |workers| Some(match workers {
        WorkerCount::Auto => "auto".into(),
        WorkerCount::Count(count) => (*count).into(),
    });
}

value_schemas! {
    Count<MIN: u32, MAX: u32>: { "type": "integer", "minimum": MIN, "maximum": MAX },
    Percent: { "type": "string", "format": "percentage", "pattern": "^[0-9]+(\\.[0-9]+)?%$" },
    LeastShare: { "type": "string", "format": "percentage", "pattern": "^[0-9]+(\\.[0-9]+)?%$" },
    Rate: { "type": "number", "minimum": RATES.start(), "maximum": RATES.end() },
    Flag: { "type": "boolean" },
    Port: { "type": "integer", "minimum": 1, "maximum": u16::MAX },
    Workers: { "anyOf": [
        { "const": "auto" },
        { "type": "integer", "minimum": 1, "maximum": WORKERS_MAX },
    ] },
}
