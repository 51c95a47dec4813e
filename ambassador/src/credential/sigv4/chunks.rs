//! Signatures of a body in chunks (Amazon S3 API Reference, "Transferring payload in
//! multiple chunks" and "including trailing headers"): each is made of the one before
//! it, the first of that of the head.

use std::sync::Arc;

use super::{DayKey, hash_of};

/// Digits of a signature.
pub(crate) const SIGNATURE_DIGITS: usize = 64;

/// Signs the chunks of one body, in order.
pub struct ChunkSignatures {
    key: Arc<DayKey>,
    /// When the head was signed, and for what.
    scope: String,
    /// The signature before.
    last: String,
}

impl ChunkSignatures {
    /// Those behind a head that was signed so.
    pub(super) fn behind(key: Arc<DayKey>, scope: String, last: String) -> Self {
        Self { key, scope, last }
    }

    /// The signature of the next chunk, in hexadecimal digits; `hash` is that of its
    /// content, alike.
    pub(crate) fn of_chunk(&mut self, hash: &str) -> &str {
        self.next("PAYLOAD", &format!("{}\n{hash}", hash_of(&[])))
    }

    /// The signature of the trailer, behind the last chunk. `fields` are its lines, each
    /// `name:value` and a line feed.
    pub(crate) fn of_trailer(&mut self, fields: &[u8]) -> &str {
        self.next("TRAILER", &hash_of(&[fields]))
    }

    fn next(&mut self, of: &str, hashes: &str) -> &str {
        let Self { key, scope, last } = self;
        *last = key.sign(&format!("AWS4-HMAC-SHA256-{of}\n{scope}\n{last}\n{hashes}"));
        last
    }
}
