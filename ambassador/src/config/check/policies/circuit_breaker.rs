//! `circuit_breaker`: one of two kinds of threshold, or none.

use std::time::Duration;

use super::Reading;
use crate::config::raw;
use crate::config::read::Spanned;
use crate::policy::breaker::{FAILURES_MAX, Ratio, Settings, Trip};
use crate::policy::statuses::Statuses;

const CONSECUTIVE: &str = "circuit_breaker.consecutive";

/// The thresholds that the layers so far write. The settings hold only the
/// one in effect, but a later layer may return to the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thresholds {
    failures: Option<u32>,
    ratio: Option<Ratio>,
    window: Duration,
    consecutive: Option<u32>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            failures: Some(5),
            ratio: Some(Ratio::HALF),
            window: Duration::from_secs(10),
            consecutive: None,
        }
    }
}

impl Thresholds {
    fn trip(self) -> Trip {
        match (self.consecutive, self.failures) {
            (Some(failures), _) => Trip::Consecutive(failures),
            (None, Some(failures)) => Trip::Rolling {
                failures,
                window: self.window,
                ratio: self.ratio,
            },
            (None, None) => Trip::Never,
        }
    }

    /// The nearer layer has the say.
    fn is_rolling_from(&mut self, line: usize, reading: &mut Reading<'_>) {
        if self.consecutive.take().is_some() {
            reading.note(CONSECUTIVE, line);
        }
    }
}

pub(super) fn read(
    raw: &Spanned<raw::CircuitBreaker>,
    settings: &mut Settings,
    thresholds: &mut Thresholds,
    reading: &mut Reading<'_>,
) {
    if let Some(failures) = reading.get("circuit_breaker.failures", &raw.failures) {
        if failures.value.0.is_some_and(|count| count > FAILURES_MAX) {
            let what = format!("must be off or a number from 1 to {FAILURES_MAX}");
            reading.found.mistake_at(failures, what);
        }
        thresholds.failures = failures.value.0;
        thresholds.is_rolling_from(failures.place.line, reading);
    }
    if let Some(ratio) = reading.get("circuit_breaker.ratio", &raw.ratio) {
        thresholds.ratio = ratio.value.0;
        if ratio.value.0.is_some() {
            thresholds.is_rolling_from(ratio.place.line, reading);
        }
    }
    if let Some(consecutive) = reading.get(CONSECUTIVE, &raw.consecutive) {
        thresholds.consecutive = consecutive.value.0;
        let failures = raw.failures.as_ref().and_then(|failures| failures.value.0);
        let ratio = raw.ratio.as_ref().and_then(|ratio| ratio.value.0);
        let both = match (failures, ratio) {
            (Some(_), _) => Some("has failures or consecutive, not both"),
            (None, Some(_)) => Some("has ratio or consecutive, not both"),
            (None, None) => None,
        };
        if let Some(what) = both.filter(|_| consecutive.value.0.is_some()) {
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
