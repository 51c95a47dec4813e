//! Integers with a prefix of some bits (RFC 7541 section 5.1).

use crate::http2::hpack::error::CompressionError;

/// Bytes behind the first at most: 28 bits are more than anything here may be.
const BYTES_MAX: usize = 4;

/// Reads an integer of which `first` has the lower `prefix` bits, from the front
/// of `rest`.
#[inline]
pub(super) fn read(first: u8, prefix: u32, rest: &mut &[u8]) -> Result<usize, CompressionError> {
    let full = u8::MAX >> (8 - prefix);
    match first & full {
        value if value < full => Ok(value.into()),
        value => read_behind(value.into(), rest),
    }
}

/// Reads what does not fit the prefix.
fn read_behind(mut value: usize, rest: &mut &[u8]) -> Result<usize, CompressionError> {
    for (at, byte) in rest.iter().enumerate().take(BYTES_MAX) {
        value += usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Ok(value);
        }
    }
    match rest.len() < BYTES_MAX {
        true => Err(CompressionError::Truncated),
        false => Err(CompressionError::Integer),
    }
}

/// Appends `value`; the bits of `first` above the lower `prefix` are in front.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let full = (1 << prefix) - 1;
    if value < full {
        return out.push(first | value as u8);
    }
    out.push(first | full as u8);
    let mut left = value - full;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_appendix_c_1() {
        for (prefix, value, bytes) in [
            (5, 10, &[0b0000_1010][..]),
            (5, 1337, &[0b0001_1111, 0b1001_1010, 0b0000_1010]),
            (8, 42, &[0b0010_1010]),
        ] {
            let mut out = Vec::new();
            write(&mut out, 0, prefix, value);
            assert_eq!(out, bytes);
            let mut rest = &bytes[1..];
            assert_eq!(read(bytes[0], prefix, &mut rest), Ok(value));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn an_integer_ends_within_five_bytes() {
        for (bytes, expected) in [
            (&[0xff, 0xff, 0xff, 0x7f][..], Ok((1 << 28) - 1 + 31)),
            // Zeros that add nothing are bytes all the same.
            (&[0x80, 0x80, 0x80, 0x00], Ok(31)),
            (
                &[0x80, 0x80, 0x80, 0x80, 0x00],
                Err(CompressionError::Integer),
            ),
            (&[0xff; 20], Err(CompressionError::Integer)),
            (&[0xff, 0xff, 0xff], Err(CompressionError::Truncated)),
            (&[], Err(CompressionError::Truncated)),
        ] {
            assert_eq!(read(0xff, 5, &mut { bytes }), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(prefix in 1..=8_u32, value in 0..1_usize << 28, bits: u8) {
            let first = match prefix {
                8 => 0,
                prefix => bits << prefix,
            };
            let mut out = Vec::new();
            write(&mut out, first, prefix, value);
            prop_assert_eq!(u16::from(out[0]) >> prefix, u16::from(first) >> prefix);
            let mut rest = &out[1..];
            prop_assert_eq!(read(out[0], prefix, &mut rest), Ok(value));
            prop_assert!(rest.is_empty());
        }
    }
}
