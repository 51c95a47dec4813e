//! An upstream in the network namespaces other than the proxy's. A name may
//! resolve to other addresses there, by the files and name servers of that
//! namespace. So each namespace has an endpoint list, endpoint health and
//! upstream health of its own, which callers of other namespaces neither use nor
//! change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::policy::breaker::{Force, Transitions};
use crate::upstream::dial::Namespace;
use crate::upstream::endpoints::Published;
use crate::upstream::health::UpstreamHealth;

/// An upstream in every namespace but the proxy's.
#[derive(Default)]
pub struct OtherNamespaces(Mutex<Places>);

#[derive(Default)]
struct Places {
    /// By namespace.
    known: BTreeMap<u16, Arc<NamespaceState>>,
    /// How an operator has set the breakers, of namespaces to come too.
    forced: Option<Force>,
    /// How often the breakers changed of those that are forgotten.
    forgotten: Transitions,
}

/// An upstream in one namespace.
pub struct NamespaceState {
    /// Its endpoints; empty until the name resolves.
    pub endpoints: Published,
    /// Its health, as callers of the namespace have found it.
    pub health: UpstreamHealth,
}

/// The health of an upstream, for callers of one namespace.
pub enum HealthRef<'a> {
    /// That which callers of all namespaces share.
    Global(&'a UpstreamHealth),
    /// That of their namespace, where the upstream has a name.
    Namespace(Arc<NamespaceState>),
}

impl std::ops::Deref for HealthRef<'_> {
    type Target = UpstreamHealth;

    fn deref(&self) -> &UpstreamHealth {
        match self {
            Self::Global(health) => health,
            Self::Namespace(state) => &state.health,
        }
    }
}

impl OtherNamespaces {
    /// The state in a namespace, made if there is none.
    pub fn namespace(&self, namespace: Namespace) -> Arc<NamespaceState> {
        let mut places = self.lock();
        let forced = places.forced;
        let state = places.known.entry(namespace.0).or_insert_with(|| {
            let health = UpstreamHealth::new(clock::now());
            forced
                .into_iter()
                .for_each(|force| health.breaker.force(force));
            Arc::new(NamespaceState {
                endpoints: Published::default(),
                health,
            })
        });
        Arc::clone(state)
    }

    /// All of them, in the order of their namespaces.
    pub fn all(&self) -> Vec<(Namespace, Arc<NamespaceState>)> {
        let places = self.lock();
        let known = places.known.iter();
        known
            .map(|(namespace, state)| (Namespace(*namespace), Arc::clone(state)))
            .collect()
    }

    /// Nothing is captured there any more.
    pub fn forget(&self, namespace: Namespace) {
        let mut places = self.lock();
        if let Some(state) = places.known.remove(&namespace.0) {
            places.forgotten += state.health.breaker.transitions();
        }
    }

    /// Sets the circuit breaker of every namespace.
    pub fn force(&self, force: Force) {
        let mut places = self.lock();
        places.forced = Some(force).filter(|force| *force != Force::Auto);
        for state in places.known.values() {
            state.health.breaker.force(force);
        }
    }

    /// How often breakers changed that are forgotten.
    pub fn forgotten(&self) -> Transitions {
        self.lock().forgotten
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::breaker::{Settings, State};

    const HERE: Namespace = Namespace(1);
    const OTHER: Namespace = Namespace(2);

    fn breaker_state(others: &OtherNamespaces, namespace: Namespace) -> State {
        others.namespace(namespace).health.breaker.state()
    }

    #[test]
    fn what_one_namespace_finds_out_is_not_said_of_another() {
        let (others, settings) = (OtherNamespaces::default(), Settings::default());
        let state = others.namespace(HERE);
        for _ in 0..5 {
            let now = clock::now();
            let trial = state.health.breaker.admit(&settings, 0, now);
            trial.expect("it is closed").failed(now);
        }
        assert_eq!(breaker_state(&others, HERE), State::Open);
        assert_eq!(breaker_state(&others, OTHER), State::Closed);
        others.forget(HERE);
        assert_eq!(others.forgotten().opened, 1);
        assert_eq!(others.all().len(), 1);
    }

    #[test]
    fn an_operator_sets_those_to_come_too() {
        let others = OtherNamespaces::default();
        others.namespace(HERE);
        others.force(Force::Open);
        assert_eq!(breaker_state(&others, HERE), State::Open);
        assert_eq!(breaker_state(&others, OTHER), State::Open);
        others.force(Force::Auto);
        assert_eq!(breaker_state(&others, OTHER), State::Closed);
        assert_eq!(breaker_state(&others, Namespace(3)), State::Closed);
    }
}
