use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings(trip: Trip) -> Settings {
    Settings {
        trip,
        sleep: 30 * SECOND,
        ..Settings::default()
    }
}

fn rolling(failures: u32) -> Settings {
    settings(Trip::Rolling {
        failures,
        window: 10 * SECOND,
    })
}

fn fail(breaker: &Breaker, settings: &Settings, now: Instant) {
    breaker.admit(settings, now).unwrap().failed(now);
}

#[test]
fn it_opens_at_the_threshold_and_not_before() {
    let (start, settings) = (Instant::now(), rolling(5));
    let breaker = Breaker::new(start);
    for second in 0..4 {
        fail(&breaker, &settings, start + SECOND * second);
        assert_eq!(breaker.state(), State::Closed);
    }
    fail(&breaker, &settings, start + SECOND * 10);
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.admit(&settings, start + SECOND * 39).is_none());
    assert_eq!(breaker.refuses_for(start + SECOND * 39), Some(SECOND));
}

#[test]
fn failures_leave_the_window_one_by_one() {
    let (start, settings) = (Instant::now(), rolling(3));
    let breaker = Breaker::new(start);
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
fn successes_between_failures_do_not_save_a_rolling_window() {
    let (now, settings) = (Instant::now(), rolling(3));
    let breaker = Breaker::new(now);
    for _ in 0..3 {
        breaker.admit(&settings, now).unwrap().succeeded();
        fail(&breaker, &settings, now);
    }
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn consecutive_failures_are_those_without_a_success_between() {
    let (now, settings) = (Instant::now(), settings(Trip::Consecutive(3)));
    let breaker = Breaker::new(now);
    for _ in 0..10 {
        fail(&breaker, &settings, now);
        fail(&breaker, &settings, now);
        breaker.admit(&settings, now).unwrap().succeeded();
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
    let breaker = Breaker::new(start);
    fail(&breaker, &settings, start);
    let due = start + SECOND * 30;
    let probe = breaker.admit(&settings, due).unwrap();
    assert!(probe.is_probe());
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(breaker.admit(&settings, due + SECOND * 100).is_none());
    probe.failed(due + SECOND);
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.admit(&settings, due + SECOND * 30).is_none());
    let probe = breaker.admit(&settings, due + SECOND * 31).unwrap();
    probe.succeeded();
    assert_eq!(breaker.state(), State::Closed);
    assert!(!breaker.admit(&settings, due).unwrap().is_probe());
    let transitions = Transitions {
        opened: 2,
        half_opened: 2,
        closed: 1,
    };
    assert_eq!(breaker.transitions(), transitions);
}

#[test]
fn a_probe_that_is_lost_reopens() {
    let (start, settings) = (Instant::now(), rolling(1));
    let breaker = Breaker::new(start);
    fail(&breaker, &settings, start);
    let due = start + SECOND * 30;
    drop(breaker.admit(&settings, due));
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.admit(&settings, due + SECOND * 29).is_none());
    assert!(breaker.admit(&settings, due + SECOND * 30).is_some());
}

#[test]
fn a_try_counts_only_in_the_state_it_was_admitted_in() {
    let (start, settings) = (Instant::now(), rolling(2));
    let breaker = Breaker::new(start);
    let late: Vec<_> = (0..4)
        .map(|_| breaker.admit(&settings, start).unwrap())
        .collect();
    fail(&breaker, &settings, start);
    fail(&breaker, &settings, start);
    let due = start + SECOND * 30;
    let probe = breaker.admit(&settings, due).unwrap();
    let mut late = late.into_iter();
    late.next().unwrap().failed(due);
    late.next().unwrap().succeeded();
    assert_eq!(breaker.state(), State::HalfOpen);
    probe.succeeded();
    late.by_ref().for_each(|trial| trial.failed(due));
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.failures(&settings, due), 0);
}

#[test]
fn an_operator_holds_it_open_or_closed() {
    let (start, settings) = (Instant::now(), rolling(1));
    let breaker = Breaker::new(start);
    breaker.force(Force::Open);
    let years = start + SECOND * 86_400 * 3_650;
    assert!(breaker.admit(&settings, years).is_none());
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
fn without_a_trip_nothing_opens_it() {
    let (now, settings) = (Instant::now(), settings(Trip::Never));
    let breaker = Breaker::new(now);
    for _ in 0..1_000 {
        fail(&breaker, &settings, now);
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn an_observer_is_told_what_is_refused() {
    let (start, settings) = (Instant::now(), settings(Trip::Consecutive(1)));
    let breaker = Breaker::new(start);
    let told = std::sync::Arc::new(Mutex::new(Vec::new()));
    let list = std::sync::Arc::clone(&told);
    let observer = Observer(Box::new(move |refuses| list.lock().unwrap().push(refuses)));
    let so_far = || std::mem::take(&mut *told.lock().unwrap());
    breaker.observe(Some(observer));
    assert_eq!(so_far(), [Refuses::Nothing], "what it was found at");

    fail(&breaker, &settings, start + SECOND);
    assert_eq!(so_far(), [Refuses::Until(start + 31 * SECOND)]);
    let due = start + 31 * SECOND;
    let probe = breaker.admit(&settings, due).unwrap();
    assert_eq!(so_far(), [], "it follows from the time");
    drop(probe);
    assert_eq!(so_far(), [Refuses::Until(due + 30 * SECOND)]);
    let probe = breaker.admit(&settings, due + 30 * SECOND).unwrap();
    probe.succeeded();
    assert_eq!(so_far(), [Refuses::Nothing]);

    for (force, refuses) in [
        (Force::Open, Refuses::Always),
        (Force::Auto, Refuses::Nothing),
        (Force::Open, Refuses::Always),
        (Force::Closed, Refuses::Nothing),
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
    let breaker = Breaker::new(start);
    fail(&breaker, &settings, start);
    let probe = breaker.admit(&settings, start + 30 * SECOND).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    breaker.observe(Some(Observer(Box::new(move |refuses| {
        tell.send(refuses).unwrap();
    }))));
    assert_eq!(told.recv(), Ok(Refuses::Until(start)));
    probe.succeeded();
    assert_eq!(told.recv(), Ok(Refuses::Nothing));
}
