//! What a request asks of the policies: to be let through, and what is learnt
//! from how it went.

use std::time::Duration;

use ambassador::testing::clock::Instant;
use ambassador::testing::policy::breaker::{self, Breaker, Trip};
use ambassador::testing::policy::budget::{self, Budget};
use ambassador::testing::policy::rate_limit::{OnLimit, RateLimit, Settings};
use ambassador::testing::policy::retry::Retry;

use crate::Measure;

pub(crate) fn all(measure: &mut impl Measure) {
    let now = Instant::now();
    let settings = breaker::Settings::default();
    let closed = Breaker::new(now, 0);
    measure.each("breaker/success", || {
        closed
            .admit(&settings, 0, now)
            .map(|trial| trial.succeeded(now))
            .is_some()
    });
    // What is left of the window each time is one failure.
    let never_opens = breaker::Settings {
        trip: Trip::Rolling {
            failures: breaker::FAILURES_MAX,
            window: Duration::ZERO,
            ratio: None,
        },
        ..breaker::Settings::default()
    };
    let mut later = now;
    measure.each("breaker/failure", || {
        later += Duration::from_millis(1);
        closed
            .admit(&never_opens, 0, later)
            .map(|trial| trial.failed(later))
            .is_some()
    });
    let open = Breaker::new(now, 0);
    open.force(breaker::Force::Open);
    measure.each("breaker/refusal", || {
        open.admit(&settings, 0, now).is_none()
    });

    let budget = Budget::new(now);
    let settings = budget::Settings::default();
    measure.each("budget/deposit", || budget.deposit(1, now));
    measure.each("budget/withdraw", || budget.withdraw(&settings, now));

    let limit = RateLimit::new(now);
    let settings = Settings {
        requests_per_second: 1e9,
        burst: u32::MAX,
        on_limit: OnLimit::Reject,
    };
    measure.each("rate_limit/take", || {
        limit.take(&settings, Duration::ZERO, now)
    });
    let retry = Retry::default();
    measure.each("retry/wait", || retry.wait(2, None, 0x5555_5555_5555_5555));
}
