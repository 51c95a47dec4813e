//! How the head of a request changes on its way, and which endpoint gets it.

use std::collections::HashSet;
use std::sync::Arc;

use super::policies;
use crate::addr::Authority;
use crate::policy::balance::{Key, LoadBalancing};
use crate::proxy::scripted::{ADDRESS, Deed, Heard, Plan, World, play, play_in};
use crate::route::settings::{
    AddedHeaders, Endpoints, HostMatch, Policies, Protocol, Route, RouteMatch, Settings, Upstream,
};

/// What the upstream gets of a request.
async fn heard(world: &World, request: &str) -> Heard {
    let mut caller = world.caller();
    caller.send(request).await;
    assert_eq!(caller.answer().await.expect("an answer").status, 200);
    let heard = world
        .endpoints
        .iter()
        .find_map(|one| one.heard.borrow_mut().pop());
    heard.expect("it was sent on")
}

fn get(fields: &str) -> String {
    format!("GET /a?b HTTP/1.1\r\nHost: up.test\r\n{fields}\r\n")
}

#[test]
fn a_request_gets_an_id_and_a_count_of_proxies() {
    play(1, Policies::default(), 1, async |world| {
        let one = heard(&world, &get("")).await;
        assert_eq!(one.line, "GET /a?b");
        assert_eq!(
            (one.field("host"), one.field("x-ambassador-hops")),
            (Some("up.test"), Some("1"))
        );
        let id = one.field("x-request-id").expect("it is made").to_owned();
        assert_eq!(id.len(), 36);
        let two = heard(
            &world,
            &get("X-Request-Id: mine\r\nX-Ambassador-Hops: 4\r\n"),
        )
        .await;
        assert_eq!(
            (two.field("x-request-id"), two.field("x-ambassador-hops")),
            (Some("mine"), Some("5"))
        );
        assert_eq!(
            two.fields
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id"))
                .count(),
            1
        );
        world.until_all_have_left().await;
        let lines = world.log();
        assert_eq!(
            (&lines[0]["request_id"], &lines[1]["request_id"]),
            (&id.into(), &"mine".into())
        );
        assert_eq!(
            (&lines[0]["path"], &lines[0]["authority"]),
            (&"/a?b".into(), &"up.test".into())
        );
        world
    });
}

#[test]
fn what_the_header_rules_name_is_theirs() {
    type Change = fn(&mut Policies);
    let cases: [(Change, &str, &str, Option<&str>); 8] = [
        (
            |policies| policies.headers.set = vec![("x-request-id".into(), "set".into())],
            "",
            "x-request-id",
            Some("set"),
        ),
        (
            |policies| policies.headers.remove = vec!["X-Request-Id".into()],
            "",
            "x-request-id",
            None,
        ),
        (
            |policies| policies.headers.remove = vec!["x-ambassador-hops".into()],
            "",
            "x-ambassador-hops",
            None,
        ),
        (
            |policies| policies.hops.max = None,
            "",
            "x-ambassador-hops",
            None,
        ),
        (
            |policies| policies.added_headers = AddedHeaders::None,
            "",
            "x-request-id",
            None,
        ),
        (
            |policies| policies.added_headers = AddedHeaders::None,
            "grpc-timeout: 4S\r\n",
            "grpc-timeout",
            Some("4S"),
        ),
        (
            |policies| policies.headers.remove = vec!["grpc-timeout".into()],
            "grpc-timeout: 4S\r\n",
            "grpc-timeout",
            None,
        ),
        (
            |policies| policies.headers.set = vec![("grpc-timeout".into(), "9S".into())],
            "grpc-timeout: 4S\r\n",
            "grpc-timeout",
            Some("9S"),
        ),
    ];
    for (number, (change, fields, name, expected)) in cases.into_iter().enumerate() {
        play(1, policies(change), 1, async move |world| {
            let heard = heard(&world, &get(fields)).await;
            assert_eq!(heard.field(name), expected, "{number}");
            world
        });
    }
}

#[test]
fn an_id_that_the_rules_set_or_remove_is_what_the_log_tells() {
    for (set, sent, told) in [
        (true, "", "set"),
        (true, "X-Request-Id: mine\r\n", "set"),
        (false, "X-Request-Id: mine\r\n", "mine"),
    ] {
        let policies = policies(|policies| match set {
            true => policies.headers.set = vec![("x-request-id".into(), "set".into())],
            false => policies.headers.remove = vec!["x-request-id".into()],
        });
        play(1, policies, 1, async move |world| {
            heard(&world, &get(sent)).await;
            world.until_all_have_left().await;
            assert_eq!(world.log()[0]["request_id"], told);
            world
        });
    }
}

