//! The endpoints of an upstream in network namespaces other than the proxy's. A
//! name means there what its own files and name servers say, and nobody else is
//! sent where that leads: each namespace has a list of its own, and what is known
//! of the health of those in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::upstream::dial::Namespace;
use crate::upstream::endpoints::Published;

/// The lists of one upstream, by namespace.
#[derive(Default)]
pub struct Elsewhere(Mutex<Lists>);

type Lists = BTreeMap<u16, Arc<Published>>;

impl Elsewhere {
    /// That of a namespace; empty where nothing was published there.
    pub fn list(&self, namespace: Namespace) -> Arc<Published> {
        let mut lists = self.lock();
        Arc::clone(lists.entry(namespace.0).or_default())
    }

    /// All of them, in the order of their namespaces.
    pub fn lists(&self) -> Vec<(Namespace, Arc<Published>)> {
        let lists = self.lock();
        let lists = lists.iter();
        lists
            .map(|(namespace, list)| (Namespace(*namespace), Arc::clone(list)))
            .collect()
    }

    /// Nothing is captured there any more.
    pub fn forget(&self, namespace: Namespace) {
        self.lock().remove(&namespace.0);
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
