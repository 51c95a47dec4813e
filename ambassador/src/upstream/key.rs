//! The pool key: requests with the same key may share connections.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use rustls_pki_types::ServerName;

use crate::addr::EndpointAddr;
use crate::tls::Offer;
use crate::upstream::dial::Namespace;
use crate::upstream::holders::SLOTS;

/// What a connection may be reused for: requests with the same key share
/// connections, and no others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Where its socket was made.
    pub namespace: Namespace,
    /// Whom it leads to.
    pub endpoint: EndpointAddr,
    /// As whom it was opened.
    pub identity: Identity,
    /// What is spoken over it.
    pub protocol: Protocol,
}

/// As whom a connection is opened, and to whom it leads: in clear to nobody in
/// particular, or over TLS.
///
/// In clear no credentials are shown. A connection on which a caller shows its own belongs
/// to that caller ([`ConnectionAuth`](super::connection::ConnectionAuth)), and is never
/// shared. Over TLS it is a number for the server's name and the settings that it was
/// verified with, client certificate included: a keyed hash (SipHash-1-3). Who does not
/// know the key of this process finds no second name with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(u64);

impl Identity {
    /// In clear.
    pub const ANONYMOUS: Self = Self(0);

    /// Over TLS with settings of this number, to a server of this name.
    pub(crate) fn tls(settings: u32, name: Option<&ServerName<'_>>) -> Self {
        static KEY: OnceLock<RandomState> = OnceLock::new();
        let hash = KEY.get_or_init(RandomState::new).hash_one((settings, name));
        Self(hash.max(1))
    }
}

/// The protocol of a shared connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1: one exchange at a time. One over which opaque bytes have gone is
    /// never shared.
    Http1,
    /// HTTP/2: shared by many.
    Http2,
    /// Whichever of the two the endpoint chooses when TLS is agreed upon (RFC 7301).
    Negotiated,
}

impl Protocol {
    /// What a connection of it offers over TLS.
    pub(super) fn offer(self) -> Offer {
        match self {
            Self::Http1 => Offer::Http1,
            Self::Http2 => Offer::Http2,
            Self::Negotiated => Offer::Either,
        }
    }
}

impl PoolKey {
    /// The key of a protocol.
    pub fn new(
        protocol: Protocol,
        namespace: Namespace,
        endpoint: EndpointAddr,
        identity: Identity,
    ) -> Self {
        Self {
            namespace,
            endpoint,
            identity,
            protocol,
        }
    }

    /// The key of HTTP/1.
    pub fn http1(namespace: Namespace, endpoint: EndpointAddr, identity: Identity) -> Self {
        Self::new(Protocol::Http1, namespace, endpoint, identity)
    }

    /// The same key at another endpoint.
    pub fn at(self, endpoint: EndpointAddr) -> Self {
        Self { endpoint, ..self }
    }

    /// Its slot in [`Holders`](super::holders::Holders).
    pub(super) fn slot(&self) -> u8 {
        let hash = foldhash::fast::FixedState::default().hash_one(self);
        (hash % SLOTS as u64) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(host: u8) -> PoolKey {
        let endpoint = EndpointAddr(([10, 0, 0, host], 80).into());
        PoolKey::http1(Namespace(3), endpoint, Identity::ANONYMOUS)
    }

    #[test]
    fn a_key_at_another_endpoint_differs_in_that_alone() {
        assert_eq!(key(1).at(key(2).endpoint), key(2));
        assert_ne!(key(1), key(2));
    }

    #[test]
    fn protocols_share_no_connections_and_offer_what_they_are() {
        let all = [Protocol::Http1, Protocol::Http2, Protocol::Negotiated];
        let keys = all.map(|protocol| PoolKey { protocol, ..key(1) });
        assert_eq!(keys[0], key(1));
        assert!(keys[1] != keys[0] && keys[2] != keys[0] && keys[1] != keys[2]);
        let offers = all.map(Protocol::offer);
        assert_eq!(offers, [Offer::Http1, Offer::Http2, Offer::Either]);
    }

    #[test]
    fn keys_are_spread_over_all_slots() {
        let mut keys = [0; SLOTS];
        for host in 0..=u8::MAX {
            assert_eq!(key(host).slot(), key(host).slot());
            keys[usize::from(key(host).slot())] += 1;
        }
        assert!(keys.iter().all(|keys| (16..64).contains(keys)), "{keys:?}");
    }
}
