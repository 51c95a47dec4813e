//! Targets of TLS.

use super::{Bound, Figure, Target, Why};
use crate::variant::Variant::{self, EnvoyTls, HaproxyTls, ListenerTls, NginxTls};

const SATURATED: &str = "http1 to mtls 1KB 64 conn, one core";
const SATURATED_12: &str = "http1 to mtls 1.2 1KB 64 conn, one core";
const RATE: &str = "http1 to mtls 1KB 4k/s, one core";
const HANDSHAKES: &str = "tls 64B 8 new conn, one core";
const ALONE: &str = "http1 64B 1k/s, tls idle, apart";

/// All of them.
pub fn all() -> Vec<Target> {
    let cpu = |text, scenario, by: Variant, at_most| Target {
        text,
        scenario,
        figure: Figure::Cpu,
        of: ListenerTls,
        by,
        by_scenario: scenario,
        bound: Bound::AtMost(at_most),
        why: None,
    };
    let beside = |text, scenario| Target {
        by_scenario: ALONE,
        figure: Figure::P99,
        ..cpu(text, scenario, ListenerTls, 2.0)
    };
    vec![
        cpu(
            "CPU per request to mutual TLS, of nginx",
            SATURATED,
            NginxTls,
            0.85,
        ),
        cpu(
            "CPU per request to mutual TLS, of HAProxy",
            SATURATED,
            HaproxyTls,
            0.85,
        ),
        cpu(
            "CPU per request to mutual TLS, of Envoy",
            SATURATED,
            EnvoyTls,
            0.85,
        ),
        cpu(
            "CPU per request to mutual TLS 1.2, of nginx",
            SATURATED_12,
            NginxTls,
            0.85,
        ),
        Target {
            why: Some(Why {
                sentence: "A fifth is falling asleep and switching to another process, a third \
                           the two sends, much the same for both; code and data have left the \
                           caches meanwhile.",
                profile: "perf record, 4,000 a second, 64 connections",
            }),
            ..cpu(
                "CPU per request to mutual TLS, of nginx",
                RATE,
                NginxTls,
                0.85,
            )
        },
        cpu(
            "CPU per request to mutual TLS, of HAProxy",
            RATE,
            HaproxyTls,
            0.85,
        ),
        cpu(
            "CPU per request to mutual TLS, of Envoy",
            RATE,
            EnvoyTls,
            0.85,
        ),
        cpu(
            "CPU per full handshake with a request, of nginx",
            HANDSHAKES,
            NginxTls,
            1.0,
        ),
        Target {
            figure: Figure::Rate,
            bound: Bound::AtLeast(1.0),
            ..cpu(
                "full handshakes a second, of nginx",
                HANDSHAKES,
                NginxTls,
                1.0,
            )
        },
        beside(
            "p99 beside 2,000 handshakes a second with clients, of none",
            "http1 64B 1k/s, 2k/s tls new conn, apart",
        ),
        beside(
            "p99 beside 2,000 handshakes a second with an upstream, of none",
            "http1 64B 1k/s, 2k/s to new tls, apart",
        ),
    ]
}
