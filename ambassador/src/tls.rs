//! TLS over streams of the ring: sessions, how they are agreed upon, and what is
//! trusted. The protocol itself is rustls' (RFC 8446, RFC 5246), its cryptography
//! that of aws-lc.
//!
//! The control side reads certificates and keys and makes configurations of them.
//! A shard takes the configuration in force for each new connection, so a new
//! certificate changes no connection that is open.

mod certificate;
mod client;
mod handshake;
mod session;
mod verifier;

pub(crate) use client::{Client, ClientFiles, FileError};
pub(crate) use handshake::HandshakeError;
pub(crate) use session::{Agreement, Session};
