//! Limits of figures that are compared with nothing.

use serde::Serialize;

use super::{Bound, Why};
use crate::variant::Variant;

/// A limit that holds for a figure as it is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limit {
    /// In words, with the unit.
    pub text: &'static str,
    /// What it limits.
    pub of: Alone,
    /// The limit.
    pub bound: Bound,
    /// Why it is missed, where that is known.
    pub why: Option<Why>,
}

/// A figure that is compared with nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Alone {
    /// Memory after the first request, with capture.
    AtRest,
    /// Memory of an idle connection.
    IdleConnection,
    /// Memory of an idle proxy that has made a request over mutual TLS to an
    /// upstream.
    TlsIdle,
    /// The same, by that of another variant.
    TlsIdleBy(Variant),
    /// Memory of an idle TLS connection, by that of another variant.
    TlsIdleConnectionBy(Variant),
    /// Memory after a burst, less that at rest.
    AfterBurst,
    /// What a connect() takes longer when programs are attached that let it be.
    Uncaptured,
    /// From the start to the first answer.
    FirstAnswer,
    /// The same with capture.
    FirstAnswerCaptured,
}

/// All of them.
pub fn all() -> Vec<Limit> {
    let limit = |text, of, at_most| Limit {
        text,
        of,
        bound: Bound::AtMost(at_most),
        why: None,
    };
    vec![
        limit("PSS at rest, MiB, eBPF and helper", Alone::AtRest, 5.0),
        limit("KiB for each idle connection", Alone::IdleConnection, 2.0),
        limit(
            "PSS when idle, MiB, mutual TLS to an upstream in use",
            Alone::TlsIdle,
            5.0,
        ),
        limit(
            "the same, of nginx",
            Alone::TlsIdleBy(Variant::NginxTls),
            1.0,
        ),
        limit(
            "memory of an idle TLS connection, of nginx",
            Alone::TlsIdleConnectionBy(Variant::NginxTls),
            1.0,
        ),
        limit(
            "memory of an idle TLS connection, of HAProxy",
            Alone::TlsIdleConnectionBy(Variant::HaproxyTls),
            1.0,
        ),
        limit(
            "memory of an idle TLS connection, of Envoy",
            Alone::TlsIdleConnectionBy(Variant::EnvoyTls),
            1.0,
        ),
        limit(
            "MiB more than at rest after a burst",
            Alone::AfterBurst,
            1.0,
        ),
        limit(
            "us more for a connect() that is not captured",
            Alone::Uncaptured,
            0.5,
        ),
        limit("ms to the first answer", Alone::FirstAnswer, 10.0),
        limit(
            "ms to the first answer, with capture",
            Alone::FirstAnswerCaptured,
            250.0,
        ),
    ]
}
