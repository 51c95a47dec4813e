//! The endpoints of an upstream as all shards see them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::addr::EndpointAddr;
use crate::clock::{self, Instant};
use crate::policy::outlier::{Detector, Fitness, Health, Standing, State};
use crate::route::settings;

/// A list of endpoints that the control side replaces whole. Readers keep the
/// list they saw and compare a version: no lock unless something has changed.
pub struct Published {
    list: Mutex<Arc<[Endpoint]>>,
    detector: Arc<Detector>,
    turn: AtomicUsize,
}

/// An endpoint. Its health outlives the list, as long as its address stays in it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where it listens.
    pub address: EndpointAddr,
    /// How much of the traffic it gets, next to the others.
    pub weight: u32,
    /// Where it is.
    pub zone: Option<Arc<str>>,
    /// Whether that is the zone of the upstream.
    pub in_zone: bool,
    /// Whether it is ejected.
    pub health: Arc<Health>,
}

/// What is shown of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    /// Where it listens.
    pub address: EndpointAddr,
    /// How much of the traffic it gets, next to the others.
    pub weight: u32,
    /// Where it is.
    pub zone: Option<Arc<str>>,
    /// How long it still gets no requests, where it is ejected; zero while it
    /// is waited for a probe and its end.
    pub ejected_for: Option<Duration>,
    /// The same where it is avoided: it gets requests where no usable one is
    /// left.
    pub avoided_for: Option<Duration>,
    /// Whether checks find it unfit for requests.
    pub is_unhealthy: bool,
    /// Failures without a success between them, up to now.
    pub consecutive_failures: u32,
}

impl Default for Published {
    fn default() -> Self {
        Self::new(clock::now(), clock::random_u64())
    }
}

impl Published {
    /// An empty list; `seed` is 64 random bits.
    pub fn new(now: Instant, seed: u64) -> Self {
        Self {
            list: Mutex::default(),
            detector: Arc::new(Detector::new(now, seed)),
            turn: AtomicUsize::new(0),
        }
    }

    /// Replaces the list. An address that is listed twice is one endpoint.
    /// Those in `zone` come before the others.
    pub fn publish(
        &self,
        endpoints: impl IntoIterator<Item = settings::Endpoint>,
        zone: Option<&str>,
    ) {
        let mut list = self.lock();
        let mut next: Vec<Endpoint> = Vec::new();
        for settings::Endpoint {
            address,
            weight,
            zone: its_zone,
        } in endpoints
        {
            let is_it = |known: &&Endpoint| known.address == address;
            if next.iter().any(|known| is_it(&known)) {
                continue;
            }
            let before = list.iter().find(is_it);
            next.push(Endpoint {
                address,
                weight,
                in_zone: its_zone.is_some() && its_zone.as_deref() == zone,
                zone: its_zone,
                health: before.map_or_else(Arc::default, |known| Arc::clone(&known.health)),
            });
        }
        let watched = next.iter().map(|one| Arc::clone(&one.health)).collect();
        *list = next.into();
        // Raises the version: last.
        self.detector.watch(watched);
    }

    /// The list at this moment.
    pub fn current(&self) -> Arc<[Endpoint]> {
        Arc::clone(&self.lock())
    }

    /// What ejects them. Its version tells of a replaced list too.
    pub fn detector(&self) -> &Arc<Detector> {
        &self.detector
    }

    /// A number that no one else gets, one after the other over all shards.
    pub fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// What is shown of each.
    pub fn views(&self, now: Instant) -> Vec<EndpointView> {
        let view = |endpoint: &Endpoint| {
            let health = &endpoint.health;
            let out_for = match self.detector.state(health) {
                State::Usable => None,
                State::Ejected { until } | State::Avoided { until } => {
                    Some(until.saturating_duration_since(now))
                }
                State::Probing => Some(Duration::ZERO),
            };
            let standing = health.standing();
            EndpointView {
                address: endpoint.address,
                weight: endpoint.weight,
                zone: endpoint.zone.clone(),
                ejected_for: out_for.filter(|_| standing == Standing::Ejected),
                avoided_for: out_for.filter(|_| standing == Standing::Avoided),
                is_unhealthy: health.fitness() == Fitness::Unhealthy,
                consecutive_failures: health.consecutive_failures(),
            }
        };
        self.current().iter().map(view).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<[Endpoint]>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::outlier::{Outcome, Settings};

    fn address(port: u16) -> EndpointAddr {
        EndpointAddr(([127, 0, 0, 1], port).into())
    }

    fn endpoints(ports: &[u16]) -> Vec<settings::Endpoint> {
        ports.iter().map(|port| address(*port).into()).collect()
    }

    fn fail(published: &Published, place: usize, times: u32, now: Instant) {
        let (detector, list) = (published.detector(), published.current());
        let health = &list[place].health;
        for _ in 0..times {
            let trial = detector.begin(health);
            detector.end(health, trial, Outcome::Failure, &Settings::default(), now);
        }
    }

    #[test]
    fn what_is_known_of_an_address_outlives_the_list() {
        let published = Published::default();
        let now = clock::now();
        published.publish(endpoints(&[1, 2, 3]), None);
        fail(&published, 1, 5, now);
        fail(&published, 2, 3, now);
        let version = published.detector().version();
        published.publish(endpoints(&[4, 3, 2]), None);
        assert_ne!(published.detector().version(), version);
        let shown: Vec<_> = published
            .views(now + Duration::from_secs(10))
            .into_iter()
            .map(|view| {
                (
                    view.address.0.port(),
                    view.ejected_for,
                    view.consecutive_failures,
                )
            })
            .collect();
        // The clock of the detector counts milliseconds.
        let left = shown[2].1.unwrap();
        assert!(
            left.as_secs_f64() > 19.9 && left.as_secs_f64() < 23.0,
            "{left:?}"
        );
        assert_eq!(shown, [(4, None, 0), (3, None, 3), (2, Some(left), 0)]);
        // Gone and come back: a new one.
        published.publish(endpoints(&[3]), None);
        published.publish(endpoints(&[2, 3]), None);
        assert_eq!(published.views(now)[0].ejected_for, None);
    }

    #[test]
    fn what_is_avoided_is_not_shown_as_ejected() {
        let (published, now) = (Published::default(), clock::now());
        published.publish(endpoints(&[1, 2, 3]), None);
        // One may be ejected of three.
        fail(&published, 0, 5, now);
        fail(&published, 1, 5, now);
        let views = published.views(now);
        let out = views.iter();
        let out = out.map(|view| (view.ejected_for.is_some(), view.avoided_for.is_some()));
        let expected = [(true, false), (false, true), (false, false)];
        assert_eq!(out.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_address_that_stands_there_twice_is_one() {
        let published = Published::default();
        published.publish(endpoints(&[1, 2, 1]), None);
        assert_eq!(published.current().len(), 2);
    }

    #[test]
    fn those_in_the_zone_are_known() {
        let published = Published::default();
        let mut list = endpoints(&[1, 2, 3]);
        list[0].zone = Some("a".into());
        list[1].zone = Some("b".into());
        for (zone, expected) in [
            (Some("b"), [false, true, false]),
            (Some("c"), [false; 3]),
            (None, [false; 3]),
        ] {
            published.publish(list.clone(), zone);
            let in_zone: Vec<_> = published.current().iter().map(|one| one.in_zone).collect();
            assert_eq!(in_zone, expected, "{zone:?}");
        }
    }
}
