use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::route::settings::{HostMatch, Protocol, Route, RouteMatch};

fn upstream(name: &str, claims: Vec<Claim>) -> Upstream {
    Upstream {
        name: name.into(),
        claims,
        endpoints: Endpoints::Original,
        protocol: Protocol::Auto,
        tls: None,
        auth: None,
        placeholders: Vec::new(),
        on_failure: None,
        policies: Default::default(),
    }
}

fn name(host: &str, port: Option<u16>) -> Claim {
    let host = host.to_owned();
    Claim::Name { host, port }
}

fn wildcard(suffix: &str, port: Option<u16>) -> Claim {
    let suffix = suffix.to_owned();
    Claim::Wildcard { suffix, port }
}

fn net(net: &str, port: Option<u16>) -> Claim {
    let net = net.parse().unwrap();
    Claim::Net { net, port }
}

fn table(upstreams: Vec<Upstream>) -> Table {
    Table::new(settings(upstreams, Vec::new()))
}

fn settings(upstreams: Vec<Upstream>, routes: Vec<Route>) -> Settings {
    Settings {
        upstreams: upstreams.into_iter().map(Arc::new).collect(),
        routes,
        ..Settings::default()
    }
}

fn dst(text: &str) -> OriginalDst {
    OriginalDst(text.parse().unwrap())
}

fn authority(text: &str) -> Authority {
    text.parse().unwrap()
}

fn get<'a>(authority: Option<&'a Authority>, path: &'a str) -> RequestKey<'a> {
    RequestKey {
        original: None,
        tunnel: None,
        authority,
        x_upstream_host: None,
        path: path.as_bytes(),
        method: b"GET",
    }
}

/// `upstream via strip host` in one word each, or what else came out.
fn shown(resolution: Resolution<'_>) -> String {
    match resolution {
        Resolution::Upstream(m) => {
            let host = match m.host {
                HostHeader::Keep => "keep".to_owned(),
                HostHeader::Set(host) => String::from_utf8_lossy(host).into_owned(),
                HostHeader::Endpoint => "endpoint".to_owned(),
            };
            format!("{} {:?} {} {host}", m.upstream.name, m.via, m.strip_path)
        }
        Resolution::Adopt(AdoptKey::Authority(authority)) => format!("adopt {authority}"),
        Resolution::Adopt(AdoptKey::Address(original)) => format!("adopt {original}"),
        Resolution::Unmatched(original) => format!("unmatched {original}"),
        Resolution::NoRoute => "no-route".to_owned(),
    }
}

#[test]
fn the_more_exact_claim_wins() {
    let table = table(vec![
        upstream(
            "wide",
            vec![wildcard(".svc", None), net("10.0.0.0/8", None)],
        ),
        upstream(
            "port",
            vec![wildcard(".svc", Some(8443)), net("10.0.0.0/8", Some(53))],
        ),
        upstream(
            "deep",
            vec![wildcard(".pay.svc", None), net("10.2.0.0/16", None)],
        ),
        upstream(
            "exact",
            vec![name("a.pay.svc", Some(80)), net("10.2.0.1/32", Some(80))],
        ),
    ]);
    let by_name = |text: &str| {
        let found = table.claim_authority(&authority(text), 80);
        found.map_or("none".to_owned(), |u| u.name.to_string())
    };
    assert_eq!(by_name("a.pay.svc"), "exact");
    assert_eq!(by_name("A.Pay.Svc."), "exact");
    assert_eq!(by_name("a.pay.svc:81"), "deep");
    assert_eq!(by_name("x.a.pay.svc"), "deep");
    assert_eq!(by_name("pay.svc"), "wide");
    assert_eq!(by_name("pay.svc:8443"), "port");
    assert_eq!(by_name("svc"), "none");
    assert_eq!(by_name("xsvc"), "none");
    assert_eq!(by_name("10.2.0.1"), "exact");
    assert_eq!(by_name("10.2.0.1:81"), "deep");

    let by_address = |text: &str| {
        let found = table.claim_address(dst(text));
        found.map_or("none".to_owned(), |u| u.name.to_string())
    };
    assert_eq!(by_address("10.2.0.1:80"), "exact");
    assert_eq!(by_address("[::ffff:10.2.0.1]:80"), "exact");
    assert_eq!(by_address("10.2.0.1:53"), "deep");
    assert_eq!(by_address("10.3.0.1:53"), "port");
    assert_eq!(by_address("10.3.0.1:54"), "wide");
    assert_eq!(by_address("11.0.0.1:80"), "none");
    assert_eq!(by_address("[::1]:80"), "none");
}

