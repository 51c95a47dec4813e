//! The configuration in effect, in the form of the file: what `/config`
//! answers. Secrets are masked.

pub(super) mod policies;

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::checked::{Checked, LogTarget, Workers};
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
        file.insert("spin".into(), raw::Spin::word(self.spin).into());
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
        file.insert("drain_timeout".into(), time(self.drain_timeout).into());
        file.insert("drain_delay".into(), time(self.drain_delay).into());
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
            let sample = percent(log.sample);
            let log = json!({ "path": path, "format": raw::LogFormat::word(log.format), "sample": sample });
            telemetry.insert("access_log".into(), log);
        }
        if let Some(tracing) = &self.tracing {
            let sample = percent(tracing.sample);
            let propagate = policies::propagate(tracing.formats);
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
            let protocol = raw::ListenerProtocol::word(listener.protocol);
            object([
                ("name", Some(listener.name.as_str().into())),
                ("bind", Some(listener.bind.to_string().into())),
                ("protocol", Some(protocol.into())),
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
            let mut groups = policies_of(overridden);
            // A route has none of its own.
            groups.shift_remove("pool");
            groups.shift_remove("zone");
            groups.shift_remove("propagate");
            groups.shift_remove("max_hops");
            groups.shift_remove("tcp_keepalive");
            if let Some(Value::Object(timeouts)) = groups.get_mut("timeouts") {
                timeouts.shift_remove("head");
            }
            if let Some(Value::Object(breaker)) = groups.get_mut("circuit_breaker") {
                breaker.shift_remove("kernel_fail_fast");
            }
            groups.shift_remove("concurrency");
            shown.extend(groups);
        }
        Value::Object(shown)
    }
}

fn memory_limit(limit: Limit) -> Value {
    match limit {
        Limit::Auto => "auto".into(),
        Limit::None => "none".into(),
        Limit::Bytes(bytes) => policies::size(bytes).into(),
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
        "mode": raw::Mode::word(settings.mode),
        "include": scope(&settings.include),
        "exclude": scope(&settings.exclude),
        "unmatched": raw::Unmatched::word(settings.unmatched),
        "on_failure": raw::OnFailure::word(settings.on_failure),
        "quic": raw::Quic::word(settings.quic),
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
    shown.insert(
        "protocol".into(),
        raw::Protocol::word(upstream.protocol).into(),
    );
    shown.extend(policies_of(upstream));
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

/// The policies of an upstream, or of a route as it sees one, as the file would
/// write them; secrets masked.
pub(crate) fn policies_of(upstream: &Upstream) -> Map<String, Value> {
    let policies = &upstream.policies;
    let mut shown = policies::groups(policies::entries(upstream.protocol, policies));
    if policies.headers != HeaderRules::default() {
        shown.insert("headers".into(), headers(&policies.headers));
    }
    shown
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

/// A share as the file writes it, without the dust of binary fractions.
fn percent(share: f64) -> String {
    format!("{}%", (share * 1e10).round() / 1e8)
}

/// A duration as the file writes it, in the largest unit that holds it whole.
pub(super) fn time(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let whole = units
        .iter()
        .find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}
