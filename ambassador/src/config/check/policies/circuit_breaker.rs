//! `circuit_breaker`: one of two kinds of threshold, or none.

use std::time::Duration;

use super::Reading;
use crate::config::raw;
use crate::config::read::Spanned;
use crate::policy::breaker::{FAILURES_MAX, Settings, Trip};
use crate::policy::statuses::Statuses;

/// The thresholds that the layers so far write. The settings hold only the
/// one in effect, but a later layer may return to the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thresholds {
    failures: Option<u32>,
    window: Duration,
    consecutive: Option<u32>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            failures: Some(5),
            window: Duration::from_secs(10),
            consecutive: None,
        }
    }
}

impl Thresholds {
    fn trip(self) -> Trip {
        let window = self.window;
        match (self.consecutive, self.failures) {
            (Some(failures), _) => Trip::Consecutive(failures),
            (None, Some(failures)) => Trip::Rolling { failures, window },
            (None, None) => Trip::Never,
        }
    }
}

pub(super) fn read(
    raw: &Spanned<raw::CircuitBreaker>,
    settings: &mut Settings,
    thresholds: &mut Thresholds,
    reading: &mut Reading<'_>,
) {
    const CONSECUTIVE: &str = "circuit_breaker.consecutive";
    if let Some(failures) = reading.get("circuit_breaker.failures", &raw.failures) {
        if failures.value.0.is_some_and(|count| count > FAILURES_MAX) {
            let what = format!("must be off or a number from 1 to {FAILURES_MAX}");
            reading.found.mistake_at(failures, what);
        }
        thresholds.failures = failures.value.0;
        // The nearer layer has the say.
        if thresholds.consecutive.take().is_some() {
            reading.note(CONSECUTIVE, failures.place.line);
        }
    }
    if let Some(consecutive) = reading.get(CONSECUTIVE, &raw.consecutive) {
        thresholds.consecutive = consecutive.value.0;
        let both = raw.failures.as_ref().and_then(|failures| failures.value.0);
        if consecutive.value.0.is_some() && both.is_some() {
            let what = "has failures or consecutive, not both";
            reading.found.mistake(&raw.place, what);
        }
    }
    reading.set_time(
        "circuit_breaker.window",
        &raw.window,
        &mut thresholds.window,
    );
    reading.set_time("circuit_breaker.sleep", &raw.sleep, &mut settings.sleep);
    let statuses = &raw.failure_statuses;
    if let Some(list) = reading.get("circuit_breaker.failure_statuses", statuses) {
        settings.failure_statuses = Statuses::default();
        for range in &list.value {
            let with = settings.failure_statuses.with(range.value.0.clone());
            if with == settings.failure_statuses {
                reading.found.mistake_at(range, "stands there twice");
            }
            settings.failure_statuses = with;
        }
    }
    let fail_fast = &raw.kernel_fail_fast;
    if let Some(fail_fast) = reading.get("circuit_breaker.kernel_fail_fast", fail_fast) {
        settings.kernel_fail_fast = fail_fast.value.meaning();
    }
    settings.trip = thresholds.trip();
}
