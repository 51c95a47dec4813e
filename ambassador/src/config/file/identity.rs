//! `identity`: who the proxy is to its upstreams, and to the clients of its listeners.

use std::sync::Arc;

use super::File;
use crate::config::checked;
use crate::config::findings::Findings;
use crate::config::read::{Place, Scalar};
use crate::config::setting::{Layer, settings};
use crate::config::values::{FilePath, fills, value_schemas};
use crate::credential::settings::Auth;
use crate::credential::workload_endpoint::{Endpoint, EndpointError};
use crate::route::{self, tls};

settings! {
    /// Who the proxy is: an X.509-SVID, for upstreams and listeners with
    /// `tls: { cert: identity }`.
    /// It comes from a SPIFFE Workload API, or from files; changes are taken as they
    /// come.
    Identity for checked::Identity as identity, checked by has_one_source {
        /// The address of a SPIFFE Workload API: `unix:/path` or
        /// `tcp://127.0.0.1:port`. The user of the proxy connects to it, and is whom
        /// the agent attests. Its first SVID is the identity.
        spiffe: WorkloadEndpoint = identity.spiffe,
        /// A file with the SVID and the certificates between it and an authority, in
        /// PEM.
        cert: FilePath = identity.cert,
        /// The file with its key, in PEM.
        key: FilePath = identity.key,
        /// A file with the authorities of its trust domain, in PEM. Revocation lists
        /// may stand in it too.
        bundle: FilePath = identity.bundle,
    }
}

/// Where a Workload API is served.
#[derive(Debug, Clone)]
pub(in crate::config) struct WorkloadEndpoint(Endpoint);

impl Scalar for WorkloadEndpoint {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|error: EndpointError| error.to_string())
    }
}

fills! {
    WorkloadEndpoint => Endpoint, |endpoint| Some(endpoint.to_string().into());
}

value_schemas! {
    WorkloadEndpoint: { "type": "string", "format": "unix:/path or tcp://ip:port" },
}

fn has_one_source(
    _: &Identity,
    place: &Place,
    identity: &mut checked::Identity,
    layer: &mut Layer<'_>,
) {
    let files = [&identity.cert, &identity.key, &identity.bundle];
    let is_whole = match files.iter().filter(|file| file.is_some()).count() {
        0 => identity.spiffe.is_some(),
        3 => identity.spiffe.is_none(),
        _ => false,
    };
    if !is_whole {
        layer.mistake_unless_inside(place, "must have spiffe alone, or cert, key and bundle");
    }
}

/// Where a Workload API is served, if the identity comes from one.
pub(super) fn workload_api(file: &File) -> Option<&Endpoint> {
    let spiffe = file.identity.as_ref()?.value.0.spiffe.as_ref()?;
    Some(&spiffe.value.0)
}

/// What is said where there is none.
pub(super) const MISSING: &str = "needs identity, which says who the proxy is";

/// Whether there is an identity where an upstream needs one, and a need where there is
/// one.
pub(super) fn check(
    file: &File,
    upstreams: &[Arc<route::settings::Upstream>],
    listeners: &[checked::Listener],
    findings: &mut Findings,
) {
    let needs_it = |tls: &tls::Tls| tls.needs_identity();
    let mut listeners = listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref());
    let mut used = listeners.any(|tls| tls.needs_identity());
    for (upstream, (name, raw)) in upstreams.iter().zip(file.upstreams.items()) {
        used |= upstream.auth.as_deref().is_some_and(Auth::shows_identity);
        if !upstream.tls.as_deref().is_some_and(needs_it) {
            continue;
        }
        used = true;
        if file.identity.as_ref().is_none() {
            let own = raw.policies.tls.as_ref().map(|tls| &tls.place);
            let place = own.unwrap_or(&name.place);
            findings.mistake(place, MISSING);
        }
    }
    if let Some(identity) = file.identity.as_ref().filter(|_| !used) {
        let what = "does nothing: no upstream has tls or auth with it, and no listener has tls";
        findings.warn(&identity.place, what);
    }
}
