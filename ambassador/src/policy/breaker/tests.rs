use proptest::prelude::*;

use super::*;

mod operator;

const SECOND: Duration = Duration::from_secs(1);

fn settings(trip: Trip) -> Settings {
    Settings {
        trip,
        sleep: 30 * SECOND,
        ..Settings::default()
    }
}

/// Whatever share of all they are.
fn rolling(failures: u32) -> Settings {
    settings(Trip::Rolling {
        failures,
        window: 10 * SECOND,
        ratio: None,
    })
}

fn closed(now: Instant) -> Breaker {
    Breaker::new(now, 1)
}

fn fail(breaker: &Breaker, settings: &Settings, now: Instant) {
    breaker.admit(settings, 0, now).unwrap().failed(now);
}

fn succeed(breaker: &Breaker, settings: &Settings, shard: u16, now: Instant) {
    breaker.admit(settings, shard, now).unwrap().succeeded(now);
}

/// When one that refuses now may be probed: after `sleep`, or up to a tenth
/// later.
fn due(breaker: &Breaker, settings: &Settings, now: Instant) -> Instant {
    let left = breaker.refuses_for(now).unwrap();
    assert!(left >= settings.sleep, "{left:?}");
    assert!(left <= settings.sleep.mul_f64(1.1), "{left:?}");
    now + left
}

#[test]
fn it_opens_at_the_threshold_and_not_before() {
    let (start, settings) = (Instant::now(), rolling(5));
    let breaker = closed(start);
    for second in 0..4 {
        fail(&breaker, &settings, start + SECOND * second);
        assert_eq!(breaker.state(), State::Closed);
    }
    fail(&breaker, &settings, start + SECOND * 10);
    assert_eq!(breaker.state(), State::Open);
    let opened = start + SECOND * 10;
    let due = due(&breaker, &settings, opened);
    let before = due - Duration::from_millis(1);
    assert!(breaker.admit(&settings, 0, before).is_none());
    assert_eq!(breaker.refuses_for(before), Some(due - before));
}

