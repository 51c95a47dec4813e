//! The upstream of a request, among one and among a thousand.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ambassador::testing::addr::{Authority, OriginalDst};
use ambassador::testing::route::settings::{
    Claim, Endpoints, HostMatch, Protocol, Route, RouteMatch, Settings, Upstream,
};
use ambassador::testing::route::{RequestKey, Resolution, Table};
use ipnet::Ipv4Net;

use crate::Measure;

/// By what the upstreams of a table are told from each other.
#[derive(Clone, Copy)]
enum By {
    /// Exact names.
    Name,
    /// `*.suffix`.
    Suffix,
    /// Networks of 256 addresses, as seen by a captured connection.
    Net,
    /// Routes with a host and a path.
    HostAndPath,
    /// Routes with a path, all of one host.
    PathOfHost,
    /// Routes with a path, all of one `*.suffix`.
    PathOfSuffix,
    /// Routes with a path alone.
    Path,
    /// Routes with a method, all of one host and path.
    Method,
}

/// The host of all routes where it does not tell them from each other.
const COMMON_HOST: &str = "api.service.test";

pub(crate) fn all(measure: &mut impl Measure) {
    for count in [1, 1_000] {
        for (by, name) in [
            (By::Name, "name"),
            (By::Suffix, "suffix"),
            (By::Net, "net"),
            (By::HostAndPath, "host_and_path"),
            (By::PathOfHost, "path_of_host"),
            (By::PathOfSuffix, "path_of_suffix"),
            (By::Path, "path"),
            (By::Method, "method"),
        ] {
            lookup(measure, by, name, count);
        }
    }
}

/// Looks for the last one.
fn lookup(measure: &mut impl Measure, by: By, name: &str, count: usize) {
    let table = Table::new(settings(by, count));
    let last = count - 1;
    let authority = Authority::new(&host(by, last), None).ok();
    let path = format!("{}/things/4711", path(by, last));
    let method = method(by, last).unwrap_or_else(|| "GET".to_owned());
    let key = RequestKey {
        original: match by {
            By::Net => Some(OriginalDst((net(last).addr(), 80).into())),
            _ => None,
        },
        tunnel: None,
        authority: authority.as_ref(),
        x_upstream_host: None,
        path: path.as_bytes(),
        method: method.as_bytes(),
    };
    let find = || {
        matches!(
            table.resolve_request(black_box(&key)),
            Resolution::Upstream(_)
        )
    };
    assert!(find(), "{name}: there is one");
    measure.each(&format!("route/{name}/{count}"), find);
}

fn settings(by: By, count: usize) -> Settings {
    Settings {
        upstreams: (0..count).map(|n| Arc::new(upstream(by, n))).collect(),
        routes: match by {
            By::Name | By::Suffix | By::Net => Vec::new(),
            By::HostAndPath | By::PathOfHost | By::PathOfSuffix | By::Path | By::Method => {
                (0..count).map(|n| route(by, n)).collect()
            }
        },
        ..Settings::default()
    }
}

fn upstream(by: By, n: usize) -> Upstream {
    let claim = match by {
        By::Name => Some(Claim::Name {
            host: host(by, n),
            port: None,
        }),
        By::Suffix => Some(Claim::Wildcard {
            suffix: format!(".service-{n}.test"),
            port: None,
        }),
        By::Net => Some(Claim::Net {
            net: net(n).into(),
            port: None,
        }),
        By::HostAndPath | By::PathOfHost | By::PathOfSuffix | By::Path | By::Method => None,
    };
    Upstream {
        name: format!("upstream-{n}").into(),
        claims: claim.into_iter().collect(),
        endpoints: Endpoints::Original,
        protocol: Protocol::Auto,
        tls: None,
        auth: None,
        placeholders: Vec::new(),
        on_failure: None,
        policies: Default::default(),
    }
}

fn route(by: By, n: usize) -> Route {
    Route {
        matches: RouteMatch {
            host: match by {
                By::Path => None,
                By::PathOfSuffix => Some(HostMatch::Wildcard {
                    suffix: ".service.test".to_owned(),
                    port: None,
                }),
                _ => Authority::new(&host(by, n), None)
                    .ok()
                    .map(HostMatch::Exact),
            },
            path_prefix: Some(path(by, n)),
            methods: method(by, n).into_iter().collect(),
        },
        upstream: n,
        overridden: None,
    }
}

/// The host that leads to upstream `n`.
fn host(by: By, n: usize) -> String {
    match by {
        By::PathOfHost | By::PathOfSuffix | By::Method => COMMON_HOST.to_owned(),
        _ => format!("api.service-{n}.test"),
    }
}

/// The prefix that leads to upstream `n`.
fn path(by: By, n: usize) -> String {
    match by {
        By::Method => "/service".to_owned(),
        _ => format!("/service-{n}"),
    }
}

/// The method that leads to upstream `n`, where not all do.
fn method(by: By, n: usize) -> Option<String> {
    matches!(by, By::Method).then(|| format!("METHOD-{n}"))
}

fn net(n: usize) -> Ipv4Net {
    let address = Ipv4Addr::from_bits(0x0a00_0000 + ((n as u32) << 8));
    Ipv4Net::new_assert(address, 24)
}
