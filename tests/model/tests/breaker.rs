//! Breakers that several threads ask and tell at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambassador_model::clock::Instant;
use ambassador_model::policy::breaker::{
    Breaker, Force, Observer, Ratio, RefusalPeriod, Settings, State, Transitions, Trial, Trip,
};
use ambassador_model::{explore, on_threads, spawn};

const SLEEP: Duration = Duration::from_secs(30);
const SEED: u64 = 1;

/// A breaker and the moments of its life.
struct Scene {
    breaker: Breaker,
    settings: Settings,
    start: Instant,
}

impl Scene {
    fn closed(trip: Trip) -> Arc<Self> {
        let start = Instant::now();
        Arc::new(Self {
            breaker: Breaker::new(start, SEED),
            settings: Settings {
                trip,
                sleep: SLEEP,
                ..Settings::default()
            },
            start,
        })
    }

    /// One that opened at the start.
    fn open(trip: Trip) -> Arc<Self> {
        let scene = Self::closed(trip);
        while scene.breaker.state() == State::Closed {
            scene.fail();
        }
        scene
    }

    /// When one that opened at the start may be probed for sure.
    fn due(&self) -> Instant {
        self.start + SLEEP * 11 / 10
    }

    fn ask(&self) -> Option<Trial<'_>> {
        self.breaker.admit(&self.settings, 0, self.start)
    }

    fn ask_when_due(&self) -> Option<Trial<'_>> {
        self.breaker.admit(&self.settings, 0, self.due())
    }

    fn fail(&self) {
        if let Some(trial) = self.ask() {
            trial.failed(self.start);
        }
    }

    fn succeed(&self) {
        if let Some(trial) = self.ask() {
            trial.succeeded(self.start);
        }
    }

    fn failures(&self) -> u32 {
        self.breaker.failures(&self.settings, self.start)
    }
}

fn rolling(failures: u32) -> Trip {
    Trip::Rolling {
        failures,
        window: Duration::from_secs(10),
        ratio: None,
    }
}

/// Probes, and tells no end while the model lasts.
fn probe_without_end(scene: &Scene) -> bool {
    scene.ask_when_due().map(std::mem::forget).is_some()
}

fn count(probes: Vec<bool>) -> usize {
    probes.into_iter().filter(|is_probe| *is_probe).count()
}

#[test]
fn one_of_all_that_ask_at_once_is_the_probe() {
    explore(|| {
        let scene = Scene::open(rolling(1));
        assert_eq!(count(on_threads(3, &scene, probe_without_end)), 1);
        assert_eq!(scene.breaker.state(), State::HalfOpen);
        assert_eq!(scene.breaker.transitions().half_opened, 1);
    });
}

#[test]
fn a_probe_that_is_lost_while_others_ask_leaves_its_place_to_them() {
    explore(|| {
        let scene = Scene::open(rolling(1));
        let probes = on_threads(3, &scene, |scene| scene.ask_when_due().is_some());
        let probes = count(probes);
        assert!((1..=3).contains(&probes));
        assert_eq!(scene.breaker.state(), State::Open);
        assert_eq!(scene.breaker.refuses_for(scene.due()), None);
        let transitions = Transitions {
            opened: 1,
            half_opened: probes as u64,
            closed: 0,
        };
        assert_eq!(scene.breaker.transitions(), transitions);
        assert!(scene.ask_when_due().is_some_and(|trial| trial.is_probe()));
    });
}

#[test]
fn a_probe_in_the_place_of_a_lost_one_decides() {
    explore(|| {
        let scene = Scene::open(rolling(1));
        let lost = spawn(&scene, |scene| scene.ask_when_due().is_some());
        let decided = scene.ask_when_due().map(|probe| {
            assert!(probe.is_probe());
            probe.succeeded(scene.due());
        });
        let closes = decided.is_some();
        lost.join().unwrap();
        let state = match closes {
            true => State::Closed,
            false => State::Open,
        };
        assert_eq!(scene.breaker.state(), state);
    });
}

/// As many failures, if they are half of all.
fn half(failures: u32) -> Trip {
    Trip::Rolling {
        failures,
        window: Duration::from_secs(10),
        ratio: Some(Ratio::HALF),
    }
}

