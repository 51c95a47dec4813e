//! Budgets that several threads draw on at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use ambassador_model::clock::Instant;
use ambassador_model::policy::budget::{Budget, REMEMBERED, Settings, Spent};
use ambassador_model::{explore, on_threads, spawn};

const RATIO_ONLY: Settings = Settings {
    ratio: 0.5,
    min_per_second: 0,
};

/// How many of two threads are granted a try at once. A third would take minutes:
/// each of them reads twenty counts.
fn granted(budget: &Arc<Budget>, settings: Settings, now: Instant) -> usize {
    let granted = on_threads(2, budget, move |budget| budget.withdraw(&settings, now));
    granted.into_iter().filter(|granted| *granted).count()
}

#[test]
fn threads_are_never_granted_more_than_the_ratio() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let outcomes = Arc::clone(&seen);
    explore(move || {
        let start = Instant::now();
        let budget = Arc::new(Budget::new(start));
        budget.deposit(2, start);
        let granted = granted(&budget, RATIO_ONLY, start);
        assert_eq!(budget.spent(start).extra, granted as u64);
        seen.lock().unwrap().insert(granted);
    });
    // Those who ask at the same moment may refuse each other: it errs on the
    // small side.
    assert_eq!(*outcomes.lock().unwrap(), BTreeSet::from([0, 1]));
}

#[test]
fn threads_are_granted_exactly_the_floor() {
    explore(|| {
        let start = Instant::now();
        let budget = Arc::new(Budget::new(start));
        let settings = Settings {
            ratio: 0.0,
            min_per_second: 1,
        };
        assert_eq!(granted(&budget, settings, start), 1);
        assert_eq!(budget.spent(start).extra, 1);
    });
}

#[test]
fn a_slot_that_begins_anew_loses_no_request() {
    explore(|| {
        let start = Instant::now();
        let budget = Arc::new(Budget::new(start));
        budget.deposit(7, start);
        // Of the same slot as the start.
        let now = start + REMEMBERED;
        let other = spawn(&budget, move |budget| budget.deposit(2, now));
        budget.deposit(1, now);
        other.join().unwrap();
        let expected = Spent {
            requests: 3,
            extra: 0,
        };
        assert_eq!(budget.spent(now), expected);
    });
}
