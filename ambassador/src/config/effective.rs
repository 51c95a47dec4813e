//! The configuration in effect, in the form of the file: what `/config`
//! answers. Secrets are masked.

use serde_json::{Map, Value, json};

use super::checked::{Checked, LogTarget, Workers};
use super::marks::Stand;
use super::policies::Written;
use super::setting::{self, View};
use super::values::{Percent, Propagation, Time, size};
use super::{raw, secrets};
use crate::capture::settings::{Scope, Settings as Capture};
use crate::proxy::memory::Limit;
use crate::route::settings::{Claim, Endpoint, Endpoints, HeaderRules, HostMatch, Route, Upstream};

impl Checked {
    /// Every setting in effect as JSON that is also a valid file.
    pub fn effective(&self) -> Value {
        let admin = &self.admin;
        let mut file = Map::new();
        file.insert(
            "workers".into(),
            match self.workers {
                Workers::Auto => "auto".into(),
                Workers::Count(count) => count.into(),
            },
        );
        file.insert("spin".into(), word::<raw::Spin, _>(&self.spin));
        file.insert("user".into(), self.user.to_string().into());
        file.insert(
            "admin".into(),
            object([
                ("listen", Some(admin.listen.to_string().into())),
                (
                    "metrics_listen",
                    admin
                        .metrics_listen
                        .as_ref()
                        .map(|bind| bind.to_string().into()),
                ),
                (
                    "token_file",
                    admin
                        .token_file
                        .as_ref()
                        .map(|p| p.display().to_string().into()),
                ),
            ]),
        );
        file.insert("max_connections".into(), count(self.max_connections));
        file.insert("memory_limit".into(), memory_limit(self.memory_limit));
        file.insert(
            "drain_timeout".into(),
            Time::text(self.drain_timeout).into(),
        );
        file.insert("drain_delay".into(), Time::text(self.drain_delay).into());
        if let Some(settings) = &self.capture {
            file.insert("capture".into(), capture(settings));
        }
        file.insert("listeners".into(), self.listeners());
        let upstreams = self.routes.upstreams.iter();
        let upstreams = upstreams.map(|u| (u.name.to_string(), upstream(u)));
        file.insert("upstreams".into(), Value::Object(upstreams.collect()));
        let routes = self.routes.routes.iter();
        file.insert(
            "routes".into(),
            routes.map(|route| self.route(route)).collect(),
        );
        let mut telemetry = Map::new();
        if let Some(log) = &self.access_log {
            let path = match &log.target {
                LogTarget::Stdout => "stdout".to_owned(),
                LogTarget::Stderr => "stderr".to_owned(),
                LogTarget::File(path) => path.display().to_string(),
            };
            let sample = Percent::text(log.sample);
            let log = json!({ "path": path, "format": word::<raw::LogFormat, _>(&log.format), "sample": sample });
            telemetry.insert("access_log".into(), log);
        }
        if let Some(tracing) = &self.tracing {
            let sample = Percent::text(tracing.sample);
            let propagate = word::<Propagation, _>(&tracing.formats);
            let tracing = json!({ "sample": sample, "propagate": propagate });
            telemetry.insert("tracing".into(), tracing);
        }
        if !telemetry.is_empty() {
            file.insert("telemetry".into(), Value::Object(telemetry));
        }
        Value::Object(file)
    }

    fn listeners(&self) -> Value {
        let listeners = self.listeners.iter().map(|listener| {
            let upstream = listener.upstream.map(|index| &self.routes.upstreams[index]);
            let protocol = word::<raw::ListenerProtocol, _>(&listener.protocol);
            object([
                ("name", Some(listener.name.as_str().into())),
                ("bind", Some(listener.bind.to_string().into())),
                ("protocol", Some(protocol)),
                ("upstream", upstream.map(|upstream| (*upstream.name).into())),
                ("max_connections", Some(count(listener.max_connections))),
            ])
        });
        listeners.collect()
    }

    fn route(&self, route: &Route) -> Value {
        let matches = &route.matches;
        let methods = Some(&matches.methods).filter(|methods| !methods.is_empty());
        let mut shown = Map::new();
        shown.insert(
            "match".into(),
            object([
                (
                    "host",
                    matches.host.as_ref().map(|host| route_host(host).into()),
                ),
                (
                    "path_prefix",
                    matches.path_prefix.as_deref().map(Value::from),
                ),
                ("methods", methods.map(|methods| methods.clone().into())),
            ]),
        );
        let upstream = &*self.routes.upstreams[route.upstream].name;
        shown.insert("upstream".into(), upstream.into());
        if let Some(overridden) = &route.overridden {
            let stand = Stand::Route;
            shown.extend(policies(overridden, stand));
        }
        Value::Object(shown)
    }
}

fn word<V: setting::Value<T>, T>(meaning: &T) -> Value {
    V::written(meaning).unwrap_or(Value::Null)
}

