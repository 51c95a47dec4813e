//! Endpoints whose share of successes is far below that of the others.

use super::super::success_rate;
use super::*;

fn by_success_rate() -> Settings {
    Settings {
        consecutive: None,
        success_rate: true,
        ..settings()
    }
}

/// Requests to an endpoint of which some fail, one after the other by turns.
fn requests(detector: &Detector, health: &Health, count: u32, failures: u32, now: Instant) {
    let settings = by_success_rate();
    for request in 0..count {
        if request < failures {
            fail(detector, health, &settings, 1, now);
        } else {
            succeed(detector, health, &settings, now);
        }
    }
}

/// So many endpoints, whose last one fails 60 of its requests, after an
/// interval: whether it is ejected. The others fail 2 of theirs.
fn compare(endpoints: usize, count: u32) -> bool {
    let start = Instant::now();
    let (detector, members) = upstream(endpoints, start);
    // The first request begins the first interval.
    requests(&detector, &members[0], 1, 0, start);
    let (last, others) = members.split_last().unwrap();
    for health in others {
        requests(&detector, health, count, 2, start + SECOND);
    }
    requests(&detector, last, count, 60, start + SECOND);
    assert_eq!(
        detector.state(last),
        State::Usable,
        "the interval is not over"
    );
    let over = start + 10 * SECOND;
    requests(&detector, &members[0], 1, 0, over);
    for health in others {
        assert_eq!(detector.state(health), State::Usable);
    }
    let is_ejected = detector.state(last) != State::Usable;
    if is_ejected {
        assert!(is_about(due(&detector, last) - over, 30 * SECOND));
    }
    is_ejected
}

#[test]
fn an_outlier_stays_where_no_more_may_be_ejected() {
    let start = Instant::now();
    let (detector, members) = upstream(6, start);
    let settings = Settings {
        success_rate: true,
        ..Settings::default()
    };
    let send = |health, failures, now| {
        for request in 0..100 {
            match request < failures {
                true => fail(&detector, health, &settings, 1, now),
                false => succeed(&detector, health, &settings, now),
            }
            // No run of failures.
            succeed(&detector, health, &settings, now);
        }
    };
    succeed(&detector, &members[0], &settings, start);
    fail(&detector, &members[0], &settings, 5, start);
    assert_eq!(members[0].standing(), Standing::Ejected);
    for (health, failures) in members[1..].iter().zip([0, 0, 0, 0, 90]) {
        send(health, failures, start + SECOND);
    }
    succeed(&detector, &members[1], &settings, start + 10 * SECOND);
    assert_eq!(members[5].standing(), Standing::Usable);
}

#[test]
fn a_share_of_successes_far_below_the_others_ejects() {
    assert!(compare(6, 100));
    assert!(compare(5, 100));
    assert!(!compare(6, 99), "too few requests to tell");
    assert!(!compare(4, 100), "too few endpoints to compare");
}

#[test]
fn endpoints_that_are_alike_are_no_outliers() {
    for share in [0.0, 0.31, 0.99, 1.0] {
        let alike = std::iter::repeat_n(Some(share), 30);
        assert_eq!(success_rate::outliers(alike), [0_usize; 0], "{share}");
    }
    let mut shares = [Some(1.0); 20];
    shares[3] = Some(0.5);
    shares[7] = Some(0.2);
    shares[9] = None;
    let outliers = success_rate::outliers(shares.into_iter());
    assert_eq!(outliers, [7, 3], "the worst first");
}

#[test]
fn it_is_the_share_that_counts_and_not_how_many_there_were() {
    // Requests to each of the others, and to the last.
    for (others_all, all, failures) in [(1_000, 100, 2), (100, 1_000, 20), (100, 100, 0)] {
        let start = Instant::now();
        let (detector, members) = upstream(6, start);
        requests(&detector, &members[0], 1, 0, start);
        let (last, others) = members.split_last().unwrap();
        for health in others {
            requests(
                &detector,
                health,
                others_all,
                others_all / 50,
                start + SECOND,
            );
        }
        requests(&detector, last, all, failures, start + SECOND);
        requests(&detector, last, 1, 0, start + 10 * SECOND);
        let is_out = |health: &Arc<Health>| detector.state(health) != State::Usable;
        assert!(!members.iter().any(is_out), "{failures} of {all}");
    }
}
