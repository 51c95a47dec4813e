//! How an operator sets a breaker, and what it shows to those outside.

use super::*;

#[test]
fn an_operator_holds_it_open_or_closed() {
    let (start, settings) = (Instant::now(), rolling(1));
    let breaker = closed(start);
    breaker.force(Force::Open);
    let years = start + SECOND * 86_400 * 3_650;
    assert!(breaker.admit(&settings, 0, years).is_none());
    assert_eq!(breaker.refuses_for(start), None);
    assert_eq!(breaker.forced(), Force::Open);
    breaker.force(Force::Closed);
    for _ in 0..100 {
        fail(&breaker, &settings, start);
    }
    assert_eq!(breaker.state(), State::Closed);
    breaker.force(Force::Auto);
    fail(&breaker, &settings, start);
    assert_eq!(
        (breaker.state(), breaker.forced()),
        (State::Open, Force::Auto)
    );
}

#[test]
fn an_observer_is_told_what_is_refused() {
    let (start, settings) = (Instant::now(), settings(Trip::Consecutive(1)));
    let breaker = closed(start);
    let told = std::sync::Arc::new(Mutex::new(Vec::new()));
    let list = std::sync::Arc::clone(&told);
    let observer = Observer(Box::new(move |refuses| list.lock().unwrap().push(refuses)));
    let so_far = || std::mem::take(&mut *told.lock().unwrap());
    breaker.observe(Some(observer));
    assert_eq!(so_far(), [RefusalPeriod::Nothing], "what it was found at");

    fail(&breaker, &settings, start + SECOND);
    let due = due(&breaker, &settings, start + SECOND);
    assert_eq!(so_far(), [RefusalPeriod::Until(due)]);
    let probe = breaker.admit(&settings, 0, due).unwrap();
    assert_eq!(so_far(), [], "it follows from the time");
    drop(probe);
    assert_eq!(so_far(), [RefusalPeriod::Until(due)], "the next may come");
    let probe = breaker.admit(&settings, 0, due + SECOND).unwrap();
    probe.succeeded(due + SECOND);
    assert_eq!(so_far(), [RefusalPeriod::Nothing]);

    for (force, refuses) in [
        (Force::Open, RefusalPeriod::Always),
        (Force::Auto, RefusalPeriod::Nothing),
        (Force::Open, RefusalPeriod::Always),
        (Force::Closed, RefusalPeriod::Nothing),
    ] {
        breaker.force(force);
        assert_eq!(so_far(), [refuses], "{force:?}");
    }
    breaker.force(Force::Auto);
    so_far();
    breaker.observe(None);
    fail(&breaker, &settings, due + 61 * SECOND);
    assert_eq!(so_far(), [], "nobody is told any more");
}

#[test]
fn who_comes_while_a_probe_is_out_is_told_of_a_time_that_has_passed() {
    let (start, settings) = (Instant::now(), settings(Trip::Consecutive(1)));
    let breaker = closed(start);
    fail(&breaker, &settings, start);
    let due = due(&breaker, &settings, start);
    let probe = breaker.admit(&settings, 0, due).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    breaker.observe(Some(Observer(Box::new(move |refuses| {
        tell.send(refuses).unwrap();
    }))));
    assert_eq!(told.try_recv(), Ok(RefusalPeriod::Until(start)));
    probe.succeeded(due);
    assert_eq!(told.try_recv(), Ok(RefusalPeriod::Nothing));
}

/// A breaker in each of its states, at the time of its last change.
fn in_each_state(settings: &Settings, look: impl Fn(&str, &Breaker, Instant)) {
    let start = Instant::now();
    let breaker = closed(start);
    look("closed", &breaker, start);
    let breaker = closed(start);
    fail(&breaker, settings, start);
    look("open", &breaker, start);
    let breaker = closed(start);
    fail(&breaker, settings, start);
    let due = due(&breaker, settings, start);
    let _probe = breaker.admit(settings, 0, due).unwrap();
    look("half-open", &breaker, due);
    for (force, name) in [(Force::Open, "held open"), (Force::Closed, "held closed")] {
        let breaker = closed(start);
        breaker.force(force);
        look(name, &breaker, start);
    }
}

#[test]
fn what_an_operator_changes_is_counted_and_what_is_so_already_is_not() {
    let opens = |state: &str| matches!(state, "closed" | "half-open" | "held closed");
    let closes = |state: &str| matches!(state, "open" | "half-open" | "held open");
    for force in [Force::Open, Force::Closed, Force::Auto] {
        in_each_state(&rolling(1), |state, breaker, _| {
            let mut expected = breaker.transitions();
            match force {
                Force::Open => expected.opened += u64::from(opens(state)),
                Force::Closed | Force::Auto => expected.closed += u64::from(closes(state)),
            }
            breaker.force(force);
            assert_eq!(breaker.transitions(), expected, "{force:?} of one {state}");
            assert_eq!(breaker.forced(), force, "of one {state}");
        });
    }
}

#[test]
fn what_is_refused_later_is_known_before() {
    let settings = rolling(1);
    let years = SECOND * 86_400 * 3_650;
    in_each_state(&settings, |state, breaker, now| {
        let refuses = [SECOND, years].map(|later| breaker.refuses_at(now + later));
        let expected = match state {
            "open" => [true, false],
            "held open" => [true, true],
            _ => [false, false],
        };
        assert_eq!(refuses, expected, "{state}");
        assert_eq!(breaker.refuses_for(now).is_some(), state == "open");
        if state == "open" {
            let due = due(breaker, &settings, now);
            assert!(breaker.refuses_at(due - Duration::from_millis(1)));
            assert!(!breaker.refuses_at(due));
            assert_eq!(breaker.refuses_for(due), None);
        }
    });
}

#[test]
fn the_longest_sleep_is_not_for_ever() {
    let now = Instant::now();
    let settings = Settings {
        sleep: SECOND * 86_400 * 365 * 100,
        ..rolling(1)
    };
    let breaker = closed(now);
    fail(&breaker, &settings, now);
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.forced(), Force::Auto);
    let ends = breaker.refuses_for(now).unwrap();
    assert!(ends > SECOND * 86_400 * 365 * 34, "{ends:?}");
    assert!(breaker.admit(&settings, 0, now + ends).unwrap().is_probe());
}

#[test]
fn states_have_words_and_transitions_add_up() {
    let words = [State::Closed, State::HalfOpen, State::Open].map(State::as_str);
    assert_eq!(words, ["closed", "half-open", "open"]);
    let of = |opened, half_opened, closed| Transitions {
        opened,
        half_opened,
        closed,
    };
    let mut sum = of(2, 3, 5);
    sum += of(7, 11, 13);
    assert_eq!(sum, of(9, 14, 18));
}
