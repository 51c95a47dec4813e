//! Statuses of responses.

use std::ops::RangeInclusive;

use serde_json::Value as Json;

use super::{number, value_schemas};
use crate::config::read::Scalar;
use crate::policy::statuses::Statuses;

/// Statuses there can be (RFC 9110 section 15).
const STATUSES: RangeInclusive<u16> = 100..=599;
pub(in crate::config) const STATUSES_WANTED: &str =
    "a status from 100 to 599, or a range of them, as 500-599";

/// One status, or all from one to another.
#[derive(Debug, Clone)]
pub(in crate::config) struct StatusRange(pub(in crate::config) RangeInclusive<u16>);

impl StatusRange {
    /// A set of them as a list: single ones as numbers, ranges as text.
    pub(in crate::config) fn list(statuses: Statuses) -> Vec<Json> {
        let written = statuses.to_string();
        let ranges = written.split(", ").filter(|range| !range.is_empty());
        let single = |range: &str| range.parse::<u16>().map(Json::from);
        ranges
            .map(|range| single(range).unwrap_or_else(|_| range.into()))
            .collect()
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

value_schemas! {
    StatusRange: { "anyOf": [
        { "type": "integer", "minimum": STATUSES.start(), "maximum": STATUSES.end() },
        { "type": "string", "format": "range of statuses", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" },
    ] },
}
