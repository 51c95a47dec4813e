use proptest::prelude::*;
use std::sync::Barrier;

use super::Outcome::{Failure, Success};
use super::*;

mod success_rate;

const SECOND: Duration = Duration::from_secs(1);

/// A detector of so many endpoints, and these.
fn upstream(endpoints: usize, now: Instant) -> (Detector, Vec<Arc<Health>>) {
    let detector = Detector::new(now, 1);
    let members: Vec<Arc<Health>> = (0..endpoints).map(|_| Arc::default()).collect();
    detector.watch(members.clone());
    (detector, members)
}

fn settings() -> Settings {
    Settings {
        max_ejected: 1.0,
        ..Settings::default()
    }
}

fn fail(detector: &Detector, health: &Health, settings: &Settings, times: u32, now: Instant) {
    for _ in 0..times {
        detector.end(health, detector.begin(health), Failure, settings, now);
    }
}

fn succeed(detector: &Detector, health: &Health, settings: &Settings, now: Instant) {
    detector.end(health, detector.begin(health), Success, settings, now);
}

/// When the probe of one that is ejected is due.
fn due(detector: &Detector, health: &Health) -> Instant {
    match detector.state(health) {
        State::Ejected { until } => until,
        state => panic!("it is {state:?}"),
    }
}

/// Whether a time is this, or longer by a tenth at most.
fn is_about(time: Duration, expected: Duration) -> bool {
    // The clock of the detector counts milliseconds.
    let least = expected - Duration::from_millis(1);
    (least..=expected.mul_f64(1.1)).contains(&time)
}

#[test]
fn consecutive_failures_eject() {
    let (start, settings) = (Instant::now(), settings());
    let (detector, members) = upstream(3, start);
    fail(&detector, &members[0], &settings, 4, start);
    assert_eq!(members[0].consecutive_failures(), 4);
    assert_eq!(detector.state(&members[0]), State::Usable);
    let version = detector.version();
    fail(&detector, &members[0], &settings, 1, start + SECOND);
    let due = due(&detector, &members[0]);
    assert!(is_about(due - start - SECOND, 30 * SECOND));
    assert_ne!(detector.version(), version);
}

#[test]
fn a_success_ends_a_run() {
    let (now, settings) = (Instant::now(), settings());
    let (detector, members) = upstream(3, now);
    for _ in 0..10 {
        fail(&detector, &members[0], &settings, 4, now);
        succeed(&detector, &members[0], &settings, now);
    }
    assert_eq!(detector.state(&members[0]), State::Usable);
}

#[test]
fn nothing_ejects_where_it_is_off() {
    let now = Instant::now();
    let (detector, members) = upstream(3, now);
    let off = Settings {
        consecutive: None,
        ..settings()
    };
    fail(&detector, &members[0], &off, 1_000, now);
    assert_eq!(detector.state(&members[0]), State::Usable);
    // It is known all the same.
    assert_eq!(members[0].consecutive_failures(), 1_000);
}

#[test]
fn one_probe_decides() {
    let (start, settings) = (Instant::now(), settings());
    let (detector, members) = upstream(3, start);
    let health = &members[0];
    fail(&detector, health, &settings, 5, start);
    assert!(detector.probe(health, start + 29 * SECOND).is_none());
    let first_due = due(&detector, health);
    let probe = detector.probe(health, first_due).unwrap();
    assert!(probe.is_probe());
    assert_eq!(detector.state(health), State::Probing);
    assert!(detector.probe(health, first_due + 1_000 * SECOND).is_none());
    detector.end(health, probe, Failure, &settings, first_due);
    // For the second time: twice as long.
    let due = due(&detector, health);
    assert!(is_about(due - first_due, 60 * SECOND));
    let probe = detector.probe(health, due).unwrap();
    detector.end(health, probe, Success, &settings, due);
    assert_eq!(detector.state(health), State::Usable);
    assert!(detector.probe(health, due).is_none());
    assert_eq!(health.consecutive_failures(), 0);
}

#[test]
fn of_all_threads_one_probes() {
    let (start, settings) = (Instant::now(), settings());
    for round in 0..100 {
        let (detector, members) = upstream(2, start);
        fail(&detector, &members[0], &settings, 5, start);
        let barrier = Barrier::new(4);
        let probes: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let due = start + 33 * SECOND;
                        // Held until all have asked.
                        let asked: Vec<_> = (0..10)
                            .filter_map(|_| detector.probe(&members[0], due))
                            .collect();
                        asked.len()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(probes, 1, "{round}");
    }
}

