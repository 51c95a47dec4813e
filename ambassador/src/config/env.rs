//! Configuration without a file: one listener and one upstream from environment
//! variables.

use serde_json::{Value, json};

use super::checked::Checked;
use super::file;
use super::findings::Findings;
use super::mistakes::{Mistake, Mistakes};
use super::policies::{ATTEMPTS_MAX, Protocol};
use super::read::Scalar;
use super::values::{Bind, DnsName, Port, number};
use super::yaml;
use crate::policy::breaker::FAILURES_MAX;

/// Where messages say that a value stands.
const SOURCE: &str = "environment";
/// The upstream and its listener are called this.
const NAME: &str = "upstream";

/// The configuration that the environment gives; `None` where it names no
/// upstream. `LISTEN_ADDR`, `UPSTREAM_HOST` and `UPSTREAM_PORT` are needed,
/// `PROTOCOL` is a `protocol` (`auto`); `RETRY_MAX` is `retry.attempts` and
/// `CIRCUIT_BREAKER_THRESHOLD` is `circuit_breaker.failures`, 0 for none of it;
/// `TLS_ENABLED` true is `tls: on`;
/// `METRICS_LISTEN_ADDR` is `admin.metrics_listen`.
pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Option<Result<Checked, Mistakes>> {
    let host = get("UPSTREAM_HOST")?;
    let mut mistakes = Vec::new();
    let tls = match get("TLS_ENABLED").as_deref() {
        None | Some("" | "false" | "0") => Tls::Off,
        Some("true" | "1") => Tls::On,
        Some(other) => {
            let other = Some(other.to_owned());
            mistakes.push(mistake("TLS_ENABLED", "must be true or false", other));
            Tls::Off
        }
    };
    let mut up_to = |name: &str, most: u32| {
        let value = get(name)?;
        let count = number(&value).filter(|count: &u32| *count <= most);
        if count.is_none() {
            let what = format!("must be a whole number from 0 to {most}");
            mistakes.push(mistake(name, &what, Some(value)));
        }
        count
    };
    let policies = Policies {
        attempts: up_to("RETRY_MAX", ATTEMPTS_MAX).map(|most| most.max(1)),
        failures: up_to("CIRCUIT_BREAKER_THRESHOLD", FAILURES_MAX),
        tls,
    };
    let mut needed = |name: &str, check: &dyn Fn(&str) -> Result<(), String>| {
        let value = get(name);
        match value.as_deref().map(check) {
            None => mistakes.push(mistake(name, "is needed beside UPSTREAM_HOST", None)),
            Some(Err(what)) => mistakes.push(mistake(name, &what, value.clone())),
            Some(Ok(())) => {}
        }
        value.unwrap_or_default()
    };
    let listen = needed("LISTEN_ADDR", &|text| Bind::parse(text).map(drop));
    let port = needed("UPSTREAM_PORT", &|text| Port::parse(text).map(drop));
    let metrics_listen = get("METRICS_LISTEN_ADDR");
    if let Some(Err(what)) = metrics_listen.as_deref().map(Bind::parse) {
        mistakes.push(mistake(
            "METRICS_LISTEN_ADDR",
            &what,
            metrics_listen.clone(),
        ));
    }
    let protocol = get("PROTOCOL").unwrap_or_else(|| "auto".to_owned());
    if let Err(what) = Protocol::parse(&protocol) {
        mistakes.push(mistake("PROTOCOL", &what, Some(protocol.clone())));
    }
    let Some(target) = Target::new(&host, &port) else {
        mistakes.push(mistake(
            "UPSTREAM_HOST",
            "must be a host name or address",
            Some(host),
        ));
        return Some(Err(Mistakes::new(SOURCE, mistakes)));
    };
    if !mistakes.is_empty() {
        return Some(Err(Mistakes::new(SOURCE, mistakes)));
    }
    let mut findings = Findings::default();
    let mut written = written(&listen, &target, &protocol, &policies);
    if let Some(address) = metrics_listen {
        written["admin"] = json!({ "metrics_listen": address });
    }
    let checked = yaml::parse(&written.to_string(), &mut findings)
        .and_then(|root| file::document(&root, &mut findings))
        .map(|file| file::check(&file, &mut findings));
    // There are no lines.
    findings
        .mistakes
        .iter_mut()
        .for_each(|mistake| mistake.line = 0);
    Some(match checked {
        Some(checked) if findings.mistakes.is_empty() => Ok(checked),
        _ => Err(Mistakes::new(SOURCE, findings.mistakes)),
    })
}

/// What the environment says of policies.
struct Policies {
    attempts: Option<u32>,
    /// 0: off.
    failures: Option<u32>,
    tls: Tls,
}

/// Whether connections are encrypted.
#[derive(PartialEq, Eq)]
enum Tls {
    On,
    Off,
}

/// What the upstream is reached by.
enum Target {
    Address(String),
    Dns(String),
}

impl Target {
    fn new(host: &str, port: &str) -> Option<Self> {
        // A port that is wrong has been noted; the host is still looked at.
        let port = if Port::parse(port).is_ok() { port } else { "1" };
        let dns = format!("{host}:{port}");
        match host.parse::<std::net::IpAddr>() {
            Ok(ip) => Some(Self::Address(
                std::net::SocketAddr::new(ip, port.parse().ok()?).to_string(),
            )),
            Err(_) if host.contains(':') => None,
            Err(_) => DnsName::parse(&dns).ok().map(|_| Self::Dns(dns)),
        }
    }
}

/// The same as a file: every request of the listener goes to the upstream.
fn written(listen: &str, target: &Target, protocol: &str, policies: &Policies) -> Value {
    let mut listener = json!({ "name": NAME, "bind": listen });
    let mut routes = json!([]);
    if protocol == "tcp" {
        listener["protocol"] = json!("tcp");
        listener["upstream"] = json!(NAME);
    } else {
        routes = json!([{ "upstream": NAME }]);
    }
    let mut upstream = json!({ "protocol": protocol });
    match target {
        Target::Address(address) => upstream["endpoints"] = json!([address]),
        Target::Dns(name) => upstream["dns"] = json!(name),
    }
    if policies.tls == Tls::On {
        upstream["tls"] = json!("on");
    }
    if let Some(attempts) = policies.attempts {
        upstream["retry"] = json!({ "attempts": attempts });
    }
    if let Some(failures) = policies.failures {
        let failures = match failures {
            0 => json!("off"),
            count => json!(count),
        };
        upstream["circuit_breaker"] = json!({ "failures": failures });
    }
    json!({ "listeners": [listener], "routes": routes, "upstreams": { NAME: upstream } })
}

fn mistake(name: &str, what: &str, got: Option<String>) -> Mistake {
    Mistake {
        path: name.to_owned(),
        got,
        ..Mistake::of_file(what.to_owned())
    }
}
