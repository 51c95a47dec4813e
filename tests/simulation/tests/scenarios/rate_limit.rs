//! Who waits for a rate limit, and for how long.

use std::time::Duration;

use ambassador::testing::policy::rate_limit::{OnLimit, Settings};
use ambassador_simulation::scenarios::rate_limit::{Arrivals, Passed, run};

const BURST: u32 = 5;

/// Twice as many come as may pass.
fn twice_the_rate(rate: f64, patience: Duration, seed: u64) -> Vec<Passed> {
    let settings = Settings {
        requests_per_second: rate,
        burst: BURST,
        on_limit: OnLimit::Wait,
    };
    let arrivals = Arrivals {
        requests: 20_000,
        gap: Duration::from_secs_f64(0.5 / rate),
        patience,
        seed,
    };
    run(&settings, &arrivals)
}

/// Those that passed since somebody has always waited.
fn backlogged(passed: &[Passed]) -> &[Passed] {
    let last = passed.iter().rposition(|one| one.went == one.arrived);
    &passed[last.unwrap_or_default() + 1..]
}

fn check_order_and_rate(passed: &[Passed], rate: f64) {
    let in_order =
        |pair: &[Passed]| pair[0].number < pair[1].number && pair[0].went <= pair[1].went;
    assert!(passed.windows(2).all(in_order), "at {rate}/s");
    let backlogged = backlogged(passed);
    assert!(backlogged.len() > passed.len() / 2, "at {rate}/s");
    let first = backlogged[0].went;
    for (count, one) in backlogged.iter().enumerate() {
        let expected = (one.went - first).as_secs_f64() * rate;
        assert!(
            (count as f64 - expected).abs() < 1.0,
            "{count} passed, not {expected}, at {rate}/s"
        );
    }
}

#[test]
fn all_pass_in_order_at_exactly_the_rate() {
    for (seed, rate) in [0.5, 7.0, 100.0, 333.0, 7_000.0].into_iter().enumerate() {
        let passed = twice_the_rate(rate, Duration::MAX, seed as u64);
        assert_eq!(passed.len(), 20_000);
        check_order_and_rate(&passed, rate);
        let at_once = passed.iter().take_while(|one| one.went == one.arrived);
        assert!(at_once.count() >= BURST as usize);
    }
}

#[test]
fn the_impatient_are_refused_and_take_nobodys_turn() {
    for seed in 0..20 {
        let (rate, patience) = (100.0, Duration::from_secs(1));
        let passed = twice_the_rate(rate, patience, seed);
        // Half of them, but for those who wait at the end and the burst.
        assert!((9_800..=10_400).contains(&passed.len()), "{}", passed.len());
        let longest = passed.iter().map(|one| one.went - one.arrived).max();
        assert!(longest.is_some_and(|wait| wait <= patience && wait > patience / 2));
        check_order_and_rate(&passed, rate);
    }
}
