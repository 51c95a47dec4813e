//! `retry`: tries, causes, waits that grow, a budget.

use super::retry_causes::RetryCauses;
use crate::config::read::Place;
use crate::config::setting::{Layer, settings};
use crate::config::values::{
    Count, Distinct, Flag, Method, OwnFieldName, Percent, Period, Size, Switch,
};
use crate::policy::{budget, retry};

/// More tries than any wait between them leaves time for.
pub(in crate::config) const ATTEMPTS_MAX: u32 = 100;
/// It is memory for each request that is on its way.
const BODY_BYTES_MAX: u64 = 16 << 20;

settings! {
    /// Whether and when a request is tried again.
    Retry for retry::Retry as retry, checked by base_within_cap {
        /// Tries at most, with the first one. 1: no retries.
        attempts: Count<1, ATTEMPTS_MAX> = retry.attempts,
        /// Causes of another try: connections that cannot be established
        /// (`connect-failure`) or that end before a whole response head
        /// (`reset`), statuses, and with `protocol: grpc` codes of calls that end
        /// before any message (`{ grpc: [...] }`). A `try-timeout` is always a cause.
        on: RetryCauses [of_requests] = *retry,
        /// Whether another healthy endpoint is tried, if there are several, for
        /// requests that may reach an upstream twice. After a status of
        /// `circuit_breaker.failure_statuses` it is the next try. For GET, HEAD,
        /// OPTIONS and TRACE without a response after half of `timeouts.request`
        /// it is a second try beside the first.
        elsewhere: Switch [of_requests] = retry.elsewhere,
        /// Methods whose requests may reach an upstream twice. With `protocol: grpc`
        /// the default has POST as well, for calls that the server has refused before
        /// any message.
        methods: Distinct<Method> [of_requests] = retry.methods,
        /// Requests with this field may reach an upstream twice as well.
        idempotency_header: OwnFieldName [of_requests] = retry.idempotency_header,
        /// The wait before the second try is random between zero and twice this.
        /// The upper end doubles with each further try.
        base: Period = retry.base,
        /// The longest wait.
        cap: Period = retry.cap,
        /// How many retries are allowed.
        budget: Budget = retry.budget,
        /// A body up to this size (bytes if it has no unit, at most 16MiB) is
        /// kept for another try. A larger one is streamed, and its request is not
        /// retried.
        body_limit: Size<BODY_BYTES_MAX> [of_requests] = retry.body_limit,
        /// Whether `Retry-After` in a response raises the wait, up to `cap`.
        honor_retry_after: Flag [of_requests] = retry.honor_retry_after,
    }
}

settings! {
    /// How many retries are allowed; the larger of the two counts.
    Budget for budget::Settings as budget {
        /// Retries as a share of the requests of the last 10 s.
        ratio: Percent = budget.ratio,
        /// Retries per second that are always allowed.
        min_per_second: Count = budget.min_per_second,
    }
}

/// The layer may set only one of the two.
fn base_within_cap(written: &Retry, _: &Place, retry: &mut retry::Retry, layer: &mut Layer<'_>) {
    let (base, cap) = (written.base.as_ref(), written.cap.as_ref());
    if let Some(at) = base.or(cap).filter(|_| retry.base > retry.cap) {
        layer.findings.mistake_at(at, "base is over cap");
    }
}
