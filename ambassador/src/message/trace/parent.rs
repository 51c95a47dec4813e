//! A `traceparent` (W3C Trace Context level 2, section 3.2).

use crate::message::identity::{digits, hex};

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 0b01;
/// The flag of a trace whose id is random.
const RANDOM: u8 = 0b10;

/// The bits of a trace id that are random in any one that says so, the lowest:
/// the same share of traces is sampled by all who go by them (section 3.2.2.5).
const RANDOM_BITS: u32 = 56;

/// A trace, the span in it that is the parent of the next, and its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// The length of its text.
    pub const LEN: usize = 55;

    /// The root of a new trace with a random id, not sampled.
    pub fn start(random: u128, span: u64) -> Self {
        // Zero means "invalid".
        Self::of(random.max(1), span).with_flag(RANDOM)
    }

    /// A trace of which nothing is known but its id, not sampled.
    pub(super) fn of(trace: u128, span: u64) -> Self {
        let (span, flags) = (span.max(1), 0);
        Self { trace, span, flags }
    }

    /// The same trace, one hop further.
    pub fn child(self, span: u64) -> Self {
        let span = span.max(1);
        Self { span, ..self }
    }

    /// The same, sampled.
    pub(super) fn sampled(self) -> Self {
        self.with_flag(SAMPLED)
    }

    /// The same, sampled where its id is among this share of all ids.
    pub(super) fn sampled_by(self, share: f64) -> Self {
        // As many of the bits as f64 holds exactly.
        const IDS: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
        let random = self.trace as u64 & ((1 << RANDOM_BITS) - 1);
        let random = random >> (RANDOM_BITS - f64::MANTISSA_DIGITS);
        match random as f64 >= (1.0 - share) * IDS {
            true => self.sampled(),
            false => self,
        }
    }

    fn with_flag(self, flag: u8) -> Self {
        let flags = self.flags | flag;
        Self { flags, ..self }
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
        // What is written is version 00, in which all other flags are zero.
        let flags = hex(&text[53..55])? as u8 & (SAMPLED | RANDOM);
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// Its text, as version 00.
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut text = [b'-'; Self::LEN];
        text[..2].copy_from_slice(b"00");
        text[3..35].copy_from_slice(&self.trace_digits());
        text[36..52].copy_from_slice(&self.span_digits());
        text[53..].copy_from_slice(&digits(self.flags.into())[30..]);
        text
    }

    /// The id of the trace.
    pub(super) fn trace_digits(self) -> [u8; 32] {
        digits(self.trace)
    }

    /// The id of the span.
    pub(super) fn span_digits(self) -> [u8; 16] {
        let mut text = [0; 16];
        text.copy_from_slice(&digits(self.span.into())[16..]);
        text
    }

    /// Whether the trace is recorded.
    pub(super) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Whether its id fits into 64 bits.
    pub(super) fn is_short(self) -> bool {
        self.trace >> 64 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_new_trace_has_a_random_id_and_says_so() {
        assert_eq!(
            &TraceParent::start(0, 0).encode(),
            b"00-00000000000000000000000000000001-0000000000000001-02"
        );
        assert_eq!(
            &TraceParent::start(u128::MAX, 2).sampled().encode(),
            b"00-ffffffffffffffffffffffffffffffff-0000000000000002-03"
        );
    }

    #[test]
    fn a_share_of_all_traces_is_sampled() {
        let sampled = |low: u64, share| {
            let id = 0xffff_u128 << 112 | 0xab_u128 << 56 | u128::from(low);
            TraceParent::of(id, 1).sampled_by(share).is_sampled()
        };
        let last = (1 << 56) - 1;
        for low in [0, 1, 1 << 55, last] {
            assert!(sampled(low, 1.0) && !sampled(low, 0.0), "{low}");
        }
        assert!(sampled(1 << 55, 0.5) && !sampled((1 << 55) - 1, 0.5));
        assert!(sampled(last, 0.01) && !sampled(last / 100 * 98, 0.01));
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
            "00",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "000-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ".0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "FF-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47361-00f067aa0ba902b7-01",
            "00-.bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b71-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-.1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-001",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
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
