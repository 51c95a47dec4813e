//! `upstreams`: their claims, endpoints and policies.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::auth::{self, Auth};
use super::capture::OnFailure;
use super::{File, name_mistake};
use crate::config::checked::Origin;
use crate::config::findings::Findings;
use crate::config::policies::{self, Layers, Policies};
use crate::config::read::{Either, Read, RestrictedKey, Spanned, object};
use crate::config::restrictions::Section;
use crate::config::setting::Value;
use crate::config::values::{Address, Count, DnsName, Host, Zone, claim};
use crate::credential::workload_endpoint;
use crate::policy::balance::WEIGHT_MAX;
use crate::route::settings::{self, Claim, Endpoints, Protocol};
use crate::route::tls::Verify;

object! {
    /// A destination.
    Upstream {
        /// The names and addresses of this upstream. Names and `*.suffix` match
        /// the authority of a request; addresses and CIDRs match the destination
        /// of a connection, and an authority that is an address; a port is
        /// optional. Names win over addresses, exact names over wildcards, longer
        /// suffixes and prefixes over shorter ones, and then entries with a port
        /// over those without.
        hosts: Vec<Spanned<Host>>,
        /// The endpoints that its requests go to. Without `endpoints` and `dns`
        /// they go to the original destination of the connection.
        endpoints: Vec<Spanned<Either<Address, Endpoint>>>,
        /// A name and port instead of `endpoints`. It is resolved again when its
        /// TTL ends (after 1 s at least, 5 min at most).
        dns: DnsName,
        /// The credential that its requests carry. The proxy adds it; programs never
        /// have it. Needs `tls` with `verify: full`, or `endpoints` on loopback.
        /// Absent: none.
        auth: Auth,
        /// What captured connects to this upstream do while the proxy is dead, hung or
        /// without a slot. Default: `refuse` where it has `auth`, `tls.cert` or
        /// `placeholders`, else as in `capture`.
        on_failure: OnFailure,
        ..policies: Policies as Section::Upstream
    }
}

object! {
    /// One instance of an upstream.
    #[schemars(extend("required" = ["address"]))]
    Endpoint {
        /// Its IP address and port. Required.
        address: Address,
        /// Its share of the traffic, relative to the other endpoints.
        #[schemars(extend("default" = 1))]
        weight: Count<1, WEIGHT_MAX>,
        /// Its zone.
        zone: Zone,
    }
}

/// Upstreams, each with where its policies came from.
pub(super) struct Upstreams {
    pub(super) list: Vec<Arc<settings::Upstream>>,
    pub(super) policies: Vec<Layers>,
    pub(super) adopted: settings::Policies,
}

pub(super) fn check(file: &File, built_in: &Layers, findings: &mut Findings) -> Upstreams {
    let defaults = match file.defaults.as_ref() {
        Some(raw) => built_in.with(raw, &Origin::Defaults, findings),
        None => built_in.clone(),
    };
    let mut upstreams = Upstreams {
        list: Vec::new(),
        policies: Vec::new(),
        adopted: defaults.settings().without_caps(),
    };
    let workload_api = super::identity::workload_api(file);
    let mut claimed = HashMap::new();
    for (name, raw) in file.upstreams.items() {
        if let Some(what) = name_mistake(name) {
            findings.mistake_at(name, what);
        }
        let (upstream, policies) = upstream(name, raw, &defaults, workload_api, findings);
        check_claims(name, raw, &mut claimed, findings);
        check_protocol(name, raw, &upstream, findings);
        upstreams.list.push(Arc::new(upstream));
        upstreams.policies.push(policies);
    }
    upstreams
}

fn upstream(
    name: &Spanned<String>,
    raw: &Spanned<Upstream>,
    defaults: &Layers,
    workload_api: Option<&workload_endpoint::Endpoint>,
    findings: &mut Findings,
) -> (settings::Upstream, Layers) {
    let mut policies = defaults.with(&raw.policies, &Origin::Upstream, findings);
    let endpoints = endpoints(raw, findings);
    if endpoints == Endpoints::Original && policies.settings().pool.min_idle > 0 {
        let own = raw
            .policies
            .pool
            .as_ref()
            .and_then(|pool| pool.min_idle.as_ref());
        if let Some(own) = own {
            findings.mistake_at(
                own,
                "needs endpoints or dns: there is nothing to dial ahead of a request",
            );
        }
        policies.without_min_idle();
    }
    if endpoints == Endpoints::Original {
        for key in restricted_keys(raw)
            .iter()
            .filter(|key| key.restrictions.of_endpoints)
        {
            findings.warn(key.place, "does nothing without endpoints or dns");
        }
    }
    if policies.protocol() == Protocol::Tcp {
        policies.without_requests();
    }
    check_tls(name, raw, &policies, &endpoints, findings);
    let hosts = raw.hosts.items();
    let claims: Vec<Claim> = hosts.iter().map(|host| host.value.0.clone()).collect();
    let tls = policies.tls();
    let carrier = auth::Carrier {
        claims: &claims,
        endpoints: &endpoints,
        protocol: policies.protocol(),
        tls: tls.as_deref(),
        workload_api,
    };
    let auth = raw.auth.as_ref();
    let auth = auth.and_then(|auth| auth::check(auth, carrier, findings));
    let upstream = settings::Upstream {
        name: name.value.as_str().into(),
        claims,
        auth: auth.map(Arc::new),
        placeholders: Vec::new(),
        on_failure: raw.on_failure.as_ref().map(|it| it.value.meaning()),
        endpoints,
        protocol: policies.protocol(),
        tls,
        policies: policies.settings().clone(),
    };
    (upstream, policies)
}

