use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

use super::hash::nth;
use super::*;
use crate::addr::EndpointAddr;
use crate::clock::Instant;
use crate::policy::outlier::{Fitness, Standing};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn listed(weight: u32) -> Listed {
    Listed {
        weight,
        in_zone: false,
        standing: Standing::Usable,
        fitness: Fitness::Healthy,
    }
}

fn candidates(weights: &[u32]) -> Candidates {
    let list: Vec<Listed> = weights.iter().copied().map(listed).collect();
    let mut candidates = Candidates::default();
    candidates.select(&list, Zones::Own, |_| false);
    candidates
}

/// The places that are selected of endpoints described by a word each: `z` is
/// in the zone, `-` is ejected, `~` is avoided, `x` is unhealthy, `!` is left out.
fn selected(list: &str) -> Vec<usize> {
    selected_of(Zones::Own, list)
}

fn selected_of(zones: Zones, list: &str) -> Vec<usize> {
    let words: Vec<&str> = list.split(' ').collect();
    let of_word = |word: &&str| Listed {
        weight: 1,
        in_zone: word.contains('z'),
        standing: match (word.contains('-'), word.contains('~')) {
            (true, _) => Standing::Ejected,
            (_, true) => Standing::Avoided,
            _ => Standing::Usable,
        },
        fitness: match word.contains('x') {
            true => Fitness::Unhealthy,
            false => Fitness::Healthy,
        },
    };
    let list: Vec<Listed> = words.iter().map(of_word).collect();
    let mut candidates = Candidates::default();
    candidates.select(&list, zones, |place| words[place].contains('!'));
    candidates.iter().map(|one| one.place).collect()
}

#[test]
fn ejected_ones_are_left_out_unless_most_are() {
    assert_eq!(selected("o o- o"), [0, 2]);
    assert_eq!(selected("o o-"), [0]);
    assert_eq!(selected("o o- o-"), [0, 1, 2], "panic");
    assert_eq!(selected("o- o-"), [0, 1], "panic");
}

#[test]
fn unhealthy_ones_are_as_if_they_were_not_listed() {
    assert_eq!(selected("o x x x"), [0], "however few are left");
    assert_eq!(selected("x o- o o"), [2, 3]);
    assert_eq!(selected("x o- o"), [2], "half of those that are left");
    assert_eq!(selected("x o- o- o"), [1, 2, 3], "panic among those");
    assert_eq!(selected("x o-"), [1], "panic");
    assert_eq!(selected("x o~"), [1]);
    assert_eq!(selected("zx o z o"), [2]);
    assert_eq!(selected("zx o zx o"), [1, 3], "none of the zone is left");
}

#[test]
fn endpoints_of_the_zone_come_first() {
    assert_eq!(selected("o z o z"), [1, 3]);
    assert_eq!(selected("o z- o z"), [3]);
    assert_eq!(selected("o z- o z-"), [0, 2], "none of the zone is usable");
    assert_eq!(selected("z- o o-"), [0, 1, 2], "panic knows no zones");
}

#[test]
fn avoided_ones_are_for_where_no_usable_one_is_left() {
    assert_eq!(selected("o o~ o~"), [0], "no panic");
    assert_eq!(selected("o~ o- o~"), [0, 2]);
    assert_eq!(selected("z~ z~ o"), [2], "whatever their zone");
    assert_eq!(selected("z~ z- o~"), [0]);
    assert_eq!(selected("o! o~"), [1]);
    assert_eq!(selected("o~! o-"), [0; 0]);
}

#[test]
fn other_zones_come_first_where_they_are_to() {
    assert_eq!(selected_of(Zones::Others, "o z o z"), [0, 2]);
    assert_eq!(selected_of(Zones::Others, "o~ z o! z"), [1, 3]);
    assert_eq!(selected_of(Zones::Others, "o o"), [0, 1]);
}

