//! TLS over streams of the ring: sessions, how they are agreed upon, and what is
//! trusted. The protocol itself is rustls' (RFC 8446, RFC 5246), its cryptography
//! that of aws-lc.
//!
//! The control side reads certificates and keys and makes configurations of them.
//! A shard takes the configuration in force for each new connection, so a new
//! certificate changes no connection that is open.

mod alpn;
pub(crate) mod certificate;
mod client;
mod client_verifier;
mod files;
mod handshake;
mod in_force;
mod outcome;
mod own_certificate;
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

pub(crate) use alpn::Offer;
pub(crate) use certificate::uris;
pub(crate) use client::{Client, https_config};
pub(crate) use files::{FileError, Files};
pub(crate) use handshake::HandshakeError;
pub(crate) use server::Server;
pub(crate) use session::{Agreement, Session};

use std::sync::atomic::{AtomicU32, Ordering};

/// A number that no other upstream or listener has.
fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
