//! Policies: every key, the layers they come from, and what is in effect.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::*;
use crate::policy::balance::{Key, LoadBalancing};
use crate::policy::breaker::{self, Ratio, Trip};
use crate::policy::concurrency;
use crate::policy::outlier;
use crate::policy::rate_limit::{self, OnLimit};
use crate::policy::statuses::Statuses;
use crate::route::settings::Policies;

const MS: Duration = Duration::from_millis(1);

/// The policies of an upstream that says this.
fn policies(body: &str) -> Policies {
    let text = format!("upstreams: {{ a: {{ hosts: [b], {body} }} }}");
    let checked = load_str("f", &text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
    checked.routes.upstreams[0].policies.clone()
}

pub(super) fn layers(text: &str) -> Checked {
    load_str("f", text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"))
}

/// A value and its origin, `-` where the key is not listed.
fn listed(list: &[checked::Policy], key: &str) -> String {
    let policy = list.iter().find(|policy| policy.key == key);
    policy.map_or("-".to_owned(), |policy| {
        format!("{} ({})", policy.value, policy.origin)
    })
}

#[test]
fn every_key_is_read() {
    let read = policies(
        "pool: { max_requests: 7 }, \
         timeouts: { connect: 1ms, first_byte: 2ms, per_try: 3ms, request: 4ms, idle: 5ms, \
                     tunnel: 6ms, head: 8ms, min_rate: 3KiB/s }, \
         tcp_keepalive: 7s, \
         retry: { attempts: 100, on: [reset, 429, 500-502], elsewhere: off, methods: [POST, PURGE], \
                  idempotency_header: X-Once, base: 6ms, cap: 6ms, \
                  budget: { ratio: 7%, min_per_second: 8 }, body_limit: 16MiB, \
                  honor_retry_after: false }, \
         circuit_breaker: { failures: 10000, ratio: 7%, window: 9ms, sleep: 10ms, \
                            failure_statuses: [429, 500-503] }, \
         rate_limit: { requests_per_second: 2.5, burst: 11, on_limit: wait }, \
         load_balancing: peak_ewma, zone: z, \
         outlier: { consecutive: 12, success_rate: on, interval: 13ms, \
                    base_ejection: 14ms, max_ejected: 15% }, \
         concurrency: { adaptive: on, min: 3, max: 12 }, max_hops: 13",
    );
    assert_eq!((read.hops.max, read.pool.max_requests), (Some(13), Some(7)));
    assert_eq!(read.timeouts.connect, MS);
    assert_eq!(read.timeouts.first_byte, Some(2 * MS));
    assert_eq!(read.timeouts.per_try, Some(3 * MS));
    assert_eq!(read.timeouts.request, Some(4 * MS));
    assert_eq!(read.timeouts.idle, 5 * MS);
    assert_eq!([read.timeouts.tunnel, read.timeouts.head], [6 * MS, 8 * MS]);
    assert_eq!(rate_of(&read), Some(3_072));
    assert_eq!(read.timeouts.keep_alive, Some(7_000 * MS));
    let retry = &read.retry;
    assert_eq!(retry.attempts, 100);
    assert!(!retry.on_connect_failure && retry.on_reset);
    assert_eq!(retry.on_statuses.to_string(), "429, 500-502");
    assert!(!retry.elsewhere);
    let methods: Vec<&str> = retry.methods.names().collect();
    assert_eq!(methods, ["POST", "PURGE"]);
    assert_eq!(&*retry.idempotency_header, "x-once");
    assert_eq!((retry.base, retry.cap), (6 * MS, 6 * MS));
    assert!((retry.budget.ratio - 0.07).abs() < 1e-12);
    assert_eq!(retry.budget.min_per_second, 8);
    assert_eq!(retry.body_limit, 16 << 20);
    assert!(!retry.honor_retry_after);
    let breaker = breaker::Settings {
        trip: Trip::Rolling {
            failures: 10_000,
            window: 9 * MS,
            ratio: Ratio::new(0.07),
        },
        sleep: 10 * MS,
        failure_statuses: Statuses::default().with(429..=429).with(500..=503),
        ..breaker::Settings::default()
    };
    assert_eq!(read.circuit_breaker, breaker);
    let limit = rate_limit::Settings {
        requests_per_second: 2.5,
        burst: 11,
        on_limit: OnLimit::Wait,
    };
    assert_eq!(read.rate_limit, Some(limit));
    assert_eq!(read.load_balancing, LoadBalancing::PeakEwma);
    assert_eq!(read.zone.as_deref(), Some("z"));
    let outlier = outlier::Settings {
        consecutive: Some(12),
        success_rate: true,
        interval: 13 * MS,
        base_ejection: 14 * MS,
        max_ejected: 0.15,
    };
    assert_eq!(read.outlier, outlier);
    let concurrency = concurrency::Settings {
        adaptive: true,
        min: 3,
        max: 12,
    };
    assert_eq!(read.concurrency, concurrency);
}

#[test]
fn balancing_is_a_word_or_hashes_something() {
    for (text, expected) in [
        ("round_robin", LoadBalancing::RoundRobin),
        ("least_request", LoadBalancing::LeastRequest),
        ("random", LoadBalancing::Random),
        (
            "{ ring_hash: { header: X-User } }",
            LoadBalancing::RingHash(Key::Header("x-user".into())),
        ),
        (
            "{ ring_hash: { source: ip } }",
            LoadBalancing::RingHash(Key::SourceIp),
        ),
    ] {
        let read = policies(&format!("load_balancing: {text}"));
        assert_eq!(read.load_balancing, expected, "{text}");
    }
}

#[test]
fn balancing_is_that_of_the_nearest_layer() {
    let checked = layers(
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
fn endpoints_have_weights_and_zones() {
    let text = "upstreams: { a: { hosts: [b], endpoints: [10.1.1.1:1, \
                { address: 10.1.1.2:1, weight: 65535, zone: z }] } }";
    let checked = layers(text);
    let Endpoints::Static(list) = &checked.routes.upstreams[0].endpoints else {
        panic!("they are in the file");
    };
    let said: Vec<_> = list
        .iter()
        .map(|endpoint| (endpoint.weight, endpoint.zone.as_deref()))
        .collect();
    assert_eq!(said, [(1, None), (65_535, Some("z"))]);
    let effective = checked.effective();
    let shown = json!(["10.1.1.1:1", { "address": "10.1.1.2:1", "weight": 65_535, "zone": "z" }]);
    assert_eq!(effective["upstreams"]["a"]["endpoints"], shown);
    assert_eq!(layers(&effective.to_string()).routes, checked.routes);
}

#[test]
fn what_is_switched_off_is_off() {
    let off = policies(
        "timeouts: { first_byte: none, per_try: none, request: none }, tcp_keepalive: off, \
         retry: { on: [], methods: [], body_limit: 0 }, \
         circuit_breaker: { failures: off, failure_statuses: [] }, rate_limit: off, \
         outlier: { consecutive: off, success_rate: off, max_ejected: 0% }, \
         concurrency: { adaptive: off }, max_hops: off",
    );
    assert_eq!((off.hops.max, off.timeouts.request), (None, None));
    assert_eq!(off.timeouts.keep_alive, None);
    let causes = off.retry.on_connect_failure || off.retry.on_reset;
    assert!(!causes && off.retry.on_statuses.is_empty());
    assert_eq!(off.retry.methods.names().count(), 0);
    assert_eq!(off.retry.body_limit, 0);
    assert_eq!(off.circuit_breaker.trip, Trip::Never);
    assert!(off.circuit_breaker.failure_statuses.is_empty());
    assert_eq!(off.rate_limit, None);
    assert_eq!(off.outlier.consecutive, None);
    assert!(!off.outlier.success_rate && off.outlier.max_ejected == 0.0);
    assert!(!off.concurrency.adaptive);
}

#[test]
fn sizes_have_units() {
    for (text, bytes) in [
        ("0", 0),
        ("1000", 1_000),
        ("12B", 12),
        ("3KiB", 3 << 10),
        ("2MiB", 2 << 20),
    ] {
        let read = policies(&format!("retry: {{ body_limit: {text} }}"));
        assert_eq!(read.retry.body_limit, bytes, "{text}");
    }
}

#[test]
fn a_burst_is_one_second_unless_said() {
    for (rate, burst) in [
        ("0.001", 1),
        ("1", 1),
        ("1.5", 2),
        ("1000000000", 1_000_000_000),
    ] {
        let read = policies(&format!("rate_limit: {{ requests_per_second: {rate} }}"));
        assert_eq!(
            read.rate_limit.map(|limit| limit.burst),
            Some(burst),
            "{rate}"
        );
    }
}

/// `timeouts.min_rate`, in bytes per second.
fn rate_of(policies: &Policies) -> Option<u32> {
    policies.timeouts.min_rate.map(|rate| rate.0.get())
}

#[test]
fn a_minimum_rate_is_a_size_per_second() {
    for (value, bytes) in [
        ("off", None),
        ("1", Some(1)),
        ("512B", Some(512)),
        ("1KiB", Some(1_024)),
        ("2MiB/s", Some(2 << 20)),
        ("4294967295", Some(u32::MAX)),
    ] {
        let read = policies(&format!("timeouts: {{ min_rate: {value} }}"));
        assert_eq!(rate_of(&read), bytes, "{value}");
    }
    assert_eq!(rate_of(&policies("")), None, "it is off by default");
}

#[test]
fn wrong_policies_are_one_mistake_each() {
    const COUNT: &str = "must be a whole number from 0 to 4294967295";
    const LIMIT: &str = "must be longer than nothing, or none";
    const KEEP_ALIVE: &str = "must be whole seconds, from 1s to 9h, or off";
    const STATUS: &str = "a status from 100 to 599, or a range of them, as 500-599";
    const HASHED: &str = "must have a header or a source, and not both";
    const RATE: &str = "must be a number from 0.001 to 1000000000";
    const BYTE_RATE: &str = "must be a size per second, as 1KiB, below 4GiB, or off";
    for (key, value, wanted) in [
        ("pool.max_requests", "0", "must be at least 1"),
        (
            "pool.max_requests",
            "none",
            "must be a whole number from 1 to 4294967295",
        ),
        ("timeouts.first_byte", "0s", LIMIT),
        ("timeouts.per_try", "0ms", LIMIT),
        ("timeouts.request", "0s", LIMIT),
        ("timeouts.request", "off", "as 250ms or 10s, or none"),
        ("timeouts.connect", "none", "as 250ms or 10s"),
        ("timeouts.tunnel", "0s", "must be longer than nothing"),
        ("timeouts.tunnel", "none", "as 250ms or 10s"),
        ("timeouts.head", "0s", "must be longer than nothing"),
        ("timeouts.min_rate", "0", BYTE_RATE),
        ("timeouts.min_rate", "none", BYTE_RATE),
        ("timeouts.min_rate", "1KB", BYTE_RATE),
        ("timeouts.min_rate", "4GiB", BYTE_RATE),
        ("timeouts.min_rate", "1KiB/m", BYTE_RATE),
        ("tcp_keepalive", "0s", KEEP_ALIVE),
        ("tcp_keepalive", "1500ms", KEEP_ALIVE),
        ("tcp_keepalive", "10h", KEEP_ALIVE),
        ("tcp_keepalive", "none", "as 250ms or 10s, or off"),
        ("max_hops", "0", "must be at least 1, or off"),
        ("retry.attempts", "0", "must be from 1 to 100"),
        ("retry.attempts", "101", "must be from 1 to 100"),
        ("retry.attempts", "65537", "must be from 1 to 100"),
        (
            "retry.attempts",
            "many",
            "must be a whole number from 1 to 100",
        ),
        ("retry.on", "reset", "must be a list"),
        ("retry.on[0]", "[timeout]", STATUS),
        ("retry.on[0]", "[99]", STATUS),
        ("retry.on[0]", "[600]", STATUS),
        ("retry.on[0]", "[500-600]", STATUS),
        ("retry.on[0]", "[503-500]", STATUS),
        ("retry.on[0]", "[5xx]", STATUS),
        ("retry.on[1]", "[reset, reset]", "stands there twice"),
        ("retry.on[1]", "[500-599, 503]", "stands there twice"),
        ("retry.methods[0]", "[post]", "did you mean POST?"),
        ("retry.methods[0]", "['A B']", "is no request method"),
        ("retry.methods[1]", "[GET, GET]", "stands there twice"),
        ("retry.idempotency_header", "a b", "is no header name"),
        (
            "retry.idempotency_header",
            "Host",
            "proxy itself answers for",
        ),
        ("retry.base", "0s", "must be longer than nothing"),
        ("retry.base", "31s", "base is over cap"),
        ("retry.cap", "99ms", "base is over cap"),
        ("retry.budget.ratio", "0.2", "must be a percentage"),
        ("retry.budget.ratio", "101%", "must be a percentage"),
        ("retry.budget.min_per_second", "-1", COUNT),
        ("retry.budget.max", "1", "unknown key"),
        ("retry.body_limit", "17MiB", "must be at most 16MiB"),
        ("retry.body_limit", "64kb", "as 64KiB"),
        ("retry.body_limit", "1.5MiB", "as 64KiB"),
        ("retry.body_limit", "KiB", "as 64KiB"),
        ("retry.body_limit", "99999999999GiB", "must be fewer bytes"),
        ("retry.honor_retry_after", "yes", "must be true or false"),
        (
            "circuit_breaker.failures",
            "0",
            "must be from 1 to 10000, or off",
        ),
        (
            "circuit_breaker.failures",
            "10001",
            "must be from 1 to 10000, or off",
        ),
        (
            "circuit_breaker.ratio",
            "0%",
            "must be a percentage from 0.0001% to 100%, or off",
        ),
        (
            "circuit_breaker.ratio",
            "0.5",
            "must be a percentage from 0.0001% to 100%, or off",
        ),
        (
            "circuit_breaker.window",
            "0s",
            "must be longer than nothing",
        ),
        ("circuit_breaker.sleep", "0s", "must be longer than nothing"),
        (
            "circuit_breaker.consecutive",
            "0",
            "must be at least 1, or off",
        ),
        ("circuit_breaker.failure_statuses[0]", "[reset]", STATUS),
        (
            "circuit_breaker.failure_statuses[1]",
            "[500, 500]",
            "stands there twice",
        ),
        (
            "circuit_breaker.kernel_fail_fast",
            "yes",
            "must be one of off, on",
        ),
        ("rate_limit", "on", "must be off or a mapping"),
        (
            "rate_limit",
            "{ burst: 5 }",
            "must have requests_per_second",
        ),
        ("rate_limit", "{}", "must have requests_per_second"),
        ("rate_limit.requests_per_second", "0", RATE),
        ("rate_limit.requests_per_second", "1e3", RATE),
        ("rate_limit.requests_per_second", "1000000001", RATE),
        ("rate_limit.requests_per_second", "'.'", RATE),
        ("rate_limit.requests_per_second", "-1", RATE),
        (
            "load_balancing",
            "round-robin",
            "must be one of round_robin, least_request, peak_ewma, random",
        ),
        ("load_balancing", "{}", "must be a word, or have ring_hash"),
        ("load_balancing.ring_hash", "{}", HASHED),
        (
            "load_balancing.ring_hash",
            "{ header: a, source: ip }",
            HASHED,
        ),
        (
            "load_balancing.ring_hash.header",
            "a b",
            "is no header name",
        ),
        (
            "load_balancing.ring_hash.source",
            "port",
            "must be one of ip",
        ),
        ("zone", "''", "must be the name of a zone"),
        ("outlier.consecutive", "0", "must be at least 1, or off"),
        ("outlier.success_rate", "90%", "must be one of off, on"),
        ("outlier.interval", "0s", "must be longer than nothing"),
        ("outlier.base_ejection", "0s", "must be longer than nothing"),
        ("outlier.max_ejected", "101%", "must be a percentage"),
        ("outlier.max_ejection", "10%", "unknown key"),
        (
            "concurrency.adaptive",
            "true",
            "must be one of off, on, got true",
        ),
        ("concurrency.min", "0", "must be at least 1"),
        ("concurrency.max", "0", "must be at least 1"),
        ("concurrency.min", "1025", "min 1025 is over max 1024"),
        ("concurrency.max", "3", "min 4 is over max 3"),
        ("concurrency.start", "1", "unknown key"),
    ] {
        let plain = key.split('[').next().unwrap();
        let mut parts: Vec<&str> = plain.split('.').collect();
        let name = parts.pop().unwrap();
        let mut body = format!("{name}: {value}");
        for part in parts.into_iter().rev() {
            body = format!("{part}: {{ {body} }}");
        }
        for (text, place) in [
            (format!("defaults:\n  {body}"), "2: defaults"),
            (
                format!("upstreams: {{ a: {{ hosts: [b],\n {body} }} }}"),
                "2: upstreams.a",
            ),
        ] {
            let found = mistakes(&text);
            assert_eq!(found.len(), 1, "{text}\n{found:#?}");
            assert!(
                found[0].starts_with(&format!("f:{place}.{key}: ")),
                "{text}\n{}",
                found[0]
            );
            assert!(found[0].contains(wanted), "{text}\n{}", found[0]);
        }
    }
}

#[test]
fn what_contradicts_itself_is_a_mistake() {
    for (body, wanted) in [
        (
            "circuit_breaker: { failures: 3, consecutive: 4 }",
            "f:2: upstreams.a.circuit_breaker: has failures or consecutive, not both",
        ),
        (
            "circuit_breaker: { ratio: 30%, consecutive: 4 }",
            "f:2: upstreams.a.circuit_breaker: has ratio or consecutive, not both",
        ),
        (
            "rate_limit: { requests_per_second: 1, burst: 0 }",
            "f:2: upstreams.a.rate_limit.burst: must be at least 1, got 0",
        ),
        (
            "rate_limit: { requests_per_second: 1, on_limit: drop }",
            "f:2: upstreams.a.rate_limit.on_limit: must be one of reject, wait, got drop",
        ),
    ] {
        let text = format!("upstreams: {{ a: {{ hosts: [b],\n {body} }} }}");
        assert_eq!(mistakes(&text), [wanted], "{text}");
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
        let checked = layers(&text);
        let breaker = &checked.routes.upstreams[0].policies.circuit_breaker;
        assert_eq!(breaker.trip, trip, "{text}");
    }
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
    let checked = layers(LAYERS);
    for (key, wanted) in [
        ("timeouts.request", "5s (defaults, line 2)"),
        ("timeouts.per_try", "none (upstream, line 9)"),
        ("timeouts.first_byte", "none (built in)"),
        ("retry.attempts", "4 (defaults, line 3)"),
        ("retry.budget.ratio", "10% (defaults, line 3)"),
        ("retry.budget.min_per_second", "0 (upstream, line 10)"),
        ("retry.on", "connect-failure, reset, 429, 503 (built in)"),
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
fn bounds_of_concurrency_are_inherited() {
    let text = "\
defaults: { concurrency: { min: 5 } }
upstreams:
  on: { hosts: [a], concurrency: { adaptive: on, max: 50 } }
  off: { hosts: [b] }
routes: [{ upstream: on, timeouts: { request: 1s } }]
";
    let checked = layers(text);
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
    let again = layers(&effective.to_string());
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
    let checked = layers(LAYERS);
    let routes = &checked.routes.routes;
    let upstream = &checked.routes.upstreams[0];
    let overridden = routes[0].overridden.as_deref().unwrap();
    let mut wanted = crate::route::settings::Upstream::clone(upstream);
    wanted.policies.timeouts.request = Some(Duration::from_secs(1));
    wanted.policies.retry.methods = crate::policy::methods::Methods::of(["POST"]);
    wanted.policies.circuit_breaker.failure_statuses = Statuses::default().with(503..=503);
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
fn a_route_is_explained_with_its_own_lines() {
    let checked = layers(LAYERS);
    let explain = |url: &str| explain::explain(&checked, url).unwrap().to_json();
    let shown = explain("http://one/pay/1");
    assert_eq!(shown["route"], "routes[0]");
    for (key, value, from) in [
        ("timeouts.request", "1s", "routes[0]:20"),
        ("timeouts.per_try", "none", "upstream, line 9"),
        ("retry.methods", "POST", "routes[0]:21"),
        ("retry.attempts", "4", "defaults, line 3"),
        ("circuit_breaker.failure_statuses", "503", "routes[0]:22"),
        ("rate_limit", "off", "routes[0]:23"),
        ("headers.set.B", "***", "routes[0]:24"),
        ("headers.set.a", "***", "upstream, line 13"),
        ("headers.remove.c", "removed", "routes[0]:24"),
    ] {
        let policy = &shown["policies"][key];
        assert_eq!(*policy, json!({ "value": value, "from": from }), "{key}");
    }
    let plain = explain("http://one/plain");
    assert_eq!(plain["route"], "routes[1]");
    assert_eq!(
        plain["policies"]["timeouts.request"]["from"],
        "defaults, line 2"
    );
    let other = explain("http://one/other");
    assert_eq!(other["policies"], plain["policies"]);
}

#[test]
fn mistakes_of_a_route_have_its_path() {
    let text = "\
upstreams: { a: { hosts: [b], retry: { cap: 1s } } }
routes:
  - upstream: a
    retry: { base: 2s, attempts: 0 }
    timeouts: { per_try: 0s, head: 1s }
    circuit_breaker: { failures: 1, consecutive: 1 }
    rate_limit: { burst: 1 }
    headers: { set: { host: x } }
    pool: { max_requests: 1 }
    poll: 1
";
    let wanted = [
        "f:4: routes[0].retry.attempts: must be from 1 to 100, got 0",
        "f:4: routes[0].retry.base: base is over cap, got 2s",
        "f:5: routes[0].timeouts.per_try: must be longer than nothing, or none, got 0s",
        "f:5: routes[0].timeouts.head: is over before there is a request to route, got 1s",
        "f:6: routes[0].circuit_breaker: has failures or consecutive, not both",
        "f:7: routes[0].rate_limit: must have requests_per_second",
        "f:8: routes[0].headers.set.host: is a header that the proxy itself answers for, got host",
        "f:9: routes[0].pool: is for a whole upstream: its routes share the connections",
        "f:10: routes[0].poll: unknown key; known here: match, upstream, timeouts, retry, \
         circuit_breaker, rate_limit, load_balancing, outlier, hedge, headers, fault",
    ];
    assert_eq!(mistakes(text), wanted);
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
    let checked = layers(inherited);
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
            "load_balancing",
            "outlier",
            "pool",
            "protocol",
            "retry",
            "tcp_keepalive",
            "timeouts"
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
    let checked = layers(
        "defaults: { pool: { max_requests: 5 }, retry: { attempts: 2 }, \
         rate_limit: { requests_per_second: 1 }, timeouts: { per_try: 1s, request: 2s }, \
         concurrency: { adaptive: on } }",
    );
    let adopted = &checked.routes.adopted;
    assert_eq!(adopted.pool.max_requests, None);
    assert_eq!(adopted.rate_limit, None);
    assert!(!adopted.concurrency.adaptive);
    assert_eq!(adopted.timeouts.request, None);
    assert_eq!(adopted.timeouts.per_try, Some(1_000 * MS));
    assert_eq!(adopted.retry.attempts, 2);
}

/// Each policy key of the schema with its default.
fn schema_defaults(schema: &Value, key: &mut Vec<String>, out: &mut Vec<(Vec<String>, Value)>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        key.push(name.clone());
        if let Some(default) = schema.get("default") {
            out.push((key.clone(), default.clone()));
        }
        schema_defaults(schema, key, out);
        key.pop();
    }
}

fn put(file: &mut Value, key: &[String], value: &Value) {
    let at = key.iter().fold(file, |at, name| &mut at[name]);
    *at = value.clone();
}

#[test]
fn writing_a_default_of_the_schema_changes_nothing() {
    let nothing = layers("upstreams: { a: { hosts: [b] } }");
    assert_eq!(nothing.routes.upstreams[0].policies, Policies::default());
    let mut defaults = Vec::new();
    let schema = schema();
    schema_defaults(
        &schema["properties"]["defaults"],
        &mut Vec::new(),
        &mut defaults,
    );
    let mut all = Value::Object(Map::new());
    for (key, default) in &defaults {
        let mut one = Value::Object(Map::new());
        put(&mut one, key, default);
        put(&mut all, key, default);
        let file = json!({ "defaults": one, "upstreams": { "a": { "hosts": ["b"] } } });
        let written = layers(&file.to_string());
        assert_eq!(written.routes, nothing.routes, "{key:?}");
    }
    let file = json!({ "defaults": all, "upstreams": { "a": { "hosts": ["b"] } } });
    assert_eq!(layers(&file.to_string()).routes, nothing.routes);
    // Every key that is listed for an upstream has its default in the schema.
    let with_default: BTreeSet<String> = defaults.iter().map(|(key, _)| key.join(".")).collect();
    let listed = nothing.policies[0].iter().map(|policy| policy.key.clone());
    assert_eq!(with_default, listed.collect());
    assert!(with_default.len() > 40);

    // A rate limit has defaults only where there is one.
    let schema = &schema["properties"]["defaults"]["properties"]["rate_limit"]["anyOf"][1];
    let on_limit = &schema["properties"]["on_limit"]["default"];
    let rate = json!({ "requests_per_second": 3 });
    let mut written = rate.clone();
    written["on_limit"] = on_limit.clone();
    assert!(on_limit.is_string());
    let limited = |limit: Value| policies(&format!("rate_limit: {limit}")).rate_limit;
    assert_eq!(limited(written), limited(rate));
}

#[test]
fn the_environment_has_tries_and_a_threshold() {
    let with = |more: &[(&str, &str)]| {
        let mut set = vec![
            ("LISTEN_ADDR", "127.0.0.1:8080"),
            ("UPSTREAM_HOST", "api.example"),
            ("UPSTREAM_PORT", "80"),
        ];
        set.extend(more);
        environment(&set)
            .unwrap()
            .map_err(|mistakes| mistakes.to_string())
    };
    let policies = |more: &[(&str, &str)]| {
        let checked = with(more).unwrap();
        checked.routes.upstreams[0].policies.clone()
    };
    assert_eq!(policies(&[]), Policies::default());
    for (value, attempts) in [("0", 1), ("1", 1), ("7", 7), ("100", 100)] {
        let read = policies(&[("RETRY_MAX", value)]);
        assert_eq!(read.retry.attempts, attempts, "{value}");
    }
    let window = Duration::from_secs(10);
    for (value, trip) in [
        ("0", Trip::Never),
        (
            "8",
            Trip::Rolling {
                failures: 8,
                window,
                ratio: Some(Ratio::HALF),
            },
        ),
    ] {
        for protocol in ["auto", "tcp"] {
            let set = [("CIRCUIT_BREAKER_THRESHOLD", value), ("PROTOCOL", protocol)];
            assert_eq!(
                policies(&set).circuit_breaker.trip,
                trip,
                "{value} {protocol}"
            );
        }
    }
    let tcp = ("PROTOCOL", "tcp");
    assert!(with(&[("RETRY_MAX", "2"), tcp]).is_ok());
    for (set, wanted) in [
        (
            &[("RETRY_MAX", "-1"), ("CIRCUIT_BREAKER_THRESHOLD", "x")][..],
            "environment: RETRY_MAX: must be a whole number from 0 to 100, got -1\n\
             environment: CIRCUIT_BREAKER_THRESHOLD: must be a whole number from 0 to 10000, got x",
        ),
        (
            &[("RETRY_MAX", "101"), ("CIRCUIT_BREAKER_THRESHOLD", "10001")],
            "environment: RETRY_MAX: must be a whole number from 0 to 100, got 101\n\
             environment: CIRCUIT_BREAKER_THRESHOLD: must be a whole number from 0 to 10000, got 10001",
        ),
    ] {
        assert_eq!(with(set).unwrap_err(), wanted);
    }
}

#[test]
fn the_readme_says_the_defaults_as_they_are() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let after = readme.split("\n| policy | default |").nth(1).unwrap();
    let rows = after
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let said: Vec<(String, String)> = rows
        .map(|row| {
            let cell = |at| {
                row.split('|')
                    .nth(at)
                    .map_or("", str::trim)
                    .trim_matches('`')
            };
            (cell(1).to_owned(), cell(2).to_owned())
        })
        .collect();
    let built_in = load_str("f", "upstreams: { web: { endpoints: [\"10.1.2.3:80\"] } }").unwrap();
    let are: Vec<(String, String)> = built_in.policies[0]
        .iter()
        .map(|policy| (policy.key.clone(), policy.value.clone()))
        .collect();
    assert_eq!(said, are);
}