#[test]
fn failures_leave_the_window_one_by_one() {
    let (start, settings) = (Instant::now(), rolling(3));
    let breaker = closed(start);
    // Never three within ten seconds.
    for turn in 0..20 {
        fail(&breaker, &settings, start + SECOND * 6 * turn);
        assert_eq!(breaker.state(), State::Closed, "{turn}");
    }
    let now = start + SECOND * 6 * 19;
    assert_eq!(breaker.failures(&settings, now), 2);
    fail(&breaker, &settings, now + SECOND);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn fewer_failures_than_open_it_are_shown_to_the_millisecond() {
    let (start, settings) = (Instant::now(), rolling(5));
    let breaker = closed(start);
    fail(&breaker, &settings, start);
    let window = 10 * SECOND;
    let later = start + window + Duration::from_millis(1);
    assert_eq!(breaker.failures(&settings, start + window), 1);
    assert_eq!(breaker.failures(&settings, later), 0);
}

#[test]
fn successes_do_not_save_a_window_without_a_ratio() {
    let (now, settings) = (Instant::now(), rolling(3));
    let breaker = closed(now);
    for _ in 0..3 {
        succeed(&breaker, &settings, 0, now);
        fail(&breaker, &settings, now);
    }
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn consecutive_failures_are_those_without_a_success_between() {
    let (now, settings) = (Instant::now(), settings(Trip::Consecutive(3)));
    let breaker = closed(now);
    for _ in 0..10 {
        fail(&breaker, &settings, now);
        fail(&breaker, &settings, now);
        succeed(&breaker, &settings, 0, now);
    }
    assert_eq!(breaker.state(), State::Closed);
    for _ in 0..3 {
        fail(&breaker, &settings, now);
    }
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn one_probe_decides() {
    let (start, settings) = (Instant::now(), rolling(1));
    let breaker = closed(start);
    fail(&breaker, &settings, start);
    let due = due(&breaker, &settings, start);
    let probe = breaker.admit(&settings, 0, due).unwrap();
    assert!(probe.is_probe());
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(breaker.admit(&settings, 0, due + SECOND * 100).is_none());
    probe.failed(due + SECOND);
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.admit(&settings, 0, due + SECOND * 30).is_none());
    let due = self::due(&breaker, &settings, due + SECOND);
    let probe = breaker.admit(&settings, 0, due).unwrap();
    probe.succeeded(due);
    assert_eq!(breaker.state(), State::Closed);
    assert!(!breaker.admit(&settings, 0, due).unwrap().is_probe());
    let transitions = Transitions {
        opened: 2,
        half_opened: 2,
        closed: 1,
    };
    assert_eq!(breaker.transitions(), transitions);
}

#[test]
fn sleeps_of_different_upstreams_end_at_different_times() {
    let (start, settings) = (Instant::now(), rolling(1));
    let dues = (0..100).map(|seed| {
        let breaker = Breaker::new(start, seed);
        fail(&breaker, &settings, start);
        due(&breaker, &settings, start)
    });
    let dues: std::collections::BTreeSet<_> = dues.collect();
    assert!(dues.len() > 90, "{}", dues.len());
    let (first, last) = (dues.first().unwrap(), dues.last().unwrap());
    assert!(*last - *first > Duration::from_millis(2_500));
}

#[test]
fn a_probe_that_is_lost_leaves_its_place_to_the_next() {
    let (start, settings) = (Instant::now(), rolling(1));
    let breaker = closed(start);
    fail(&breaker, &settings, start);
    let due = due(&breaker, &settings, start);
    for _ in 0..100 {
        let probe = breaker.admit(&settings, 0, due).unwrap();
        assert!(probe.is_probe());
        assert!(breaker.admit(&settings, 1, due).is_none());
        probe.abandoned();
        assert_eq!(breaker.state(), State::Open);
        assert!(!breaker.refuses_at(due));
    }
    // So does one whose task panics.
    let probing = std::panic::AssertUnwindSafe(|| {
        let _probe = breaker.admit(&settings, 0, due).unwrap();
        std::panic::resume_unwind(Box::new(()));
    });
    std::panic::catch_unwind(probing).unwrap_err();
    breaker
        .admit(&settings, 1, due)
        .unwrap()
        .succeeded(due + SECOND);
    assert_eq!(breaker.state(), State::Closed);
    let transitions = Transitions {
        opened: 1,
        half_opened: 102,
        closed: 1,
    };
    assert_eq!(breaker.transitions(), transitions);
}

/// As many failures of all, or more.
fn share(failures: u32, ratio: f64) -> Settings {
    settings(Trip::Rolling {
        failures,
        window: 10 * SECOND,
        ratio: Ratio::new(ratio),
    })
}

#[test]
fn failures_open_it_only_where_they_are_a_share_of_all() {
    for (successes, failures, state) in [
        (10, 5, State::Closed),
        (10, 9, State::Closed),
        (10, 10, State::Open),
        (0, 5, State::Open),
        (5, 5, State::Open),
        (6, 5, State::Closed),
        (0, 4, State::Closed),
    ] {
        for shards in [1, 2, 64, 1_000] {
            let (now, settings) = (Instant::now(), share(5, 0.5));
            let breaker = closed(now);
            for turn in 0..successes {
                succeed(&breaker, &settings, turn % shards, now);
            }
            for turn in 0..failures {
                assert_eq!(breaker.state(), State::Closed);
                let shard = (turn + 3) % shards;
                breaker.admit(&settings, shard, now).unwrap().failed(now);
            }
            assert_eq!(breaker.state(), state, "{successes} {failures} {shards}");
        }
    }
}

#[test]
fn a_ratio_is_exact() {
    for percent in 1..100_u32 {
        let (now, settings) = (Instant::now(), share(1, f64::from(percent) / 100.0));
        let breaker = closed(now);
        for _ in 0..100 - percent {
            succeed(&breaker, &settings, 0, now);
        }
        for failures in 1..=percent {
            assert_eq!(breaker.state(), State::Closed, "{failures} of {percent}");
            fail(&breaker, &settings, now);
        }
        assert_eq!(breaker.state(), State::Open, "{percent}");
    }
    for share in [0.0, -0.1, 1.000_001, f64::NAN] {
        assert_eq!(Ratio::new(share), None);
    }
    assert_eq!(Ratio::new(0.07).map(Ratio::share), Some(0.07));
}

#[test]
fn an_outage_behind_much_success_shows_within_a_tenth_of_the_window() {
    // Whenever in a tenth it begins.
    for begins in 0..20 {
        let (start, settings) = (Instant::now(), share(5, 0.5));
        let breaker = closed(start);
        let outage = 10_000 + begins * 50;
        for ms in 0..outage {
            succeed(&breaker, &settings, 0, start + Duration::from_millis(ms));
        }
        let mut lasted = 0;
        while breaker.state() == State::Closed && lasted < 10_000 {
            lasted += 1;
            fail(
                &breaker,
                &settings,
                start + Duration::from_millis(outage + lasted),
            );
        }
        // Half of it is enough, and the third in which it begins may count whole.
        assert!((500..=670).contains(&lasted), "{begins}: {lasted}");
    }
}

#[test]
fn a_few_failures_among_many_successes_never_open_it() {
    let (start, settings) = (Instant::now(), share(5, 0.5));
    let breaker = closed(start);
    for ms in 0..60_000 {
        let now = start + Duration::from_millis(ms);
        match ms % 5 >= 3 {
            true => fail(&breaker, &settings, now),
            false => succeed(&breaker, &settings, 0, now),
        }
        assert_eq!(breaker.state(), State::Closed, "{ms}");
    }
    // More than the list of the last ones holds.
    let shown = breaker.failures(&settings, start + 60 * SECOND);
    assert!((4_000..=4_400).contains(&shown), "{shown}");
}

#[test]
fn failures_of_a_part_count_and_open_nothing_by_themselves() {
    let (now, settings) = (Instant::now(), share(5, 0.5));
    let breaker = closed(now);
    for _ in 0..20 {
        breaker
            .admit(&settings, 0, now)
            .unwrap()
            .failed_in_part(now);
    }
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.failures(&settings, now), 20);
    fail(&breaker, &settings, now);
    assert_eq!(breaker.state(), State::Open);
    // That of a probe is none of the whole: the next may tell more.
    let due = due(&breaker, &settings, now);
    let probe = breaker.admit(&settings, 0, due).unwrap();
    probe.failed_in_part(due);
    assert_eq!(breaker.state(), State::Open);
    let probe = breaker.admit(&settings, 0, due).unwrap();
    probe.succeeded(due);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn successes_leave_the_window_too() {
    let (start, settings) = (Instant::now(), share(5, 0.5));
    let breaker = closed(start);
    for _ in 0..1_000 {
        succeed(&breaker, &settings, 7, start);
    }
    let now = start + SECOND * 12;
    for _ in 0..5 {
        fail(&breaker, &settings, now);
    }
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.failures(&settings, now), 0);
}

#[test]
fn what_went_well_before_it_opened_counts_no_more() {
    let start = Instant::now();
    let settings = Settings {
        sleep: Duration::from_millis(10),
        ..share(5, 0.5)
    };
    let breaker = closed(start);
    for _ in 0..4 {
        succeed(&breaker, &settings, 0, start);
    }
    let late = breaker.admit(&settings, 0, start).unwrap();
    for _ in 0..5 {
        fail(&breaker, &settings, start);
    }
    let due = due(&breaker, &settings, start);
    succeed(&breaker, &settings, 0, due);
    assert_eq!(breaker.state(), State::Closed);
    late.succeeded(due);
    for _ in 0..4 {
        fail(&breaker, &settings, due);
        assert_eq!(breaker.state(), State::Closed);
    }
    fail(&breaker, &settings, due);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn routes_with_windows_of_their_own_count_together() {
    let now = Instant::now();
    let windows = [1, 2, 4, 8, 16, 32].map(|seconds| {
        settings(Trip::Rolling {
            failures: 5,
            window: SECOND * seconds,
            ratio: Some(Ratio::HALF),
        })
    });
    let breaker = closed(now);
    for settings in windows.iter().cycle().take(12) {
        succeed(&breaker, settings, 0, now);
    }
    for settings in windows.iter().cycle().take(11) {
        fail(&breaker, settings, now);
        assert_eq!(breaker.state(), State::Closed);
    }
    fail(&breaker, &windows[0], now);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_try_counts_only_in_the_state_it_was_admitted_in() {
    let (start, settings) = (Instant::now(), rolling(2));
    let breaker = closed(start);
    let late: Vec<_> = (0..4)
        .map(|_| breaker.admit(&settings, 0, start).unwrap())
        .collect();
    fail(&breaker, &settings, start);
    fail(&breaker, &settings, start);
    let due = due(&breaker, &settings, start);
    let probe = breaker.admit(&settings, 0, due).unwrap();
    let mut late = late.into_iter();
    late.next().unwrap().failed(due);
    late.next().unwrap().succeeded(due);
    assert_eq!(breaker.state(), State::HalfOpen);
    probe.succeeded(due);
    late.by_ref().for_each(|trial| trial.failed(due));
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.failures(&settings, due), 0);
}

#[test]
fn without_a_trip_nothing_opens_it() {
    let (now, settings) = (Instant::now(), settings(Trip::Never));
    let breaker = closed(now);
    for _ in 0..1_000 {
        fail(&breaker, &settings, now);
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn what_is_counted_of_a_thousand_upstreams_takes_no_megabyte() {
    let (now, settings) = (Instant::now(), share(5, 0.5));
    let fresh = closed(now);
    assert_eq!(fresh.successes.bytes(), 0);
    succeed(&fresh, &settings, 0, now);
    let used = size_of::<Breaker>() + fresh.successes.bytes();
    assert!(used * 1_024 < 1 << 20, "{used}");
    // Of 64 shards each has cache lines of its own.
    for shard in 0..64 {
        succeed(&fresh, &settings, shard, now);
    }
    assert!(
        fresh.successes.bytes() < 64 * 256,
        "{}",
        fresh.successes.bytes()
    );
}

proptest! {
    /// What leaves the window late by a bucket is the only inexactness there is.
    #[test]
    fn it_opens_where_the_counts_say_so_and_nowhere_else(
        events in proptest::collection::vec((0..400_u64, 0..5_u16, any::<bool>()), 1..200),
        failures in 1..6_u32,
        percent in 1..=100_u32,
    ) {
        let start = Instant::now();
        let settings = settings(Trip::Rolling {
            failures,
            window: SECOND,
            ratio: Ratio::new(f64::from(percent) / 100.0),
        });
        let breaker = closed(start);
        let mut seen: Vec<(u64, bool)> = Vec::new();
        let mut now_ms = 0;
        for (gap_ms, shard, goes_well) in events {
            // Bursts and pauses.
            now_ms += gap_ms.saturating_sub(350) * 20 + gap_ms / 20;
            let now = start + Duration::from_millis(now_ms);
            let trial = breaker.admit(&settings, shard, now).unwrap();
            seen.push((now_ms, goes_well));
            if goes_well {
                trial.succeeded(now);
                continue;
            }
            trial.failed(now);
            let count = |span_ms: u64, which: bool| {
                let is_in = |(time, goes_well): &&(u64, bool)| {
                    *goes_well == which && time + span_ms >= now_ms
                };
                seen.iter().filter(is_in).count() as u64
            };
            let is_reached = |failed: u64, succeeded: u64| {
                failed * 100 >= u64::from(percent) * (failed + succeeded)
            };
            // A span, and what its first bucket may hold besides.
            let spans = [(1_000, 102), (100, 34)];
            let enough = |span| count(span, false) >= u64::from(failures);
            let must = spans.iter().any(|(span, more)| {
                enough(*span) && is_reached(count(*span, false), count(span + more, true))
            });
            let may = spans.iter().any(|(span, more)| {
                enough(*span) && is_reached(count(span + more, false), count(*span, true))
            });
            let opened = breaker.state() == State::Open;
            prop_assert!(opened || !must, "{:?}", seen);
            prop_assert!(may || !opened, "{:?}", seen);
            if opened {
                break;
            }
        }
    }
}