#[test]
fn a_captured_request_goes_by_name_then_destination_then_address() {
    let table = table(vec![
        upstream("named", vec![name("api.example", None)]),
        upstream("here", vec![net("10.1.0.0/16", None)]),
        upstream("there", vec![net("10.2.0.0/16", None)]),
    ]);
    let resolve = |original: &str, host: &str| {
        let host = authority(host);
        let mut key = get(Some(&host), "/named/x");
        key.original = Some(dst(original));
        // Meant for explicit listeners; a captured program can't pick with it.
        key.x_upstream_host = Some(b"there");
        shown(table.resolve_request(&key))
    };
    assert_eq!(
        resolve("10.1.0.1:80", "api.example"),
        "named Authority 0 keep"
    );
    assert_eq!(resolve("10.1.0.1:80", "10.2.0.1"), "here Address 0 keep");
    assert_eq!(resolve("10.9.0.1:80", "10.2.0.1"), "there Authority 0 keep");
    assert_eq!(resolve("10.9.0.1:80", "other"), "unmatched 10.9.0.1:80");
}

#[test]
fn an_authority_without_a_port_has_that_of_the_original_destination() {
    let table = table(vec![upstream("a", vec![name("api", Some(8080))])]);
    let host = authority("api");
    let mut key = get(Some(&host), "/");
    assert_eq!(shown(table.resolve_request(&key)), "no-route");
    key.original = Some(dst("10.0.0.1:8080"));
    assert_eq!(shown(table.resolve_request(&key)), "a Authority 0 keep");
}

#[test]
fn what_nobody_claims_is_treated_as_unmatched_says() {
    let host = authority("other");
    for (unmatched, request, opaque) in [
        (
            Unmatched::Proxy,
            "unmatched 10.0.0.1:80",
            "unmatched 10.0.0.1:80",
        ),
        (
            Unmatched::Passthrough,
            "unmatched 10.0.0.1:80",
            "unmatched 10.0.0.1:80",
        ),
        (Unmatched::Adopt, "adopt other", "adopt 10.0.0.1:80"),
        (Unmatched::Refuse, "no-route", "no-route"),
    ] {
        let table = Table::new(Settings {
            unmatched,
            ..Settings::default()
        });
        let mut key = get(Some(&host), "/");
        key.original = Some(dst("10.0.0.1:80"));
        assert_eq!(shown(table.resolve_request(&key)), request);
        key.authority = None;
        assert_eq!(shown(table.resolve_request(&key)), opaque);
        let connection = table.resolve_connection(dst("10.0.0.1:80"), None);
        assert_eq!(shown(connection), opaque);
        let named = table.resolve_connection(dst("10.0.0.1:80"), Some(&host));
        assert_eq!(shown(named), request, "TLS goes by its name");
        key.original = None;
        assert_eq!(shown(table.resolve_request(&key)), "no-route");
    }
}

