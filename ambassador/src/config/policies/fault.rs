//! `fault`: off, or what is injected on purpose.

use crate::config::read::Place;
use crate::config::setting::{Layer, settings};
use crate::config::values::{Count, FieldName, Moment, Optional, Percent, Period};
use crate::policy::fault;

/// Statuses that say failure.
pub(in crate::config) const STATUS_MIN: u32 = 400;
pub(in crate::config) const STATUS_MAX: u32 = 599;
/// What waits holds a place in every limit.
pub(in crate::config) const DELAY_SECONDS_MAX: u64 = 5 * 60;

settings! {
    /// Faults injected on purpose, so that what calls can be tested. They come after
    /// the limits and before the circuit breaker, are not tried again, and say
    /// nothing about the upstream. Connections that carry no requests are delayed and
    /// reset as well, where there is no `header`.
    Fault for fault::Settings as fault, checked by shares_within_all {
        /// Requests that the proxy answers itself, with the reason
        /// `fault-injected`.
        abort: Optional<Abort> [of_requests] = fault.abort,
        /// Requests that wait before they are served. A request that would wait
        /// longer than `timeouts.request` is answered 504 after that time.
        delay: Optional<Delay> = fault.delay,
        /// The share of requests whose caller's connection is reset.
        reset: Percent = fault.reset,
        /// Only requests with this header get faults. Default: all requests.
        header: FieldName [of_requests] = fault.header,
        /// When the faults end, as `2026-12-01T00:00:00Z`. Default: never.
        until: Moment = fault.until,
    }
}

settings! {
    /// Requests that the proxy answers itself, with the reason `fault-injected`.
    Abort for fault::Abort as abort, checked by has_status {
        /// The status of the answer. Required, unless inherited.
        status: Count<STATUS_MIN, STATUS_MAX> = abort.status,
        /// The share of requests.
        share: Percent = abort.share,
    }
}

settings! {
    /// Requests that wait.
    Delay for fault::Delay as delay, checked by has_time {
        /// How long requests wait, up to 5m. Required, unless inherited.
        r#for: Period<DELAY_SECONDS_MAX> = delay.wait,
        /// The share of requests.
        share: Percent = delay.share,
    }
}

fn shares_within_all(_: &Fault, place: &Place, fault: &mut fault::Settings, layer: &mut Layer<'_>) {
    if fault.exceeds_all() {
        let what = "abort and reset are more than 100% together";
        layer.findings.mistake(place, what);
    }
}

fn has_status(_: &Abort, place: &Place, abort: &mut fault::Abort, layer: &mut Layer<'_>) {
    if abort.status == 0 {
        layer.mistake_unless_inside(place, "must have a status");
    }
}

fn has_time(_: &Delay, place: &Place, delay: &mut fault::Delay, layer: &mut Layer<'_>) {
    if delay.wait.is_zero() {
        layer.mistake_unless_inside(place, "must have for: how long requests wait");
    }
}