#[test]
fn which_requests_may_reach_an_upstream_twice() {
    // By what goes on of the key, not by what comes.
    let removes: fn(&mut Policies) =
        |policies| policies.headers.remove = vec!["idempotency-key".into()];
    let sets: fn(&mut Policies) =
        |policies| policies.headers.set = vec![("idempotency-key".into(), "1".into())];
    let nothing: fn(&mut Policies) = |_| {};
    for (number, (method, fields, change, times)) in [
        ("GET", "", nothing, 2),
        ("PUT", "", nothing, 1),
        ("POST", "", nothing, 1),
        ("POST", "Idempotency-Key: 1\r\n", nothing, 2),
        ("POST", "Idempotency-Key: 1\r\n", removes, 1),
        ("POST", "", sets, 2),
    ]
    .into_iter()
    .enumerate()
    {
        play(1, policies(change), 1, async move |world| {
            world.endpoints[0].does([Deed::Answer(503)]);
            let mut caller = world.caller();
            let head = format!("{method} / HTTP/1.1\r\nHost: up.test\r\n{fields}\r\n");
            caller.send(head).await;
            caller.answer().await.expect("an answer");
            assert_eq!(world.heard(), times, "{number}");
            world
        });
    }
}

/// One upstream, and a route to it.
fn routed(change: impl FnOnce(&mut Route, &mut Policies)) -> Plan {
    let mut route = Route {
        matches: RouteMatch {
            host: Some(HostMatch::Exact(
                Authority::new("routed.test", None).expect("a name"),
            )),
            path_prefix: Some("/api".into()),
            methods: Vec::new(),
        },
        upstream: 0,
        overridden: None,
    };
    let mut policies = Policies::default();
    change(&mut route, &mut policies);
    if policies != Policies::default() {
        route.overridden = Some(Arc::new(Upstream {
            name: "up".into(),
            claims: Vec::new(),
            endpoints: Endpoints::Static(vec![
                std::net::SocketAddr::from(([10, 0, 0, 1], 80)).into(),
            ]),
            protocol: Protocol::Http1,
            tls: None,
            auth: None,
            placeholders: Vec::new(),
            on_failure: None,
            policies,
        }));
    }
    Plan {
        endpoints: 1,
        policies: Policies::default(),
        protocol: Protocol::Http1,
        settings: Settings {
            routes: vec![route],
            ..Settings::default()
        },
        ..Plan::default()
    }
}

const ROUTED: &str = "GET /api/x HTTP/1.1\r\nHost: routed.test\r\n\r\n";

#[test]
fn a_route_leads_to_its_upstream_under_policies_of_its_own() {
    play_in(1, routed(|_, _| {}), async |world| {
        let one = heard(&world, ROUTED).await;
        assert_eq!(
            (one.line.as_str(), one.field("host")),
            ("GET /api/x", Some("routed.test"))
        );
        world
    });
    let own = routed(|_, policies| policies.headers.set = vec![("x-route".into(), "1".into())]);
    play_in(1, own, async |world| {
        assert_eq!(heard(&world, ROUTED).await.field("x-route"), Some("1"));
        assert_eq!(heard(&world, &get("")).await.field("x-route"), None);
        world
    });
}

#[test]
fn a_route_with_a_rate_of_its_own_counts_for_itself() {
    use crate::policy::rate_limit::{OnLimit, Settings};
    let limited = routed(|_, policies| {
        policies.rate_limit = Some(Settings {
            requests_per_second: 0.01,
            burst: 1,
            on_limit: OnLimit::Reject,
        });
    });
    play_in(1, limited, async |world| {
        let mut statuses = Vec::new();
        for request in [ROUTED.to_owned(), ROUTED.to_owned(), get(""), get("")] {
            let mut caller = world.caller();
            caller.send(request).await;
            statuses.push(caller.answer().await.expect("an answer").status);
        }
        assert_eq!(statuses, [200, 429, 200, 200]);
        world
    });
}

#[test]
fn the_same_key_leads_to_the_same_endpoint() {
    let by_header = || {
        policies(|policies| {
            policies.load_balancing = LoadBalancing::RingHash(Key::Header("x-user".into()));
        })
    };
    play(1, by_header(), 4, async |world| {
        let mut places = HashSet::new();
        for user in 0..12 {
            let mut endpoints = HashSet::new();
            for _ in 0..3 {
                let mut caller = world.caller();
                caller.send(get(&format!("X-User: {user}\r\n"))).await;
                endpoints.insert(caller.answer().await.expect("an answer").body);
            }
            assert_eq!(endpoints.len(), 1, "{user}");
            places.extend(endpoints);
        }
        assert!(places.len() > 1, "all are in one place");
        world
    });
}