fn endpoints(raw: &Upstream, findings: &mut Findings) -> Endpoints {
    if let (Some(endpoints), Some(_)) = (raw.endpoints.as_ref(), raw.dns.as_ref()) {
        findings.mistake(
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
    let mut list: Vec<settings::Endpoint> = Vec::new();
    for item in &raw.value {
        let Some(address) = address(item, findings) else {
            continue;
        };
        let mut endpoint = settings::Endpoint::from(address.value.0);
        if list.iter().any(|known| known.address == endpoint.address) {
            findings.mistake_at(&address, "is listed twice");
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
    let noted = findings
        .mistakes
        .iter()
        .any(|m| m.path.starts_with(&inside));
    if raw.value.is_empty() && !noted {
        findings.mistake(&raw.place, "must name at least one endpoint");
    }
    Endpoints::Static(list)
}

fn address(
    item: &Spanned<Either<Address, Endpoint>>,
    findings: &mut Findings,
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
                findings.mistake(&item.place, "must have an address");
            }
            address.cloned()
        }
    }
}

/// Whether whoever answers may be somebody else.
fn check_tls(
    name: &Spanned<String>,
    raw: &Upstream,
    policies: &Layers,
    endpoints: &Endpoints,
    findings: &mut Findings,
) {
    let Some(tls) = policies.tls() else { return };
    let own = raw.policies.tls.as_ref().map(|tls| &tls.place);
    let place = own.unwrap_or(&name.place);
    if tls.verify == Verify::Off {
        findings.warn(
            place,
            "tls.verify is off: whoever can take the place of the server is believed",
        );
    }
    if tls.cert.is_some() && *endpoints == Endpoints::Original && !tls.is_verified() {
        findings.mistake(
            place,
            "a client certificate needs endpoints, dns or verify: full: a forged Host would have \
             it shown to anybody",
        );
    }
}

/// Each claim belongs to one upstream.
fn check_claims(
    name: &Spanned<String>,
    raw: &Upstream,
    claimed: &mut HashMap<String, String>,
    findings: &mut Findings,
) {
    for host in raw.hosts.items() {
        match claimed.insert(claim_key(host), name.value.clone()) {
            Some(other) if other == name.value => findings.mistake_at(host, "is listed twice"),
            Some(other) => {
                findings.mistake_at(host, format!("is claimed twice, by {other} as well"));
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
    raw: &Upstream,
    upstream: &settings::Upstream,
    findings: &mut Findings,
) {
    if upstream.protocol != Protocol::Tcp {
        return;
    }
    if let Some(headers) = raw.policies.headers.as_ref() {
        findings.mistake(&headers.place, "protocol tcp has no headers");
    }
    for key in restricted_keys(raw)
        .iter()
        .filter(|key| key.restrictions.of_requests)
    {
        findings.mistake(key.place, "protocol tcp has no requests");
    }
    for host in raw.hosts.items() {
        if !matches!(host.value.0, Claim::Net { .. }) {
            findings.warn_at(
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
fn restricted_keys(raw: &Upstream) -> Vec<RestrictedKey<'_>> {
    let mut restricted_keys = Vec::new();
    raw.policies.restricted_keys(&mut restricted_keys);
    restricted_keys
}

/// As the file would write it.
pub(in crate::config) fn shown(upstream: &settings::Upstream) -> Json {
    let mut shown = Map::new();
    shown.insert("hosts".into(), upstream.claims.iter().map(claim).collect());
    match &upstream.endpoints {
        Endpoints::Static(list) => {
            let list = list.iter().map(endpoint);
            shown.insert("endpoints".into(), list.collect());
        }
        Endpoints::Dns { name, port } => {
            shown.insert("dns".into(), format!("{name}:{port}").into());
        }
        Endpoints::Original => {}
    }
    if let Some(auth) = &upstream.auth {
        shown.insert("auth".into(), auth::shown(auth));
    }
    if let Some(written) = upstream.on_failure.as_ref().and_then(OnFailure::written) {
        shown.insert("on_failure".into(), written);
    }
    shown.extend(policies::shown(upstream, Section::Upstream));
    Json::Object(shown)
}

/// An address alone where nothing else is said.
fn endpoint(endpoint: &settings::Endpoint) -> Json {
    let address = endpoint.address.to_string();
    if *endpoint == settings::Endpoint::from(endpoint.address) {
        return address.into();
    }
    let mut shown = json!({ "address": address, "weight": endpoint.weight });
    if let Some(zone) = &endpoint.zone {
        shown["zone"] = (**zone).into();
    }
    shown
}
