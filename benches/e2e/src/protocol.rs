//! What the connections carry. One more is a value here, the scenarios that
//! have it, and a listener and an upstream for it in `peers`.

use serde::Serialize;

use crate::variant::Variant;

/// What the connections to and from the proxy carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 on both sides.
    Http1,
    /// Bytes that no proxy understands.
    Tcp,
    /// HTTP/1.1, from the client over TLS, to the upstream in clear.
    Tls,
    /// HTTP/1.1, from the client in clear, to the upstream over mutual TLS 1.3.
    Mtls,
    /// The same over mutual TLS 1.2.
    Mtls12,
    /// HTTP/1.1, from the client in clear, to the upstream with a connection, and a
    /// full handshake of TLS 1.3, for each request.
    Anew,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Http1,
        Self::Tcp,
        Self::Tls,
        Self::Mtls,
        Self::Mtls12,
        Self::Anew,
    ];

    /// Those without TLS, which have an upstream of their own.
    pub const CLEAR: [Self; 2] = [Self::Http1, Self::Tcp];

    /// Those whose upstream speaks TLS.
    pub const TO_TLS: [Self; 3] = [Self::Mtls, Self::Mtls12, Self::Anew];

    /// What files and upstreams of it are named.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Mtls => "mtls",
            Self::Mtls12 => "mtls12",
            Self::Anew => "anew",
        }
    }

    /// Whom clients ask for.
    pub fn host(self) -> &'static str {
        match self {
            Self::Http1 | Self::Tcp | Self::Tls => "bench.test",
            Self::Mtls => "mtls.test",
            Self::Mtls12 => "mtls12.test",
            Self::Anew => "anew.test",
        }
    }

    /// What makes `ambassador-load run` speak it; TLS needs the file of an
    /// authority besides.
    pub fn of_client(self) -> Vec<&'static str> {
        match self {
            Self::Tcp => vec!["--tcp"],
            _ => vec!["--host", self.host()],
        }
    }

    /// What makes `ambassador-load serve` speak it.
    pub fn of_upstream(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &["--tcp"],
            _ => &[],
        }
    }

    /// Where proxies listen for it.
    pub fn listener_port(self) -> u16 {
        8081 + self as u16
    }

    /// Where its upstream listens.
    pub fn upstream_port(self) -> u16 {
        match self {
            Self::Tls => Self::Http1.upstream_port(),
            _ => 9000 + self as u16,
        }
    }

    /// Whether a variant can carry it.
    pub fn suits(self, variant: Variant) -> bool {
        match self {
            Self::Http1 => true,
            Self::Tcp => variant.relays_tcp(),
            Self::Tls | Self::Mtls | Self::Mtls12 | Self::Anew => variant.speaks_tls(),
        }
    }
}
