//! The upstream connection that belongs to one client connection.
//!
//! NTLM and Negotiate authenticate a connection: whatever comes over it later is
//! taken for the same user's. From the first offer or the first credentials on,
//! it serves this client alone, never goes back to the pool, and is closed with
//! the client's connection.

use std::future::pending;

use crate::addr::EndpointAddr;
use crate::message::challenge::Challenger;
use crate::upstream::connection::{ConnectionAuth, ConnectionUse};
use crate::upstream::dial::Namespace;
use crate::upstream::key::PoolKey;
use crate::upstream::pool::Lease;
use crate::upstream::shared::Shared;

/// The one that a client connection has, if any.
#[derive(Default)]
pub(crate) struct Bound(Option<Box<Lease>>);

/// What became of a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BoundOutcome {
    /// It waits for the next request, or nobody misses it.
    Well,
    /// It has ended, and the client had begun to authenticate on it.
    Lost,
}

/// What there is for a request.
pub(crate) enum BoundLease {
    /// Nothing: it may go over any connection.
    Nothing,
    /// Its connection.
    Live(Lease),
    /// Its connection has ended, and no other can stand in.
    Lost,
}

impl Bound {
    /// The endpoint that this client's requests to an upstream go to.
    pub(crate) fn endpoint(&self, shared: &Shared, namespace: Namespace) -> Option<EndpointAddr> {
        let key = self.of(shared)?.key();
        (key.namespace == namespace).then_some(key.endpoint)
    }

    /// Whether the upstream has asked for credentials as proxies do.
    pub(crate) fn is_asked_by_proxy(&self, shared: &Shared) -> bool {
        let tie = self.of(shared).map(|connection| connection.tie);
        matches!(
            tie,
            Some(
                ConnectionAuth::Offered(Challenger::Proxy)
                    | ConnectionAuth::Begun(Challenger::Proxy)
            )
        )
    }

    /// The connection for a request.
    pub(crate) fn take(&mut self, shared: &Shared, key: PoolKey) -> BoundLease {
        if self.of(shared).is_none_or(|kept| kept.key() != key) {
            return BoundLease::Nothing;
        }
        match self.0.take().map(|kept| *kept) {
            Some(connection) if connection.serves(key) => BoundLease::Live(connection),
            Some(lost) if lost.tie.has_begun() => BoundLease::Lost,
            Some(_) | None => BoundLease::Nothing,
        }
    }

    /// Keeps a connection after a complete exchange. One on which the client has
    /// begun to authenticate does not give way to a mere offer of another
    /// upstream: that one closes.
    pub(crate) fn keep(&mut self, mut connection: Lease) -> BoundOutcome {
        let begun = |kept: &Lease| kept.tie.has_begun();
        if connection.stream.is_closed_or_busy() {
            return match connection.tie.has_begun() {
                true => BoundOutcome::Lost,
                false => BoundOutcome::Well,
            };
        }
        if self.0.as_deref().is_some_and(begun) && !connection.tie.has_begun() {
            return BoundOutcome::Well;
        }
        connection.past = ConnectionUse::Used;
        self.0 = Some(Box::new(connection));
        BoundOutcome::Well
    }

    /// Resolves when the connection has ended on which the client has begun to
    /// authenticate: the client is to see that, as it would without a proxy.
    pub(crate) async fn lost(&self) {
        match &self.0 {
            Some(kept) if kept.tie.has_begun() => kept.stream.readable().await,
            _ => pending().await,
        }
    }

    fn of(&self, shared: &Shared) -> Option<&Lease> {
        let kept = self.0.as_deref();
        kept.filter(|kept| kept.upstream() == shared.id)
    }
}
