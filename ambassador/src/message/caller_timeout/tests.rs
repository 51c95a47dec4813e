use proptest::prelude::*;

use super::*;
use crate::message::sample;

const SECOND: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(99_999_999 * 3_600);

/// What a request with these fields says.
fn said(fields: &str) -> CallerTimeout {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}X-Last: 1\r\n\r\n");
    CallerTimeout::of(&sample::request(&head), head.as_bytes())
}

/// What a try of such a request is given to say that has `left`.
fn passed_on(fields: &str, left: Duration) -> String {
    let fields = said(fields).fields(left);
    let line = |(name, value): &Field| format!("{name}: {}\r\n", value.escape_ascii());
    fields.iter().flatten().map(line).collect()
}

#[test]
fn digits_and_a_unit() {
    for (value, expected) in [
        ("1n", Some(Duration::from_nanos(1))),
        ("20u", Some(Duration::from_micros(20))),
        ("9500m", Some(Duration::from_millis(9500))),
        ("00000005S", Some(5 * SECOND)),
        ("3M", Some(180 * SECOND)),
        ("0S", Some(Duration::ZERO)),
        ("99999999H", Some(LONGEST)),
        ("000000005S", None),
        ("100000000n", None),
        ("5", None),
        ("S", None),
        ("", None),
        ("5s", None),
        ("5h", None),
        ("-5S", None),
        ("+5S", None),
        ("5 S", None),
        ("1.5S", None),
        ("5ms", None),
        ("5S, 6S", None),
    ] {
        assert_eq!(parse_grpc(value.as_bytes()), expected, "{value}");
    }
}

#[test]
fn whole_milliseconds() {
    for (value, expected) in [
        ("1", Some(1)),
        ("15000", Some(15_000)),
        ("000000000015000", Some(15_000)),
        ("999999999", Some(999_999_999)),
        ("1000000000", Some(999_999_999)),
        ("99999999999999999999999999", Some(999_999_999)),
        ("0", None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("15s", None),
        ("1 5", None),
    ] {
        let expected = expected.map(Duration::from_millis);
        assert_eq!(parse_milliseconds(value.as_bytes()), expected, "{value}");
    }
}

#[test]
fn the_finest_unit_that_fits_is_written() {
    for (left, expected) in [
        (Duration::ZERO, "       1n"),
        (Duration::from_nanos(99_999_999), "99999999n"),
        (Duration::from_millis(100), "  100000u"),
        (Duration::from_nanos(100_000_999), "  100000u"),
        (Duration::from_millis(9_500), " 9500000u"),
        (100 * SECOND, "  100000m"),
        (100_000 * SECOND, "  100000S"),
        (100_000_000 * SECOND, " 1666666M"),
        (LONGEST, "99999999H"),
        (Duration::MAX, "99999999H"),
    ] {
        assert_eq!(write_grpc(left), expected.as_bytes(), "{left:?}");
    }
}

#[test]
fn milliseconds_are_written_as_they_are() {
    for (left, expected) in [
        (Duration::ZERO, "        1"),
        (Duration::from_micros(1_999), "        1"),
        (Duration::from_millis(9_500), "     9500"),
        (Duration::MAX, "999999999"),
    ] {
        assert_eq!(write_milliseconds(left), expected.as_bytes(), "{left:?}");
    }
}

#[test]
fn the_shorter_of_the_two_counts_and_the_first_of_each() {
    let limit = |fields: &str| said(fields).limit();
    assert_eq!(limit(""), None);
    assert_eq!(limit("GRPC-Timeout: 5S\r\n"), Some(5 * SECOND));
    let both = "grpc-timeout: 5S\r\nX-Envoy-Expected-Rq-Timeout-Ms: 4000\r\n";
    assert_eq!(limit(both), Some(4 * SECOND));
    let both = "grpc-timeout: 5S\r\nx-envoy-expected-rq-timeout-ms: 6000\r\n";
    assert_eq!(limit(both), Some(5 * SECOND));
    let repeated = "grpc-timeout: 5S\r\ngrpc-timeout: 1S\r\n";
    assert_eq!(limit(repeated), Some(5 * SECOND));
    let half = "grpc-timeout: soon\r\nx-envoy-expected-rq-timeout-ms: 6000\r\n";
    assert_eq!(limit(half), Some(6 * SECOND));
    assert_eq!(limit("grpc-timeout: soon\r\ngrpc-timeout: 1S\r\n"), None);
}

#[test]
fn each_field_is_passed_on_once_with_what_is_left() {
    let fields = "grpc-timeout: 5S\r\nx-envoy-expected-rq-timeout-ms: 4000\r\n\
                  X-Mid: 1\r\ngrpc-timeout: 5S\r\n";
    let given = passed_on(fields, Duration::from_millis(1500));
    let expected = "grpc-timeout:  1500000u\r\nx-envoy-expected-rq-timeout-ms:      1500\r\n";
    assert_eq!(given, expected);
}

#[test]
fn what_is_malformed_is_passed_on_unchanged() {
    let fields = "grpc-timeout: soon\r\nx-envoy-expected-rq-timeout-ms: 0\r\n";
    assert_eq!(passed_on(fields, SECOND), "");
}

#[test]
fn a_field_that_is_not_passed_limits_all_the_same() {
    let timeout = said("grpc-timeout: 5S\r\n");
    let hidden = timeout.passed_by(|name| name != GRPC);
    assert_eq!(hidden.limit(), Some(5 * SECOND));
    assert_eq!(hidden.fields(SECOND), [None, None]);
    assert_eq!(timeout.passed_by(|name| name != ENVOY), timeout);
}

proptest! {
    #[test]
    fn what_is_written_reads_as_a_little_less(nanoseconds in any::<u64>(), coarser in 0..40_u32) {
        let left = Duration::from_nanos(nanoseconds >> coarser);
        let grpc = parse_grpc(write_grpc(left).trim_ascii_start()).unwrap();
        prop_assert!(grpc <= left.max(Duration::from_nanos(1)));
        // The next finer unit did not fit, so the count is 100,000 at least.
        prop_assert!(left.saturating_sub(grpc) <= left / 100_000);
        let milliseconds = parse_milliseconds(write_milliseconds(left).trim_ascii_start()).unwrap();
        prop_assert!(milliseconds <= left.max(Duration::from_millis(1)));
    }

    #[test]
    fn no_value_panics(value in proptest::collection::vec(any::<u8>(), 0..24)) {
        for limit in [parse_grpc(&value), parse_milliseconds(&value)].into_iter().flatten() {
            write_grpc(limit);
            write_milliseconds(limit);
        }
    }
}
