//! How long the caller of a request waits, as the request says: `grpc-timeout`
//! (gRPC over HTTP/2, "Requests") and `x-envoy-expected-rq-timeout-ms`, by which
//! an Envoy says when it will give up.

use std::time::Duration;

use crate::message::RequestHead;
use crate::message::fields::Kind;

const GRPC: &str = "grpc-timeout";
const ENVOY: &str = "x-envoy-expected-rq-timeout-ms";

const GRPC_DIGITS_MAX: usize = 8;

/// The units of `grpc-timeout` in nanoseconds, the finest first.
const GRPC_UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 3_600 * 1_000_000_000),
];

/// Bytes of every value that is written: one can take the place of another.
/// White space in front is no part of a value (RFC 9112 section 5).
const VALUE_BYTES: usize = GRPC_DIGITS_MAX + 1;

/// Milliseconds that fit into a value, eleven days; a longer limit counts as
/// this one.
const MILLISECONDS_MAX: u64 = 999_999_999;

/// The time limit of a request as its caller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallerTimeout {
    limit: Option<Duration>,
    /// Which of the two fields are passed on, with less than they came with.
    passes_grpc: bool,
    passes_envoy: bool,
}

/// A field of which the value is as long as any other.
pub(crate) type Field = (&'static str, [u8; VALUE_BYTES]);

impl CallerTimeout {
    /// Reads it from a parsed head; of a repeated field the first counts. A
    /// malformed value says nothing.
    pub fn of(request: &RequestHead, head: &[u8]) -> Self {
        let fields = request.fields();
        if !fields.has(Kind::CallerTimeout) {
            return Self::default();
        }
        let grpc = fields.value(head, GRPC).and_then(parse_grpc);
        let envoy = fields.value(head, ENVOY).and_then(parse_milliseconds);
        Self {
            limit: grpc.into_iter().chain(envoy).min(),
            passes_grpc: grpc.is_some(),
            passes_envoy: envoy.is_some(),
        }
    }

    /// The same limit, of which the next hop is told by those fields only that
    /// `is_passed` names.
    pub fn passed_by(self, is_passed: impl Fn(&str) -> bool) -> Self {
        Self {
            limit: self.limit,
            passes_grpc: self.passes_grpc && is_passed(GRPC),
            passes_envoy: self.passes_envoy && is_passed(ENVOY),
        }
    }

    /// How long the caller waits, from its request's head on; the shorter one
    /// where both fields say something. `None`: it does not say.
    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// The fields that tell the next hop that `left` is left, in place of all
    /// of their names that came. Rounded down, but to one unit at least.
    pub fn fields(&self, left: Duration) -> [Option<Field>; 2] {
        [
            self.passes_grpc.then(|| (GRPC, write_grpc(left))),
            self.passes_envoy.then(|| (ENVOY, write_milliseconds(left))),
        ]
    }
}

/// One to eight digits and a unit.
fn parse_grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let (_, nanoseconds) = GRPC_UNITS.iter().find(|(known, _)| known == unit)?;
    let count = number(digits).filter(|_| digits.len() <= GRPC_DIGITS_MAX)?;
    Some(Duration::from_nanos_u128(
        u128::from(count) * u128::from(*nanoseconds),
    ))
}

/// Digits. Zero says nothing: to Envoy it is no limit, and it never sends one.
fn parse_milliseconds(value: &[u8]) -> Option<Duration> {
    let milliseconds = number(value).filter(|count| *count > 0)?;
    Some(Duration::from_millis(milliseconds.min(MILLISECONDS_MAX)))
}

/// Digits and nothing else; more than fit are as good as the most that do.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => Some(
            number
                .saturating_mul(10)
                .saturating_add((digit - b'0').into()),
        ),
        _ => None,
    })
}

/// In the finest unit that it fits into.
fn write_grpc(left: Duration) -> [u8; VALUE_BYTES] {
    const COUNT_MAX: u128 = 10_u128.pow(GRPC_DIGITS_MAX as u32) - 1;
    let counts = GRPC_UNITS.map(|(unit, nanoseconds)| {
        let count = left.as_nanos() / u128::from(nanoseconds);
        (unit, count)
    });
    let [.., coarsest] = counts;
    let finest = counts.into_iter().find(|(_, count)| *count <= COUNT_MAX);
    let (unit, count) = finest.unwrap_or(coarsest);
    right_aligned(count.min(COUNT_MAX) as u64, &[unit])
}

fn write_milliseconds(left: Duration) -> [u8; VALUE_BYTES] {
    let milliseconds = left.as_millis().min(MILLISECONDS_MAX.into());
    right_aligned(milliseconds as u64, b"")
}

/// `number`, not less than one, and its unit.
fn right_aligned(number: u64, unit: &[u8]) -> [u8; VALUE_BYTES] {
    let mut value = [b' '; VALUE_BYTES];
    let (digits, place) = value.split_at_mut(VALUE_BYTES - unit.len());
    place.copy_from_slice(unit);
    let mut rest = number.max(1);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests;
