//! Upstreams: their claims, endpoints and policies.

use std::collections::HashMap;
use std::sync::Arc;

use super::name_mistake;
use super::policies::{Layer, Policies, zone};
use crate::config::checked::Origin;
use crate::config::found::Found;
use crate::config::raw::{self, File};
use crate::config::read::{Either, Place, Spanned};
use crate::config::values::{Address, Host};
use crate::policy::balance::WEIGHT_MAX;
use crate::route::settings::{self as settings, Claim, Endpoint, Endpoints, Protocol, Upstream};

/// Upstreams, each with where its policies came from.
pub(super) struct Upstreams {
    pub(super) list: Vec<Arc<Upstream>>,
    pub(super) policies: Vec<Policies>,
    pub(super) adopted: settings::Policies,
}

pub(super) fn check(file: &File, found: &mut Found) -> Upstreams {
    let mut defaults = Policies::built_in(file);
    if let Some(raw) = file.defaults.as_ref() {
        let layer = Layer {
            protocol: raw.protocol.as_ref(),
            pool: raw.pool.as_ref(),
            timeouts: raw.timeouts.as_ref(),
            tcp_keepalive: raw.tcp_keepalive.as_ref(),
            retry: raw.retry.as_ref(),
            circuit_breaker: raw.circuit_breaker.as_ref(),
            rate_limit: raw.rate_limit.as_ref(),
            load_balancing: raw.load_balancing.as_ref(),
            zone: raw.zone.as_ref(),
            outlier: raw.outlier.as_ref(),
            hedge: raw.hedge.as_ref(),
            concurrency: raw.concurrency.as_ref(),
            headers: raw.headers.as_ref(),
            max_hops: raw.max_hops.as_ref(),
            fault: raw.fault.as_ref(),
            propagate: raw.propagate.as_ref(),
            origin: &Origin::Defaults,
        };
        defaults = defaults.with(&layer, found);
    }
    let mut upstreams = Upstreams {
        list: Vec::new(),
        policies: Vec::new(),
        adopted: defaults.settings.without_caps(),
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
    defaults: &Policies,
    found: &mut Found,
) -> (Upstream, Policies) {
    let layer = Layer {
        protocol: raw.protocol.as_ref(),
        pool: raw.pool.as_ref(),
        timeouts: raw.timeouts.as_ref(),
        tcp_keepalive: raw.tcp_keepalive.as_ref(),
        retry: raw.retry.as_ref(),
        circuit_breaker: raw.circuit_breaker.as_ref(),
        rate_limit: raw.rate_limit.as_ref(),
        load_balancing: raw.load_balancing.as_ref(),
        zone: raw.zone.as_ref(),
        outlier: raw.outlier.as_ref(),
        hedge: raw.hedge.as_ref(),
        concurrency: raw.concurrency.as_ref(),
        headers: raw.headers.as_ref(),
        max_hops: raw.max_hops.as_ref(),
        fault: raw.fault.as_ref(),
        propagate: raw.propagate.as_ref(),
        origin: &Origin::Upstream,
    };
    let mut policies = defaults.with(&layer, found);
    let endpoints = endpoints(raw, found);
    if endpoints == Endpoints::Original && policies.settings.pool.min_idle > 0 {
        let own = raw.pool.as_ref().and_then(|pool| pool.min_idle.as_ref());
        if let Some(own) = own {
            found.mistake_at(
                own,
                "needs endpoints or dns: there is nothing to dial ahead of a request",
            );
        }
        policies.settings.pool.min_idle = 0;
    }
    if endpoints == Endpoints::Original {
        for place in of_endpoints(raw) {
            found.warn(place, "does nothing without endpoints or dns");
        }
    }
    if policies.protocol == Protocol::Tcp {
        policies.without_requests();
    }
    let hosts = raw.hosts.as_ref().map_or(&[][..], |hosts| &hosts.value);
    let upstream = Upstream {
        name: name.value.as_str().into(),
        claims: hosts.iter().map(|host| host.value.0.clone()).collect(),
        endpoints,
        protocol: policies.protocol,
        policies: policies.settings.clone(),
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
                if !(1..=WEIGHT_MAX).contains(&weight.value.0) {
                    let what = format!("must be from 1 to {WEIGHT_MAX}");
                    found.mistake_at(weight, what);
                }
                endpoint.weight = weight.value.0;
            }
            endpoint.zone = raw.zone.as_ref().and_then(|raw| zone(raw, found));
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
    if let Some(headers) = raw.headers.as_ref() {
        found.mistake(&headers.place, "protocol tcp has no headers");
    }
    for place in of_requests(raw) {
        found.mistake(place, "protocol tcp has no requests");
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

/// Where policies stand that choose among endpoints.
fn of_endpoints(raw: &raw::Upstream) -> impl Iterator<Item = &Place> {
    let places = [
        raw.load_balancing.as_ref().map(|key| &key.place),
        raw.zone.as_ref().map(|key| &key.place),
        raw.outlier.as_ref().map(|key| &key.place),
    ];
    places.into_iter().flatten()
}

/// Where policies stand that need requests.
fn of_requests(raw: &raw::Upstream) -> Vec<&Place> {
    let mut places = Vec::new();
    if let Some(timeouts) = raw.timeouts.as_ref() {
        let limits = [&timeouts.first_byte, &timeouts.per_try, &timeouts.request];
        let limits = limits.into_iter().filter_map(|limit| limit.as_ref());
        places.extend(limits.map(|limit| &limit.place));
        places.extend(timeouts.head.as_ref().map(|head| &head.place));
        places.extend(timeouts.min_rate.as_ref().map(|rate| &rate.place));
    }
    // A connect that fails is one to try again for without requests too.
    if let Some(retry) = raw.retry.as_ref() {
        let retry = &retry.value;
        let of_requests = [
            retry.on.as_ref().map(|key| &key.place),
            retry.elsewhere.as_ref().map(|key| &key.place),
            retry.methods.as_ref().map(|key| &key.place),
            retry.idempotency_header.as_ref().map(|key| &key.place),
            retry.body_limit.as_ref().map(|key| &key.place),
            retry.honor_retry_after.as_ref().map(|key| &key.place),
        ];
        places.extend(of_requests.into_iter().flatten());
    }
    if let Some(fault) = raw.fault.as_ref()
        && let Either::Full(fault) = &fault.value
    {
        places.extend(fault.abort.as_ref().map(|abort| &abort.place));
        places.extend(fault.header.as_ref().map(|header| &header.place));
    }
    places.extend(raw.propagate.as_ref().map(|formats| &formats.place));
    places.extend(raw.max_hops.as_ref().map(|hops| &hops.place));
    places.extend(raw.rate_limit.as_ref().map(|limit| &limit.place));
    places.extend(raw.hedge.as_ref().map(|hedge| &hedge.place));
    if let Some(load_balancing) = raw.load_balancing.as_ref()
        && let Either::Full(hashing) = &load_balancing.value
    {
        let by = hashing.ring_hash.as_ref();
        let header = by.and_then(|by| by.header.as_ref());
        places.extend(header.map(|header| &header.place));
    }
    places.extend(raw.concurrency.as_ref().map(|limit| &limit.place));
    let breaker = raw.circuit_breaker.as_ref();
    let statuses = breaker.and_then(|breaker| breaker.failure_statuses.as_ref());
    places.extend(statuses.map(|statuses| &statuses.place));
    places
}
