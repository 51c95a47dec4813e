//! Which fields go into the dynamic table.

use crate::http2::hpack::static_table;
use crate::message::fields::{Kind, kind_of};

/// How a field is written that is in no table (RFC 7541 section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Representation {
    /// It goes into the table.
    Indexed,
    /// It does not: the next one of its name will have another value.
    Unindexed,
    /// It does not, on no hop: it is a secret.
    NeverIndexed,
}

/// The index of `cookie` in the static table.
const COOKIE: usize = 32;

/// A cookie of fewer bytes could be guessed (RFC 7541 section 7.1.3).
const COOKIE_BYTES_MIN: usize = 20;

/// How to write a field, whose name is the one `known` in the static table.
#[inline]
pub(super) fn of(known: Option<usize>, name: &[u8], value: &[u8]) -> Representation {
    match known {
        Some(COOKIE) if value.len() < COOKIE_BYTES_MIN => Representation::NeverIndexed,
        Some(index) => OF_KNOWN[index],
        None => match kind_of(name) {
            Kind::RequestId | Kind::TraceContext | Kind::B3 | Kind::CallerTimeout => {
                Representation::Unindexed
            }
            _ => Representation::Indexed,
        },
    }
}

/// How fields are written whose names are in the static table, by its indexes.
static OF_KNOWN: [Representation; static_table::END] = {
    let mut table = [Representation::Indexed; static_table::END];
    let mut index = 1;
    while index < static_table::END {
        if let Some(line) = static_table::line(index) {
            table[index] = of_name(line.name());
        }
        index += 1;
    }
    table
};

const fn of_name(name: &[u8]) -> Representation {
    match name {
        b"authorization" | b"proxy-authorization" | b"set-cookie" => Representation::NeverIndexed,
        b":path"
        | b"age"
        | b"content-length"
        | b"content-range"
        | b"etag"
        | b"expires"
        | b"if-match"
        | b"if-modified-since"
        | b"if-none-match"
        | b"if-range"
        | b"if-unmodified-since"
        | b"last-modified"
        | b"location"
        | b"range" => Representation::Unindexed,
        _ => Representation::Indexed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_what_changes_are_in_no_table() {
        let of = |name: &str, value: &str| {
            let known = static_table::find_name(name.as_bytes());
            of(known, name.as_bytes(), value.as_bytes())
        };
        for (name, value, expected) in [
            ("authorization", "Bearer x", Representation::NeverIndexed),
            (
                "proxy-authorization",
                "Basic x",
                Representation::NeverIndexed,
            ),
            ("set-cookie", "a=b", Representation::NeverIndexed),
            (
                "cookie",
                "0123456789012345678",
                Representation::NeverIndexed,
            ),
            ("cookie", "01234567890123456789", Representation::Indexed),
            (":path", "/a", Representation::Unindexed),
            ("content-length", "12", Representation::Unindexed),
            ("x-request-id", "1", Representation::Unindexed),
            ("traceparent", "00-", Representation::Unindexed),
            ("grpc-timeout", "1S", Representation::Unindexed),
            ("user-agent", "a", Representation::Indexed),
            (":authority", "a", Representation::Indexed),
            ("x-tenant", "north", Representation::Indexed),
        ] {
            assert_eq!(of(name, value), expected, "{name}: {value}");
        }
    }
}
