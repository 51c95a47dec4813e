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
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Http1, Self::Tcp];

    /// What makes `ambassador-load run` speak it.
    pub fn of_client(self) -> &'static [&'static str] {
        match self {
            Self::Http1 => &["--host", "bench.test"],
            Self::Tcp => &["--tcp"],
        }
    }

    /// What makes `ambassador-load serve` speak it.
    pub fn of_upstream(self) -> &'static [&'static str] {
        match self {
            Self::Http1 => &[],
            Self::Tcp => &["--tcp"],
        }
    }

    /// Where proxies listen for it.
    pub fn listener_port(self) -> u16 {
        8081 + self as u16
    }

    /// Where its upstream listens.
    pub fn upstream_port(self) -> u16 {
        9000 + self as u16
    }

    /// Whether a variant can carry it.
    pub fn suits(self, variant: Variant) -> bool {
        match self {
            Self::Http1 => true,
            Self::Tcp => variant.relays_tcp(),
        }
    }
}
