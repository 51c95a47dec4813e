//! Reads and writes what frames a chunked body, trailer section included.

/// Appends a chunk of so many bytes to `out`; nothing where there are none, as that would
/// be the last one.
pub(crate) fn write_chunk<'a>(
    out: &mut Vec<u8>,
    bytes: usize,
    parts: impl Iterator<Item = &'a [u8]>,
) {
    if bytes == 0 {
        return;
    }
    out.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk to `out`, and the trailer section with these fields.
pub(crate) fn write_last_chunk<'a>(
    out: &mut Vec<u8>,
    trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Names and values of a whole trailer section. It is well formed: it has gone through a
/// body reader.
pub(crate) fn read_trailers(section: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    section.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
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
    fn content_is_put_into_chunks_and_trailers_behind_them() {
        let mut out = Vec::new();
        write_chunk(&mut out, 0, [&b""[..]].into_iter());
        assert!(out.is_empty());
        let parts: [&[u8]; 2] = [b"0123456789", b"abcdefg"];
        write_chunk(&mut out, 17, parts.into_iter());
        let trailers: [(&[u8], &[u8]); 2] = [(b"a", b"1"), (b"b", b"")];
        write_last_chunk(&mut out, trailers.into_iter());
        let expected = b"11\r\n0123456789abcdefg\r\n0\r\na: 1\r\nb: \r\n\r\n";
        assert_eq!(out, expected);
        let section = out.split_off(out.len() - 13);
        assert!(read_trailers(&section).eq(trailers), "{section:?}");
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