#[test]
fn successes_of_any_shard_that_came_before_are_known_to_who_fails() {
    explore(|| {
        let scene = Scene::closed(half(2));
        let other = spawn(&scene, |scene| {
            let settings = &scene.settings;
            for _ in 0..2 {
                let trial = scene.breaker.admit(settings, 1, scene.start);
                trial.unwrap().succeeded(scene.start);
            }
        });
        scene.succeed();
        other.join().unwrap();
        let failer = spawn(&scene, Scene::fail);
        scene.fail();
        failer.join().unwrap();
        assert_eq!(scene.breaker.state(), State::Closed);
        scene.fail();
        assert_eq!(scene.breaker.state(), State::Open);
    });
}

#[test]
fn a_success_beside_failures_counts_or_comes_too_late() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let outcomes = Arc::clone(&seen);
    explore(move || {
        let scene = Scene::closed(half(1));
        let succeeder = spawn(&scene, |scene| {
            let settings = &scene.settings;
            for _ in 0..2 {
                if let Some(trial) = scene.breaker.admit(settings, 1, scene.start) {
                    trial.succeeded(scene.start);
                }
            }
        });
        scene.fail();
        succeeder.join().unwrap();
        outcomes
            .lock()
            .unwrap()
            .insert(scene.breaker.state() == State::Open);
    });
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from([false, true]));
}

#[test]
fn a_probe_that_succeeds_closes_it_once_whoever_asks_meanwhile() {
    explore(|| {
        let scene = Scene::open(Trip::Consecutive(1));
        let probes = on_threads(3, &scene, |scene| {
            let Some(trial) = scene.ask_when_due() else {
                return false;
            };
            let is_probe = trial.is_probe();
            trial.succeeded(scene.due());
            is_probe
        });
        assert_eq!(count(probes), 1);
        assert_eq!(scene.breaker.state(), State::Closed);
        let transitions = Transitions {
            opened: 1,
            half_opened: 1,
            closed: 1,
        };
        assert_eq!(scene.breaker.transitions(), transitions);
    });
}

#[test]
fn no_failure_is_lost() {
    for trip in [rolling(3), Trip::Consecutive(3)] {
        explore(move || {
            let scene = Scene::closed(trip);
            on_threads(3, &scene, Scene::fail);
            assert_eq!(scene.breaker.state(), State::Open);
            assert_eq!(scene.breaker.transitions().opened, 1);
        });
    }
}

#[test]
fn failures_over_the_threshold_open_it_once() {
    for trip in [rolling(2), Trip::Consecutive(2)] {
        explore(move || {
            let scene = Scene::closed(trip);
            on_threads(3, &scene, Scene::fail);
            assert_eq!(scene.breaker.state(), State::Open);
            assert_eq!(scene.breaker.transitions().opened, 1);
            assert_eq!(scene.failures(), 0);
        });
    }
}

#[test]
fn a_late_result_neither_closes_nor_reopens() {
    for trip in [rolling(1), Trip::Consecutive(1)] {
        explore(move || {
            let scene = Scene::closed(trip);
            let [succeeds, fails] = [(), ()].map(|()| scene.ask().unwrap());
            let prober = spawn(&scene, |scene| {
                scene.fail();
                probe_without_end(scene)
            });
            succeeds.succeeded(scene.start);
            // Late, unless it is the one that opens it.
            fails.failed(scene.start);
            assert!(prober.join().unwrap());
            assert_eq!(scene.breaker.state(), State::HalfOpen);
            assert_eq!(scene.breaker.transitions().opened, 1);
        });
    }
}

#[test]
fn a_late_failure_is_not_counted_after_the_probe_has_closed_it() {
    explore(|| {
        let scene = Scene::closed(Trip::Consecutive(1));
        let late = scene.ask().unwrap();
        scene.fail();
        let prober = spawn(&scene, |scene| {
            scene.ask_when_due().unwrap().succeeded(scene.due())
        });
        late.failed(scene.due());
        prober.join().unwrap();
        assert_eq!(scene.breaker.state(), State::Closed);
        assert_eq!(scene.failures(), 0);
    });
}