#[test]
fn http_1_0_without_a_host_gets_that_of_its_destination() {
    play(1, Policies::default(), 1, async |world| {
        let mut caller = world.captured(ADDRESS);
        caller.send("GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        let mut with_host = world.captured(ADDRESS);
        with_host
            .send("GET / HTTP/1.0\r\nHost: own.test\r\n\r\n")
            .await;
        assert_eq!(with_host.answer().await.expect("an answer").status, 200);
        let heard = world.endpoints[0].heard.borrow();
        let hosts: Vec<_> = heard.iter().map(|one| one.field("host")).collect();
        assert_eq!(hosts, [Some(ADDRESS), Some("own.test")]);
        drop((heard, caller, with_host));
        world
    });
}

#[test]
fn credentials_for_this_proxy_stay_here_and_those_for_an_upstream_go_on() {
    let fields = "Proxy-Authorization: Basic abc\r\n";
    play(1, Policies::default(), 1, async move |world| {
        assert_eq!(
            heard(&world, &get(fields))
                .await
                .field("proxy-authorization"),
            None
        );
        let mut captured = world.captured(ADDRESS);
        captured.send(get(fields)).await;
        assert_eq!(captured.answer().await.expect("an answer").status, 200);
        let one = world.endpoints[0]
            .heard
            .borrow_mut()
            .pop()
            .expect("a request");
        assert_eq!(one.field("proxy-authorization"), Some("Basic abc"));
        world
    });
}

#[test]
fn a_trailer_section_is_under_the_rules_of_its_head() {
    let rules = |policies: &mut Policies| policies.headers.remove = vec!["x-secret".into()];
    let sections = [
        (
            vec![
                "0\r\nX-Sum: 1\r\nX-Secret: 2\r\nX-Request-Id: 3\r\nAuthorization: 4\r\nX-Hop: 5\r\n\r\n",
            ],
            "0\r\nX-Sum: 1\r\n\r\n",
        ),
        (
            vec!["0\r\nX-Sum: 1\r\nX-Se", "cret: 2\r\n", "\r\n"],
            "0\r\nX-Sum: 1\r\n\r\n",
        ),
        (vec!["0\r\nIdempotency-Key: 1\r\n\r\n"], "0\r\n\r\n"),
        (vec!["0\r\n", "\r\n"], "0\r\n\r\n"),
        (vec!["0\r\n\r\n"], "0\r\n\r\n"),
    ];
    for (pieces, expected) in sections {
        play(1, policies(rules), 1, async move |world| {
            world.endpoints[0].meets([crate::proxy::scripted::Connect::Hand]);
            let mut caller = world.caller();
            let head = "POST / HTTP/1.1\r\nHost: up.test\r\nConnection: x-hop\r\n\
                        Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n";
            caller.send([head, pieces[0]].concat()).await;
            let mut server = world.endpoints[0].handed().await;
            for piece in &pieces[1..] {
                crate::ring::timer::sleep(super::SECOND).await;
                caller.send(*piece).await;
            }
            server.head().await.expect("a head");
            let expected = ["4\r\nbody\r\n", expected].concat();
            let body = server.text(expected.len());
            let body = crate::ring::timer::timeout(super::SECOND, body).await;
            assert_eq!(body.ok().as_deref(), Some(&*expected), "{pieces:?}");
            server.send("HTTP/1.1 204 No\r\n\r\n").await;
            assert_eq!(caller.answer().await.expect("an answer").status, 204);
            world
        });
    }
}

#[test]
fn trailers_pass_as_they_are_where_nothing_is_marked() {
    play(
        1,
        policies(|policies| policies.added_headers = AddedHeaders::None),
        1,
        async |world| {
            world.endpoints[0].meets([crate::proxy::scripted::Connect::Hand]);
            let caller = world.caller();
            let body = "0\r\nX-Request-Id: 3\r\n\r\n";
            caller
                .send(
                    [
                        "POST / HTTP/1.1\r\nHost: up.test\r\nTransfer-Encoding: chunked\r\n\r\n",
                        body,
                    ]
                    .concat(),
                )
                .await;
            let mut server = world.endpoints[0].handed().await;
            server.head().await.expect("a head");
            assert_eq!(server.text(body.len()).await, body);
            world
        },
    );
}