#[test]
fn a_lost_probe_leaves_its_place_to_the_next_request() {
    let (start, settings) = (Instant::now(), settings());
    let (detector, members) = upstream(2, start);
    let health = &members[0];
    fail(&detector, health, &settings, 5, start);
    let due = due(&detector, health);
    for _ in 0..5 {
        let lost = detector.probe(health, due).unwrap();
        assert!(detector.probe(health, due).is_none());
        detector.abandon(health, lost);
    }
    // Nothing was learned, so it is not out for longer either.
    let probe = detector.probe(health, due).unwrap();
    detector.end(health, probe, Failure, &settings, due);
    let next = self::due(&detector, health);
    assert!(is_about(next - due, 60 * SECOND));
}

#[test]
fn endpoints_that_are_out_are_probed_one_after_the_other() {
    let (start, settings) = (Instant::now(), settings());
    let (detector, members) = upstream(4, start);
    for health in &members[..3] {
        fail(&detector, health, &settings, 5, start);
    }
    let dues: Vec<Instant> = members[..3].iter().map(|one| due(&detector, one)).collect();
    assert!(dues[0] != dues[1] && dues[1] != dues[2] && dues[0] != dues[2]);
    let later = start + 100 * SECOND;
    for health in &members[..3] {
        let probe = detector.probe(health, later).unwrap();
        for other in &members[..3] {
            assert!(detector.probe(other, later).is_none());
        }
        detector.end(health, probe, Failure, &settings, later);
    }
}

#[test]
fn what_may_not_be_ejected_is_avoided_and_probed_like_the_others() {
    let (start, settings) = (Instant::now(), Settings::default());
    let (detector, members) = upstream(3, start);
    for health in &members[..2] {
        fail(&detector, health, &settings, 5, start);
    }
    let standings = |members: &[Arc<Health>]| -> Vec<Standing> {
        members.iter().map(|health| health.standing()).collect()
    };
    use Standing::{Avoided, Ejected, Usable};
    assert_eq!(standings(&members), [Ejected, Avoided, Usable]);
    let avoided = &members[1];
    let State::Avoided { until } = detector.state(avoided) else {
        panic!("it is {:?}", detector.state(avoided));
    };
    assert!(is_about(until - start, 30 * SECOND));
    assert!(detector.probe(avoided, start + 29 * SECOND).is_none());
    // Further failures change nothing.
    fail(&detector, avoided, &settings, 5, start + SECOND);
    assert_eq!(detector.state(avoided), State::Avoided { until });
    // Probed badly, it is avoided for longer.
    let probe = detector.probe(avoided, until).unwrap();
    assert_eq!(detector.state(avoided), State::Probing);
    assert_eq!(standings(&members), [Ejected, Avoided, Usable]);
    detector.end(avoided, probe, Failure, &settings, until);
    let State::Avoided { until: next } = detector.state(avoided) else {
        panic!("it is {:?}", detector.state(avoided));
    };
    assert!(is_about(next - until, 60 * SECOND));
    // A lost probe leaves it as it was.
    let probe = detector.probe(avoided, next).unwrap();
    detector.abandon(avoided, probe);
    assert_eq!(standings(&members), [Ejected, Avoided, Usable]);
    let probe = detector.probe(avoided, next).unwrap();
    detector.end(avoided, probe, Success, &settings, next);
    assert_eq!(standings(&members), [Ejected, Usable, Usable]);
    assert_eq!(avoided.consecutive_failures(), 0);
}

#[test]
fn one_is_well_that_is_usable_and_did_not_fail_last() {
    let (start, settings) = (Instant::now(), Settings::default());
    let (detector, members) = upstream(3, start);
    assert!(detector.has_well(), "nothing bad is known of them");
    for health in &members {
        assert!(detector.has_well());
        fail(&detector, health, &settings, 1, start);
    }
    assert!(!detector.has_well());
    succeed(&detector, &members[1], &settings, start);
    assert!(detector.has_well());
    fail(&detector, &members[1], &settings, 5, start);
    assert_eq!(members[1].standing(), Standing::Ejected);
    assert!(
        !detector.has_well(),
        "no failure stands against it, but it is out"
    );
}

