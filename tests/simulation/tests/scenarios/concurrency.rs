//! Whether an adaptive limit finds what an upstream can do, over many seeds.

use std::ops::Range;
use std::time::Duration;

use ambassador::testing::policy::concurrency::Settings;
use ambassador_simulation::scenarios::concurrency::{Outcome, Phase, Script, Spread, run};

/// With the bounds that are the defaults.
const ADAPTIVE: Settings = Settings {
    adaptive: true,
    min: 4,
    max: 1_024,
};
const SEEDS: Range<u64> = 0..20;
const SERVICE: Duration = Duration::from_millis(20);
/// From a change to a limit that fits.
const SETTLED: Duration = Duration::from_secs(4);

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn phase(per_second: f64, servers: u32) -> Phase {
    Phase {
        per_second,
        servers,
        service: SERVICE,
        spread: Spread::Even,
    }
}

fn capacity_per_second(phase: &Phase) -> f64 {
    f64::from(phase.servers) / phase.service.as_secs_f64()
}

/// Too little load, three times the capacity, half of the capacity, all of it
/// again, and too little again.
fn ups_and_downs(seed: u64) -> Script {
    Script {
        phases: vec![
            (s(5), phase(500.0, 20)),
            (s(20), phase(3_000.0, 20)),
            (s(30), phase(3_000.0, 10)),
            (s(40), phase(3_000.0, 20)),
            (s(45), phase(500.0, 20)),
        ],
        patience: s(1),
        seed,
    }
}

/// Each phase with its time.
fn times(script: &Script) -> Vec<(Range<Duration>, Phase)> {
    let mut from = Duration::ZERO;
    let phases = script.phases.iter().map(|(until, phase)| {
        let time = from..*until;
        from = *until;
        (time, *phase)
    });
    phases.collect()
}

fn goodput(outcome: &Outcome, time: &Range<Duration>, phase: &Phase) -> f64 {
    let most = capacity_per_second(phase).min(phase.per_second);
    let answered = outcome.latencies(time).len() as f64;
    answered / (time.end - time.start).as_secs_f64() / most
}

fn quantile(sorted: &[Duration], share: f64) -> Duration {
    sorted[(sorted.len() as f64 * share) as usize]
}

/// Once it had the time to, the limit is within a factor of two of the servers:
/// so many are busy without a queue.
fn check_limits(outcome: &Outcome, time: &Range<Duration>, servers: u32, seed: u64) {
    let mut limits = outcome.limits(time).peekable();
    assert!(limits.peek().is_some(), "seed {seed}: no limit");
    for limit in limits {
        let fits = (servers / 2..=servers * 2).contains(&limit);
        assert!(fits, "seed {seed}: {limit} for {servers} in {time:?}");
    }
}

#[test]
fn a_run_is_the_same_for_the_same_seed() {
    let of = |seed| run(&ADAPTIVE, &ups_and_downs(seed));
    assert_eq!(of(7), of(7));
    assert_ne!(of(7), of(8));
}

#[test]
fn the_limit_follows_the_capacity_and_keeps_the_upstream_busy() {
    for seed in SEEDS {
        let script = ups_and_downs(seed);
        let outcome = run(&ADAPTIVE, &script);
        for (time, phase) in times(&script) {
            let all = goodput(&outcome, &time, &phase);
            assert!(all >= 0.85, "seed {seed}: {all} in {time:?}");
            let settled = time.start + SETTLED..time.end;
            let slow = quantile(&outcome.latencies(&settled), 0.99);
            assert!(slow < SERVICE * 4, "seed {seed}: {slow:?} in {time:?}");
            if phase.per_second < capacity_per_second(&phase) {
                assert_eq!(outcome.refused_share(&settled), 0.0, "seed {seed}");
                continue;
            }
            check_limits(&outcome, &settled, phase.servers, seed);
            let mut from = settled.start;
            while from < settled.end {
                let second = goodput(&outcome, &(from..from + s(1)), &phase);
                assert!(second >= 0.85, "seed {seed}: {second} at {from:?}");
                from += s(1);
            }
        }
    }
}

/// The upstream works on what nobody waits for any more.
#[test]
fn without_a_limit_latency_explodes() {
    let off = Settings {
        adaptive: false,
        ..ADAPTIVE
    };
    for seed in SEEDS {
        let mut script = ups_and_downs(seed);
        script.phases.truncate(2);
        let outcome = run(&off, &script);
        let (time, phase) = times(&script).swap_remove(1);
        let settled = time.start + SETTLED..time.end;
        let share = goodput(&outcome, &settled, &phase);
        assert!(share < 0.05, "seed {seed}: {share}");
        let before = outcome.latencies(&(time.start..settled.start));
        assert!(quantile(&before, 0.5) > SERVICE * 10, "seed {seed}");
    }
}

#[test]
fn a_capacity_of_another_order_is_found_within_seconds() {
    for (before, after) in [(8, 200), (200, 8), (400, 20)] {
        for seed in 0..5 {
            let per_second = 1.5 * f64::from(before.max(after)) / SERVICE.as_secs_f64();
            let script = Script {
                phases: vec![
                    (s(5), phase(per_second, before)),
                    (s(12), phase(per_second, after)),
                ],
                patience: s(5),
                seed,
            };
            let outcome = run(&ADAPTIVE, &script);
            check_limits(&outcome, &(s(3)..s(5)), before, seed);
            check_limits(&outcome, &(s(10)..s(12)), after, seed);
        }
    }
}

#[test]
fn noise_does_not_lower_the_limit() {
    let noisy = Phase {
        // 50 in flight on average, and 1 % of them take longer than 120 ms.
        spread: Spread::LogNormal(1.0),
        ..phase(2_500.0, 1_000)
    };
    for seed in SEEDS {
        let script = Script {
            phases: vec![(s(15), noisy)],
            patience: s(5),
            seed,
        };
        let outcome = run(&ADAPTIVE, &script);
        let refused = outcome.refused_share(&(s(4)..s(15)));
        assert!(refused < 0.002, "seed {seed}: {refused}");
    }
}

#[test]
fn an_upstream_that_has_become_slower_for_good_is_not_held_down() {
    let slow = |phase: Phase| Phase {
        service: SERVICE * 3,
        ..phase
    };
    for seed in SEEDS {
        // With room to spare, then under an overload.
        for (per_second, refused_most) in [(250.0, 0.1), (2_000.0, 1.0)] {
            let script = Script {
                phases: vec![
                    (s(5), phase(per_second, 20)),
                    (s(15), slow(phase(per_second, 20))),
                ],
                patience: s(5),
                seed,
            };
            let outcome = run(&ADAPTIVE, &script);
            let (time, phase) = times(&script).swap_remove(1);
            let refused = outcome.refused_share(&time);
            assert!(refused <= refused_most, "seed {seed}: {refused}");
            let settled = time.start + SETTLED..time.end;
            let share = goodput(&outcome, &settled, &phase);
            assert!(share >= 0.85, "seed {seed}: {share}");
        }
    }
}
