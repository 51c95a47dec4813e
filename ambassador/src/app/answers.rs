//! Applies a new DNS answer: publishes the endpoints, and updates the kernel's
//! rules.

use std::sync::Arc;

use super::captured::Captured;
use crate::addr::EndpointAddr;
use crate::control::WatchedName;
use crate::proxy::generation::Generation;
use crate::route::settings::Endpoints;
use crate::upstream::dial::Namespace;

/// Gives a new answer to the upstreams it is for, and to the kernel.
pub(super) fn publish(
    generation: &Generation,
    captured: Option<&Captured>,
    watched: &WatchedName,
    addresses: &Arc<[EndpointAddr]>,
) {
    for (upstream, shared) in generation.targets() {
        if let Endpoints::Dns { name, port } = &upstream.endpoints
            && (name, *port) == (&watched.name, watched.port)
        {
            let endpoints = addresses.iter().map(|address| (*address).into());
            let zone = upstream.policies.zone.as_deref();
            match watched.namespace == Namespace::default() {
                true => shared.endpoints.publish(endpoints, zone),
                false => {
                    let there = shared.other_namespaces.namespace(watched.namespace);
                    there.endpoints.publish(endpoints, zone);
                }
            }
        }
    }
    let Some(captured) = captured else {
        return;
    };
    let port = Some(watched.port).filter(|port| *port != 0);
    let claims = generation.table.claims();
    let mut names = claims.names.iter();
    if names.any(|claimed| claimed.what == watched.name && claimed.port == port)
        && let Err(error) = captured.resolved(watched, Arc::clone(addresses), &claims)
    {
        tracing::error!(
            name = watched.name,
            %error,
            "cannot update the kernel's rules with an address"
        );
    }
}