#[test]
fn one_that_is_avoided_returns_by_any_success() {
    let (start, settings) = (Instant::now(), Settings::default());
    let (detector, members) = upstream(2, start);
    for health in &members {
        fail(&detector, health, &settings, 5, start);
    }
    assert_eq!(members[1].standing(), Standing::Avoided);
    let late = detector.begin(&members[0]);
    succeed(&detector, &members[1], &settings, start);
    assert_eq!(members[1].standing(), Standing::Usable);
    assert_eq!(members[1].consecutive_failures(), 0);
    detector.end(&members[0], late, Success, &settings, start);
    assert_eq!(
        members[0].standing(),
        Standing::Ejected,
        "not so an ejected one"
    );
}

#[test]
fn a_request_counts_only_in_the_state_it_was_sent_in() {
    let (start, settings) = (Instant::now(), settings());
    let (detector, members) = upstream(2, start);
    let health = &members[0];
    let late: Vec<Trial> = (0..20).map(|_| detector.begin(health)).collect();
    fail(&detector, health, &settings, 5, start);
    let mut late = late.into_iter();
    let due = due(&detector, health);
    // Neither makes it usable, nor its ejection longer.
    detector.end(health, late.next().unwrap(), Success, &settings, due);
    detector.end(health, late.next().unwrap(), Failure, &settings, due);
    assert_eq!(self::due(&detector, health), due);
    // Nor do those that are sent in a panic while a probe is on its way.
    let probe = detector.probe(health, due).unwrap();
    succeed(&detector, health, &settings, due);
    fail(&detector, health, &settings, 9, due);
    assert_eq!(detector.state(health), State::Probing);
    detector.end(health, probe, Success, &settings, due);
    for trial in late {
        detector.end(health, trial, Failure, &settings, due);
    }
    assert_eq!(detector.state(health), State::Usable);
    assert_eq!(health.consecutive_failures(), 0);
}

/// Fails until it is ejected, then returns by a probe at once.
fn eject_and_return(
    detector: &Detector,
    health: &Health,
    settings: &Settings,
    now: Instant,
) -> Duration {
    fail(detector, health, settings, 5, now);
    let until = due(detector, health);
    let probe = detector.probe(health, until).unwrap();
    detector.end(health, probe, Success, settings, until);
    until - now
}

#[test]
fn ejections_grow_to_a_cap_and_shrink_again() {
    let (start, settings) = (Instant::now(), settings());
    let (detector, members) = upstream(2, start);
    let mut now = start;
    let mut took = Vec::new();
    for _ in 0..12 {
        let time = eject_and_return(&detector, &members[0], &settings, now);
        took.push(time);
        now += time;
    }
    let expected = [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300];
    for (took, expected) in took.into_iter().zip(expected) {
        assert!(is_about(took, SECOND * expected), "{took:?}");
    }
    // Of twelve, nine intervals forget nine.
    now += 9 * settings.interval;
    let time = eject_and_return(&detector, &members[0], &settings, now);
    assert!(is_about(time, 120 * SECOND), "{time:?}");
    now += time + 1_000 * settings.interval;
    let time = eject_and_return(&detector, &members[0], &settings, now);
    assert!(is_about(time, 30 * SECOND), "{time:?}");
}

#[test]
fn a_base_above_the_cap_is_kept() {
    let now = Instant::now();
    let (detector, members) = upstream(2, now);
    let long = Settings {
        base_ejection: 400 * SECOND,
        ..settings()
    };
    for _ in 0..2 {
        let time = eject_and_return(&detector, &members[0], &long, now);
        assert!(is_about(time, 400 * SECOND), "{time:?}");
    }
}

#[test]
fn so_many_are_ejected_as_the_share_allows_and_one_in_any_case() {
    let now = Instant::now();
    for (endpoints, max_ejected, expected) in [
        (1, 1.0, 0),
        (2, 1.0, 1),
        (5, 1.0, 4),
        (5, 0.1, 1),
        (5, 0.0, 1),
        (20, 0.1, 2),
        (19, 0.1, 1),
        (10, 0.5, 5),
    ] {
        let (detector, members) = upstream(endpoints, now);
        let settings = Settings {
            max_ejected,
            ..Settings::default()
        };
        for health in &members {
            fail(&detector, health, &settings, 50, now);
        }
        let ejected = |health: &&Arc<Health>| health.standing() == Standing::Ejected;
        let count = members.iter().filter(ejected).count();
        assert_eq!(count, expected, "{endpoints} at {max_ejected}");
    }
}

