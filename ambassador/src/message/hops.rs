//! How many proxies of this kind a request has come through, as it says itself:
//! what ends a circle of them that no proxy alone can see.

use crate::message::RequestHead;
use crate::message::fields::Kind;

/// The field that says it.
pub(crate) const X_HOPS: &str = "x-ambassador-hops";

const DIGITS_MAX: usize = 10;

/// Proxies that a request has come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Hops(pub u32);

/// A number as it is written.
pub(crate) struct Text {
    digits: [u8; DIGITS_MAX],
    start: usize,
}

impl Hops {
    /// Reads it from a parsed head; of several the most counts. A malformed
    /// value, which no proxy has written, says nothing.
    pub(crate) fn of(request: &RequestHead, head: &[u8]) -> Self {
        let fields = request.fields();
        if !fields.has(Kind::Hops) {
            return Self::default();
        }
        let hops = fields.iter().filter(|field| field.kind == Kind::Hops);
        let hops = hops.filter_map(|field| parse(field.value(head))).max();
        Self(hops.unwrap_or_default())
    }

    /// What the next one is told.
    pub(crate) fn and_this(self) -> Text {
        let mut text = Text {
            digits: [b'0'; DIGITS_MAX],
            start: DIGITS_MAX - 1,
        };
        let mut rest = self.0.saturating_add(1);
        loop {
            text.digits[text.start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return text;
            }
            text.start -= 1;
        }
    }
}

impl Text {
    /// Its digits.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// More than fits is as good as the most that does.
fn parse(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, digit| match digit {
        b'0'..=b'9' => Some(
            number
                .saturating_mul(10)
                .saturating_add((digit - b'0').into()),
        ),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::sample;

    #[test]
    fn the_most_of_what_is_well_formed_counts() {
        for (fields, expected) in [
            ("", 0),
            ("X-Ambassador-Hops: 3\r\n", 3),
            ("x-ambassador-hops: 3\r\nX-AMBASSADOR-HOPS: 07\r\n", 7),
            ("x-ambassador-hops: -1\r\nx-ambassador-hops:\r\n", 0),
            ("x-ambassador-hops: 1, 2\r\n", 0),
            ("x-ambassador-hops: 99999999999\r\n", u32::MAX),
            (
                "x-ambassador-hops: 3\r\nConnection: x-ambassador-hops\r\n",
                3,
            ),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let hops = Hops::of(&sample::request(&head), head.as_bytes());
            assert_eq!(hops, Hops(expected), "{head}");
        }
    }

    #[test]
    fn one_more_is_written() {
        for (hops, expected) in [(0, "1"), (9, "10"), (u32::MAX, "4294967295")] {
            assert_eq!(Hops(hops).and_this().bytes(), expected.as_bytes());
        }
    }
}
