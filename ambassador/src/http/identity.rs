//! Request ids and trace contexts. Both are made from time and randomness that
//! the caller brings.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A UUIDv7 (RFC 9562 section 5.7) of a time in milliseconds since 1970 and
/// random bits.
pub fn request_id(unix_ms: u64, random: u128) -> [u8; 36] {
    let time = u128::from(unix_ms & 0xffff_ffff_ffff) << 80;
    let version = 0x7_u128 << 76;
    let variant = 0b10_u128 << 62;
    let random = random & !(0xffff_ffff_ffff_f000_u128 << 64) & !(0b11_u128 << 62);
    let uuid = time | version | variant | random;
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| ![8, 13, 18, 23].contains(place));
    for (nibble, place) in places.enumerate() {
        text[place] = HEX[(uuid >> (124 - 4 * nibble)) as usize & 15];
    }
    text
}

/// A `traceparent` (W3C Trace Context section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// The length of its text.
    pub const LEN: usize = 55;

    /// The root of a new trace, not sampled.
    pub fn start(trace: u128, span: u64) -> Self {
        Self {
            // Zero means "invalid" for both.
            trace: trace.max(1),
            span: span.max(1),
            flags: 0,
        }
    }

    /// The same trace, one hop further.
    pub fn child(self, span: u64) -> Self {
        Self {
            span: span.max(1),
            ..self
        }
    }

    /// Reads version 00, and the part of later versions that it knows.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() < Self::LEN || [text[2], text[35], text[52]] != *b"---" {
            return None;
        }
        let version = hex(&text[..2])?;
        let longer_is_allowed = version != 0 && text.get(Self::LEN) == Some(&b'-');
        if version == 0xff || text.len() > Self::LEN && !longer_is_allowed {
            return None;
        }
        let (trace, span) = (hex(&text[3..35])?, hex(&text[36..52])? as u64);
        let flags = hex(&text[53..55])? as u8;
        // Sampled, and random trace id; what is written is version 00, in which
        // all others are zero.
        let flags = flags & 0b11;
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// Its text, as version 00.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut text = [b'-'; Self::LEN];
        text[..2].copy_from_slice(b"00");
        for (at, place) in text[3..35].iter_mut().enumerate() {
            *place = HEX[(self.trace >> (124 - 4 * at)) as usize & 15];
        }
        for (at, place) in text[36..52].iter_mut().enumerate() {
            *place = HEX[(self.span >> (60 - 4 * at)) as usize & 15];
        }
        text[53] = HEX[usize::from(self.flags >> 4)];
        text[54] = HEX[usize::from(self.flags & 15)];
        text
    }
}

/// Lower-case digits only, as the specification demands.
fn hex(digits: &[u8]) -> Option<u128> {
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
    fn a_trace_is_continued_with_its_flags() {
        let text = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = TraceParent::parse(text).unwrap();
        assert_eq!(&parent.encode(), text);
        assert_eq!(
            &parent.child(0xb7ad_6b71_6920_3331).encode(),
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01"
        );
    }

    #[test]
    fn of_a_later_version_only_what_is_known_goes_on() {
        let text = b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-what-ever";
        assert_eq!(
            &TraceParent::parse(text).unwrap().encode(),
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"
        );
    }

    #[test]
    fn what_is_no_traceparent_is_not_continued() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
        }
    }
}
