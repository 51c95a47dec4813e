//! Numbers of bytes, and what may stand in their place.

use std::num::NonZeroU32;

use serde_json::Value as Json;

use super::{fills, number, value_schemas};
use crate::config::read::Scalar;
use crate::config::setting::Value;
use crate::policy::pace::MinRate;
use crate::proxy::memory;

const UNITS: [(&str, u64); 5] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("", 1),
];

/// A number of bytes within bounds.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Size<const MAX: u64 = { u64::MAX }, const MIN: u64 = 0>(u64);

/// How fast something has to be.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct ByteRate(MinRate);

/// How much memory the process may hold.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct MemoryLimit(pub(in crate::config) memory::Limit);

/// A size as the file writes it, in the largest unit that holds it whole.
pub(in crate::config) fn size(bytes: u64) -> String {
    let whole = UNITS
        .iter()
        .find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    match whole {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

impl<const MAX: u64, const MIN: u64> Scalar for Size<MAX, MIN> {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, unit) = text.split_at(digits);
        let unit = UNITS.iter().find(|(name, _)| *name == unit);
        let (Some(number), Some((_, unit))) = (number::<u64>(digits), unit) else {
            return Err(
                "must be a whole number and a unit (B, KiB, MiB, GiB), as 64KiB".to_owned(),
            );
        };
        match number.checked_mul(*unit) {
            None => Err("must be fewer bytes".to_owned()),
            Some(bytes) if bytes > MAX => Err(format!("must be at most {}", size(MAX))),
            Some(bytes) if bytes < MIN => Err(format!("must be at least {}", size(MIN))),
            Some(bytes) => Ok(Self(bytes)),
        }
    }
}

impl Scalar for ByteRate {
    fn parse(text: &str) -> Result<Self, String> {
        let size: Option<Size> = Size::parse(text.strip_suffix("/s").unwrap_or(text)).ok();
        let rate = size.and_then(|size| u32::try_from(size.0).ok());
        match rate.and_then(NonZeroU32::new) {
            Some(rate) => Ok(Self(MinRate(rate))),
            None => Err("must be a size per second, as 1KiB, below 4GiB".to_owned()),
        }
    }
}

impl Scalar for MemoryLimit {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(memory::Limit::Auto)),
            "none" => Ok(Self(memory::Limit::None)),
            _ => match Size::parse(text) {
                Ok(Size::<{ u64::MAX }, 0>(bytes)) => Ok(Self(memory::Limit::Bytes(bytes))),
                Err(what) => Err(format!("{what}, or auto or none")),
            },
        }
    }
}

/// A size that has to fit into less.
impl<const MAX: u64, const MIN: u64> Value<u32> for Size<MAX, MIN> {
    fn meaning(&self) -> u32 {
        const { assert!(MAX <= u32::MAX as u64) };
        self.0 as u32
    }

    fn written(bytes: &u32) -> Option<Json> {
        <Self as Value<u64>>::written(&u64::from(*bytes))
    }
}

fills! {
    Size<MAX: u64, MIN: u64> => u64, |bytes| Some(size(*bytes).into());
    ByteRate => MinRate, |rate| Some(format!("{}/s", size(rate.0.get().into())).into());
    MemoryLimit => memory::Limit, |limit| Some(match limit {
        memory::Limit::Auto => "auto".into(),
        memory::Limit::None => "none".into(),
        memory::Limit::Bytes(bytes) => size(*bytes).into(),
    });
}

value_schemas! {
    Size<MAX: u64, MIN: u64>: { "anyOf": [
        { "type": "integer", "minimum": MIN, "maximum": MAX },
        { "type": "string", "format": "size", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$" },
    ] },
    ByteRate: { "anyOf": [
        { "type": "integer", "minimum": 1, "maximum": u32::MAX },
        { "type": "string", "format": "size per second", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?(/s)?$" },
    ] },
    MemoryLimit: { "anyOf": [
        { "const": "auto" },
        { "const": "none" },
        { "type": "integer", "minimum": 0 },
        { "type": "string", "format": "size", "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$" },
    ] },
}