#[test]
fn some_are_left_out() {
    assert_eq!(selected("o! o o-"), [1]);
    assert_eq!(selected("z! z o"), [1]);
    assert_eq!(selected("z! z! o"), [2], "rather elsewhere than once more");
    assert_eq!(selected("o! o! o-"), [0_usize; 0]);
    assert_eq!(selected("o! o- o-"), [1, 2], "panic");
}

/// How often each place was chosen, with the random numbers of a fixed seed.
fn counts(places: usize, turns: u64, mut choose: impl FnMut(u64) -> Option<usize>) -> Vec<u64> {
    let mut counts = vec![0; places];
    for turn in 0..turns {
        counts[choose(nth(7, turn)).unwrap()] += 1;
    }
    counts
}

/// Within four standard deviations of what the weights say.
fn assert_by_weight(counts: &[u64], weights: &[u32]) {
    let turns: u64 = counts.iter().sum();
    let sum: u32 = weights.iter().sum();
    for (count, weight) in counts.iter().zip(weights) {
        let share = f64::from(*weight) / f64::from(sum);
        let expected = turns as f64 * share;
        let deviation = (expected * (1.0 - share)).sqrt();
        let off = (*count as f64 - expected).abs();
        assert!(off <= 4.0 * deviation, "{counts:?} for {weights:?}");
    }
}

#[test]
fn nothing_is_chosen_of_nothing() {
    let none = Candidates::default();
    assert!(none.is_empty() && !candidates(&[1]).is_empty());
    assert_eq!(none.draw(1), None);
    assert_eq!(none.draw_two(1), None);
    assert_eq!(Rotation::of(&none).at(3), None);
    assert_eq!(least_request::choose(&none, |_| 0, 1), None);
    assert_eq!(Ring::of(std::iter::empty()).owner(1, |_| true), None);
}

#[test]
fn random_draws_go_by_weight() {
    let weights = [1, 5, 2, 12];
    let candidates = candidates(&weights);
    let draw = |random| candidates.draw(random).map(|one| one.place);
    assert_by_weight(&counts(4, 100_000, draw), &weights);
    assert_eq!(draw(0), Some(0));
    assert_eq!(draw(u64::MAX), Some(3));
}

#[test]
fn two_draws_are_of_two() {
    let candidates = candidates(&[1, 5, 2, 12]);
    let mut pairs = BTreeMap::<_, u64>::new();
    for turn in 0..100_000 {
        let [first, second] = candidates.draw_two(nth(7, turn)).unwrap();
        assert_ne!(first, second);
        *pairs.entry((first.place, second.place)).or_default() += 1;
    }
    assert_eq!(pairs.len(), 12, "every pair comes");
    // The second by the weights of the rest: after the heaviest, 5 of 8.
    let after_3 = |second| pairs[&(3, second)] as f64;
    let share = after_3(1) / (after_3(0) + after_3(1) + after_3(2));
    assert!((share - 5.0 / 8.0).abs() < 0.01, "{share}");
}

#[test]
fn turns_are_spread_out() {
    let order = |weights: &[u32]| -> Vec<usize> {
        let rotation = Rotation::of(&candidates(weights));
        (0..8).filter_map(|turn| rotation.at(turn)).collect()
    };
    assert_eq!(order(&[1, 1, 1]), [0, 1, 2, 0, 1, 2, 0, 1]);
    assert_eq!(order(&[7, 7]), [0, 1, 0, 1, 0, 1, 0, 1]);
    assert_eq!(order(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0, 0]);
    assert_eq!(order(&[300, 100]), [0, 0, 1, 0, 0, 0, 1, 0]);
}

#[test]
fn an_order_of_turns_is_of_bounded_length() {
    let rotation = Rotation::of(&candidates(&[WEIGHT_MAX, WEIGHT_MAX - 1, 1]));
    let turns = (0..4_096).filter_map(|turn| rotation.at(turn));
    let light = turns.filter(|place| *place == 2).count();
    assert!((1..=2).contains(&light), "{light}: it has a turn still");
}

