//! `concurrency`: whether the limit of requests in flight adapts, and its bounds.

use super::Reading;
use crate::config::raw;
use crate::config::read::{Field, Spanned};
use crate::config::values::Count;
use crate::policy::concurrency::Settings;

pub(super) fn read(
    raw: &Spanned<raw::Concurrency>,
    settings: &mut Settings,
    reading: &mut Reading<'_>,
) {
    if let Some(adaptive) = reading.get("concurrency.adaptive", &raw.adaptive) {
        settings.adaptive = adaptive.value.meaning();
    }
    let bounds = [
        bound("concurrency.min", &raw.min, &mut settings.min, reading),
        bound("concurrency.max", &raw.max, &mut settings.max, reading),
    ];
    // Said where it was written: the layer may set only one of the two.
    let Settings { min, max, .. } = *settings;
    let written = raw.min.as_ref().or(raw.max.as_ref());
    let are_sound = bounds.iter().all(|sound| *sound);
    if let Some(at) = written.filter(|_| are_sound && min > max) {
        let what = format!("min {min} is over max {max}");
        reading.found.mistake_at(at, what);
    }
}

/// Whether a bound is sound, or not written here.
fn bound(key: &str, field: &Field<Count>, bound: &mut u32, reading: &mut Reading<'_>) -> bool {
    let Some(count) = reading.get(key, field) else {
        return true;
    };
    *bound = count.value.0;
    if *bound == 0 {
        reading.found.mistake_at(count, "must be at least 1");
    }
    *bound > 0
}