#[test]
fn one_that_had_to_stay_leaves_when_there_is_room() {
    let (start, settings) = (Instant::now(), Settings::default());
    let (detector, members) = upstream(3, start);
    fail(&detector, &members[0], &settings, 5, start);
    fail(&detector, &members[1], &settings, 5, start);
    assert_eq!(members[1].standing(), Standing::Avoided);
    let due = due(&detector, &members[0]);
    let probe = detector.probe(&members[0], due).unwrap();
    detector.end(&members[0], probe, Success, &settings, due);
    fail(&detector, &members[1], &settings, 1, due);
    assert_eq!(members[1].standing(), Standing::Ejected);
}

#[test]
fn members_that_stay_keep_their_state() {
    let (now, settings) = (Instant::now(), settings());
    let (detector, mut members) = upstream(3, now);
    fail(&detector, &members[0], &settings, 5, now);
    members.truncate(2);
    detector.watch(members.clone());
    assert_ne!(detector.state(&members[0]), State::Usable);
    // Of the two that are left this one is the last.
    fail(&detector, &members[1], &settings, 50, now);
    assert_eq!(members[1].standing(), Standing::Avoided);
}

#[test]
fn fewer_than_half_are_a_panic() {
    for (usable, total, expected) in [
        (1, 1, false),
        (1, 2, false),
        (1, 3, true),
        (2, 4, false),
        (0, 2, true),
        (49, 100, true),
        (50, 100, false),
    ] {
        assert_eq!(is_panic(usable, total), expected, "{usable} of {total}");
    }
}

#[test]
fn one_that_is_avoided_is_ejected_by_its_probe_where_there_is_room_by_then() {
    let (start, settings) = (Instant::now(), Settings::default());
    let (detector, members) = upstream(3, start);
    fail(&detector, &members[0], &settings, 5, start);
    fail(&detector, &members[1], &settings, 5, start);
    assert_eq!(members[1].standing(), Standing::Avoided);
    for (outcome, hours) in [(Failure, 1), (Success, 2)] {
        // The first is still out, then it is not.
        let now = start + 3_600 * SECOND * hours;
        let probe = detector.probe(&members[0], now).unwrap();
        detector.end(&members[0], probe, outcome, &settings, now);
        let probe = detector.probe(&members[1], now).unwrap();
        detector.end(&members[1], probe, Failure, &settings, now);
        let expected = match outcome {
            Failure => Standing::Avoided,
            Success => Standing::Ejected,
        };
        assert_eq!(members[1].standing(), expected, "{outcome:?}");
    }
}