#[test]
fn an_order_of_turns_begins_anew_after_a_round() {
    for (weights, round) in [
        (&[5, 1, 1][..], 7),
        (&[10, 2, 2], 7),
        // More than an order holds, but for what divides them all.
        (&[8_000, 3_000], 11),
        (&[8, 3], 11),
        (&[2_048, 2_047, 1], 4_096),
    ] {
        let rotation = Rotation::of(&candidates(weights));
        for turn in 0..4_096 {
            let (one, next) = (rotation.at(turn), rotation.at(turn + round));
            assert_eq!(one, next, "{weights:?}: {turn}");
        }
    }
}

#[test]
fn least_request_without_load_goes_by_weight() {
    let weights = [1, 2, 4];
    let candidates = candidates(&weights);
    let choose = |random| least_request::choose(&candidates, |_| 0, random);
    assert_by_weight(&counts(3, 100_000, choose), &weights);
}

#[test]
fn least_request_avoids_the_loaded_one() {
    let candidates = candidates(&[1, 1, 1, 1]);
    let active = |place| if place == 2 { 10 } else { 1 };
    let choose = |random| least_request::choose(&candidates, active, random);
    let counts = counts(4, 10_000, choose);
    assert_eq!(counts[2], 0, "it is never the better of two");
}

#[test]
fn least_request_measures_load_by_weight() {
    let candidates = candidates(&[1, 4]);
    let choose = |active: [u32; 2]| {
        let chosen = (0..100).map(|turn| {
            let active = |place: usize| active[place];
            least_request::choose(&candidates, active, nth(7, turn)).unwrap()
        });
        let chosen: std::collections::BTreeSet<_> = chosen.collect();
        chosen.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(choose([1, 3]), [1]);
    assert_eq!(choose([1, 5]), [0]);
    assert_eq!(choose([1, 4]), [0, 1], "alike: whoever is drawn first");
}

#[test]
fn requests_in_flight_end_up_by_weight() {
    let weights = [1, 2, 5];
    let candidates = candidates(&weights);
    let mut active = [0_u32; 3];
    // 80 requests that never end.
    for turn in 0..80 {
        let place = least_request::choose(&candidates, |place| active[place], nth(3, turn));
        active[place.unwrap()] += 1;
    }
    for (active, expected) in active.into_iter().zip([10, 20, 50]) {
        assert!(active.abs_diff(expected) <= 4, "{active} for {expected}");
    }
}

#[test]
fn peak_ewma_takes_a_peak_at_once_and_forgets_it_slowly() {
    let start = Instant::now();
    let mut ewma = PeakEwma::default();
    ewma.observe(5 * MS, start);
    ewma.observe(400 * MS, start + SECOND);
    assert_eq!(ewma.cost(0, start + SECOND), 0.4);
    ewma.observe(5 * MS, start + 2 * SECOND);
    assert!(ewma.cost(0, start + 2 * SECOND) > 0.35);
    for second in 3..100 {
        ewma.observe(5 * MS, start + second * SECOND);
    }
    let settled = ewma.cost(0, start + 99 * SECOND);
    assert!((0.0045..0.0055).contains(&settled), "{settled}");
    assert_eq!(ewma.cost(3, start + 99 * SECOND), settled * 4.0);
}

#[test]
fn peak_ewma_weighs_the_past_by_its_age() {
    let start = Instant::now();
    let mut ewma = PeakEwma::default();
    ewma.observe(400 * MS, start);
    // After the time in which the past decays to 1/e.
    ewma.observe(5 * MS, start + 10 * SECOND);
    let kept = (-1.0_f64).exp();
    let expected = 0.4 * kept + 0.005 * (1.0 - kept);
    let found = ewma.cost(0, start + 10 * SECOND);
    assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
}

#[test]
fn of_two_that_are_alike_the_first_drawn_is_taken() {
    let (candidates, now) = (candidates(&[1, 1, 1]), Instant::now());
    for turn in 0..100 {
        let random = nth(7, turn);
        let first = candidates.draw_two(random).map(|[first, _]| first.place);
        let alike = |_| (PeakEwma::default(), 1);
        assert_eq!(PeakEwma::choose(&candidates, alike, random, now), first);
        assert_eq!(least_request::choose(&candidates, |_| 1, random), first);
    }
}

#[test]
fn peak_ewma_counts_a_failure_as_slow_and_holds_it_for_retry_after() {
    let now = Instant::now();
    let mut ewma = PeakEwma::default();
    ewma.observe(5 * MS, now);
    ewma.penalize(MS, Some(20 * SECOND), now);
    assert_eq!(ewma.cost(0, now), 1.0);
    ewma.observe(5 * MS, now + 10 * SECOND);
    assert_eq!(ewma.cost(0, now + 20 * SECOND), 1.0);
    assert!(ewma.cost(0, now + 30 * SECOND) < 0.4);
    // Nobody stays away for good.
    ewma.penalize(MS, Some(Duration::MAX), now + 30 * SECOND);
    assert!(ewma.cost(0, now + 200 * SECOND) < 0.001);
}

#[test]
fn peak_ewma_tries_the_unknown_with_one_request_at_first() {
    let now = Instant::now();
    let mut known = PeakEwma::default();
    known.observe(50 * MS, now);
    let unknown = PeakEwma::default();
    assert!(unknown.cost(0, now) < known.cost(0, now));
    assert!(unknown.cost(1, now) > known.cost(1, now));
}

/// One request after the other, for `seconds` at 100 a second, to endpoints of
/// these latencies.
fn drive(ewmas: &mut [PeakEwma], latencies: &[Duration], from: Instant, seconds: u64) -> Vec<u64> {
    let candidates = candidates(&vec![1; latencies.len()]);
    let mut now = from;
    counts(latencies.len(), seconds * 100, |random| {
        let state = |place: usize| (ewmas[place], 0);
        let place = PeakEwma::choose(&candidates, state, random, now)?;
        ewmas[place].observe(latencies[place], now + latencies[place]);
        now += 10 * MS;
        Some(place)
    })
}

#[test]
fn peak_ewma_avoids_a_slow_one_and_it_recovers() {
    let start = Instant::now();
    let mut ewmas = [PeakEwma::default(); 3];
    let slow = drive(&mut ewmas, &[5 * MS, 500 * MS, 5 * MS], start, 20);
    assert!(slow[1] <= 3, "{slow:?}");
    let now = start + 20 * SECOND;
    drive(&mut ewmas, &[5 * MS; 3], now, 100);
    let recovered = drive(&mut ewmas, &[5 * MS; 3], now + 100 * SECOND, 20);
    assert!(recovered.iter().all(|count| *count > 300), "{recovered:?}");
}

#[test]
fn peak_ewma_goes_by_weight_too() {
    let now = Instant::now();
    let mut alike = PeakEwma::default();
    alike.observe(5 * MS, now);
    let candidates = candidates(&[1, 10]);
    // A second request on the heavy one costs less than the first on the light.
    let state = |place| (alike, if place == 1 { 1 } else { 0 });
    for turn in 0..100 {
        let chosen = PeakEwma::choose(&candidates, state, nth(7, turn), now);
        assert_eq!(chosen, Some(1));
    }
}

fn endpoints(count: u8) -> Vec<(EndpointAddr, u32)> {
    let address = |host| EndpointAddr(([10, 1, 2, host], 8080).into());
    (0..count).map(|host| (address(host), 1)).collect()
}

const KEYS: u64 = 20_000;

fn key(number: u64) -> u64 {
    hash(format!("user-{number}").as_bytes())
}

#[test]
fn the_keys_of_a_removed_endpoint_move_and_no_others() {
    let all = endpoints(10);
    let mut fewer = all.clone();
    let (removed, _) = fewer.remove(4);
    let owner = |list: &[(EndpointAddr, u32)], ring: &Ring, number| {
        list[ring.owner(key(number), |_| true).unwrap()].0
    };
    let (before, after) = (
        Ring::of(all.iter().copied()),
        Ring::of(fewer.iter().copied()),
    );
    let mut moved = 0;
    for number in 0..KEYS {
        let old = owner(&all, &before, number);
        let new = owner(&fewer, &after, number);
        if old == removed {
            moved += 1;
        } else {
            assert_eq!(old, new);
        }
        // One that may not be chosen is as if it were removed.
        let skipped = before.owner(key(number), |place| place != 4).unwrap();
        assert_eq!(all[skipped].0, new);
    }
    let share = moved as f64 / KEYS as f64;
    assert!((0.07..0.13).contains(&share), "{share}");
}

#[test]
fn a_ring_is_shared_out_by_weight() {
    let mut list = endpoints(3);
    list[1].1 = 2;
    let ring = Ring::of(list.iter().copied());
    let mut counts = [0_u64; 3];
    for number in 0..KEYS {
        counts[ring.owner(key(number), |_| true).unwrap()] += 1;
    }
    for (count, share) in counts.iter().zip([0.25, 0.5, 0.25]) {
        let found = *count as f64 / KEYS as f64;
        assert!((found - share).abs() < 0.06, "{counts:?}");
    }
}

#[test]
fn heavy_weights_make_no_larger_ring() {
    let mut list = endpoints(3);
    list[0].1 = WEIGHT_MAX;
    list[1].1 = WEIGHT_MAX;
    let ring = Ring::of(list.iter().copied());
    let owners: std::collections::BTreeSet<_> = (0..KEYS)
        .filter_map(|number| ring.owner(key(number), |_| true))
        .collect();
    assert!(owners.contains(&0) && owners.contains(&1));
    assert!(
        ring.owner(1, |place| place == 2).is_some(),
        "it has a point"
    );
}

/// Other processes and later releases have to agree on these.
#[test]
fn hashes_are_for_good() {
    assert_eq!(hash(b""), 0xc381_7c01_6ba4_ff30);
    assert_eq!(hash(b"user-1"), 0xf16d_8d44_0fbb_25d5);
    let ring = Ring::of(endpoints(10).into_iter());
    let owners: Vec<_> = (0..8)
        .filter_map(|n| ring.owner(key(n), |_| true))
        .collect();
    assert_eq!(owners, [2, 1, 2, 9, 9, 5, 8, 5]);
}

proptest! {
    #[test]
    fn a_round_of_turns_is_exactly_by_weight(
        weights in proptest::collection::vec(1_u32..50, 1..20),
    ) {
        let rotation = Rotation::of(&candidates(&weights));
        let sum: u32 = weights.iter().sum();
        let mut counts = vec![0; weights.len()];
        for turn in 0..sum as usize {
            counts[rotation.at(turn).unwrap()] += 1;
        }
        prop_assert_eq!(counts, weights);
    }

    #[test]
    fn what_is_chosen_is_a_candidate(
        chosen in proptest::collection::btree_map(0_usize..100, 0_u32..WEIGHT_MAX, 1..30),
        active in proptest::collection::vec(0_u32..1_000, 100),
        random in any::<u64>(),
    ) {
        let list: Vec<Listed> = (0..100).map(|place| match chosen.get(&place) {
            Some(weight) => listed(*weight),
            None => Listed { in_zone: true, ..listed(1) },
        }).collect();
        let mut candidates = Candidates::default();
        candidates.select(&list, Zones::Own, |place| !chosen.contains_key(&place));
        let now = Instant::now();
        let state = |place: usize| (PeakEwma::default(), active[place]);
        let ring = Ring::of((0..100).map(|host| endpoints(100)[host]));
        for place in [
            candidates.draw(random).map(|one| one.place),
            Rotation::of(&candidates).at(random as usize),
            least_request::choose(&candidates, |place| active[place], random),
            PeakEwma::choose(&candidates, state, random, now),
            ring.owner(random, |place| candidates.contains(place)),
        ] {
            prop_assert!(place.is_some_and(|place| chosen.contains_key(&place)), "{:?}", place);
        }
    }
}
