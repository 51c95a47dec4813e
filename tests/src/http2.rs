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

/// What a strict peer refuses in a field section (sections 8.2 and 8.3); `None`: nothing.
fn malformed(fields: &[(String, String)]) -> Option<String> {
    let is_pseudo = |(name, _): &(String, String)| name.starts_with(':');
    let regular = fields.iter().position(|field| !is_pseudo(field));
    let late = regular.is_some_and(|first| fields[first..].iter().any(is_pseudo));
    let is_wrong = |(name, value): &(String, String)| {
        let of_connection = [
            "connection",
            "proxy-connection",
            "keep-alive",
            "transfer-encoding",
            "upgrade",
        ];
        name.bytes()
            .any(|byte| byte.is_ascii_uppercase() || byte <= b' ')
            || of_connection.contains(&&**name)
            || name == "te" && value != "trailers"
            || value.trim_matches([' ', '\t']).len() < value.len()
            || value.contains(['\r', '\n', '\0'])
    };
    match fields.iter().find(|field| is_wrong(field)) {
        Some((name, value)) => Some(format!("{name}: {value:?}")),
        None => late.then(|| "a pseudo field behind others".to_owned()),
    }
}
