//! Tells a protocol from the first bytes of a connection.
//!
//! The version at the end of its first line makes a request HTTP/1: RTSP, SIP,
//! ICAP and Redis have methods of the same names, HTTP/0.9 has no version.

use crate::message::grammar::is_token;
use crate::message::{HEAD_BYTES_MAX, Method};

pub mod server_name;

pub(crate) use server_name::TLS_HANDSHAKE;
pub use server_name::{HelloReader, ServerName, server_name};

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniff {
    /// Too few bytes to tell; if no more come, opaque.
    NeedMore,
    /// A method and the beginning of a path, and no more of the first line. If
    /// no more comes, a slow HTTP client: nothing else is as likely, and it must
    /// not get around what holds for HTTP by being slow.
    RequestLine,
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

/// Whether the first bytes of a connection begin as HTTP/2 does: no method of HTTP/1 does.
pub(crate) fn is_http2(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PRI ")
}

/// Looks at the first bytes of a connection.
pub fn sniff(bytes: &[u8]) -> Sniff {
    match bytes {
        [] | [TLS_HANDSHAKE] => return Sniff::NeedMore,
        [TLS_HANDSHAKE, 0x03, ..] => return Sniff::Tls,
        _ if bytes.starts_with(HTTP2_PREFACE) => return Sniff::Http2Preface,
        _ if HTTP2_PREFACE.starts_with(bytes) => return Sniff::NeedMore,
        _ => {}
    }
    // Empty lines may come before the first (RFC 9112 section 2.2). What else is
    // lenient here is for the parser to refuse: lenient servers take it.
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let start = bytes.iter().take_while(|byte| is_end(byte)).count();
    let lines = &bytes[start..];
    let is_request = match memchr::memchr(b'\n', lines) {
        Some(end) => is_request_line(&lines[..end]),
        None => return unfinished(lines, bytes.len() > HEAD_BYTES_MAX),
    };
    match is_request {
        true => Sniff::Http1,
        false => Sniff::Opaque,
    }
}

/// Whether a whole line ends with a version of HTTP/1. Between that and a
/// method of HTTP there may be anything, between that and another word one
/// word: lines of a log end like that, too.
fn is_request_line(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let (method, rest) = split_method(line);
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(version) = rest.iter().rposition(is_blank) else {
        return false;
    };
    if !rest.first().is_some_and(is_blank) {
        return false;
    }
    let (between, version) = (rest[..version].trim_ascii(), &rest[version + 1..]);
    if method.is_empty() {
        return false;
    }
    let is_version = version
        .strip_prefix(b"HTTP/1.")
        .is_some_and(|minor| !minor.is_empty() && minor.iter().all(u8::is_ascii_digit));
    let is_one_word = !between.is_empty() && !between.iter().any(is_blank);
    is_version && (is_one_word || Method::parse(method) != Method::Other)
}

/// What a line can become that is not finished. No end is waited for beyond
/// what a whole head may have.
fn unfinished(line: &[u8], too_long: bool) -> Sniff {
    let (method, rest) = split_method(line);
    let target = match rest {
        [] if !too_long => return Sniff::NeedMore,
        [b' ' | b'\t', target @ ..] if !method.is_empty() => target.trim_ascii_start(),
        _ => return Sniff::Opaque,
    };
    let has_scheme = |scheme: &[u8]| {
        let start = target.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let is_path = target.starts_with(b"/") || has_scheme(b"http://");
    match (is_path, too_long) {
        (true, true) => Sniff::Http1,
        (true, false) => Sniff::RequestLine,
        (false, true) => Sniff::Opaque,
        (false, false) => Sniff::NeedMore,
    }
}

/// The token at the front, and what follows it.
fn split_method(line: &[u8]) -> (&[u8], &[u8]) {
    let method = line.iter().take_while(|byte| is_token(**byte)).count();
    line.split_at(method)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_version_makes_it_http() {
        for (line, expected) in [
            ("GET / HTTP/1.1\r\n", Sniff::Http1),
            ("GET / HTTP/1.0\r\nHost: a", Sniff::Http1),
            ("GET / HTTP/1.1\n", Sniff::Http1),
            ("GET / HTTP/1.1 \t\r\n", Sniff::Http1),
            ("\r\n\r\nGET / HTTP/1.1\r\n", Sniff::Http1),
            ("\nGET / HTTP/1.1\r\n", Sniff::Http1),
            ("GET /a b HTTP/1.1\r\n", Sniff::Http1),
            ("GET\t/ HTTP/1.1\r\n", Sniff::Http1),
            ("BREW /pot HTTP/1.1\r\n", Sniff::Http1),
            ("get / HTTP/1.1\r\n", Sniff::Http1),
            ("M-SEARCH * HTTP/1.1\r\n", Sniff::Http1),
            (
                "A-METHOD-OF-MORE-THAN-THIRTY-TWO-LETTERS / HTTP/1.1\r\n",
                Sniff::Http1,
            ),
            ("OPTIONS * HTTP/1.1\r\n", Sniff::Http1),
            ("CONNECT a:443 HTTP/1.1\r\n", Sniff::Http1),
            ("GET http://a/b HTTP/1.1\r\n", Sniff::Http1),
            ("GET /caf\u{e9} HTTP/1.1\r\n", Sniff::Http1),
            ("OPTIONS rtsp://a/b RTSP/1.0\r\n", Sniff::Opaque),
            ("OPTIONS sip:a@b SIP/2.0\r\n", Sniff::Opaque),
            ("OPTIONS icap://a/b ICAP/1.0\r\n", Sniff::Opaque),
            ("GET key\r\n", Sniff::Opaque),
            ("GET /\r\n", Sniff::Opaque),
            ("GET / HTTP/2.0\r\n", Sniff::Opaque),
            ("GET / HTTP/1.\r\n", Sniff::Opaque),
            ("GET / HTTP/1.1x\r\n", Sniff::Opaque),
            ("GET/ HTTP/1.1\r\n", Sniff::Opaque),
            ("GET / http/1.1\r\n", Sniff::Opaque),
            ("PRI * HTTP/2.0\r\n", Sniff::NeedMore),
            ("PRI * HTTP/2.0\r\nHost: a", Sniff::Opaque),
            ("SSH-2.0-x\r\n", Sniff::Opaque),
            ("EHLO a\r\n", Sniff::Opaque),
            ("<13>1 a \"GET / HTTP/1.1\" 200\n", Sniff::Opaque),
            ("host GET / HTTP/1.1\n", Sniff::Opaque),
            ("HTTP/1.1\r\n", Sniff::Opaque),
            (" HTTP/1.1\r\n", Sniff::Opaque),
            ("{\"a\": 1}\n", Sniff::Opaque),
            ("\0GET / HTTP/1.1\r\n", Sniff::Opaque),
        ] {
            assert_eq!(sniff(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn what_could_become_either_needs_more() {
        for (bytes, expected) in [
            (&b""[..], Sniff::NeedMore),
            (b"H", Sniff::NeedMore),
            (b"P", Sniff::NeedMore),
            (b"GET", Sniff::NeedMore),
            (b"GET ", Sniff::NeedMore),
            (b"\r\n", Sniff::NeedMore),
            (b"OPTIONS rtsp://a", Sniff::NeedMore),
            (b"PRI * HT", Sniff::NeedMore),
            (b"\x16", Sniff::NeedMore),
            (b"GET /", Sniff::RequestLine),
            (b"GET /a HTTP/1.1", Sniff::RequestLine),
            (b"POST HTTP://a", Sniff::RequestLine),
            (b"GET /a HTTP/1.1\r", Sniff::RequestLine),
            (HTTP2_PREFACE, Sniff::Http2Preface),
            (b"\x16\x03\x01", Sniff::Tls),
            (b"\x16\x04", Sniff::Opaque),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Sniff::Opaque),
            (b"\r\n\r\n\0\r\nQUIT\n", Sniff::Opaque),
            (b"{\"a\"", Sniff::Opaque),
            (&[b'a'; 100], Sniff::NeedMore),
            (&[b'a'; HEAD_BYTES_MAX + 1], Sniff::Opaque),
        ] {
            assert_eq!(sniff(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_told_by_its_beginning() {
        for (start, expected) in [
            (&b"GET /"[..], Sniff::Http1),
            (b"GET key", Sniff::Opaque),
            (b"GET ", Sniff::Opaque),
            (b"\r\n", Sniff::Opaque),
        ] {
            let line = [start, &[b'x'; HEAD_BYTES_MAX]].concat();
            assert_eq!(sniff(&line), expected, "{start:?}");
        }
        assert_eq!(sniff(&[b'\n'; HEAD_BYTES_MAX + 1]), Sniff::Opaque);
    }

    proptest! {
        /// What the first bytes have told does not change when more come.
        #[test]
        fn what_is_told_stays(
            parts in prop::collection::vec(prop::sample::select(vec![
                "GET", "PRI * HTTP/2.0", "SM", " ", "/", "HTTP/1.1", "\r\n", "\n", "\r", "\t",
                "x", "http://", "\x16", "\x03", "\0", "\u{e9}",
            ]), 0..9),
            cut in 0_usize..30,
        ) {
            let bytes = parts.concat().into_bytes();
            let (told, whole) = (sniff(&bytes[..cut.min(bytes.len())]), sniff(&bytes));
            match told {
                Sniff::NeedMore => {}
                Sniff::RequestLine => {
                    prop_assert!(!matches!(whole, Sniff::NeedMore | Sniff::Tls));
                }
                known => prop_assert_eq!(known, whole),
            }
        }

        /// Nobody gets around what holds for HTTP by cutting a request in two.
        #[test]
        fn the_beginning_of_a_request_is_never_opaque(
            method in "[A-Z-]{1,40}",
            target in prop_oneof!["/[ -~]{0,20}", "http://[a-z]{1,9}/", Just("*".to_owned())],
            cut in 0_usize..80,
        ) {
            let target = target.replace(' ', "+");
            let line = format!("{method} {target} HTTP/1.1\r\n");
            let cut = cut.min(line.len());
            let told = sniff(&line.as_bytes()[..cut]);
            prop_assert_ne!(told, Sniff::Opaque);
            if cut == line.len() {
                prop_assert_eq!(told, Sniff::Http1);
            }
        }
    }
}
