//! Which names are kept resolved, and what an answer changes.

use std::collections::HashSet;
use std::sync::Arc;

use super::captured::Captured;
use crate::addr::EndpointAddr;
use crate::capture::settings::{Mode, Settings};
use crate::control::Watched;
use crate::proxy::generation::Generation;
use crate::route::settings::{Claim, Endpoints, Unmatched};

/// The names of `dns:` endpoints, and of exact `hosts` whose addresses the
/// kernel has to know: under `passthrough` only claimed ones are captured.
pub fn watched(generation: &Generation, capture: Option<&Settings>) -> Vec<Watched> {
    let kernel_asks = capture.is_some_and(|capture| {
        capture.mode == Mode::Ebpf && capture.unmatched == Unmatched::Passthrough
    });
    let mut names = HashSet::new();
    for (upstream, shared) in generation.targets() {
        if let Endpoints::Dns { name, port } = &upstream.endpoints {
            names.insert(Watched {
                name: name.clone(),
                port: *port,
                upstream: shared.label,
            });
        }
        for claim in &upstream.claims {
            if kernel_asks && let Claim::Name { host, port } = claim {
                names.insert(Watched {
                    name: host.clone(),
                    port: port.unwrap_or(0),
                    upstream: shared.label,
                });
            }
        }
    }
    names.into_iter().collect()
}

/// Gives a new answer to the upstreams it is for, and to the kernel.
pub fn publish(
    generation: &Generation,
    captured: Option<&Captured>,
    watched: &Watched,
    addresses: &Arc<[EndpointAddr]>,
) {
    for (upstream, shared) in generation.targets() {
        if let Endpoints::Dns { name, port } = &upstream.endpoints
            && (name, *port) == (&watched.name, watched.port)
        {
            shared.endpoints.publish(Arc::clone(addresses));
        }
    }
    let Some(captured) = captured else {
        return;
    };
    let port = Some(watched.port).filter(|port| *port != 0);
    let claims = generation.table.claims();
    if claims.names.contains(&(watched.name.clone(), port))
        && let Err(error) = captured.resolved(&watched.name, port, Arc::clone(addresses), &claims)
    {
        tracing::error!(
            name = watched.name,
            error,
            "the kernel side cannot be told of an address"
        );
    }
}