fn memory_limit(limit: Limit) -> Value {
    match limit {
        Limit::Auto => "auto".into(),
        Limit::None => "none".into(),
        Limit::Bytes(bytes) => size(bytes).into(),
    }
}

fn count(max: Option<u32>) -> Value {
    max.map_or("none".into(), Value::from)
}

/// An object of the entries that are there.
fn object<const N: usize>(entries: [(&str, Option<Value>); N]) -> Value {
    let present = entries
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(present.collect())
}

fn capture(settings: &Capture) -> Value {
    let cgroups = settings.targets.iter().map(|target| {
        let path = target.cgroup.display().to_string();
        match &target.netns {
            None => path.into(),
            Some(netns) => json!({ "path": path, "netns": netns.display().to_string() }),
        }
    });
    json!({
        "cgroups": cgroups.collect::<Value>(),
        "mode": word::<raw::Mode, _>(&settings.mode),
        "include": scope(&settings.include),
        "exclude": scope(&settings.exclude),
        "unmatched": word::<raw::Unmatched, _>(&settings.unmatched),
        "on_failure": word::<raw::OnFailure, _>(&settings.on_failure),
        "quic": word::<raw::Quic, _>(&settings.quic),
    })
}

fn scope(scope: &Scope) -> Value {
    let cidrs = scope.cidrs.iter().map(ToString::to_string);
    json!({ "ports": scope.ports, "cidrs": cidrs.collect::<Vec<_>>() })
}

fn upstream(upstream: &Upstream) -> Value {
    let endpoints = match &upstream.endpoints {
        Endpoints::Static(list) => {
            let list = list.iter().map(endpoint);
            Some(("endpoints", Value::from(list.collect::<Vec<_>>())))
        }
        Endpoints::Dns { name, port } => Some(("dns", format!("{name}:{port}").into())),
        Endpoints::Original => None,
    };
    let mut shown = Map::new();
    shown.insert("hosts".into(), upstream.claims.iter().map(claim).collect());
    if let Some((key, value)) = endpoints {
        shown.insert(key.into(), value);
    }
    shown.extend(policies(upstream, Stand::Upstream));
    Value::Object(shown)
}

/// An address alone where nothing else is said.
fn endpoint(endpoint: &Endpoint) -> Value {
    let address = endpoint.address.to_string();
    if *endpoint == Endpoint::from(endpoint.address) {
        return address.into();
    }
    let mut shown = json!({ "address": address, "weight": endpoint.weight });
    if let Some(zone) = &endpoint.zone {
        shown["zone"] = (**zone).into();
    }
    shown
}

/// The policies of an upstream, as the file would write them; secrets masked.
pub(crate) fn policies_of(upstream: &Upstream) -> Map<String, Value> {
    let mut shown = policies(upstream, Stand::Upstream);
    shown.shift_remove("protocol");
    shown
}

/// The policies of an upstream, or of a route as it sees one: a mapping for each
/// group.
fn policies(upstream: &Upstream, stand: Stand) -> Map<String, Value> {
    let protocol = upstream.protocol;
    let written = Written::of(protocol, &upstream.policies);
    let mut groups = Map::new();
    for (key, value) in written.shown(View { protocol, stand }) {
        let (group, rest) = key.split_once('.').unwrap_or((&key, ""));
        let mut at = groups.entry(group).or_insert(Value::Null);
        for name in rest.split('.').filter(|name| !name.is_empty()) {
            at = &mut at[name];
        }
        *at = value;
    }
    if upstream.policies.headers != HeaderRules::default() {
        groups.insert("headers".into(), headers(&upstream.policies.headers));
    }
    groups
}

fn headers(rules: &HeaderRules) -> Value {
    // Names do not tell which of them carries a secret.
    let set = rules
        .set
        .iter()
        .map(|(name, _)| (name.clone(), secrets::MASK.into()));
    json!({ "set": Value::Object(set.collect()), "remove": rules.remove })
}

/// A claim as the file writes it.
pub(super) fn claim(claim: &Claim) -> String {
    let (host, port) = match claim {
        Claim::Name { host, port } => (host.clone(), port),
        Claim::Wildcard { suffix, port } => (format!("*{suffix}"), port),
        Claim::Net { net, port } => {
            let full = net.prefix_len() == net.max_prefix_len();
            let host = if full {
                net.addr().to_string()
            } else {
                net.to_string()
            };
            match (net.addr().is_ipv6(), port) {
                (true, Some(_)) => (format!("[{host}]"), port),
                _ => (host, port),
            }
        }
    };
    port.map_or(host.clone(), |port| format!("{host}:{port}"))
}

fn route_host(host: &HostMatch) -> String {
    match host {
        HostMatch::Exact(authority) => authority.to_string(),
        HostMatch::Wildcard { suffix, port } => claim(&Claim::Wildcard {
            suffix: suffix.clone(),
            port: *port,
        }),
    }
}
