//! TLS over streams of the ring: sessions, how they are agreed upon, and what is
//! trusted. The protocol itself is rustls' (RFC 8446, RFC 5246), its cryptography
//! that of aws-lc.
//!
//! The control side reads certificates and keys and makes configurations of them.
//! A shard takes the configuration in force for each new connection, so a new
//! certificate changes no connection that is open.

pub(crate) mod certificate;
mod client;
mod client_verifier;
mod handshake;
mod outcome;
pub(crate) mod pem;
mod resumption;
mod server;
mod server_sessions;
mod session;
pub(crate) mod svid;
mod svid_verifier;
#[cfg(test)]
pub(crate) mod test_authority;
pub(crate) mod trust;
mod verifier;
pub(crate) mod x509_context;

pub(crate) use certificate::uris;
pub(crate) use client::{Client, FileError, https_config};
pub(crate) use handshake::HandshakeError;
pub(crate) use server::Server;
pub(crate) use session::{Agreement, Session};

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use x509_context::X509Context;
use zeroize::Zeroizing;

/// The content of the files that the configuration names for one upstream or listener.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// No file but the proxy's own identity, where it is there.
    pub identity: Option<Arc<X509Context>>,
    /// Certificates of authorities.
    pub ca: Option<Vec<u8>>,
    /// The own certificate.
    pub cert: Option<Vec<u8>>,
    /// Its key.
    pub key: Option<Zeroizing<Vec<u8>>>,
    /// Lists of revoked certificates.
    pub crl: Option<Vec<u8>>,
}

impl Files {
    /// Tells what was read from what was read before, and is not stored anywhere; `None`:
    /// it is not to be told, as there is more to it than files.
    fn fingerprint(&self) -> Option<u64> {
        static KEY: OnceLock<RandomState> = OnceLock::new();
        let Self {
            identity: None,
            ca,
            cert,
            key,
            crl,
        } = self
        else {
            return None;
        };
        let key = key.as_deref();
        Some(
            KEY.get_or_init(RandomState::new)
                .hash_one((ca, cert, key, crl)),
        )
    }
}

/// A number that no other upstream or listener has.
fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
