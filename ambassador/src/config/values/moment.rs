//! A moment as RFC 3339 writes it.

use std::time::{Duration, SystemTime};

use super::{fills, value_schemas};
use crate::clock::calendar;
use crate::config::read::Scalar;

const WANTED: &str = "must be a date and time with its zone, as 2026-12-01T00:00:00Z";

/// A moment, to the second.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Moment(SystemTime);

impl Moment {
    /// How the file would write it.
    fn text(moment: SystemTime) -> String {
        let since = moment.duration_since(SystemTime::UNIX_EPOCH);
        calendar::rfc3339(since.unwrap_or_default().as_secs())
    }
}

impl Scalar for Moment {
    fn parse(text: &str) -> Result<Self, String> {
        let seconds = calendar::parse_rfc3339(text).ok_or_else(|| WANTED.to_owned())?;
        Ok(Self(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)))
    }
}

fills! {
    Moment => SystemTime, |moment| Some(Self::text(*moment).into());
}

value_schemas! {
    Moment: { "type": "string", "format": "date-time" },
}
