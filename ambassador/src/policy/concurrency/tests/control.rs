//! The rules of the controller, one window each, with the numbers that follow
//! from them.

use super::*;

const MS_NS: f64 = 1e6;
const NOW_MS: u64 = 5_000;

/// At a limit of 100, with a baseline of 10 ms that was seen just now.
fn control() -> Control {
    Control {
        limit: 100.0,
        baseline: Some(Baseline {
            ns: 10.0 * MS_NS,
            seen_ms: NOW_MS - 1,
        }),
        reference: None,
        probing: None,
    }
}

/// One in which the limit binds and all is answered.
fn window(latency_ms: f64) -> Window {
    Window {
        latency_ns: Some(latency_ms * MS_NS),
        dropped_share: 0.0,
        in_flight: 100,
        now_ms: NOW_MS,
    }
}

fn reference(limit: f64, latency_ms: f64) -> Reference {
    Reference {
        limit,
        latency_ns: latency_ms * MS_NS,
    }
}

const BOUNDS: Settings = Settings { min: 1, ..SETTINGS };

/// The limit after a window, and the baseline in milliseconds.
fn after(control: &mut Control, settings: &Settings, window: &Window) -> (f64, f64) {
    control.next(settings, window);
    (control.limit, control.baseline.unwrap().ns / MS_NS)
}

fn assert_near(found: (f64, f64), expected: (f64, f64), what: &str) {
    let is_near = |found: f64, expected: f64| (found - expected).abs() < 1e-6;
    let near = is_near(found.0, expected.0) && is_near(found.1, expected.1);
    assert!(near, "{what}: {found:?}, not {expected:?}");
}

#[test]
fn the_limit_follows_the_gradient_and_the_baseline_what_is_near_it() {
    for (latency_ms, limit, baseline_ms) in [
        (10.0, 125.0 + 10.0, 10.0),
        // As near as it may be: the baseline rises by a twentieth of it.
        (12.5, 101.25 + 10.0, 10.125),
        (12.6, 1_250.0 / 12.6 + 10.0, 10.0),
        (20.0, 62.5 + 10.0, 10.0),
        // Half of it at least, twice of it at most.
        (25.0, 50.0 + 10.0, 10.0),
        (400.0, 50.0 + 10.0, 10.0),
        (8.0, 150.0 + 10.0, 9.6),
        (5.0, 200.0 + 10.0, 9.0),
        // The upstream has become faster.
        (4.9, 125.0 + 10.0, 4.9),
    ] {
        let mut control = control();
        let found = after(&mut control, &BOUNDS, &window(latency_ms));
        let what = format!("{latency_ms} ms");
        assert_near(found, (limit, baseline_ms), &what);
        let is_seen = control.baseline.unwrap().seen_ms == NOW_MS;
        assert_eq!(is_seen, latency_ms <= 12.5, "{what}");
    }
}

#[test]
fn what_was_dropped_takes_half_of_its_share() {
    for (latency_ms, dropped_share, limit) in [
        (Some(10.0), 0.4, 135.0 * 0.8),
        (Some(10.0), 1.0, 135.0 * 0.5),
        (None, 0.5, 75.0),
        (None, 1.0, 50.0),
    ] {
        let mut control = control();
        let window = Window {
            latency_ns: latency_ms.map(|ms: f64| ms * MS_NS),
            dropped_share,
            ..window(10.0)
        };
        let found = after(&mut control, &BOUNDS, &window);
        assert_near(found, (limit, 10.0), &format!("{latency_ms:?}"));
    }
}

#[test]
fn only_a_window_between_half_of_the_limit_and_all_of_it_moves_the_limit() {
    for (in_flight, limit) in [(49, 100.0), (50, 67.5), (100, 67.5), (101, 100.0)] {
        for latency_ns in [None, Some(10.0 * MS_NS)] {
            let mut control = control();
            let window = Window {
                latency_ns,
                // What follows from a gradient of 1.25, or from none.
                dropped_share: if latency_ns.is_some() { 1.0 } else { 0.65 },
                in_flight,
                ..window(10.0)
            };
            let (found, _) = after(&mut control, &BOUNDS, &window);
            assert!((found - limit).abs() < 1e-9, "{in_flight}: {found}");
        }
    }
}

#[test]
fn a_limit_out_of_its_bounds_comes_back_first() {
    for (min, max, in_flight, expected) in [
        (200, 300, 200, 250.0 + f64::sqrt(200.0)),
        (200, 220, 200, 220.0),
        (1, 64, 64, 64.0),
        // In which the lower is the one that counts.
        (50, 40, 50, 50.0),
    ] {
        let settings = Settings {
            min,
            max,
            ..SETTINGS
        };
        let window = Window {
            in_flight,
            ..window(10.0)
        };
        let found = after(&mut control(), &settings, &window);
        assert_near(found, (expected, 10.0), &format!("{min} to {max}"));
    }
}

/// A window that is not near the baseline, so long after one that was.
fn later(after_ms: u64, latency_ms: f64) -> Window {
    Window {
        now_ms: NOW_MS - 1 + after_ms,
        ..window(latency_ms)
    }
}

