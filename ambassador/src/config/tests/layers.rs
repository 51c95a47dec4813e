//! Layers: built in, `defaults`, the upstream, the route, and what of them holds.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::policy::breaker::{Ratio, Trip};
use crate::policy::codes::Codes;
use crate::policy::concurrency;
use crate::policy::statuses::Statuses;

/// A value and its origin, `-` where the key is not listed.
fn listed(list: &[checked::Policy], key: &str) -> String {
    let policy = list.iter().find(|policy| policy.key == key);
    policy.map_or("-".to_owned(), |policy| {
        format!("{} ({})", policy.value, policy.origin)
    })
}

pub(super) const LAYERS: &str = "\
defaults:
  timeouts: { request: 5s, per_try: 2s }
  retry: { attempts: 4, budget: { ratio: 10% } }
  circuit_breaker: { consecutive: 7 }
  rate_limit: { requests_per_second: 10, burst: 3 }
upstreams:
  one:
    hosts: [one]
    timeouts: { per_try: none }
    retry: { budget: { min_per_second: 0 } }
    circuit_breaker: { failures: 9 }
    rate_limit: { requests_per_second: 20 }
    headers: { set: { a: 1, b: 1 } }
  two:
    hosts: [two]
    rate_limit: off
routes:
  - match: { path_prefix: /pay }
    upstream: one
    timeouts: { request: 1s }
    retry: { methods: [POST] }
    circuit_breaker: { failure_statuses: [503] }
    rate_limit: off
    headers: { set: { B: 2 }, remove: [c] }
  - match: { path_prefix: /plain }
    upstream: one
  - match: { path_prefix: /slow }
    upstream: two
    rate_limit: { requests_per_second: 0.5 }
";

#[test]
fn each_layer_changes_what_it_says_key_by_key() {
    let checked = loaded(LAYERS);
    for (key, wanted) in [
        ("timeouts.request", "5s (defaults, line 2)"),
        ("timeouts.per_try", "none (upstream, line 9)"),
        ("timeouts.first_byte", "none (built in)"),
        ("retry.attempts", "4 (defaults, line 3)"),
        ("retry.budget.ratio", "10% (defaults, line 3)"),
        ("retry.budget.min_per_second", "0 (upstream, line 10)"),
        (
            "retry.on",
            "connect-failure, reset, 429, 503, { grpc: [unavailable] } (built in)",
        ),
        ("retry.elsewhere", "on (built in)"),
        ("retry.honor_retry_after", "true (built in)"),
        ("circuit_breaker.failures", "9 (upstream, line 11)"),
        ("circuit_breaker.ratio", "50% (built in)"),
        ("circuit_breaker.window", "10s (built in)"),
        ("circuit_breaker.consecutive", "off (upstream, line 11)"),
        ("rate_limit.requests_per_second", "20 (upstream, line 12)"),
        ("rate_limit.burst", "3 (defaults, line 5)"),
        ("rate_limit", "-"),
        ("pool.max_requests", "1024 (built in)"),
    ] {
        assert_eq!(listed(&checked.policies[0], key), wanted, "{key}");
    }
    for (key, wanted) in [
        ("circuit_breaker.consecutive", "7 (defaults, line 4)"),
        ("circuit_breaker.failures", "-"),
        ("circuit_breaker.ratio", "-"),
        ("rate_limit", "off (upstream, line 16)"),
        ("rate_limit.burst", "-"),
    ] {
        assert_eq!(listed(&checked.policies[1], key), wanted, "{key}");
    }
}

