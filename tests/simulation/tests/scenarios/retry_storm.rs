//! A storm with and without what holds it back, over many seeds; and that the
//! documentation shows what the code does.

use std::time::Duration;

use ambassador_simulation::scenarios::retry_storm::report::Report;
use ambassador_simulation::scenarios::retry_storm::{END, Outcome, PLOT_SEED, Variant, run};

const SEEDS: std::ops::Range<u64> = 0..20;

fn outcomes(variant: Variant) -> impl Iterator<Item = (u64, Outcome)> {
    SEEDS.map(move |seed| (seed, run(variant, seed)))
}

#[test]
fn a_run_is_the_same_for_the_same_seed() {
    for variant in Variant::ALL {
        assert_eq!(run(variant, 7), run(variant, 7), "{variant:?}");
        assert_ne!(run(variant, 7), run(variant, 8), "{variant:?}");
    }
}

#[test]
fn jitter_lowers_the_peak_and_alone_it_ends_no_storm() {
    let fixed = outcomes(Variant::FixedWaits);
    for ((seed, fixed), (_, jitter)) in fixed.zip(outcomes(Variant::FullJitter)) {
        let peaks = (fixed.peak_after_restart(), jitter.peak_after_restart());
        assert!(peaks.1 < peaks.0, "{seed}: {peaks:?}");
        for outcome in [fixed, jitter] {
            assert_eq!(outcome.recovered_after(), None, "{seed}");
            assert!(outcome.tries_per_request() > 4.0, "{seed}");
        }
    }
}

#[test]
fn the_budget_bounds_the_tries_and_the_upstream_recovers() {
    let settings = ambassador::testing::policy::budget::Settings::default();
    for (seed, outcome) in outcomes(Variant::Budget) {
        let requests = outcome.requests.len() as f64;
        let floor = f64::from(settings.min_per_second) * END.as_secs_f64();
        let most = requests * (1.0 + settings.ratio) + floor;
        assert!(f64::from(outcome.tries) <= most, "{seed}");
        // And it grants some.
        assert!(f64::from(outcome.tries) > requests * 1.02, "{seed}");
        let recovered = outcome.recovered_after();
        assert!(recovered <= Some(Duration::from_secs(3)), "{seed}");
        assert!(recovered.is_some(), "{seed}");
    }
}

#[test]
fn an_open_breaker_sends_the_upstream_its_probes_and_nothing_else() {
    for (seed, outcome) in outcomes(Variant::Breaker) {
        // A second and a half, and a second of sleep: one probe.
        let tries = outcome.tries_per_second_of_outage();
        assert!((0.6..=0.7).contains(&tries), "{seed}: {tries}");
        let recovered = outcome.recovered_after();
        assert!(recovered <= Some(Duration::from_secs(3)), "{seed}");
        assert!(recovered.is_some(), "{seed}");
    }
}

#[test]
fn the_documentation_shows_what_happens() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
    let read = |path| std::fs::read_to_string(format!("{docs}/{path}")).unwrap();
    let report = Report::new(PLOT_SEED);
    let command = "cargo run -p ambassador-simulation --bin retry-storm-plot";
    assert!(
        read("plots/retry-storm.svg") == report.svg(),
        "the plot is another one now: `{command}`"
    );
    let (text, table) = (read("resilience.md"), report.table());
    assert!(
        text.contains(&table),
        "the figures are others now:\n{table}"
    );
    assert!(text.contains(command));
}
