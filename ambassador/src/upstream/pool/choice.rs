//! Picks an endpoint of an upstream, from its list in the caller's namespace.

use std::sync::Arc;

use super::{Pool, Pools};
use crate::addr::EndpointAddr;
use crate::upstream::balancer::{Balancer, Pick, PickInput};
use crate::upstream::dial::Namespace;
use crate::upstream::endpoints::Published;
use crate::upstream::other_namespaces::NamespaceState;
use crate::upstream::shared::Shared;

impl Pools {
    /// One of the endpoints published for `shared` in a namespace; `None`: there
    /// are none.
    #[inline(always)]
    pub fn pick(
        &self,
        shared: &Arc<Shared>,
        namespace: Namespace,
        input: &PickInput<'_>,
    ) -> Option<Pick> {
        if shared.is_retired() {
            // Its last requests: what is known of its endpoints is forgotten.
            let last = |published: &Published| {
                let list = published.current();
                let turn = published.next_turn().checked_rem(list.len())?;
                Some(Pick::unwatched(list[turn].address))
            };
            return match namespace == Namespace::default() {
                true => last(&shared.endpoints),
                false => last(&shared.other_namespaces.namespace(namespace).endpoints),
            };
        }
        self.with_pool(shared, |pool| {
            let (published, balancer) = pool.endpoints_in(shared, namespace);
            balancer.pick(published, input)
        })
    }

    /// An endpoint of the other address family that gets requests.
    pub fn of_other_family(
        &self,
        shared: &Shared,
        namespace: Namespace,
        endpoint: EndpointAddr,
    ) -> Option<EndpointAddr> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&shared.id)?;
        let (published, balancer) = pool.endpoints_in(shared, namespace);
        balancer.of_other_family(published, endpoint)
    }

    /// This endpoint, for a request that already has a connection.
    pub fn pick_bound(
        &self,
        shared: &Arc<Shared>,
        namespace: Namespace,
        endpoint: EndpointAddr,
        input: &PickInput<'_>,
    ) -> Pick {
        if shared.is_retired() {
            return Pick::unwatched(endpoint);
        }
        self.with_pool(shared, |pool| {
            let (published, balancer) = pool.endpoints_in(shared, namespace);
            balancer.pick_bound(published, endpoint, input)
        })
    }

    /// The state of `shared` in a namespace that is not the proxy's own.
    pub fn namespace(&self, shared: &Arc<Shared>, namespace: Namespace) -> Arc<NamespaceState> {
        match shared.is_retired() {
            // Its last requests.
            true => shared.other_namespaces.namespace(namespace),
            false => self.with_pool(shared, |pool| {
                Arc::clone(&pool.in_namespace(shared, namespace).0)
            }),
        }
    }

    /// Forgets a namespace in which nothing is captured any more.
    pub fn forget_namespace(&self, namespace: Namespace) {
        for pool in self.pools.borrow_mut().values_mut() {
            pool.other_namespaces.remove(&namespace.0);
        }
    }
}

impl Pool {
    /// What is published in a namespace, and the choice among it. Only the first
    /// request there takes a lock.
    fn endpoints_in<'a>(
        &'a mut self,
        shared: &'a Shared,
        namespace: Namespace,
    ) -> (&'a Published, &'a mut Balancer) {
        if namespace == Namespace::default() {
            return (&shared.endpoints, &mut self.balancer);
        }
        let (there, balancer) = self.in_namespace(shared, namespace);
        (&there.endpoints, balancer)
    }

    fn in_namespace(
        &mut self,
        shared: &Shared,
        namespace: Namespace,
    ) -> &mut (Arc<NamespaceState>, Balancer) {
        let known = self.other_namespaces.entry(namespace.0);
        known.or_insert_with(|| {
            (
                shared.other_namespaces.namespace(namespace),
                Balancer::default(),
            )
        })
    }
}