#[test]
fn a_late_success_does_not_close_after_the_probe_has_reopened_it() {
    explore(|| {
        let scene = Scene::closed(Trip::Consecutive(1));
        let late = scene.ask().unwrap();
        scene.fail();
        let prober = spawn(&scene, |scene| {
            scene.ask_when_due().unwrap().failed(scene.due());
        });
        late.succeeded(scene.due());
        prober.join().unwrap();
        assert_eq!(scene.breaker.state(), State::Open);
        let left = scene.breaker.refuses_for(scene.due());
        assert!(left.is_some_and(|left| left >= SLEEP));
    });
}

/// Forces an open breaker while another thread probes it and tells the result.
fn force_against_a_probe(force: Force, end: fn(Trial<'_>, Instant), expected: State) {
    explore(move || {
        // One failure alone does not open it once it is closed.
        let scene = Scene::open(rolling(2));
        let prober = spawn(&scene, move |scene| {
            if let Some(trial) = scene.ask_when_due() {
                end(trial, scene.due());
            }
        });
        scene.breaker.force(force);
        prober.join().expect("a panic ends the model");
        assert_eq!(scene.breaker.forced(), force);
        assert_eq!(scene.breaker.state(), expected);
    });
}

#[test]
fn what_an_operator_sets_outlasts_a_probe() {
    force_against_a_probe(Force::Open, |probe, now| probe.succeeded(now), State::Open);
    force_against_a_probe(Force::Closed, |probe, now| probe.failed(now), State::Closed);
    force_against_a_probe(Force::Closed, |probe, _| probe.abandoned(), State::Closed);
    force_against_a_probe(Force::Auto, |probe, now| probe.failed(now), State::Closed);
}

#[test]
fn a_success_ends_the_run_of_its_own_thread() {
    explore(|| {
        let scene = Scene::closed(Trip::Consecutive(2));
        let other = spawn(&scene, Scene::succeed);
        scene.fail();
        scene.succeed();
        scene.fail();
        other.join().unwrap();
        assert_eq!(scene.breaker.state(), State::Closed);
        assert!(scene.failures() <= 1);
    });
}

#[test]
fn a_success_among_failures_comes_before_between_or_after_them() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let outcomes = Arc::clone(&seen);
    explore(move || {
        let scene = Scene::closed(Trip::Consecutive(2));
        let failer = spawn(&scene, Scene::fail);
        let succeeder = spawn(&scene, Scene::succeed);
        scene.fail();
        failer.join().unwrap();
        succeeder.join().unwrap();
        let open = scene.breaker.state() == State::Open;
        let opened = scene.breaker.transitions().opened;
        seen.lock()
            .unwrap()
            .insert((open, opened, scene.failures()));
    });
    // Between: one failure stands. Before or after: two in a row have opened it.
    let expected = BTreeSet::from([(false, 0, 1), (true, 1, 0)]);
    assert_eq!(*outcomes.lock().unwrap(), expected);
}

/// An observer, and what it was told last.
fn observer() -> (Observer, Arc<Mutex<Option<RefusalPeriod>>>) {
    let last = Arc::new(Mutex::new(None));
    let told = Arc::clone(&last);
    let observer = Observer(Box::new(move |refuses| {
        *told.lock().expect("no thread panics with it") = Some(refuses);
    }));
    (observer, last)
}

#[test]
fn an_observer_is_told_last_what_holds() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let outcomes = Arc::clone(&seen);
    explore(move || {
        let scene = Scene::open(Trip::Consecutive(1));
        let (follows, followed) = observer();
        scene.breaker.observe(Some(follows));
        let prober = spawn(&scene, |scene| {
            if let Some(trial) = scene.ask_when_due() {
                trial.succeeded(scene.due());
            }
        });
        let operator = spawn(&scene, |scene| scene.breaker.force(Force::Auto));
        scene.fail();
        prober.join().unwrap();
        operator.join().unwrap();
        // Who comes now is told what holds now.
        let (comes, found) = observer();
        scene.breaker.observe(Some(comes));
        let found = found.lock().unwrap().unwrap();
        assert_eq!(followed.lock().unwrap().unwrap(), found);
        seen.lock().unwrap().insert(found == RefusalPeriod::Nothing);
    });
    assert_eq!(*outcomes.lock().unwrap(), BTreeSet::from([false, true]));
}