#[test]
fn an_upstream_inherits_key_by_key() {
    let checked = load_str(
        "f",
        "defaults:\n  pool: { max_idle: 7, max_pending: 8 }\n  headers: { set: { a: 1, b: 1 }, remove: [c] }\nupstreams:\n  x:\n    hosts: [x]\n    pool: { max_idle: 9 }\n    headers: { set: { B: 2, C: 2 } }\n",
    )
    .unwrap();
    let upstream = &checked.routes.upstreams[0];
    assert_eq!(
        (
            upstream.policies.pool.max_idle,
            upstream.policies.pool.max_pending
        ),
        (9, 8)
    );
    assert_eq!(upstream.policies.pool.max_connections, Some(100));
    let set: Vec<String> = upstream
        .policies
        .headers
        .set
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect();
    assert_eq!(set, ["B=2", "C=2", "a=1"]);
    assert!(upstream.policies.headers.remove.is_empty());
    let origin = |key: &str| {
        let policy = checked.policies[0].iter().find(|policy| policy.key == key);
        policy.map(|policy| policy.origin.to_string()).unwrap()
    };
    assert_eq!(origin("pool.max_idle"), "upstream, line 7");
    assert_eq!(origin("pool.max_pending"), "defaults, line 2");
    assert_eq!(origin("pool.max_connections"), "built in");
    assert_eq!(origin("headers.set.a"), "defaults, line 3");
    assert_eq!(origin("headers.set.C"), "upstream, line 8");
}

#[test]
fn balancing_is_that_of_the_nearest_layer() {
    let checked = loaded(
        "\
defaults:
  load_balancing: { ring_hash: { header: x-user } }
  outlier: { interval: 1s, consecutive: 3 }
upstreams:
  one: { hosts: [a], endpoints: [10.1.1.1:1], load_balancing: random, outlier: { consecutive: off } }
  two: { hosts: [b], endpoints: [10.1.1.1:1] }
routes:
  - upstream: one
    load_balancing: { ring_hash: { source: ip } }
",
    );
    let route = checked.route_policies[0].as_deref().unwrap();
    for (list, key, wanted) in [
        (
            &*checked.policies[0],
            "load_balancing",
            "random (upstream, line 5)",
        ),
        (
            &*checked.policies[0],
            "load_balancing.ring_hash.header",
            "-",
        ),
        (
            &*checked.policies[0],
            "outlier.consecutive",
            "off (upstream, line 5)",
        ),
        (
            &*checked.policies[0],
            "outlier.interval",
            "1s (defaults, line 3)",
        ),
        (
            &*checked.policies[1],
            "load_balancing.ring_hash.header",
            "x-user (defaults, line 2)",
        ),
        (&*checked.policies[1], "load_balancing", "-"),
        (route, "load_balancing.ring_hash.source", "ip (routes[0]:9)"),
        (route, "load_balancing", "-"),
        (route, "outlier.base_ejection", "30s (built in)"),
    ] {
        assert_eq!(listed(list, key), wanted, "{key}");
    }
}

#[test]
fn a_threshold_is_the_nearest_one() {
    let rolling = |failures, seconds| Trip::Rolling {
        failures,
        window: Duration::from_secs(seconds),
        ratio: Some(Ratio::HALF),
    };
    let any_share = |failures| Trip::Rolling {
        failures,
        window: Duration::from_secs(10),
        ratio: None,
    };
    for (defaults, upstream, trip) in [
        ("{}", "{ consecutive: 3 }", Trip::Consecutive(3)),
        (
            "{}",
            "{ failures: off, consecutive: 3 }",
            Trip::Consecutive(3),
        ),
        ("{}", "{ failures: 3, consecutive: off }", rolling(3, 10)),
        ("{ window: 20s }", "{ failures: 3 }", rolling(3, 20)),
        (
            "{ failures: off, window: 20s }",
            "{ failures: 3 }",
            rolling(3, 20),
        ),
        (
            "{ failures: 3 }",
            "{ consecutive: 4 }",
            Trip::Consecutive(4),
        ),
        ("{ consecutive: 4 }", "{ failures: 3 }", rolling(3, 10)),
        ("{ consecutive: 4 }", "{ failures: off }", Trip::Never),
        (
            "{ consecutive: 4, window: 20s }",
            "{ consecutive: off }",
            rolling(5, 20),
        ),
        ("{ failures: off }", "{ consecutive: off }", Trip::Never),
        ("{}", "{ ratio: off }", any_share(5)),
        ("{ ratio: off }", "{ failures: 2 }", any_share(2)),
        ("{ ratio: off }", "{ ratio: 50% }", rolling(5, 10)),
        ("{ consecutive: 4 }", "{ ratio: 50% }", rolling(5, 10)),
        ("{ consecutive: 4 }", "{ ratio: off }", Trip::Consecutive(4)),
        ("{}", "{ ratio: off, consecutive: 3 }", Trip::Consecutive(3)),
    ] {
        let text = format!(
            "defaults: {{ circuit_breaker: {defaults} }}\n\
             upstreams: {{ a: {{ hosts: [b], circuit_breaker: {upstream} }} }}"
        );
        let checked = loaded(&text);
        let breaker = &checked.routes.upstreams[0].policies.circuit_breaker;
        assert_eq!(breaker.trip, trip, "{text}");
    }
}

