//! What an upstream's name means in network namespaces other than the proxy's:
//! what the files and name servers there say. Nobody else is sent where that
//! leads, and nobody else is told how it went: each namespace has a list of
//! endpoints of its own, what is known of the health of those in it, and what
//! that says of the upstream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::policy::breaker::{Force, Transitions};
use crate::upstream::dial::Namespace;
use crate::upstream::endpoints::Published;
use crate::upstream::reputation::Reputation;

/// One upstream in the other namespaces.
#[derive(Default)]
pub struct Elsewhere(Mutex<Places>);

#[derive(Default)]
struct Places {
    /// By namespace.
    known: BTreeMap<u16, Arc<There>>,
    /// How an operator has set the breakers, of namespaces to come too.
    forced: Option<Force>,
    /// How often the breakers changed of those that are forgotten.
    forgotten: Transitions,
}

/// One upstream in one of them.
pub struct There {
    /// Its endpoints; none where nothing was published.
    pub endpoints: Published,
    /// What callers there have found out.
    pub reputation: Reputation,
}

/// An upstream as callers of one namespace have found it.
pub enum Seen<'a> {
    /// By what all of them share.
    ByAll(&'a Reputation),
    /// Its name is theirs.
    There(Arc<There>),
}

impl Seen<'_> {
    /// What they have found out.
    pub fn reputation(&self) -> &Reputation {
        match self {
            Self::ByAll(reputation) => reputation,
            Self::There(there) => &there.reputation,
        }
    }
}

impl Elsewhere {
    /// What it is in a namespace.
    pub fn there(&self, namespace: Namespace) -> Arc<There> {
        let mut places = self.lock();
        let forced = places.forced;
        let there = places.known.entry(namespace.0).or_insert_with(|| {
            let reputation = Reputation::new(clock::now());
            forced
                .into_iter()
                .for_each(|force| reputation.breaker.force(force));
            Arc::new(There {
                endpoints: Published::default(),
                reputation,
            })
        });
        Arc::clone(there)
    }

    /// All of them, in the order of their namespaces.
    pub fn all(&self) -> Vec<(Namespace, Arc<There>)> {
        let places = self.lock();
        let known = places.known.iter();
        known
            .map(|(namespace, there)| (Namespace(*namespace), Arc::clone(there)))
            .collect()
    }

    /// Nothing is captured there any more.
    pub fn forget(&self, namespace: Namespace) {
        let mut places = self.lock();
        if let Some(there) = places.known.remove(&namespace.0) {
            places.forgotten += there.reputation.breaker.transitions();
        }
    }

    /// Sets the circuit breaker of every namespace.
    pub fn force(&self, force: Force) {
        let mut places = self.lock();
        places.forced = Some(force).filter(|force| *force != Force::Auto);
        for there in places.known.values() {
            there.reputation.breaker.force(force);
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

    fn state(elsewhere: &Elsewhere, namespace: Namespace) -> State {
        elsewhere.there(namespace).reputation.breaker.state()
    }

    #[test]
    fn what_one_namespace_finds_out_is_not_said_of_another() {
        let (elsewhere, settings) = (Elsewhere::default(), Settings::default());
        let there = elsewhere.there(HERE);
        for _ in 0..5 {
            let now = clock::now();
            let trial = there.reputation.breaker.admit(&settings, 0, now);
            trial.expect("it is closed").failed(now);
        }
        assert_eq!(state(&elsewhere, HERE), State::Open);
        assert_eq!(state(&elsewhere, OTHER), State::Closed);
        elsewhere.forget(HERE);
        assert_eq!(elsewhere.forgotten().opened, 1);
        assert_eq!(elsewhere.all().len(), 1);
    }

    #[test]
    fn an_operator_sets_those_to_come_too() {
        let elsewhere = Elsewhere::default();
        elsewhere.there(HERE);
        elsewhere.force(Force::Open);
        assert_eq!(state(&elsewhere, HERE), State::Open);
        assert_eq!(state(&elsewhere, OTHER), State::Open);
        elsewhere.force(Force::Auto);
        assert_eq!(state(&elsewhere, OTHER), State::Closed);
        assert_eq!(state(&elsewhere, Namespace(3)), State::Closed);
    }
}
