//! Endpoints that several threads report on at once.

use std::sync::Arc;
use std::time::Duration;

use ambassador_model::clock::Instant;
use ambassador_model::policy::outlier::{Detector, Health, Outcome, Settings, Standing, State};
use ambassador_model::{explore, on_threads, spawn};

const EJECTION: Duration = Duration::from_secs(30);

/// The endpoints of an upstream and the moments of their lives.
struct Scene {
    detector: Detector,
    endpoints: Vec<Arc<Health>>,
    settings: Settings,
    start: Instant,
}

impl Scene {
    /// Endpoints that so many failures eject, and all but one of them.
    fn new(endpoints: usize, consecutive: u32) -> Arc<Self> {
        let start = Instant::now();
        let scene = Self {
            detector: Detector::new(start, 1),
            endpoints: (0..endpoints).map(|_| Arc::default()).collect(),
            settings: Settings {
                consecutive: Some(consecutive),
                max_ejected: 1.0,
                base_ejection: EJECTION,
                ..Settings::default()
            },
            start,
        };
        scene.detector.watch(scene.endpoints.clone());
        Arc::new(scene)
    }

    /// Two, the first of which is ejected until [`Self::due`].
    fn ejected() -> Arc<Self> {
        let scene = Self::new(2, 1);
        scene.report(0, Outcome::Failure);
        scene
    }

    /// With the jitter of any.
    fn due(&self) -> Instant {
        self.start + EJECTION * 11 / 10
    }

    fn report(&self, endpoint: usize, outcome: Outcome) {
        let health = &self.endpoints[endpoint];
        let trial = self.detector.begin(health);
        self.detector
            .end(health, trial, outcome, &self.settings, self.start);
    }

    fn state(&self, endpoint: usize) -> State {
        self.detector.state(&self.endpoints[endpoint])
    }

    fn is_usable(&self, endpoint: usize) -> bool {
        self.state(endpoint) == State::Usable
    }
}

#[test]
fn one_of_all_that_ask_at_once_is_the_probe() {
    explore(|| {
        let scene = Scene::ejected();
        let probes = on_threads(3, &scene, |scene| {
            let probe = scene.detector.probe(&scene.endpoints[0], scene.due());
            probe.is_some()
        });
        assert_eq!(probes.into_iter().filter(|is_probe| *is_probe).count(), 1);
        assert_eq!(scene.state(0), State::Probing);
    });
}

#[test]
fn no_failure_is_missed() {
    explore(|| {
        let scene = Scene::new(2, 3);
        on_threads(3, &scene, |scene| scene.report(0, Outcome::Failure));
        assert!(!scene.is_usable(0));
    });
}

#[test]
fn who_sees_the_version_sees_what_it_tells_of() {
    explore(|| {
        let scene = Scene::new(2, 1);
        let before = scene.detector.version();
        let other = spawn(&scene, |scene| scene.report(0, Outcome::Failure));
        if scene.detector.version() != before {
            assert!(!scene.is_usable(0));
        }
        other.join().unwrap();
        assert_ne!(scene.detector.version(), before);
    });
}

#[test]
fn what_was_sent_before_an_ejection_changes_nothing_after_it() {
    explore(|| {
        let scene = Scene::new(2, 1);
        let health = &scene.endpoints[0];
        let late = scene.detector.begin(health);
        scene.report(0, Outcome::Failure);
        let prober = spawn(&scene, |scene| {
            let health = &scene.endpoints[0];
            let probe = scene.detector.probe(health, scene.due()).unwrap();
            scene.detector.end(
                health,
                probe,
                Outcome::Success,
                &scene.settings,
                scene.due(),
            );
        });
        scene
            .detector
            .end(health, late, Outcome::Failure, &scene.settings, scene.due());
        prober.join().unwrap();
        assert!(scene.is_usable(0));
        assert_eq!(health.consecutive_failures(), 0);
    });
}

#[test]
fn a_probe_that_is_lost_while_others_ask_leaves_its_place_to_them() {
    explore(|| {
        let scene = Scene::ejected();
        let probes = on_threads(2, &scene, |scene| {
            let health = &scene.endpoints[0];
            let probe = scene.detector.probe(health, scene.due());
            let is_probe = probe.is_some();
            if let Some(lost) = probe {
                scene.detector.abandon(health, lost);
            }
            is_probe
        });
        assert!(probes.into_iter().any(|is_probe| is_probe));
        let next = scene.detector.probe(&scene.endpoints[0], scene.due());
        assert!(next.is_some());
        assert_eq!(scene.state(0), State::Probing);
    });
}

#[test]
fn of_several_that_are_due_one_is_probed_at_a_time() {
    explore(|| {
        let scene = Scene::new(3, 1);
        scene.report(0, Outcome::Failure);
        scene.report(1, Outcome::Failure);
        let other = spawn(&scene, |scene| {
            let probe = scene.detector.probe(&scene.endpoints[1], scene.due());
            probe.is_some()
        });
        let mine = scene.detector.probe(&scene.endpoints[0], scene.due());
        assert_ne!(mine.is_some(), other.join().unwrap());
    });
}

#[test]
fn failures_of_all_at_once_eject_one_and_have_the_others_avoided() {
    explore(|| {
        let scene = Scene::new(2, 1);
        let other = spawn(&scene, |scene| scene.report(1, Outcome::Failure));
        scene.report(0, Outcome::Failure);
        other.join().unwrap();
        let mut standings = [0, 1].map(|one| scene.endpoints[one].standing());
        standings.sort();
        assert_eq!(standings, [Standing::Ejected, Standing::Avoided]);
        // Who serves what is sent to it is used again.
        let avoided = scene
            .endpoints
            .iter()
            .position(|one| one.standing() == Standing::Avoided);
        let avoided = avoided.unwrap();
        on_threads(2, &scene, move |scene| {
            scene.report(avoided, Outcome::Success)
        });
        assert!(scene.is_usable(avoided));
        assert_eq!(scene.endpoints[avoided].consecutive_failures(), 0);
    });
}
