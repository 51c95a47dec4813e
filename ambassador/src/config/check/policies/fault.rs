//! `fault`: off, or what is injected on purpose.

use std::time::Duration;

use super::{Reading, headers};
use crate::config::raw;
use crate::config::read::{Either, Spanned};
use crate::config::values::Off;
use crate::policy::fault::{Abort, Delay, Settings};

/// Statuses that say failure.
pub(in crate::config) const STATUSES: std::ops::RangeInclusive<u32> = 400..=599;
/// What waits holds a place in every limit.
pub(in crate::config) const DELAY_MAX: Duration = Duration::from_secs(5 * 60);

/// The settings of this layer and those before it; `None`: off.
pub(super) fn read(
    raw: &Spanned<Either<Off, raw::Fault>>,
    inherited: Option<Box<Settings>>,
    reading: &mut Reading<'_>,
) -> Option<Box<Settings>> {
    let fault = match &raw.value {
        Either::Full(fault) => fault,
        Either::Short(Off) => {
            // What came before is gone, and where it came from.
            reading.origins.retain(|key, _| !key.starts_with("fault"));
            reading.note("fault", raw.place.line);
            return None;
        }
    };
    let mut settings = inherited.unwrap_or_default();
    if let Some(abort) = fault.abort.as_ref() {
        settings.abort = read_abort(abort, settings.abort, reading);
    }
    if let Some(delay) = fault.delay.as_ref() {
        settings.delay = read_delay(delay, settings.delay, reading);
    }
    if let Some(reset) = reading.get("fault.reset", &fault.reset) {
        settings.reset = reset.value.0;
    }
    if let Some(name) = reading.get("fault.header", &fault.header) {
        headers::check_token(name, &name.value.0, reading.found);
        settings.header = Some(name.value.0.to_ascii_lowercase().into());
    }
    if let Some(until) = reading.get("fault.until", &fault.until) {
        settings.until = Some(until.value.0);
    }
    if settings.exceeds_all() {
        let what = "abort and reset are more than 100% together";
        reading.found.mistake(&raw.place, what);
    }
    Some(settings)
}

fn read_abort(
    raw: &Spanned<raw::Abort>,
    inherited: Option<Abort>,
    reading: &mut Reading<'_>,
) -> Option<Abort> {
    let mut abort = inherited.unwrap_or(Abort {
        status: 0,
        share: 1.0,
    });
    match reading.get("fault.abort.status", &raw.status) {
        Some(status) if STATUSES.contains(&status.value.0) => abort.status = status.value.0 as u16,
        Some(status) => {
            let what = format!("must be from {} to {}", STATUSES.start(), STATUSES.end());
            reading.found.mistake_at(status, what);
        }
        None if abort.status == 0 => {
            reading.mistake_unless_inside(&raw.place, "must have a status");
        }
        None => {}
    }
    if let Some(share) = reading.get("fault.abort.share", &raw.share) {
        abort.share = share.value.0;
    }
    Some(abort)
}

fn read_delay(
    raw: &Spanned<raw::Delay>,
    inherited: Option<Delay>,
    reading: &mut Reading<'_>,
) -> Option<Delay> {
    let mut delay = inherited.unwrap_or(Delay {
        wait: Duration::ZERO,
        share: 1.0,
    });
    if let Some(share) = reading.get("fault.delay.share", &raw.share) {
        delay.share = share.value.0;
    }
    reading.set_time("fault.delay.for", &raw.r#for, &mut delay.wait);
    match raw.r#for.as_ref() {
        Some(wait) if delay.wait > DELAY_MAX => {
            reading.found.mistake_at(wait, "must be at most 5m")
        }
        None if delay.wait.is_zero() => {
            reading.mistake_unless_inside(&raw.place, "must say how long, by for");
        }
        _ => {}
    }
    Some(delay)
}
