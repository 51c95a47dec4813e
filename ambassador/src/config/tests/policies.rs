//! Policies: every key, and what its values mean.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::message::grpc::Code;
use crate::policy::balance::{Key, LoadBalancing};
use crate::policy::breaker::{self, Ratio, Trip};
use crate::policy::codes::Codes;
use crate::policy::rate_limit::{self, OnLimit};
use crate::policy::statuses::Statuses;
use crate::policy::{concurrency, limits, outlier};
use crate::route::settings::{Policies, Protocol};

const MS: Duration = Duration::from_millis(1);

/// The policies of an upstream that says this.
pub(super) fn policies(body: &str) -> Policies {
    let text = format!("upstreams: {{ a: {{ hosts: [b], {body} }} }}");
    let checked = load_str("f", &text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
    checked.routes.upstreams[0].policies.clone()
}

#[test]
fn every_key_is_read() {
    let read = policies(
        "pool: { max_requests: 7 }, \
         timeouts: { connect: 1ms, first_byte: 2ms, per_try: 3ms, request: 4ms, idle: 5ms, \
                     tunnel: 6ms, head: 8ms, min_rate: 3KiB/s }, \
         tcp_keepalive: 7s, \
         retry: { attempts: 100, on: [reset, 429, { grpc: [aborted, internal] }, 500-502], elsewhere: off, methods: [POST, PURGE], \
                  idempotency_header: X-Once, base: 6ms, cap: 6ms, \
                  budget: { ratio: 7%, min_per_second: 8 }, body_limit: 16MiB, \
                  honor_retry_after: false }, \
         circuit_breaker: { failures: 10000, ratio: 7%, window: 9ms, sleep: 10ms, \
                            failure_statuses: [429, { grpc: [ok] }, 500-503] }, \
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
    assert_eq!(retry.on_codes, Codes::of(&[Code::Aborted, Code::Internal]));
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
        failure_codes: Codes::of(&[Code::Ok]),
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
fn http2_is_read_and_shown() {
    let default = limits::Http2::default();
    assert_eq!(policies("protocol: http2").http2, default);
    let read = policies(
        "http2: { ping: 1s, max_streams: 7, window: 64KiB, connection_window: 2147483647 }",
    );
    let expected = limits::Http2 {
        ping: Some(1_000 * MS),
        max_streams: 7,
        window: 64 << 10,
        connection_window: (1 << 31) - 1,
    };
    assert_eq!(read.http2, expected);
    let text = "defaults: { http2: { ping: off, window: 2MiB } }\n\
                upstreams: { a: { hosts: [b], protocol: grpc, http2: { max_streams: 7 } } }";
    let checked = loaded(text);
    let upstream = &checked.routes.upstreams[0];
    assert_eq!(upstream.protocol, Protocol::Grpc);
    let effective = checked.effective();
    let shown = json!({
        "ping": "off", "max_streams": 7, "window": "2MiB", "connection_window": "4MiB",
    });
    assert_eq!(effective["upstreams"]["a"]["http2"], shown);
    assert_eq!(effective["upstreams"]["a"]["protocol"], "grpc");
    let again = loaded(&effective.to_string());
    assert_eq!(again.routes.upstreams, checked.routes.upstreams);
    // Those of `defaults` alone, for accepted connections.
    let adopted = checked.routes.adopted.http2;
    let of_defaults = limits::Http2 {
        ping: None,
        window: 2 << 20,
        ..default
    };
    assert_eq!(adopted, of_defaults);
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
fn endpoints_have_weights_and_zones() {
    let text = "upstreams: { a: { hosts: [b], endpoints: [10.1.1.1:1, \
                { address: 10.1.1.2:1, weight: 65535, zone: z }] } }";
    let checked = loaded(text);
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
    assert_eq!(loaded(&effective.to_string()).routes, checked.routes);
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

/// Who only looks on adds nothing.
#[test]
fn what_is_only_observed_carries_no_credential() {
    let text = "upstreams: { a: { hosts: [a], endpoints: [127.0.0.1:1], \
                auth: { bearer: { file: /t } } } }";
    let routes = loaded(text).routes;
    assert!(routes.upstreams[0].auth.is_some());
    assert!(routes.observed().upstreams[0].auth.is_none());
}

/// Without endpoints a credential goes where the file says who the server is: by a
/// name, or by a SPIFFE ID.
#[test]
fn a_credential_follows_what_the_file_has_verified() {
    let with = |tls: &str| {
        format!(
            "upstreams: {{ a: {{ hosts: [10.1.1.1], tls: {{ {tls} }}, \
             auth: {{ bearer: {{ file: /t }} }} }} }}\n\
             identity: {{ cert: /c, key: /k, bundle: /b }}\n\
             routes: [{{ match: {{ path_prefix: /a }}, upstream: a }}]"
        )
    };
    for tls in ["sni: a.example", "verify: \"spiffe://td/a\""] {
        let found = load_str("f", &with(tls));
        assert!(found.is_ok(), "{tls}: {:?}", found.err());
    }
    assert_eq!(mistakes(&with("alpn: auto")).len(), 2);
}