#[test]
fn x_upstream_host_decides_alone_and_sets_host() {
    let mut dns = upstream("dns", vec![net("10.0.0.0/8", None)]);
    dns.endpoints = Endpoints::Dns {
        name: "backend".to_owned(),
        port: 8080,
    };
    let table = table(vec![
        upstream(
            "named",
            vec![wildcard(".example", None), name("api.example", Some(80))],
        ),
        dns,
        upstream("bare", vec![]),
    ]);
    let host = authority("api.example");
    let resolve = |text: &str| {
        let mut key = get(Some(&host), "/bare/x");
        key.x_upstream_host = Some(text.as_bytes());
        shown(table.resolve_request(&key))
    };
    assert_eq!(resolve("named"), "named XUpstreamHost 0 api.example");
    assert_eq!(resolve("dns"), "dns XUpstreamHost 0 backend:8080");
    assert_eq!(resolve("bare"), "bare XUpstreamHost 0 endpoint");
    assert_eq!(
        resolve("x.Example:81"),
        "named XUpstreamHost 0 x.Example:81"
    );
    assert_eq!(resolve("10.1.2.3"), "dns XUpstreamHost 0 10.1.2.3");
    assert_eq!(resolve("nobody"), "no-route");
    assert_eq!(resolve("not a host"), "no-route");
    assert_eq!(resolve(""), "no-route");
}

#[test]
fn a_path_prefix_is_a_whole_segment_and_comes_last() {
    let table = table(vec![
        upstream("pay", vec![name("api.example", None)]),
        upstream("shop", vec![]),
    ]);
    let local = authority("127.0.0.1:8081");
    let resolve = |path| shown(table.resolve_request(&get(Some(&local), path)));
    assert_eq!(resolve("/pay/v1?x"), "pay PathPrefix 4 api.example");
    assert_eq!(resolve("/pay"), "pay PathPrefix 4 api.example");
    assert_eq!(resolve("/pay?x"), "pay PathPrefix 4 api.example");
    assert_eq!(resolve("/shop/"), "shop PathPrefix 5 endpoint");
    assert_eq!(resolve("/payments"), "no-route");
    assert_eq!(resolve("//pay"), "no-route");
    assert_eq!(resolve("*"), "no-route");
    let claimed = authority("api.example");
    let named = shown(table.resolve_request(&get(Some(&claimed), "/shop/")));
    assert_eq!(named, "pay Authority 0 keep");
}

#[test]
fn the_first_matching_route_wins_over_claims() {
    let host = |text: &str| Some(HostMatch::Exact(authority(text)));
    let route = |host, prefix: Option<&str>, methods: &[&str], upstream| Route {
        matches: RouteMatch {
            host,
            path_prefix: prefix.map(str::to_owned),
            methods: methods.iter().map(|m| m.to_string()).collect(),
        },
        upstream,
        overridden: None,
    };
    let suffix = ".example".to_owned();
    let table = Table::new(settings(
        vec![
            upstream("zero", vec![]),
            upstream("one", vec![name("a.example", None)]),
        ],
        vec![
            route(host("a.example"), Some("/v1/charges"), &["POST"], 0),
            route(host("a.example:8080"), None, &[], 0),
            route(None, Some("/any/"), &[], 1),
            route(
                Some(HostMatch::Wildcard { suffix, port: None }),
                Some("/w"),
                &[],
                0,
            ),
            route(host("[2001:db8::1]"), None, &[], 0),
        ],
    ));
    let resolve = |method: &'static str, host: &str, path: &str| {
        let host = authority(host);
        let mut key = get(Some(&host), path);
        key.method = method.as_bytes();
        shown(table.resolve_request(&key))
    };
    let claimed = "one Authority 0 keep";
    assert_eq!(
        resolve("POST", "a.example", "/v1/charges/7"),
        "zero Route(0) 0 keep"
    );
    assert_eq!(
        resolve("POST", "a.example", "/v1/charges?x"),
        "zero Route(0) 0 keep"
    );
    assert_eq!(resolve("POST", "a.example", "/v1/chargesx"), claimed);
    assert_eq!(resolve("GET", "a.example", "/v1/charges"), claimed);
    assert_eq!(
        resolve("GET", "a.example:8080", "/any"),
        "zero Route(1) 0 keep"
    );
    assert_eq!(
        resolve("GET", "a.example", "/any"),
        "one Route(2) 0 a.example"
    );
    assert_eq!(
        resolve("GET", "b.example", "/any/w"),
        "one Route(2) 0 a.example"
    );
    assert_eq!(
        resolve("GET", "b.example", "/w/any"),
        "zero Route(3) 0 keep"
    );
    assert_eq!(
        resolve("GET", "[2001:db8:0::1]:80", "/"),
        "zero Route(4) 0 keep"
    );
    assert_eq!(resolve("GET", "example", "/w"), "no-route");
}

