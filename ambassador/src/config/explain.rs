//! `explain`: what happens to one destination, and which lines of the file decide
//! that.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::checked::Checked;
use super::secrets;
use super::values::claim;
use crate::addr::{Authority, OriginalDst};
use crate::capture::settings::Settings as Capture;
use crate::route::settings::{Endpoint, Endpoints, Unmatched};
use crate::route::{MatchSource, Matched, RequestKey, Resolution, Table};

/// What `ambassador explain` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation(Vec<Line>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    key: &'static str,
    value: String,
    origin: Option<String>,
}

/// A destination that can't be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadDestination(String);

/// What the user asks about: a URL or `ip:port`.
struct Destination {
    authority: Option<Authority>,
    address: Option<SocketAddr>,
    path: String,
}

/// Explains a URL or `ip:port`, asked for with GET.
pub fn explain(checked: &Checked, destination: &str) -> Result<Explanation, BadDestination> {
    let destination = Destination::parse(destination)?;
    let table = Table::new(checked.routes.clone());
    let mut lines = Vec::new();
    lines.push(line(
        "captured",
        captured(checked.capture.as_ref(), &table, &destination),
    ));
    // Without `capture` in the file, `run --cgroup` captures with the defaults.
    let by_default = Capture::default();
    let is_address = destination.authority.is_none();
    let capture = checked
        .capture
        .as_ref()
        .or(is_address.then_some(&by_default));
    match resolve(capture, &table, &destination) {
        Resolution::Upstream(matched) => explain_upstream(checked, &matched, &mut lines),
        Resolution::Adopt(_) => lines.push(line("upstream", "adopted, with the defaults")),
        Resolution::Unmatched(_) => {
            lines.push(line(
                "upstream",
                "unmatched: relayed to the original destination",
            ));
        }
        Resolution::NoRoute => lines.push(line("upstream", "none: no-route")),
    }
    Ok(Explanation(lines))
}

/// As a captured connection, or on an explicit listener where the file
/// captures nothing.
fn resolve<'a>(
    capture: Option<&Capture>,
    table: &'a Table,
    destination: &'a Destination,
) -> Resolution<'a> {
    let port = destination.authority.as_ref().and_then(Authority::port);
    // A name has an address only once it is resolved. Any stands for it: an
    // upstream that claims 0.0.0.0 claims every other one as well.
    let unknown = SocketAddr::from(([0, 0, 0, 0], port.unwrap_or(80)));
    let original = OriginalDst(destination.address.unwrap_or(unknown));
    let request = RequestKey {
        original: capture.map(|_| original),
        tunnel: None,
        authority: destination.authority.as_ref(),
        x_upstream_host: None,
        path: destination.path.as_bytes(),
        method: b"GET",
    };
    match (&destination.authority, capture) {
        (None, Some(_)) => table.resolve_connection(original, None),
        _ => table.resolve_request(&request),
    }
}

fn explain_upstream(checked: &Checked, matched: &Matched<'_>, lines: &mut Vec<Line>) {
    let upstream = matched.upstream;
    let via = match matched.via {
        MatchSource::Route(number) => format!("routes[{number}]"),
        MatchSource::Authority => "the name asked for".to_owned(),
        MatchSource::Address => "the address".to_owned(),
        MatchSource::XUpstreamHost => "X-Upstream-Host".to_owned(),
        MatchSource::PathPrefix => "the path".to_owned(),
    };
    lines.push(line("route", via));
    lines.push(line("upstream", upstream.name.to_string()));
    let claims: Vec<String> = upstream.claims.iter().map(claim).collect();
    lines.push(line("hosts", claims.join(", ")));
    let endpoints = match &upstream.endpoints {
        Endpoints::Static(list) => {
            let list = list.iter().map(endpoint);
            list.collect::<Vec<_>>().join(", ")
        }
        Endpoints::Dns { name, port } => format!("{name}:{port}, resolved"),
        Endpoints::Original => "the original destination".to_owned(),
    };
    lines.push(line("endpoints", endpoints));
    let overridden = match matched.via {
        MatchSource::Route(number) => checked.route_policies.get(number).and_then(Option::as_ref),
        _ => None,
    };
    let policies = overridden.or_else(|| checked.policies.get(matched.index));
    for policy in policies.into_iter().flatten() {
        lines.push(Line {
            key: "policy",
            value: format!("{}: {}", policy.key, policy.value),
            origin: Some(policy.origin.to_string()),
        });
    }
}

