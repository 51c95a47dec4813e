//! What each way of choosing makes of an endpoint that is unlike the others.

use std::ops::Range;
use std::time::Duration;

use ambassador_simulation::scenarios::balancing::{Choice, Endpoint, Outcome, Script, run};

const SEEDS: Range<u64> = 0..10;
const MS: Duration = Duration::from_millis(1);

fn answers(ms: u32) -> Endpoint {
    Endpoint::Answers(MS * ms / 2..=MS * ms * 3 / 2)
}

/// Ten endpoints of four servers and 10 ms, the first of which is `odd`; half of
/// what the nine others can do comes.
fn with_an_odd_one(odd: Endpoint, seed: u64) -> Script {
    let mut endpoints = vec![odd];
    endpoints.extend((1..10).map(|_| answers(10)));
    Script {
        endpoints,
        servers: 4,
        per_second: 1_800.0,
        until: Duration::from_secs(8),
        seed,
    }
}

fn each(odd: &Endpoint, check: impl Fn(u64, [Outcome; 4])) {
    for seed in SEEDS {
        let script = with_an_odd_one(odd.clone(), seed);
        let choices = [
            Choice::RoundRobin,
            Choice::Random,
            Choice::LeastRequest,
            Choice::PeakEwma,
        ];
        check(seed, choices.map(|choice| run(choice, &script)));
    }
}

#[test]
fn among_equals_all_get_the_same_and_load_is_spread_better_than_by_chance() {
    each(&answers(10), |seed, outcomes| {
        for outcome in &outcomes {
            for place in 0..10 {
                let share = outcome.share_of(place);
                assert!((0.08..0.12).contains(&share), "{seed}: {place} got {share}");
            }
            assert_eq!(outcome.failed, 0);
        }
        let [in_turn, random, least, ewma] = outcomes.map(|outcome| outcome.quantile(0.99));
        assert!(
            least < random && ewma < random,
            "{seed}: {least:?} {ewma:?} {random:?}"
        );
        assert!(in_turn < random, "{seed}");
    });
}

#[test]
fn a_slow_endpoint_gets_what_it_can_do_from_those_who_look() {
    // A tenth of the speed of the others: a fortieth of all requests is its
    // capacity.
    each(&answers(100), |seed, outcomes| {
        let shares = outcomes.each_ref().map(|outcome| outcome.share_of(0));
        let [in_turn, random, least, ewma] = shares;
        assert!(in_turn > 0.095 && random > 0.09, "{seed}: {shares:?}");
        assert!(least < 0.05, "{seed}: {shares:?}");
        assert!(ewma < least, "{seed}: {shares:?}");
        let slowest = outcomes.each_ref().map(|outcome| outcome.quantile(0.99));
        let [in_turn, random, least, ewma] = slowest;
        // Its queue grows without end where nobody looks.
        assert!(in_turn.min(random) > 1_000 * MS, "{seed}: {slowest:?}");
        assert!(least < 300 * MS && ewma < 200 * MS, "{seed}: {slowest:?}");
    });
}

#[test]
fn one_that_fails_at_once_attracts_requests_unless_failures_count_as_slow() {
    each(&Endpoint::Fails, |seed, outcomes| {
        let shares = outcomes.each_ref().map(|outcome| outcome.share_of(0));
        let [in_turn, _, least, ewma] = shares;
        // It never has a request in flight: always the better of two.
        assert!(least > in_turn, "{seed}: {shares:?}");
        assert!(ewma < 0.02, "{seed}: {shares:?}");
        for (outcome, share) in outcomes.iter().zip(shares) {
            let all: u32 = outcome.sent.iter().sum();
            assert_eq!(f64::from(outcome.failed) / f64::from(all), share);
        }
    });
}