/// The rules of [`Claim`], read off one after the other.
fn naive_name(settings: &Settings, host: &str, port: u16) -> Option<usize> {
    let mut best: Option<((bool, usize, bool), usize)> = None;
    for (index, upstream) in settings.upstreams.iter().enumerate() {
        for claim in &upstream.claims {
            let (exact, len, wanted) = match claim {
                Claim::Name { host: h, port } if h == host => (true, h.len(), port),
                Claim::Wildcard { suffix, port }
                    if host.ends_with(suffix.as_str()) && host.len() > suffix.len() =>
                {
                    (false, suffix.len(), port)
                }
                _ => continue,
            };
            let rank = (exact, len, wanted.is_some());
            if wanted.is_none_or(|p| p == port) && best.is_none_or(|(other, _)| rank > other) {
                best = Some((rank, index));
            }
        }
    }
    best.map(|(_, index)| index)
}

fn naive_net(settings: &Settings, addr: SocketAddr) -> Option<usize> {
    let ip = addr.ip().to_canonical();
    let mut best: Option<((u8, bool), usize)> = None;
    for (index, upstream) in settings.upstreams.iter().enumerate() {
        for claim in &upstream.claims {
            if let Claim::Net { net, port } = claim
                && net.contains(&ip)
                && port.is_none_or(|p| p == addr.port())
                && best.is_none_or(|(other, _)| (net.prefix_len(), port.is_some()) > other)
            {
                best = Some(((net.prefix_len(), port.is_some()), index));
            }
        }
    }
    best.map(|(_, index)| index)
}

fn naive_route(
    routes: &[Route],
    host: Option<&Authority>,
    port: u16,
    path: &str,
    method: &str,
) -> Option<usize> {
    routes.iter().position(|route| {
        let host_holds = match (&route.matches.host, host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(HostMatch::Exact(wanted)), Some(host)) => {
                let same = match (wanted.ip(), host.ip()) {
                    (Some(wanted), Some(ip)) => wanted.to_canonical() == ip.to_canonical(),
                    _ => wanted.host() == host.host(),
                };
                same && wanted.port().is_none_or(|p| p == port)
            }
            (
                Some(HostMatch::Wildcard {
                    suffix,
                    port: wanted,
                }),
                Some(host),
            ) => {
                host.host().len() > suffix.len()
                    && host.host().ends_with(suffix.as_str())
                    && wanted.is_none_or(|p| p == port)
            }
        };
        let path_holds = route.matches.path_prefix.as_ref().is_none_or(|prefix| {
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            let wanted: Vec<&str> = prefix.split('/').collect();
            let given: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
            given.len() > 1 && given.starts_with(&wanted)
        });
        let methods = &route.matches.methods;
        host_holds && path_holds && (methods.is_empty() || methods.iter().any(|m| m == method))
    })
}

// Few labels, addresses and ports, so that claims meet each other often.
fn any_port() -> impl Strategy<Value = Option<u16>> {
    prop::option::of(80_u16..83)
}

fn any_host() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]", 1..5).prop_map(|labels| labels.join("."))
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u8..4, 0_u8..4).prop_map(|(a, b)| IpAddr::from([10, a, 0, b])),
        (0_u16..4, 0_u16..4).prop_map(|(a, b)| IpAddr::from([0xfd00, a, 0, 0, 0, 0, 0, b])),
        (0_u16..4).prop_map(|a| IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00 + a, 1])),
    ]
}

