//! The upstream of a request, among one and among a thousand.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ambassador::addr::{Authority, OriginalDst};
use ambassador::route::settings::{
    Claim, Endpoints, HostMatch, Protocol, Route, RouteMatch, Settings, Upstream,
};
use ambassador::route::{RequestKey, Resolution, Table};
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
    /// Routes with a path alone: these are tried in turn.
    Path,
}

pub(crate) fn all(measure: &mut impl Measure) {
    for count in [1, 1_000] {
        for (by, name) in [
            (By::Name, "name"),
            (By::Suffix, "suffix"),
            (By::Net, "net"),
            (By::HostAndPath, "host_and_path"),
            (By::Path, "path"),
        ] {
            lookup(measure, by, name, count);
        }
    }
}

/// Looks for the last one.
fn lookup(measure: &mut impl Measure, by: By, name: &str, count: usize) {
    let table = Table::new(settings(by, count));
    let last = count - 1;
    let host = format!("api.service-{last}.test");
    let authority = Authority::new(&host, None).ok();
    let path = format!("/service-{last}/things/4711");
    let key = RequestKey {
        original: match by {
            By::Net => Some(OriginalDst((net(last).addr(), 80).into())),
            _ => None,
        },
        authority: authority.as_ref(),
        x_upstream_host: None,
        path: path.as_bytes(),
        method: b"GET",
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
            By::HostAndPath | By::Path => (0..count).map(|n| route(by, n)).collect(),
        },
        ..Settings::default()
    }
}

fn upstream(by: By, n: usize) -> Upstream {
    let claim = match by {
        By::Name => Some(Claim::Name {
            host: format!("api.service-{n}.test"),
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
        By::HostAndPath | By::Path => None,
    };
    Upstream {
        name: format!("upstream-{n}").into(),
        claims: claim.into_iter().collect(),
        endpoints: Endpoints::Original,
        protocol: Protocol::Auto,
        pool: Default::default(),
        timeouts: Default::default(),
        headers: Default::default(),
    }
}

fn route(by: By, n: usize) -> Route {
    let host = match by {
        By::HostAndPath => Authority::new(&format!("api.service-{n}.test"), None).ok(),
        _ => None,
    };
    Route {
        matches: RouteMatch {
            host: host.map(HostMatch::Exact),
            path_prefix: Some(format!("/service-{n}")),
            methods: Vec::new(),
        },
        upstream: n,
    }
}

fn net(n: usize) -> Ipv4Net {
    let address = Ipv4Addr::from_bits(0x0a00_0000 + ((n as u32) << 8));
    Ipv4Net::new_assert(address, 24)
}
