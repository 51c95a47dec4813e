//! Assigns circuits of the kernel to the upstreams with `kernel_fail_fast`.
//!
//! A circuit observes the circuit breaker under the breaker's lock, so its stores
//! have the order of the breaker's changes, on whatever shard. A probe in flight
//! is not stored. When the time of an open breaker has passed, the programs admit
//! one connect by themselves, because without a connect no request would come to
//! probe. The end of the probe, on that connection or on an older one, is a
//! change of the breaker again.

use std::sync::Arc;
use std::time::Duration;

use crate::capture::settings::{Claim, Claims};
use crate::capture::{Capture, CircuitNumber};
use crate::policy::breaker::{Observer, RefusalPeriod};
use crate::proxy::generation::Generation;
use crate::route::settings::Endpoints;
use crate::upstream::dial::Namespace;
use crate::upstream::shared::Shared;

/// The circuits that are in use.
#[derive(Default)]
pub(super) struct Circuits {
    given: Vec<UpstreamCircuit>,
    /// Claims with a circuit that has no say over all of them, as last said.
    contested: Vec<Claim>,
}

/// A circuit and whose it is.
struct UpstreamCircuit {
    upstream: Arc<str>,
    shared: Arc<Shared>,
    /// Whose circuit breaker it follows.
    view: Namespace,
    number: CircuitNumber,
    /// A connect that may pass an open one has as long as any other.
    permit: Duration,
}

impl UpstreamCircuit {
    fn observe(&self, observer: Option<Observer>) {
        match self.view {
            Namespace(0) => self.shared.health.breaker.observe(observer),
            there => {
                let there = self.shared.other_namespaces.namespace(there);
                there.health.breaker.observe(observer);
            }
        }
    }
}

impl Circuits {
    /// Those of a generation. An upstream keeps the one that it has in `before`;
    /// none of the others in there is given anew, since a program may still be
    /// looking at it. Where names mean something of their own in each namespace, it
    /// is about those in `view`.
    pub(super) fn of(generation: &Generation, view: Namespace, before: &Self) -> Self {
        let mut free = CircuitNumber::all().filter(|number| !before.has_given(*number));
        let mut given = Vec::new();
        for (upstream, shared) in generation.targets() {
            if !upstream.policies.circuit_breaker.kernel_fail_fast {
                continue;
            }
            let known = before.of_shared(shared).map(|given| given.number);
            let Some(number) = known.or_else(|| free.next()) else {
                let (upstream, most) = (&*upstream.name, CircuitNumber::MAX);
                tracing::warn!(upstream, most, "no circuit is left for kernel_fail_fast");
                continue;
            };
            given.push(UpstreamCircuit {
                upstream: Arc::clone(&upstream.name),
                shared: Arc::clone(shared),
                view: match upstream.endpoints {
                    Endpoints::Dns { .. } => view,
                    Endpoints::Static(_) | Endpoints::Original => Namespace::default(),
                },
                number,
                permit: upstream.policies.timeouts.connect,
            });
        }
        Self {
            given,
            contested: before.contested.clone(),
        }
    }

    /// The circuit of the upstream with this name.
    pub(super) fn number_of(&self, upstream: &str) -> Option<CircuitNumber> {
        let mut given = self.given.iter();
        let of_name = given.find(|given| &*given.upstream == upstream);
        of_name.map(|given| given.number)
    }

    /// Has those that are not in `before` follow their breakers. The others do,
    /// and storing their state again would give a further permit.
    pub(super) fn follow(&self, before: &Self, programs: &Capture) {
        for given in &self.given {
            let circuit = programs.circuit(given.number);
            circuit.set_permit(given.permit);
            let known = before.of_shared(&given.shared);
            if let Some(known) = known.filter(|known| known.view != given.view) {
                known.observe(None);
            }
            if known.is_none_or(|known| known.view != given.view) {
                let set = move |refuses| circuit.set(refuses);
                given.observe(Some(Observer(Box::new(set))));
            }
        }
    }

    /// Closes those that are not in `after`, for good.
    pub(super) fn let_go(&self, after: &Self, programs: &Capture) {
        for given in &self.given {
            if after.of_shared(&given.shared).is_none() {
                given.observe(None);
                programs.circuit(given.number).set(RefusalPeriod::Nothing);
            }
        }
    }

    /// Says of which claims others hold a part, where that was not said before.
    pub(super) fn warn_of_contested(&mut self, claims: &Claims) {
        let contested = |claim: &&Claim| {
            let others = claims.nets.iter();
            let mut others = others.filter(|other| other.circuit != claim.circuit);
            claim.circuit.is_some() && others.any(|other| other.overlaps(claim))
        };
        let contested: Vec<Claim> = claims.nets.iter().filter(contested).copied().collect();
        for claim in contested
            .iter()
            .filter(|claim| !self.contested.contains(claim))
        {
            let mut given = self.given.iter();
            let given = given.find(|given| Some(given.number) == claim.circuit);
            let upstream = given.map(|given| &*given.upstream);
            tracing::warn!(
                upstream,
                net = %claim.net,
                port = claim.port,
                "kernel_fail_fast does not refuse addresses that another upstream claims as well"
            );
        }
        self.contested = contested;
    }

    fn of_shared(&self, shared: &Shared) -> Option<&UpstreamCircuit> {
        self.given.iter().find(|given| given.shared.id == shared.id)
    }

    fn has_given(&self, number: CircuitNumber) -> bool {
        self.given.iter().any(|given| given.number == number)
    }
}