fn any_claim() -> impl Strategy<Value = Claim> {
    let net = (any_ip(), 0_u8..=128).prop_map(|(ip, len)| {
        let ip = ip.to_canonical();
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, len.min(longest)).unwrap().trunc()
    });
    prop_oneof![
        (any_host(), any_port()).prop_map(|(host, port)| Claim::Name { host, port }),
        (any_host(), any_port()).prop_map(|(host, port)| Claim::Wildcard {
            suffix: format!(".{host}"),
            port
        }),
        (net, any_port()).prop_map(|(net, port)| Claim::Net { net, port }),
    ]
}

/// Paths above and below each other, or beside with the same beginning.
fn any_prefix() -> impl Strategy<Value = String> {
    "(/[ab]{0,2}){1,4}"
}

fn any_path() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => (any_prefix(), "(\\?[/ab?]{0,2})?").prop_map(|(path, query)| path + &query),
        1 => Just("*".to_owned()),
    ]
}

fn any_method() -> impl Strategy<Value = String> {
    prop_oneof!["GET", "POST", "PUT"]
}

fn any_host_match() -> impl Strategy<Value = HostMatch> {
    let exact = prop_oneof![any_host(), any_ip().prop_map(|ip| ip.to_string())];
    prop_oneof![
        (exact, any_port())
            .prop_map(|(host, port)| HostMatch::Exact(Authority::new(&host, port).unwrap())),
        (any_host(), any_port()).prop_map(|(host, port)| HostMatch::Wildcard {
            suffix: format!(".{host}"),
            port
        }),
    ]
}

fn any_route_match() -> impl Strategy<Value = RouteMatch> {
    (
        prop::option::of(any_host_match()),
        prop::option::of(any_prefix()),
        prop::collection::vec(any_method(), 0..4),
    )
        .prop_map(|(host, path_prefix, methods)| RouteMatch {
            host,
            path_prefix,
            methods,
        })
}

/// Routes of which many have their host, or path and methods, from a few.
fn any_routes() -> impl Strategy<Value = Vec<Route>> {
    let hosts = prop::collection::vec(any_route_match(), 1..4);
    let others = prop::collection::vec(any_route_match(), 1..8);
    let picks = prop::collection::vec((any::<Index>(), any::<Index>()), 0..16);
    (hosts, others, picks).prop_map(|(hosts, others, picks)| {
        let route = |(host, other): (Index, Index)| Route {
            matches: RouteMatch {
                host: host.get(&hosts).host.clone(),
                ..other.get(&others).clone()
            },
            upstream: 0,
            overridden: None,
        };
        picks.into_iter().map(route).collect()
    })
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let claims = prop::collection::vec(any_claim(), 0..6);
    let upstreams = prop::collection::vec(claims, 1..8);
    (upstreams, any_routes()).prop_map(|(claims, routes)| {
        let named = claims.into_iter().enumerate();
        let upstreams = named.map(|(n, claims)| upstream(&n.to_string(), claims));
        settings(upstreams.collect(), routes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn lookups_agree_with_the_naive_model(
        settings in any_settings(),
        host in any_host(),
        ip in any_ip(),
        port in 80_u16..84,
        path in any_path(),
        method in any_method(),
    ) {
        let table = Table::new(settings.clone());
        let index = |u: Option<&Arc<Upstream>>| u.map(|u| u.name.parse::<usize>().unwrap());
        let named = Authority::new(&host, None).unwrap();
        let addr = SocketAddr::new(ip, port);
        prop_assert_eq!(
            index(table.claim_authority(&named, port)),
            naive_name(&settings, &host, port)
        );
        prop_assert_eq!(index(table.claim_address(OriginalDst(addr))), naive_net(&settings, addr));
        let by_ip = Authority::new(&ip.to_string(), Some(port)).unwrap();
        prop_assert_eq!(index(table.claim_authority(&by_ip, 1)), naive_net(&settings, addr));

        for (authority, default_port) in [(Some(&named), port), (Some(&by_ip), 1), (None, port)] {
            let subject = Subject {
                authority,
                default_port,
                path: path.as_bytes(),
                method: method.as_bytes(),
            };
            prop_assert_eq!(
                table.routes.find(&subject),
                naive_route(&settings.routes, authority, port, &path, &method)
            );
        }
    }
}
