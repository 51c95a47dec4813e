//! Writes the trailer section behind a chunked body.

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