#[test]
fn bounds_of_concurrency_are_inherited() {
    let text = "\
defaults: { concurrency: { min: 5 } }
upstreams:
  on: { hosts: [a], concurrency: { adaptive: on, max: 50 } }
  off: { hosts: [b] }
routes: [{ upstream: on, timeouts: { request: 1s } }]
";
    let checked = loaded(text);
    let wanted = concurrency::Settings {
        adaptive: true,
        min: 5,
        max: 50,
    };
    let upstreams = &checked.routes.upstreams;
    assert_eq!(upstreams[0].policies.concurrency, wanted);
    assert!(!upstreams[1].policies.concurrency.adaptive);
    let overridden = checked.routes.routes[0].overridden.as_deref().unwrap();
    assert_eq!(overridden.policies.concurrency, wanted);
    for (upstream, key, wanted) in [
        (0, "concurrency.adaptive", "on (upstream, line 3)"),
        (0, "concurrency.min", "5 (defaults, line 1)"),
        (0, "concurrency.max", "50 (upstream, line 3)"),
        (1, "concurrency.adaptive", "off (built in)"),
        (1, "concurrency.min", "5 (defaults, line 1)"),
    ] {
        assert_eq!(listed(&checked.policies[upstream], key), wanted, "{key}");
    }
    let effective = checked.effective();
    let again = loaded(&effective.to_string());
    assert_eq!(again.routes.upstreams, *upstreams);
    assert_eq!(again.routes.routes, checked.routes.routes);

    let text = "\
defaults: { concurrency: { max: 10 } }
upstreams: { a: { hosts: [b], concurrency: { min: 11 } } }
";
    let wanted = "f:2: upstreams.a.concurrency.min: min 11 is over max 10, got 11";
    assert_eq!(mistakes(text), [wanted]);
}

