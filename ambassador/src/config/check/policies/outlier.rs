//! `outlier`: what ejects endpoints, and for how long.

use super::Reading;
use crate::config::raw;
use crate::config::read::Spanned;
use crate::policy::outlier::Settings;

pub(super) fn read(
    raw: &Spanned<raw::Outlier>,
    settings: &mut Settings,
    reading: &mut Reading<'_>,
) {
    if let Some(consecutive) = reading.get("outlier.consecutive", &raw.consecutive) {
        settings.consecutive = consecutive.value.0;
    }
    if let Some(switch) = reading.get("outlier.success_rate", &raw.success_rate) {
        settings.success_rate = switch.value.meaning();
    }
    reading.set_time("outlier.interval", &raw.interval, &mut settings.interval);
    let base = &mut settings.base_ejection;
    reading.set_time("outlier.base_ejection", &raw.base_ejection, base);
    if let Some(share) = reading.get("outlier.max_ejected", &raw.max_ejected) {
        settings.max_ejected = share.value.0;
    }
}
