//! `retry`: tries, causes, waits that grow, a budget.

use super::{Reading, headers};
use crate::config::check::method;
use crate::config::found::Found;
use crate::config::raw;
use crate::config::read::Spanned;
use crate::config::values::{RetryCause, Text};
use crate::policy::budget;
use crate::policy::methods::Methods;
use crate::policy::retry::Retry;
use crate::policy::statuses::Statuses;

/// More tries than any wait between them leaves time for.
pub(in crate::config) const ATTEMPTS_MAX: u16 = 100;
/// It is memory for each request that is on its way.
const BODY_BYTES_MAX: u64 = 16 << 20;

pub(super) fn read(raw: &Spanned<raw::Retry>, retry: &mut Retry, reading: &mut Reading<'_>) {
    if let Some(attempts) = reading.get("retry.attempts", &raw.attempts) {
        match u16::try_from(attempts.value.0) {
            Ok(count @ 1..=ATTEMPTS_MAX) => retry.attempts = count,
            _ => {
                let what = format!("must be from 1 to {ATTEMPTS_MAX}");
                reading.found.mistake_at(attempts, what);
            }
        }
    }
    if let Some(causes) = reading.get("retry.on", &raw.on) {
        set_causes(&causes.value, retry, reading.found);
    }
    if let Some(elsewhere) = reading.get("retry.elsewhere", &raw.elsewhere) {
        retry.elsewhere = elsewhere.value.meaning();
    }
    if let Some(list) = reading.get("retry.methods", &raw.methods) {
        retry.methods = methods(&list.value, reading.found);
    }
    if let Some(name) = reading.get("retry.idempotency_header", &raw.idempotency_header) {
        let text = &name.value.0;
        headers::check_name(name, text, reading.found);
        retry.idempotency_header = text.to_ascii_lowercase().into();
    }
    reading.set_time("retry.base", &raw.base, &mut retry.base);
    reading.set_time("retry.cap", &raw.cap, &mut retry.cap);
    // The layer may set only one of the two.
    let (base, cap) = (raw.base.as_ref(), raw.cap.as_ref());
    if let Some(at) = base.or(cap).filter(|_| retry.base > retry.cap) {
        reading.found.mistake_at(at, "base is over cap");
    }
    if let Some(budget) = raw.budget.as_ref() {
        read_budget(budget, &mut retry.budget, reading);
    }
    if let Some(size) = reading.get("retry.body_limit", &raw.body_limit) {
        if size.value.0 > BODY_BYTES_MAX {
            let what = format!("must be at most {}MiB", BODY_BYTES_MAX >> 20);
            reading.found.mistake_at(size, what);
        }
        retry.body_limit = size.value.0;
    }
    if let Some(honor) = reading.get("retry.honor_retry_after", &raw.honor_retry_after) {
        retry.honor_retry_after = honor.value.0;
    }
}

fn set_causes(causes: &[Spanned<RetryCause>], retry: &mut Retry, found: &mut Found) {
    retry.on_connect_failure = false;
    retry.on_reset = false;
    retry.on_statuses = Statuses::default();
    for cause in causes {
        let before = (retry.on_connect_failure, retry.on_reset, retry.on_statuses);
        match &cause.value {
            RetryCause::ConnectFailure => retry.on_connect_failure = true,
            RetryCause::Reset => retry.on_reset = true,
            RetryCause::Statuses(range) => {
                retry.on_statuses = retry.on_statuses.with(range.0.clone());
            }
        }
        let after = (retry.on_connect_failure, retry.on_reset, retry.on_statuses);
        if before == after {
            found.mistake_at(cause, "stands there twice");
        }
    }
}

fn methods(list: &[Spanned<Text>], found: &mut Found) -> Methods {
    let names = method::list(list, found);
    Methods::of(names.iter().map(String::as_str))
}

fn read_budget(
    raw: &Spanned<raw::Budget>,
    budget: &mut budget::Settings,
    reading: &mut Reading<'_>,
) {
    if let Some(ratio) = reading.get("retry.budget.ratio", &raw.ratio) {
        budget.ratio = ratio.value.0;
    }
    if let Some(count) = reading.get("retry.budget.min_per_second", &raw.min_per_second) {
        budget.min_per_second = count.value.0;
    }
}