#[test]
fn a_route_changes_the_policies_of_its_upstream() {
    let checked = loaded(LAYERS);
    let routes = &checked.routes.routes;
    let upstream = &checked.routes.upstreams[0];
    let overridden = routes[0].overridden.as_deref().unwrap();
    let mut wanted = crate::route::settings::Upstream::clone(upstream);
    wanted.policies.timeouts.request = Some(Duration::from_secs(1));
    wanted.policies.retry.methods = crate::policy::methods::Methods::of(["POST"]);
    wanted.policies.circuit_breaker.failure_statuses = Statuses::default().with(503..=503);
    wanted.policies.circuit_breaker.failure_codes = Codes::default();
    wanted.policies.rate_limit = None;
    let set = [("B", "2"), ("a", "1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    wanted.policies.headers.set = set.into();
    wanted.policies.headers.remove = vec!["c".to_owned()];
    assert_eq!(*overridden, wanted);
    assert_eq!(routes[1].overridden, None);

    // What `off` undid is gone, the burst of `defaults` too.
    let slow = routes[2].overridden.as_deref().unwrap();
    let limit = slow.policies.rate_limit.unwrap();
    assert_eq!((limit.requests_per_second, limit.burst), (0.5, 1));
}

#[test]
fn opaque_bytes_have_no_policies_of_requests() {
    let text = "\
upstreams:
  a:
    hosts: [10.1.1.1]
    protocol: tcp
    timeouts: { connect: 1s, idle: 1s, first_byte: 1s, per_try: none, request: 1s, head: 1s, min_rate: 1KiB }
    retry: { attempts: 1, base: 1ms, on: [reset], methods: [GET], body_limit: 1KiB }
    rate_limit: off
    circuit_breaker: { failures: 3, failure_statuses: [500] }
    load_balancing: { ring_hash: { header: x-user } }
    concurrency: { adaptive: on }
";
    let wanted: Vec<String> = [
        (5, "timeouts.first_byte"),
        (5, "timeouts.per_try"),
        (5, "timeouts.request"),
        (5, "timeouts.head"),
        (5, "timeouts.min_rate"),
        (6, "retry.on"),
        (6, "retry.methods"),
        (6, "retry.body_limit"),
        (7, "rate_limit"),
        (8, "circuit_breaker.failure_statuses"),
        (9, "load_balancing.ring_hash.header"),
        (10, "concurrency"),
    ]
    .map(|(line, key)| format!("f:{line}: upstreams.a.{key}: protocol tcp has no requests"))
    .into();
    assert_eq!(mistakes(text), wanted);

    let inherited = "\
defaults:
  retry: { attempts: 9 }
  timeouts: { request: 1s, idle: 2s }
  rate_limit: { requests_per_second: 1 }
  circuit_breaker: { failures: 3, failure_statuses: [500] }
  load_balancing: { ring_hash: { header: x-user } }
  concurrency: { adaptive: on }
upstreams: { a: { hosts: [10.1.1.1], protocol: tcp } }
";
    let checked = loaded(inherited);
    let keys: BTreeSet<&str> = checked.policies[0]
        .iter()
        .map(|policy| {
            policy
                .key
                .split_once('.')
                .map_or(&*policy.key, |(group, _)| group)
        })
        .collect();
    assert_eq!(
        keys,
        [
            "circuit_breaker",
            "fault",
            "health_check",
            "load_balancing",
            "outlier",
            "pool",
            "protocol",
            "retry",
            "tcp_keepalive",
            "timeouts",
            "tls"
        ]
        .into()
    );
    for (key, wanted) in [
        ("timeouts.idle", "2s (defaults, line 3)"),
        ("timeouts.request", "-"),
        ("circuit_breaker.failures", "3 (defaults, line 5)"),
        ("circuit_breaker.failure_statuses", "-"),
        ("load_balancing", "least_request (built in)"),
    ] {
        assert_eq!(listed(&checked.policies[0], key), wanted, "{key}");
    }
    let policies = &checked.routes.upstreams[0].policies;
    assert_eq!(policies.rate_limit, None);
    assert!(!policies.concurrency.adaptive);
    assert_eq!(policies.timeouts.request, None);
    // A connect that fails is tried again at another endpoint.
    let retry = &policies.retry;
    assert_eq!((retry.attempts, retry.on_connect_failure), (9, true));
    assert!(!retry.on_reset && !retry.on_statuses.contains(503));
}

#[test]
fn adopted_upstreams_have_the_defaults_without_caps() {
    let checked = loaded(
        "defaults: { pool: { max_requests: 5 }, retry: { attempts: 2 }, \
         rate_limit: { requests_per_second: 1 }, timeouts: { per_try: 1s, request: 2s }, \
         concurrency: { adaptive: on } }",
    );
    let adopted = &checked.routes.adopted;
    assert_eq!(adopted.pool.max_requests, None);
    assert_eq!(adopted.rate_limit, None);
    assert!(!adopted.concurrency.adaptive);
    assert_eq!(adopted.timeouts.request, None);
    assert_eq!(adopted.timeouts.per_try, Some(Duration::from_secs(1)));
    assert_eq!(adopted.retry.attempts, 2);
}
