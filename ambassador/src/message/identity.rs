//! Request ids, made from time and randomness that the caller brings, and the
//! digits that ids are written in.

/// A UUIDv7 (RFC 9562 section 5.7) of a time in milliseconds since 1970 and
/// random bits.
pub fn request_id(unix_ms: u64, random: u128) -> [u8; 36] {
    let time = u128::from(unix_ms & 0xffff_ffff_ffff) << 80;
    let version = 0x7_u128 << 76;
    let variant = 0b10_u128 << 62;
    let random = random & !(0xffff_ffff_ffff_f000_u128 << 64) & !(0b11_u128 << 62);
    let uuid = time | version | variant | random;
    let digits = digits(uuid);
    let mut text = [b'-'; 36];
    text[..8].copy_from_slice(&digits[..8]);
    text[9..13].copy_from_slice(&digits[8..12]);
    text[14..18].copy_from_slice(&digits[12..16]);
    text[19..23].copy_from_slice(&digits[16..20]);
    text[24..].copy_from_slice(&digits[20..]);
    text
}

/// A number in lower-case hexadecimal digits.
pub(super) fn digits(value: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    let parts = value.to_be_bytes();
    let (parts, _) = parts.as_chunks::<4>();
    let (places, _) = digits.as_chunks_mut::<8>();
    for (place, part) in places.iter_mut().zip(parts) {
        *place = eight_digits(u32::from_be_bytes(*part));
    }
    digits
}

/// All at once: each nibble is moved into a byte of its own, where what is
/// above nine becomes a letter.
fn eight_digits(value: u32) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const TO_LETTER: u64 = (b'a' - b'9' - 1) as u64;
    let halves = (u64::from(value) | u64::from(value) << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (bytes | bytes << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (nibbles + EACH * 6) >> 4 & EACH;
    (nibbles + EACH * u64::from(b'0') + letters * TO_LETTER).to_be_bytes()
}

/// Lower-case digits only, as the specification demands.
pub(super) fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_uuid_of_version_7() {
        let id = String::from_utf8(request_id(0x0123_4567_89ab, u128::MAX).to_vec()).unwrap();
        assert_eq!(id, "01234567-89ab-7fff-bfff-ffffffffffff");
        let id = String::from_utf8(request_id(0, 0).to_vec()).unwrap();
        assert_eq!(id, "00000000-0000-7000-8000-000000000000");
    }

    #[test]
    fn digits_are_those_that_format_writes() {
        for value in [0, 1, 0x0123_4567_89ab_cdef << 64 | 0xfedc_ba98_7654_3210] {
            assert_eq!(digits(value), format!("{value:032x}").as_bytes());
            assert_eq!(digits(!value), format!("{:032x}", !value).as_bytes());
        }
    }
}
