//! Upstreams: their claims, endpoints and policies.

use std::collections::HashMap;
use std::sync::Arc;

use super::name_mistake;
use crate::config::checked::Origin;
use crate::config::found::Found;
use crate::config::policies::Layers;
use crate::config::raw::{self, File};
use crate::config::read::{Either, Marked, Read, Spanned};
use crate::config::setting::Value;
use crate::config::values::{Address, Host};
use crate::route::settings::{self as settings, Claim, Endpoint, Endpoints, Protocol, Upstream};

/// Upstreams, each with where its policies came from.
pub(super) struct Upstreams {
    pub(super) list: Vec<Arc<Upstream>>,
    pub(super) policies: Vec<Layers>,
    pub(super) adopted: settings::Policies,
}

pub(super) fn check(file: &File, found: &mut Found) -> Upstreams {
    let telemetry = file.telemetry.as_ref();
    let tracing = telemetry.and_then(|telemetry| telemetry.tracing.as_ref());
    let propagate = tracing.and_then(|tracing| tracing.propagate.as_ref());
    let line = propagate.map(|propagate| propagate.place.line);
    let mut defaults = Layers::built_in(super::tracing(file), line);
    if let Some(raw) = file.defaults.as_ref() {
        defaults = defaults.with(raw, &Origin::Defaults, found);
    }
    let mut upstreams = Upstreams {
        list: Vec::new(),
        policies: Vec::new(),
        adopted: defaults.settings().without_caps(),
    };
    let mut claimed = HashMap::new();
    for (name, raw) in file
        .upstreams
        .as_ref()
        .map_or(&[][..], |named| &named.value.0)
    {
        if let Some(what) = name_mistake(name) {
            found.mistake_at(name, what);
        }
        let (upstream, policies) = upstream(name, raw, &defaults, found);
        check_claims(name, raw, &mut claimed, found);
        check_protocol(name, raw, &upstream, found);
        upstreams.list.push(Arc::new(upstream));
        upstreams.policies.push(policies);
    }
    upstreams
}

fn upstream(
    name: &Spanned<String>,
    raw: &Spanned<raw::Upstream>,
    defaults: &Layers,
    found: &mut Found,
) -> (Upstream, Layers) {
    let mut policies = defaults.with(&raw.policies.0, &Origin::Upstream, found);
    let endpoints = endpoints(raw, found);
    if endpoints == Endpoints::Original && policies.settings().pool.min_idle > 0 {
        let own = raw
            .policies
            .0
            .pool
            .as_ref()
            .and_then(|pool| pool.min_idle.as_ref());
        if let Some(own) = own {
            found.mistake_at(
                own,
                "needs endpoints or dns: there is nothing to dial ahead of a request",
            );
        }
        policies.without_min_idle();
    }
    if endpoints == Endpoints::Original {
        for key in marked(raw).iter().filter(|key| key.marks.of_endpoints) {
            found.warn(key.place, "does nothing without endpoints or dns");
        }
    }
    if policies.protocol() == Protocol::Tcp {
        policies.without_requests();
    }
    let hosts = raw.hosts.as_ref().map_or(&[][..], |hosts| &hosts.value);
    let upstream = Upstream {
        name: name.value.as_str().into(),
        claims: hosts.iter().map(|host| host.value.0.clone()).collect(),
        endpoints,
        protocol: policies.protocol(),
        policies: policies.settings().clone(),
    };
    (upstream, policies)
}

fn endpoints(raw: &raw::Upstream, found: &mut Found) -> Endpoints {
    if let (Some(endpoints), Some(_)) = (raw.endpoints.as_ref(), raw.dns.as_ref()) {
        found.mistake(
            &endpoints.place,
            "an upstream has endpoints or dns, not both",
        );
    }
    if let Some(dns) = raw.dns.as_ref() {
        let (name, port) = (dns.value.name.clone(), dns.value.port);
        return Endpoints::Dns { name, port };
    }
    let Some(raw) = raw.endpoints.as_ref() else {
        return Endpoints::Original;
    };
    let mut list: Vec<Endpoint> = Vec::new();
    for item in &raw.value {
        let Some(address) = address(item, found) else {
            continue;
        };
        let mut endpoint = Endpoint::from(address.value.0);
        if list.iter().any(|known| known.address == endpoint.address) {
            found.mistake_at(&address, "stands there twice");
        }
        if let Either::Full(raw) = &item.value {
            if let Some(weight) = raw.weight.as_ref() {
                endpoint.weight = weight.value.0;
            }
            endpoint.zone = raw.zone.as_ref().map(|zone| zone.value.meaning());
        }
        list.push(endpoint);
    }
    // Items with mistakes of their own are missing from the list.
    let inside = format!("{}[", raw.place.path);
    let noted = found.mistakes.iter().any(|m| m.path.starts_with(&inside));
    if raw.value.is_empty() && !noted {
        found.mistake(&raw.place, "must name at least one endpoint");
    }
    Endpoints::Static(list)
}

fn address(
    item: &Spanned<Either<Address, raw::Endpoint>>,
    found: &mut Found,
) -> Option<Spanned<Address>> {
    match &item.value {
        Either::Short(address) => Some(Spanned {
            value: *address,
            place: item.place.clone(),
            text: item.text.clone(),
        }),
        Either::Full(endpoint) => {
            let address = endpoint.address.as_ref();
            if address.is_none() {
                found.mistake(&item.place, "must have an address");
            }
            address.cloned()
        }
    }
}

/// Each claim belongs to one upstream.
fn check_claims(
    name: &Spanned<String>,
    raw: &raw::Upstream,
    claimed: &mut HashMap<String, String>,
    found: &mut Found,
) {
    for host in raw.hosts.as_ref().map_or(&[][..], |hosts| &hosts.value) {
        match claimed.insert(claim_key(host), name.value.clone()) {
            Some(other) if other == name.value => found.mistake_at(host, "stands there twice"),
            Some(other) => {
                found.mistake_at(host, format!("is claimed twice, by {other} as well"));
            }
            None => {}
        }
    }
}

fn claim_key(host: &Spanned<Host>) -> String {
    let without_root = |host: &str| host.strip_suffix('.').unwrap_or(host).to_owned();
    match &host.value.0 {
        Claim::Name { host, port } => format!("{} {port:?}", without_root(host)),
        Claim::Wildcard { suffix, port } => format!("*{} {port:?}", without_root(suffix)),
        Claim::Net { net, port } => format!("{net} {port:?}"),
    }
}

/// What protocol tcp can't do.
fn check_protocol(
    name: &Spanned<String>,
    raw: &raw::Upstream,
    upstream: &Upstream,
    found: &mut Found,
) {
    if upstream.protocol != Protocol::Tcp {
        return;
    }
    if let Some(headers) = raw.policies.0.headers.as_ref() {
        found.mistake(&headers.place, "protocol tcp has no headers");
    }
    for key in marked(raw).iter().filter(|key| key.marks.of_requests) {
        found.mistake(key.place, "protocol tcp has no requests");
    }
    for host in raw.hosts.as_ref().map_or(&[][..], |hosts| &hosts.value) {
        if !matches!(host.value.0, Claim::Net { .. }) {
            found.warn_at(
                host,
                format!(
                    "names are looked for in requests, which protocol tcp never reads; \
                     captured connections reach {} by address",
                    name.value
                ),
            );
        }
    }
}

/// The policies that the upstream itself has, with what is special about each.
fn marked(raw: &raw::Upstream) -> Vec<Marked<'_>> {
    let mut marked = Vec::new();
    raw.policies.0.marked(&mut marked);
    marked
}
