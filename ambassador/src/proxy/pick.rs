//! Picks the endpoint of a try.

use std::net::{IpAddr, SocketAddr};

use crate::addr::{EndpointAddr, OriginalDst};
use crate::clock;
use crate::message::RequestHead;
use crate::policy::balance::{self, Key, LoadBalancing};
use crate::proxy::generation::Target;
use crate::ring;
use crate::route::settings::Endpoints;
use crate::upstream::balancer::{Pick, PickInput, Probe};
use crate::upstream::dial::Namespace;
use crate::upstream::other_namespaces::HealthRef;
use crate::upstream::pool::Pools;

/// What decides about the endpoint of a try, besides the state of the endpoints.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Criteria<'a> {
    /// Where the caller is.
    pub namespace: Namespace,
    /// Where the connection was going.
    pub original: Option<OriginalDst>,
    /// The hash of what `ring_hash` goes by: [`request_key`] or [`source_key`].
    pub key: Option<u64>,
    /// Where earlier tries were sent to.
    pub tried: &'a [EndpointAddr],
    /// Whether it may be the probe of an endpoint.
    pub probe: Probe,
    /// Where the connection leads that is the caller's own.
    pub bound: Option<EndpointAddr>,
}

/// The upstream as callers in `namespace` have found it.
#[inline]
pub(crate) fn health_for<'a>(
    pools: &Pools,
    target: &'a Target,
    namespace: Namespace,
) -> HealthRef<'a> {
    let shared = &target.shared;
    match target.list_for(namespace) {
        Namespace(0) => HealthRef::Global(&shared.health),
        there => HealthRef::Namespace(pools.namespace(shared, there)),
    }
}

/// The endpoint of a try. `None` where a name has not been resolved, and where
/// the original destination is meant and there is none.
#[inline(always)]
pub(crate) fn pick(pools: &Pools, target: &Target, criteria: &Criteria<'_>) -> Option<Pick> {
    match target.upstream.endpoints {
        Endpoints::Original => {
            let OriginalDst(address) = criteria.original?;
            Some(Pick::unwatched(EndpointAddr(address)))
        }
        Endpoints::Static(_) | Endpoints::Dns { .. } => {
            let input = PickInput {
                load_balancing: &target.upstream.policies.load_balancing,
                key: criteria.key,
                tried: criteria.tried,
                probe: criteria.probe,
                random: &clock::random_u64,
                now: ring::now(),
            };
            let shared = &target.shared;
            let list = target.list_for(criteria.namespace);
            match criteria.bound {
                Some(endpoint) => Some(pools.pick_bound(shared, list, endpoint, &input)),
                None => pools.pick(shared, list, &input),
            }
        }
    }
}

/// The hash of what the upstream's `ring_hash` goes by, where the request has
/// it.
pub(crate) fn request_key(
    target: &Target,
    request: &RequestHead,
    head: &[u8],
    peer: Option<SocketAddr>,
) -> Option<u64> {
    match &target.upstream.policies.load_balancing {
        LoadBalancing::RingHash(Key::Header(name)) => request.field(head, name).map(balance::hash),
        _ => source_key(target, peer),
    }
}

/// The same of a connection that carries no requests.
#[inline]
pub(crate) fn source_key(target: &Target, peer: Option<SocketAddr>) -> Option<u64> {
    let by_source = LoadBalancing::RingHash(Key::SourceIp);
    if target.upstream.policies.load_balancing != by_source {
        return None;
    }
    match peer?.ip().to_canonical() {
        IpAddr::V4(ip) => Some(balance::hash(&ip.octets())),
        IpAddr::V6(ip) => Some(balance::hash(&ip.octets())),
    }
}
