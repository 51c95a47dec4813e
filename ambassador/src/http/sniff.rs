//! Tells a protocol from the first bytes of a connection.

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniff {
    /// Too few bytes to tell.
    NeedMore,
    /// An HTTP/1 request line.
    Http1,
    /// The HTTP/2 connection preface (RFC 9113 section 3.4).
    Http2Preface,
    /// A TLS handshake record (RFC 8446 section 5.1).
    Tls,
    /// Anything else.
    Opaque,
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The methods that make a connection HTTP. One of an unknown method is
/// relayed as opaque bytes, which works too.
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
];

/// Looks at the first bytes of a connection.
pub fn sniff(bytes: &[u8]) -> Sniff {
    let could_be = |known: &[u8]| known.starts_with(bytes);
    match bytes {
        [] => Sniff::NeedMore,
        [0x16, 0x03, ..] => Sniff::Tls,
        [0x16] => Sniff::NeedMore,
        _ if bytes.starts_with(HTTP2_PREFACE) => Sniff::Http2Preface,
        _ if could_be(HTTP2_PREFACE) => Sniff::NeedMore,
        _ if METHODS.iter().any(|method| bytes.starts_with(method)) => Sniff::Http1,
        _ if METHODS.iter().any(|method| could_be(method)) => Sniff::NeedMore,
        _ => Sniff::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Sniff::Http1),
            (b"GE", Sniff::NeedMore),
            (b"P", Sniff::NeedMore),
            (b"PRI * HT", Sniff::NeedMore),
            (HTTP2_PREFACE, Sniff::Http2Preface),
            (b"\x16\x03\x01", Sniff::Tls),
            (b"\x16\x04", Sniff::Opaque),
            (b"SSH-2.0-x\r\n", Sniff::Opaque),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Sniff::Opaque),
            (b"get / HTTP/1.1", Sniff::Opaque),
        ] {
            assert_eq!(sniff(bytes), expected, "{bytes:?}");
        }
    }
}
