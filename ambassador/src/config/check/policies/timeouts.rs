//! `timeouts`: none of them nothing.

use super::Reading;
use crate::config::raw;
use crate::config::read::Spanned;
use crate::policy::limits::Timeouts;

pub(super) fn read(
    raw: &Spanned<raw::Timeouts>,
    timeouts: &mut Timeouts,
    reading: &mut Reading<'_>,
) {
    reading.set_time("timeouts.connect", &raw.connect, &mut timeouts.connect);
    if let Some(limit) = reading.get("timeouts.first_byte", &raw.first_byte) {
        timeouts.first_byte = limit.value.0;
    }
    if let Some(limit) = reading.get("timeouts.per_try", &raw.per_try) {
        timeouts.per_try = limit.value.0;
    }
    if let Some(limit) = reading.get("timeouts.request", &raw.request) {
        timeouts.request = limit.value.0;
    }
    reading.set_time("timeouts.idle", &raw.idle, &mut timeouts.idle);
    reading.set_time("timeouts.tunnel", &raw.tunnel, &mut timeouts.tunnel);
    reading.set_time("timeouts.head", &raw.head, &mut timeouts.head);
    if let Some(rate) = reading.get("timeouts.min_rate", &raw.min_rate) {
        timeouts.min_rate = rate.value.0;
    }
}