/// What happens to an upstream.
#[derive(Debug, Clone)]
enum Event {
    Fails(usize),
    Succeeds(usize),
    Probe(usize),
    ProbeEnds(usize, Outcome),
    ProbeLost(usize),
    Passes(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let place = 0_usize..6;
    prop_oneof![
        10 => place.clone().prop_map(Event::Fails),
        2 => place.clone().prop_map(Event::Succeeds),
        3 => place.clone().prop_map(Event::Probe),
        1 => place.clone().prop_map(|place| Event::ProbeEnds(place, Success)),
        1 => place.clone().prop_map(|place| Event::ProbeEnds(place, Failure)),
        1 => place.prop_map(Event::ProbeLost),
        2 => (0_u64..60).prop_map(Event::Passes),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_enough_stay_and_all_can_return(
        events in proptest::collection::vec(event(), 0..300),
        max_ejected in 0.0..1.0,
    ) {
        let mut now = Instant::now();
        let (detector, members) = upstream(6, now);
        let settings = Settings { consecutive: Some(2), max_ejected, ..Settings::default() };
        let mut probes: [Option<Trial>; 6] = Default::default();
        for event in events {
            match event {
                Event::Fails(one) => fail(&detector, &members[one], &settings, 1, now),
                Event::Succeeds(one) => succeed(&detector, &members[one], &settings, now),
                Event::Probe(one) => {
                    if let Some(probe) = detector.probe(&members[one], now) {
                        prop_assert!(probes[one].replace(probe).is_none(), "two probes");
                    }
                }
                Event::ProbeEnds(one, outcome) => {
                    if let Some(probe) = probes[one].take() {
                        detector.end(&members[one], probe, outcome, &settings, now);
                    }
                }
                Event::ProbeLost(one) => {
                    if let Some(probe) = probes[one].take() {
                        detector.abandon(&members[one], probe);
                    }
                }
                Event::Passes(seconds) => now += SECOND * seconds as u32,
            }
            let ejected = members.iter().filter(|one| one.standing() == Standing::Ejected);
            let ejected = ejected.count();
            prop_assert!(ejected <= 1.max((6.0 * max_ejected) as usize), "{} out", ejected);
            prop_assert!(probes.iter().flatten().count() <= 1);
            for (health, probe) in members.iter().zip(&probes) {
                prop_assert_eq!(detector.state(health) == State::Probing, probe.is_some());
            }
        }
        now += 10 * EJECTION_MAX;
        for (health, probe) in members.iter().zip(&mut probes) {
            if let Some(probe) = probe.take() {
                detector.end(health, probe, Failure, &settings, now);
            }
        }
        now += 10 * EJECTION_MAX;
        for health in &members {
            if let Some(trial) = detector.probe(health, now) {
                detector.end(health, trial, Success, &settings, now);
            }
            prop_assert_eq!(detector.state(health), State::Usable);
        }
    }
}

#[test]
fn who_is_unhealthy_counts_as_nobody() {
    let (now, settings) = (Instant::now(), settings());
    let (detector, members) = upstream(3, now);
    let version = detector.version();
    detector.set_fitness(&members[0], Fitness::Unhealthy, now);
    assert_ne!(detector.version(), version);
    // One of two may be ejected, and then the last may not.
    fail(&detector, &members[1], &settings, 5, now);
    assert_eq!(members[1].standing(), Standing::Ejected);
    assert!(detector.has_well());
    fail(&detector, &members[2], &settings, 5, now);
    assert_eq!(members[2].standing(), Standing::Avoided);
    assert!(!detector.has_well(), "the unhealthy one is no alternative");
    // What was told of it before changes nothing, and wakes nobody.
    let version = detector.version();
    detector.set_fitness(&members[0], Fitness::Unhealthy, now);
    assert_eq!(detector.version(), version);
}

#[test]
fn where_none_is_healthy_what_requests_find_decides() {
    let (now, settings) = (Instant::now(), settings());
    let (detector, members) = upstream(3, now);
    for member in &members {
        detector.set_fitness(member, Fitness::Unhealthy, now);
    }
    assert!(detector.has_well());
    fail(&detector, &members[0], &settings, 5, now);
    assert_eq!(members[0].standing(), Standing::Ejected);
    fail(&detector, &members[1], &settings, 5, now);
    assert_eq!(members[1].standing(), Standing::Ejected);
    fail(&detector, &members[2], &settings, 5, now);
    assert_eq!(members[2].standing(), Standing::Avoided, "the last one");
}

#[test]
fn an_endpoint_that_is_healthy_again_is_usable_at_once() {
    let (now, settings) = (Instant::now(), settings());
    let (detector, members) = upstream(3, now);
    let health = &members[0];
    // A check that finds it healthy, as before, is no reason.
    fail(&detector, health, &settings, 5, now);
    detector.set_fitness(health, Fitness::Healthy, now);
    assert_eq!(health.standing(), Standing::Ejected);
    let due_before = due(&detector, health);

    let late = detector.begin(health);
    detector.set_fitness(health, Fitness::Unhealthy, now);
    let probe = detector.probe(health, due_before).unwrap();
    detector.set_fitness(health, Fitness::Healthy, now);
    assert_eq!(detector.state(health), State::Usable);
    // Tries that began before say nothing.
    detector.end(health, late, Failure, &settings, now);
    detector.end(health, probe, Failure, &settings, now);
    assert_eq!(detector.state(health), State::Usable);
    assert_eq!(health.consecutive_failures(), 0);
    // It is the second ejection all the same.
    fail(&detector, health, &settings, 5, now);
    let second = due(&detector, health);
    assert!(is_about(second - now, 60 * SECOND));
}
