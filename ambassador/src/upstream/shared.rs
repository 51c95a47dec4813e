//! What all shards share of one upstream: its permits, its endpoints, counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::clock;
use crate::policy::breaker::Force;
use crate::policy::budget::Budget;
use crate::policy::rate_limit::RateLimit;
use crate::route::settings::{self, Upstream};
use crate::telemetry::{Handshakes, UpstreamIndex};
use crate::tls::Client;
use crate::upstream::dial::Namespace;
use crate::upstream::endpoints::Published;
use crate::upstream::health::UpstreamHealth;
use crate::upstream::holders::Holders;
use crate::upstream::in_flight::InFlight;
use crate::upstream::key::Protocol;
use crate::upstream::limits::Limits;
use crate::upstream::other_namespaces::{HealthRef, OtherNamespaces};
use crate::upstream::permits::Permits;
use crate::upstream::server::Server;

/// One upstream as all shards see it. It outlives reloads: connections and
/// their counts belong to the name, not to a version of the file.
pub struct Shared {
    /// Unique for the life of the process; the key of the shards' pools.
    pub id: u32,
    /// What metrics call it; all adopted upstreams have one label together.
    pub label: UpstreamIndex,
    /// What the configuration says of its pools; one for all that are adopted.
    pub limits: Arc<Limits>,
    /// The cap of its connections; none before one is set.
    pub permits: Arc<Permits>,
    /// Its endpoints, where they do not depend on the connection. Those of a
    /// name are as the proxy's own namespace knows it.
    pub endpoints: Published,
    /// What is known of it, but for what other namespaces know of a name.
    pub health: UpstreamHealth,
    /// Endpoints and health of a name as other namespaces know it.
    pub other_namespaces: OtherNamespaces,
    /// How many of its requests may be tried again.
    pub retry_budget: Budget,
    /// How many of them may be in two places at once.
    pub hedge_budget: Budget,
    /// How many requests it gets in a second.
    pub rate_limit: RateLimit,
    /// Its requests in flight.
    pub requests: InFlight,
    /// Which shards may have idle connections.
    pub holders: Holders,
    /// What the configuration in force says of it; none: nothing does.
    pub in_force: ArcSwapOption<Upstream>,
    /// What its connections are encrypted with; none: they are in clear.
    pub(crate) tls: ArcSwapOption<Client>,
    /// How its TLS handshakes went.
    pub(crate) handshakes: Handshakes,
    idle: AtomicU32,
    /// Requests that wait for a place on a connection that is shared.
    awaiting_place: AtomicU32,
    /// Connections that close, or do so after the requests that they have.
    leaving: AtomicU32,
    /// The most idle connections beside which a dialled one was answered.
    answered_beside: AtomicU32,
    /// How often the time before a PING was doubled, as there were too many of them.
    calmed: AtomicU32,
    retired: AtomicBool,
}

/// A request that waits for a place.
struct AwaitsPlace<'a>(&'a AtomicU32);

impl Drop for AwaitsPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How often that time is doubled at most.
const CALMED_MAX: u32 = 4;

