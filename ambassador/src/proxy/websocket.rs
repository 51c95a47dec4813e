//! The handshake of WebSocket in HTTP/1.1 (RFC 6455 sections 4.1 and 4.2.2). In HTTP/2
//! the protocol is named, and there is none (RFC 8441 section 5).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::clock;

/// The field with which a client asks for it.
pub(super) const KEY: &str = "Sec-WebSocket-Key";

/// The field with which a server shows that it has understood.
pub(super) const ACCEPT: &str = "Sec-WebSocket-Accept";

/// What is hashed behind a key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether this protocol has the handshake.
pub(super) fn is_it(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"websocket")
}

/// A new key.
pub(super) fn key() -> String {
    STANDARD.encode(clock::random_u128().to_ne_bytes())
}

/// How a server that understands answers a key.
pub(super) fn accept(key: &[u8]) -> String {
    let text = [key, GUID].concat();
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 section 1.3.
    #[test]
    fn a_key_has_one_answer() {
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn a_key_is_of_sixteen_bytes_and_no_other_one() {
        let key = key();
        assert_eq!(STANDARD.decode(&key).expect("base64").len(), 16);
        assert_ne!(key, super::key());
    }
}
