//! Which trailer fields of a body go on.

use crate::http::fields::{Kind, kind_of};

/// Whether a field has no meaning on the way. Those that have one belong into
/// the head, where it was looked for: a recipient that merges trailers into the
/// head would see another request than was decided on.
pub(crate) fn may_trail(name: &[u8]) -> bool {
    kind_of(name) == Kind::EndToEnd
}

/// Appends a whole trailer section to `out`, without the fields that `passes`
/// is not true of. It is well formed: it has gone through a body reader.
pub(crate) fn write_trailers(out: &mut Vec<u8>, section: &[u8], passes: impl Fn(&[u8]) -> bool) {
    for line in section.split_inclusive(|byte| *byte == b'\n') {
        let name = memchr::memchr(b':', line).map(|end| &line[..end]);
        if name.is_none_or(&passes) {
            out.extend_from_slice(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_on_the_way_may_not_trail() {
        for name in [
            "Proxy-Authorization",
            "authorization",
            "X-Upstream-Host",
            "traceparent",
            "b3",
            "baggage",
            "grpc-timeout",
            "keep-alive",
            "proxy-connection",
        ] {
            assert!(!may_trail(name.as_bytes()), "{name}");
        }
        for name in ["grpc-status", "Server-Timing", "X-Checksum", "digest"] {
            assert!(may_trail(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn lines_that_do_not_pass_are_left_out() {
        for (section, expected) in [
            ("\r\n", "\r\n"),
            ("A: 1\r\nb: 2: 3\r\nC:\r\n\r\n", "A: 1\r\nC:\r\n\r\n"),
            ("B: 2\r\nb:\r\n\r\n", "\r\n"),
        ] {
            let mut out = b"0\r\n".to_vec();
            let passes = |name: &[u8]| !name.eq_ignore_ascii_case(b"b");
            write_trailers(&mut out, section.as_bytes(), passes);
            assert_eq!(out, format!("0\r\n{expected}").as_bytes());
        }
    }
}
