//! When a breaker opens, probes and closes.

use std::time::Duration;

use ambassador::testing::policy::breaker::State::{self, Closed, HalfOpen, Open};
use ambassador::testing::policy::breaker::{Ratio, Settings, Trip};
use ambassador_simulation::scenarios::breaker_timeline::{Script, run};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn settings(trip: Trip) -> Settings {
    Settings {
        trip,
        sleep: ms(5_000),
        ..Settings::default()
    }
}

fn rolling() -> Settings {
    settings(Trip::Rolling {
        failures: 3,
        window: ms(2_000),
        ratio: Some(Ratio::HALF),
    })
}

fn consecutive() -> Settings {
    settings(Trip::Consecutive(3))
}

/// Two calls a second of 100 ms each.
fn calls() -> Script {
    Script {
        every: ms(500),
        takes: ms(100),
        outages: Vec::new(),
        absences: Vec::new(),
        // Its sleeps are longer by a few milliseconds at most.
        seed: 3_306,
        until: ms(30_000),
    }
}

fn times(changes: &[(u64, State)]) -> Vec<(Duration, State)> {
    let changes = changes.iter();
    changes.map(|(at, state)| (ms(*at), *state)).collect()
}

#[test]
fn an_outage_of_ten_seconds() {
    let script = Script {
        outages: vec![ms(10_000)..ms(20_000)],
        ..calls()
    };
    let expected = times(&[
        (0, Closed),
        // The third failure, of the call at 11 s.
        (11_100, Open),
        // The first call after five seconds, and its failure.
        (16_500, HalfOpen),
        (16_600, Open),
        (22_000, HalfOpen),
        (22_100, Closed),
    ]);
    assert_eq!(run(&rolling(), &script), expected);
    assert_eq!(run(&consecutive(), &script), expected);
}

#[test]
fn failures_between_successes_open_a_rolling_window_only() {
    let script = Script {
        outages: vec![
            ms(1_000)..ms(1_500),
            ms(2_000)..ms(2_500),
            ms(3_000)..ms(3_500),
        ],
        ..calls()
    };
    let expected = times(&[
        (0, Closed),
        (3_100, Open),
        (8_500, HalfOpen),
        (8_600, Closed),
    ]);
    assert_eq!(run(&rolling(), &script), expected);
    assert_eq!(run(&consecutive(), &script), times(&[(0, Closed)]));
}

#[test]
fn failures_further_apart_than_the_window_open_nothing() {
    let script = Script {
        outages: vec![
            ms(1_000)..ms(1_500),
            ms(2_000)..ms(2_500),
            ms(3_500)..ms(4_000),
        ],
        ..calls()
    };
    assert_eq!(run(&rolling(), &script), times(&[(0, Closed)]));
}

#[test]
fn the_call_after_a_lost_probe_is_the_next() {
    let script = Script {
        outages: vec![ms(10_000)..ms(12_000)],
        absences: vec![ms(16_500)..ms(17_000)],
        ..calls()
    };
    let expected = times(&[
        (0, Closed),
        (11_100, Open),
        (16_500, HalfOpen),
        (16_600, Open),
        (17_000, HalfOpen),
        (17_100, Closed),
    ]);
    assert_eq!(run(&rolling(), &script), expected);
    assert_eq!(run(&consecutive(), &script), expected);
}

#[test]
fn results_of_calls_from_before_it_opened_change_nothing() {
    let script = Script {
        // Twelve calls are under way at any time.
        takes: ms(6_000),
        outages: vec![ms(10_000)..ms(17_000)],
        ..calls()
    };
    let expected = times(&[
        (0, Closed),
        (17_000, Open),
        // The last failure of a call from before comes half a second later.
        (22_500, HalfOpen),
        (28_500, Closed),
    ]);
    assert_eq!(run(&rolling(), &script), expected);
    assert_eq!(run(&consecutive(), &script), expected);
}
