//! Rate limits that several threads take turns of at once.

use std::sync::Arc;
use std::time::Duration;

use ambassador_model::clock::Instant;
use ambassador_model::policy::rate_limit::{OnLimit, RateLimit, Settings, Turn};
use ambassador_model::{explore, on_threads};

const MS: Duration = Duration::from_millis(1);

/// What three threads are told that take a turn at once, of a limit that lets
/// two come at once and one more every 10 ms.
fn turns(on_limit: OnLimit, patience: Duration) -> Vec<Turn> {
    let settings = Settings {
        requests_per_second: 100.0,
        burst: 2,
        on_limit,
    };
    let now = Instant::now();
    let limit = Arc::new(RateLimit::new(now));
    let mut turns = on_threads(3, &limit, move |limit| limit.take(&settings, patience, now));
    turns.sort_by_key(|turn| match turn {
        Turn::Now => Duration::ZERO,
        Turn::After(wait) | Turn::Refused(wait) => *wait,
    });
    turns
}

#[test]
fn threads_together_never_exceed_the_burst() {
    explore(|| {
        let refused = Turn::Refused(10 * MS);
        assert_eq!(turns(OnLimit::Reject, MS), [Turn::Now, Turn::Now, refused]);
    });
}

#[test]
fn no_two_threads_wait_for_the_same_turn() {
    explore(|| {
        let waits = Turn::After(10 * MS);
        assert_eq!(turns(OnLimit::Wait, 10 * MS), [Turn::Now, Turn::Now, waits]);
    });
}