impl Shared {
    /// An upstream without connections.
    pub fn new(label: UpstreamIndex, limits: Arc<Limits>) -> Self {
        static NEXT_ID: AtomicU32 = AtomicU32::new(0);
        let now = clock::now();
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            label,
            limits,
            permits: Arc::new(Permits::new(None)),
            endpoints: Published::default(),
            health: UpstreamHealth::new(now),
            other_namespaces: OtherNamespaces::default(),
            retry_budget: Budget::new(now),
            hedge_budget: Budget::new(now),
            rate_limit: RateLimit::new(now),
            requests: InFlight::default(),
            holders: Holders::default(),
            in_force: ArcSwapOption::empty(),
            tls: ArcSwapOption::empty(),
            handshakes: Handshakes::default(),
            idle: AtomicU32::new(0),
            awaiting_place: AtomicU32::new(0),
            leaving: AtomicU32::new(0),
            answered_beside: AtomicU32::new(0),
            calmed: AtomicU32::new(0),
            retired: AtomicBool::new(false),
        }
    }

    /// Its health in the proxy's own namespace, and in others where its name
    /// resolves differently.
    pub fn health_by_namespace(&self) -> Vec<(Namespace, HealthRef<'_>)> {
        let own = (Namespace::default(), HealthRef::Global(&self.health));
        let others = self.other_namespaces.all().into_iter();
        let others = others.map(|(namespace, there)| (namespace, HealthRef::Namespace(there)));
        std::iter::once(own).chain(others).collect()
    }

    /// Whether a request that is to go to `upstream`, as an earlier configuration says,
    /// must go to no endpoint of now: it would be in clear where these are spoken to over
    /// TLS, or the other way round, or show what others are meant to see.
    pub fn has_outgrown(&self, upstream: &Upstream) -> bool {
        if upstream.tls.is_some() != self.tls.load().is_some() {
            return true;
        }
        if !upstream.has_secrets() {
            return false;
        }
        let now = self.in_force.load();
        now.as_ref().is_some_and(|now| {
            !now.secrets().eq(upstream.secrets())
                && (now.endpoints != upstream.endpoints || now.tls != upstream.tls)
        })
    }

    /// The server that its connections lead to which name none; `None`: they are in
    /// clear.
    pub(crate) fn default_server(&self) -> Option<Server> {
        let client = self.tls.load();
        client.as_deref().map(Server::default_of)
    }

    /// What is spoken over connections that are opened ahead of a request: what most
    /// requests ask for.
    pub(super) fn default_protocol(&self) -> Protocol {
        let in_force = self.in_force.load();
        match in_force.as_ref().map(|upstream| upstream.protocol) {
            Some(settings::Protocol::Http2 | settings::Protocol::Grpc) => Protocol::Http2,
            Some(settings::Protocol::Auto) if self.tls.load().is_some() => Protocol::Negotiated,
            Some(
                settings::Protocol::Auto | settings::Protocol::Http1 | settings::Protocol::Tcp,
            )
            | None => Protocol::Http1,
        }
    }

    /// Sets its circuit breaker, for all.
    pub fn force(&self, force: Force) {
        self.health.breaker.force(force);
        self.other_namespaces.force(force);
    }

    /// Marks that it left the configuration: its connections are not kept any
    /// more.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether it left the configuration.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// How long a server may be silent before it is sent a PING; `None`: for ever.
    pub(super) fn ping(&self) -> Option<Duration> {
        let calmed = self.calmed.load(Ordering::Relaxed);
        Some(self.limits.http2().ping? * 2_u32.pow(calmed))
    }

    /// A server has ended a connection for its PINGs: from now on there are half as many.
    pub(super) fn calm_down(&self) {
        let more = |calmed| (calmed < CALMED_MAX).then_some(calmed + 1);
        let calmed = self
            .calmed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if calmed.is_ok() {
            let ping = self.ping();
            tracing::warn!(
                ?ping,
                "a server takes PINGs for too many: they are sent later"
            );
        }
    }

    /// Idle connections on all shards.
    pub fn idle(&self) -> u32 {
        self.idle.load(Ordering::SeqCst)
    }

    /// Notes that a new connection was answered beside the present idle ones.
    pub(super) fn answer_beside_idle(&self) {
        let idle = self.idle();
        if idle > self.answered_beside() {
            self.answered_beside.fetch_max(idle, Ordering::Relaxed);
        }
    }

    /// The largest number of idle connections beside which the upstream answered
    /// a new one.
    pub(super) fn answered_beside(&self) -> u32 {
        self.answered_beside.load(Ordering::Relaxed)
    }

    /// Counts one more idle connection. Sequentially consistent, as the queue of
    /// permits is: who becomes idle counts itself, then looks for waiters; who
    /// waits queues, then looks for idle ones.
    pub(super) fn add_idle(&self) {
        self.idle.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn remove_idle(&self) {
        self.idle.fetch_sub(1, Ordering::SeqCst);
    }

    /// Requests that wait for a connection, or for a place on one, on all shards.
    pub fn pending(&self) -> u32 {
        let awaiting_place = self.awaiting_place.load(Ordering::SeqCst);
        self.permits.waiting() + awaiting_place
    }

    /// Counts one that waits for a place, until what this gives is dropped.
    pub(super) fn awaits_place(&self) -> impl Drop + '_ {
        self.awaiting_place.fetch_add(1, Ordering::SeqCst);
        AwaitsPlace(&self.awaiting_place)
    }

    /// Open connections that a lowered cap has no place for, but for those that close
    /// anyway.
    pub(super) fn above_cap(&self) -> u32 {
        let leaving = self.leaving.load(Ordering::SeqCst);
        self.permits.above_cap().saturating_sub(leaving)
    }

    pub(super) fn add_leaving(&self) {
        self.leaving.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn remove_leaving(&self) {
        self.leaving.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::breaker::State;

    fn shared() -> Shared {
        Shared::new(UpstreamIndex::UNMATCHED, Arc::default())
    }

    /// gRFC A8.
    #[test]
    fn pings_become_fewer_up_to_a_bound() {
        let shared = shared();
        let ping = shared.ping().expect("it is on by default");
        for factor in [2, 4, 8, 16, 16] {
            shared.calm_down();
            assert_eq!(shared.ping(), Some(ping * factor));
        }
    }

    #[test]
    fn an_operator_sets_the_circuit_of_every_namespace() {
        let shared = shared();
        shared.other_namespaces.namespace(Namespace(4));
        shared.other_namespaces.namespace(Namespace(2));
        shared.force(Force::Open);
        let all = shared.health_by_namespace();
        let all = all
            .iter()
            .map(|(name, health)| (name.0, health.breaker.state()));
        let expected = [0, 2, 4].map(|name| (name, State::Open));
        assert_eq!(all.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_most_that_an_answer_came_beside_is_remembered() {
        let shared = shared();
        for (idle, most) in [(0, 0), (2, 2), (1, 2), (3, 3)] {
            while shared.idle() > 0 {
                shared.remove_idle();
            }
            (0..idle).for_each(|_| shared.add_idle());
            shared.answer_beside_idle();
            assert_eq!(shared.answered_beside(), most, "beside {idle}");
        }
    }

    #[test]
    fn each_has_a_number_of_its_own_and_may_retire() {
        let (one, other) = (shared(), shared());
        assert_ne!(one.id, other.id);
        one.retire();
        assert!(one.is_retired() && !other.is_retired());
    }
}
