//! HTTP/2 as a test writes it: frame by frame, right or wrong, on a plain TCP stream.
//! It shares nothing with the proxy, so that both do not make the same mistake.

pub mod client;
pub mod frame;
pub mod hpack;
pub mod peer;
pub mod server;
pub mod windows;

pub use frame::{Frame, code, flag, kind, setting};
pub use hpack::{Field, block};
pub use peer::Peer;
pub use windows::Windows;

/// What a client says before its first frame (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Fields as they go, with names in lower case (section 8.2).
fn lower<N: AsRef<str>, V: AsRef<str>>(fields: &[(N, V)]) -> Vec<(String, String)> {
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| {
        (
            name.as_ref().to_ascii_lowercase(),
            value.as_ref().to_owned(),
        )
    });
    fields.collect()
}
