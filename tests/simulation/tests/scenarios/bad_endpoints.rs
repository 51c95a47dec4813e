//! Callers of an upstream some of whose endpoints are bad, with all defaults.

use std::ops::Range;
use std::time::Duration;

use ambassador::testing::policy::breaker::Transitions;
use ambassador::testing::policy::limits::Pool;
use ambassador_simulation::scenarios::bad_endpoints::report::{PLOT_SEED, Report, cases, script};
use ambassador_simulation::scenarios::bad_endpoints::{Endpoint, Manner, Outcome, Script, run};

const SEEDS: Range<u64> = 0..10;
const SECOND: Duration = Duration::from_secs(1);
/// Ten minutes at a slow rate, and a fast one beyond the first probes, at 30 to
/// 33 s.
const RATES: [(f64, u64); 2] = [(20.0, 600), (5_000.0, 36)];

fn never_opened(outcome: &Outcome) -> bool {
    outcome.transitions == Transitions::default()
}

/// Runs a case whose endpoints are bad from the first request on, and for good.
fn each(name: &str, check: impl Fn(&str, &Script, &Outcome)) {
    let all = cases(Duration::ZERO, Duration::from_secs(3_600));
    let mut found = all.into_iter().filter(|(it, _)| *it == name);
    let (_, endpoints) = found.next().expect("it is one of the cases");
    for (per_second, seconds) in RATES {
        // One run of the fast rate is as long as ten of the slow one.
        let seeds = if per_second < 100.0 { SEEDS } else { 0..2 };
        for seed in seeds {
            let script = Script {
                until: SECOND * seconds as u32,
                seed,
                ..script(endpoints.clone(), per_second)
            };
            let what = format!("{name}, {per_second} a second, seed {seed}");
            check(&what, &script, &run(&script));
        }
    }
}

/// Everybody is served, and so few tries fail that no budget is in need.
fn each_is_hidden(name: &str) {
    each(name, |what, _, outcome| {
        assert!(
            outcome.unserved.is_empty(),
            "{what}: {:?}",
            outcome.unserved
        );
        assert!(never_opened(outcome), "{what}");
        assert!(outcome.extra() < 60, "{what}: {}", outcome.extra());
    });
}

#[test]
fn one_of_three_refuses() {
    each_is_hidden("1 of 3 refuses");
}

#[test]
fn two_of_three_refuse() {
    each_is_hidden("2 of 3 refuse");
}

#[test]
fn one_of_ten_refuses() {
    each_is_hidden("1 of 10 refuses");
}

#[test]
fn two_of_three_reset() {
    each_is_hidden("2 of 3 reset");
}

#[test]
fn one_comes_and_goes() {
    each_is_hidden("1 of 3 comes and goes");
}

#[test]
fn a_zone_refuses() {
    each_is_hidden("1 of 2 zones refuses");
}

#[test]
fn what_is_unreachable_costs_a_few_callers_the_connect_timeout() {
    each("1 of 3 is unreachable", |what, _, outcome| {
        assert!(
            outcome.unserved.is_empty(),
            "{what}: {:?}",
            outcome.unserved
        );
        assert!(never_opened(outcome), "{what}");
        assert!(
            outcome.slowest < 6 * SECOND,
            "{what}: {:?}",
            outcome.slowest
        );
        assert!(outcome.extra() < 60, "{what}: {}", outcome.extra());
    });
}

#[test]
fn one_of_three_answers_500() {
    each_is_hidden("1 of 3 answers 500");
}

#[test]
fn two_of_three_answer_500() {
    each("2 of 3 answer 500", |what, script, outcome| {
        // In the first moments of a fast rate the budget knows of few requests.
        let (most, until) = match script.per_second > 100.0 {
            true => (4, Duration::from_millis(5)),
            false => (0, Duration::ZERO),
        };
        let unserved = &outcome.unserved;
        assert!(unserved.len() <= most, "{what}: {unserved:?}");
        assert!(unserved.iter().all(|at| *at < until), "{what}");
        assert!(never_opened(outcome), "{what}");
        assert!(outcome.extra() < 60, "{what}: {}", outcome.extra());
    });
}

#[test]
fn what_hangs_costs_a_few_callers_half_of_their_time() {
    each("1 of 3 hangs", |what, script, outcome| {
        assert!(
            outcome.unserved.is_empty(),
            "{what}: {:?}",
            outcome.unserved
        );
        assert!(never_opened(outcome), "{what}");
        assert!(outcome.extra() < 60, "{what}: {}", outcome.extra());
        assert!(
            outcome.slowest < 6 * SECOND,
            "{what}: {:?}",
            outcome.slowest
        );
        // They have a place, or wait for one.
        let pool = Pool::default();
        let most = pool.max_connections.unwrap() + pool.max_pending;
        assert!(
            outcome.in_flight_max < most,
            "{what}: {}",
            outcome.in_flight_max
        );
        let limited = run(&Script {
            per_try: Some(SECOND),
            ..script.clone()
        });
        assert!(
            limited.unserved.is_empty(),
            "{what}: {:?}",
            limited.unserved
        );
        assert!(never_opened(&limited), "{what}");
        assert!(
            limited.slowest < 2 * SECOND,
            "{what}: {:?}",
            limited.slowest
        );
    });
}

#[test]
fn a_slow_one_gets_little_and_is_used() {
    each("1 of 3 is slow", |what, _, outcome| {
        assert!(outcome.unserved.is_empty(), "{what}");
        assert!(never_opened(outcome), "{what}");
        let share = f64::from(outcome.at_bad()) / f64::from(outcome.requests());
        assert!(share < 0.15, "{what}: {share}");
    });
}

#[test]
fn all_of_them_bad_open_the_circuit_and_it_closes_when_they_are_well() {
    for seed in SEEDS {
        let down = Endpoint::from(10 * SECOND, Manner::Refuses).until(30 * SECOND);
        let outcome = run(&Script {
            until: 120 * SECOND,
            seed,
            ..Script::of(vec![down; 3], 200.0)
        });
        assert_eq!(outcome.transitions.opened, 1, "{seed}");
        assert_eq!(outcome.transitions.closed, 1, "{seed}");
        // The circuit sleeps for up to 33 s, from the first second on.
        let last = outcome.unserved.last().copied().unwrap();
        assert!(last < 45 * SECOND, "{seed}: {last:?}");
    }
}

#[test]
fn the_documentation_shows_what_happens() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
    let read = |path| std::fs::read_to_string(format!("{docs}/{path}")).unwrap();
    let report = Report::new(PLOT_SEED);
    let command = "cargo run -p ambassador-simulation --bin bad-endpoints-plot";
    assert!(
        read("plots/bad-endpoints.svg") == report.svg(),
        "the plot is another one now: `{command}`"
    );
    let (text, table) = (read("resilience.md"), report.table());
    assert!(
        text.contains(&table),
        "the figures are others now:\n{table}"
    );
    assert!(text.contains(command));
}
