//! Picks with less than a free choice: the endpoint is given, another family is
//! wanted, a probe is due, or earlier tries went elsewhere.

use super::*;
use crate::policy::breaker::Breaker;

fn input(load_balancing: &LoadBalancing, now: Instant) -> PickInput<'_> {
    PickInput {
        load_balancing,
        key: None,
        tried: &[],
        probe: Probe::Allowed,
        random: &|| 7,
        now,
    }
}

#[test]
fn a_given_endpoint_is_watched_where_it_is_one_of_several() {
    let load_balancing = LoadBalancing::default();
    for (weights, given, is_watched) in [
        (&[1][..], 0, false),
        (&[1, 1], 0, true),
        (&[1, 1], 1, true),
        (&[1, 1, 1], 2, true),
        (&[1, 1], 9, false),
    ] {
        let published = Published::default();
        published.publish(weighing(weights), None);
        let mut balancer = Balancer::default();
        let input = input(&load_balancing, clock::now());
        let mut pick = balancer.pick_bound(&published, address(given), &input);
        assert_eq!(pick.endpoint, address(given));
        assert_eq!(
            pick.has_alternatives(),
            is_watched,
            "{given} of {weights:?}"
        );
        pick.ended(BAD, &outlier::Settings::default(), clock::now());
        let failed = |view: &crate::upstream::endpoints::EndpointView| view.consecutive_failures;
        let failures: Vec<u32> = published.views(clock::now()).iter().map(failed).collect();
        let expected = (0..weights.len() as u16).map(|port| u32::from(is_watched && port == given));
        assert_eq!(failures, expected.collect::<Vec<_>>());
    }
}

#[test]
fn the_other_family_has_to_be_usable() {
    let published = Published::default();
    let v6 = |port| EndpointAddr(([0, 0, 0, 0, 0, 0, 0, 1], port).into());
    let list = [address(0), v6(1), v6(2), address(3)];
    published.publish(list.map(settings::Endpoint::from), None);
    let mut balancer = Balancer::default();
    let mut other = |of: EndpointAddr| balancer.of_other_family(&published, of);
    assert_eq!(other(address(3)), Some(v6(1)));
    assert_eq!(other(v6(1)), Some(address(0)));
    let (detector, list) = (published.detector(), published.current());
    let health = &list[1].health;
    for _ in 0..5 {
        let (trial, settings) = (detector.begin(health), outlier::Settings::default());
        detector.end(health, trial, Outcome::Failure, &settings, clock::now());
    }
    assert_eq!(other(address(3)), Some(v6(2)), "the first is ejected");
    published.publish([address(0), address(3)].map(settings::Endpoint::from), None);
    assert_eq!(other(address(0)), None);
}

#[test]
fn what_is_no_request_takes_turns_with_those_that_are() {
    let published = Published::default();
    let mut shard = Shard::of(&published, LoadBalancing::RoundRobin);
    assert_eq!(shard.balancer.next_in_turn(&published), None);
    published.publish(weighing(&[1, 1, 1]), None);
    let mut turns = Vec::new();
    for _ in 0..3 {
        turns.push(shard.request(Grade::Good));
        let next = shard.balancer.next_in_turn(&published).unwrap();
        turns.push(next.0.port());
    }
    turns.sort_unstable();
    assert_eq!(turns, [0, 0, 1, 1, 2, 2]);
}

#[test]
fn a_probe_is_made_once_it_is_due_and_not_before() {
    let published = Published::default();
    published.publish(weighing(&[1, 1]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    // The clock of the detector counts whole milliseconds from its start.
    shard.requests(100, &[0]);
    let views = published.views(shard.now);
    let due = shard.now + views[0].ejected_for.unwrap();
    shard.now = due - MS;
    assert_eq!(shard.request(Grade::Good), 1);
    shard.now = due;
    assert_eq!(shard.request(Grade::Good), 0);
    assert_eq!(published.views(due)[0].ejected_for, None);
}

#[test]
fn the_earliest_probe_of_several_is_waited_for() {
    let published = Published::default();
    published.publish(weighing(&[1; 5]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    shard.outlier.max_ejected = 1.0;
    for (bad, ejected) in [(3, 1), (1, 2)] {
        shard.requests(200, &[bad]);
        let out = published.views(shard.now);
        let out = out.iter().filter(|view| view.ejected_for.is_some());
        assert_eq!(out.count(), ejected);
        shard.now += 5 * SECOND;
    }
    let due = published.views(shard.now)[3].ejected_for.unwrap();
    shard.now += due;
    assert_eq!(shard.request(Grade::Good), 3);
}

#[test]
fn only_the_probe_of_a_circuit_avoids_those_of_endpoints() {
    let now = clock::now();
    let (breaker, settings) = (Breaker::new(now, 1), breaker::Settings::default());
    let admit = |now| breaker.admit(&settings, 0, now).unwrap();
    assert_eq!(Probe::beside(&admit(now)), Probe::Allowed);
    (0..5).for_each(|_| admit(now).failed(now));
    let due = now + breaker.refuses_for(now).unwrap();
    assert_eq!(Probe::beside(&admit(due)), Probe::Avoided);
}

#[test]
fn a_retry_goes_to_a_suspect_only_where_no_other_is_left() {
    let published = Published::default();
    published.publish(weighing(&[1; 4]), None);
    for load_balancing in ALL {
        let mut shard = Shard::of(&published, load_balancing.clone());
        for suspect in [1, 2] {
            let input = input(&load_balancing, shard.now);
            let mut pick = shard
                .balancer
                .pick_bound(&published, address(suspect), &input);
            pick.ended(BAD, &shard.outlier, shard.now);
        }
        for (tried, expected) in [
            (&[0][..], &[3][..]),
            (&[0, 1], &[3]),
            (&[0, 3], &[1, 2]),
            (&[0, 3, 1], &[2]),
        ] {
            let tried: Vec<EndpointAddr> = tried.iter().copied().map(address).collect();
            for _ in 0..20 {
                let port = shard.ask(Some(42), &tried).unwrap().endpoint.0.port();
                assert!(
                    expected.contains(&port),
                    "{load_balancing:?} {tried:?}: {port}"
                );
            }
        }
        // Each is well again.
        for port in [1, 2] {
            let input = input(&load_balancing, shard.now);
            let mut pick = shard.balancer.pick_bound(&published, address(port), &input);
            pick.ended(Grade::Good, &shard.outlier, shard.now);
        }
    }
}

#[test]
fn an_alternative_is_well_where_one_did_not_fail_last() {
    let published = Published::default();
    published.publish(weighing(&[1, 1]), None);
    let mut shard = Shard::of(&published, LoadBalancing::LeastRequest);
    let mut fail = |port| {
        let load_balancing = LoadBalancing::LeastRequest;
        let input = input(&load_balancing, shard.now);
        let mut pick = shard.balancer.pick_bound(&published, address(port), &input);
        assert!(pick.has_alternatives());
        pick.ended(BAD, &shard.outlier, shard.now);
        pick.has_well_alternative()
    };
    assert_eq!([fail(0), fail(1)], [true, false]);
    let lone = Pick::unwatched(address(0));
    assert!(!lone.has_alternatives() && !lone.has_well_alternative());
}