#[test]
fn a_stale_baseline_is_measured_where_the_limit_would_not_fall() {
    let fresh = FRESH.as_millis() as u64;
    let grows = 1_250.0 / 13.0 + 10.0;
    for (after_ms, latency_ms, min, limit, probing) in [
        (fresh, 13.0, 1, grows, None),
        (fresh + 1, 13.0, 1, 50.0, Some(100.0)),
        (fresh + 1, 13.0, 60, 60.0, Some(100.0)),
        // It falls anyhow.
        (fresh + 1, 15.0, 1, 1_250.0 / 15.0 + 10.0, None),
    ] {
        let mut control = control();
        control.reference = Some(reference(100.0, latency_ms));
        let settings = Settings { min, ..SETTINGS };
        let window = later(after_ms, latency_ms);
        let found = after(&mut control, &settings, &window);
        assert_near(found, (limit, 10.0), &format!("{after_ms} {latency_ms}"));
        assert_eq!(control.probing, probing);
        assert_eq!(control.reference.is_none(), probing.is_some());
    }
    // Neither falls nor grows.
    let mut control = Control {
        limit: 4.0,
        ..control()
    };
    let window = Window {
        in_flight: 4,
        ..later(fresh + 1, 100.0)
    };
    assert_near(after(&mut control, &BOUNDS, &window), (2.0, 10.0), "of 4");
}

#[test]
fn where_there_is_no_less_a_stale_baseline_is_what_is_found() {
    let stale = FRESH.as_millis() as u64 + 1;
    let mut at_min = control();
    let settings = Settings {
        min: 100,
        ..SETTINGS
    };
    let found = after(&mut at_min, &settings, &later(stale, 15.0));
    assert_near(found, (135.0, 15.0), "at the minimum");
    for (after_ms, baseline_ms) in [(stale - 1, 10.0), (stale, 15.0)] {
        let mut idle = control();
        let window = Window {
            in_flight: 49,
            ..later(after_ms, 15.0)
        };
        let found = after(&mut idle, &BOUNDS, &window);
        assert_near(found, (100.0, baseline_ms), "without pressure");
        let current = idle.reference.unwrap();
        assert_near(
            (current.limit, current.latency_ns / MS_NS),
            (100.0, 15.0),
            "what comes is compared with it",
        );
    }
}

#[test]
fn half_of_the_limit_shows_how_much_of_the_latency_was_a_queue() {
    for (latency_ms, limit, is_seen) in [
        (20.0, 100.0, true),
        (10.0, 100.0, true),
        (8.0, 80.0, true),
        (7.9, 79.0, false),
        (5.0, 50.0, false),
    ] {
        let mut control = Control {
            limit: 50.0,
            probing: Some(100.0),
            ..control()
        };
        let window = Window {
            in_flight: 50,
            ..window(latency_ms)
        };
        let what = format!("{latency_ms} ms");
        let found = after(&mut control, &BOUNDS, &window);
        assert_near(found, (limit, latency_ms), &what);
        assert_eq!(
            control.baseline.unwrap().seen_ms == NOW_MS,
            is_seen,
            "{what}"
        );
        assert_eq!(control.probing, None);
    }
}

#[test]
fn a_latency_that_did_not_follow_the_limit_is_the_new_baseline() {
    for (before_ms, latency_ms, dropped_share, expected) in [
        (30.0, 30.0, 0.0, (135.0, 30.0)),
        // Who gave up was not measured.
        (30.0, 30.0, 0.2, (60.0 * 0.9, 10.0)),
        // It was a queue.
        (60.0, 30.0, 0.0, (60.0, 10.0)),
        // It is near the baseline as it is.
        (12.0, 12.0, 0.0, (10.1 * 125.0 / 12.0 + 10.0, 10.1)),
    ] {
        let mut control = control();
        control.reference = Some(reference(200.0, before_ms));
        let window = Window {
            dropped_share,
            ..window(latency_ms)
        };
        let found = after(&mut control, &BOUNDS, &window);
        assert_near(found, expected, &format!("{before_ms} {latency_ms}"));
    }
}

#[test]
fn a_queue_is_told_from_a_slower_upstream_by_what_a_lower_limit_changes() {
    #[derive(Debug, PartialEq)]
    enum Then {
        Before,
        Current,
        Forgotten,
    }
    use Then::{Before, Current, Forgotten};
    // Limit and latency as parts of those before.
    for (limit, latency, shows_queue, then) in [
        (1.0, 1.0, None, Before),
        (1.0, 1.25, None, Before),
        (1.0, 1.26, None, Forgotten),
        (0.5, 1.26, None, Forgotten),
        (2.0, 2.5, None, Current),
        (2.0, 2.6, None, Forgotten),
        (0.9, 0.7, None, Forgotten),
        (0.9, 0.8, None, Before),
        (0.8, 0.7, None, Before),
        (0.71, 1.0, None, Before),
        (0.7, 1.0, Some(false), Current),
        (0.5, 0.71, Some(false), Current),
        (0.5, 0.7, Some(true), Current),
        (0.25, 0.5, Some(false), Current),
    ] {
        let before = reference(100.0, 10.0);
        let current = Reference {
            limit: before.limit * limit,
            latency_ns: before.latency_ns * latency,
        };
        let mut kept = Some(before);
        let found = Reference::shows_queue(&mut kept, current);
        let then_found = match kept {
            None => Forgotten,
            Some(kept) if kept.limit == before.limit && kept.latency_ns == before.latency_ns => {
                Before
            }
            Some(_) => Current,
        };
        assert_eq!(
            (found, then_found),
            (shows_queue, then),
            "{limit} {latency}"
        );
    }
    let mut none = None;
    let first = Reference::shows_queue(&mut none, reference(100.0, 10.0));
    assert_eq!((first, none.is_some()), (None, true));
}