/// Its address, and what else is said of it.
fn endpoint(endpoint: &Endpoint) -> String {
    let weight = Some(endpoint.weight).filter(|weight| *weight != 1);
    let said = [
        weight.map(|weight| format!("weight {weight}")),
        endpoint.zone.as_ref().map(|zone| format!("zone {zone}")),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    match said.is_empty() {
        true => endpoint.address.to_string(),
        false => format!("{} ({})", endpoint.address, said.join(", ")),
    }
}

/// Whether connect() is captured, and why.
fn captured(capture: Option<&Capture>, table: &Table, destination: &Destination) -> String {
    let Some(capture) = capture else {
        return "only by `run --cgroup`: the file has no capture".to_owned();
    };
    let Some(address) = destination.address else {
        return "as the address that the name resolves to".to_owned();
    };
    let (ip, port) = (address.ip().to_canonical(), address.port());
    if let Some(net) = capture.exclude.cidrs.iter().find(|net| net.contains(&ip)) {
        return format!("no: capture.exclude.cidrs has {net}");
    }
    if capture.exclude.ports.contains(&port) {
        return format!("no: capture.exclude.ports has {port}");
    }
    if !capture.include.ports.is_empty() && !capture.include.ports.contains(&port) {
        return format!("no: capture.include.ports does not have {port}");
    }
    let cidrs = &capture.include.cidrs;
    if cidrs.is_empty() && ip.is_loopback() {
        return "no: loopback is out of scope unless capture.include.cidrs has it".to_owned();
    }
    if !cidrs.is_empty() && !cidrs.iter().any(|net| net.contains(&ip)) {
        return format!("no: capture.include.cidrs does not have {ip}");
    }
    let claimed = table.claim_address(OriginalDst(address));
    match (claimed, capture.unmatched) {
        (Some(upstream), _) => format!("yes: {} claims it", upstream.name),
        (None, Unmatched::Proxy | Unmatched::Adopt) => "yes: it is in scope".to_owned(),
        (None, Unmatched::Passthrough) => {
            "no: unmatched is passthrough and no upstream claims the address \
             (one that a claimed name resolves to is captured)"
                .to_owned()
        }
        (None, Unmatched::Refuse) if table.claims().any_names => {
            "yes: a name could claim it; refused after the first bytes if none does".to_owned()
        }
        (None, Unmatched::Refuse) => "refused: unmatched is refuse".to_owned(),
    }
}

fn line(key: &'static str, value: impl Into<String>) -> Line {
    let value = value.into();
    let origin = None;
    Line { key, value, origin }
}

impl Destination {
    fn parse(text: &str) -> Result<Self, BadDestination> {
        let bad = |what: &str| {
            let text = secrets::shown("", text);
            BadDestination(format!("{what}, got {}", text.escape_debug()))
        };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self {
                authority: None,
                address: Some(address),
                path: String::new(),
            });
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("must be a URL or ip:port"))?;
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(bad("must be an http or https URL")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let authority: Authority = host.parse().map_err(|_| bad("must name a host"))?;
        let port = authority.port().unwrap_or(default_port);
        let address = authority.ip().map(|ip: IpAddr| SocketAddr::new(ip, port));
        let path = path.split('#').next().unwrap_or_default();
        Ok(Self {
            authority: Authority::new(authority.host(), Some(port)).ok(),
            address,
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
        })
    }
}

impl Explanation {
    /// The same for programs.
    pub fn to_json(&self) -> Value {
        let mut object = serde_json::Map::new();
        let mut policies = serde_json::Map::new();
        for line in &self.0 {
            match (&line.origin, line.value.split_once(": ")) {
                (Some(origin), Some((key, value))) => {
                    policies.insert(key.to_owned(), json!({ "value": value, "from": origin }));
                }
                _ => {
                    object.insert(line.key.to_owned(), line.value.as_str().into());
                }
            }
        }
        if !policies.is_empty() {
            object.insert("policies".to_owned(), Value::Object(policies));
        }
        Value::Object(object)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            match &line.origin {
                Some(origin) => writeln!(f, "  {:<40} ({origin})", line.value)?,
                None => writeln!(f, "{:<10} {}", line.key, line.value)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for BadDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadDestination {}
