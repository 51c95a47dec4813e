//! What gRPC adds to HTTP: how a call is known, and how it ends ("gRPC over HTTP/2" and
//! "HTTP to gRPC Status Code Mapping" in the documents of gRPC).

use std::fmt::Write as _;
use std::time::Duration;

/// What the type of every message of a call begins with. Messages of gRPC-Web are HTTP
/// bodies and have types that go on differently.
pub(crate) const CONTENT_TYPE: &str = "application/grpc";

const STATUS: &[u8] = b"grpc-status";
const PUSHBACK: &[u8] = b"grpc-retry-pushback-ms";

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $word:literal;)*) => {
        /// The status of a call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Code { $($(#[$doc])* $variant = $number,)* }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name as files, metrics and logs have it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

codes! {
    /// The call did what it was to do.
    Ok = 0, "ok";
    /// Its caller has given it up.
    Cancelled = 1, "cancelled";
    /// It is not known what failed.
    Unknown = 2, "unknown";
    /// What was asked makes no sense.
    InvalidArgument = 3, "invalid-argument";
    /// It took too long.
    DeadlineExceeded = 4, "deadline-exceeded";
    /// What was asked for is not there.
    NotFound = 5, "not-found";
    /// What was to be made is there already.
    AlreadyExists = 6, "already-exists";
    /// The caller may not.
    PermissionDenied = 7, "permission-denied";
    /// A quota or something else is used up.
    ResourceExhausted = 8, "resource-exhausted";
    /// Not in the state that it needs.
    FailedPrecondition = 9, "failed-precondition";
    /// It lost a race.
    Aborted = 10, "aborted";
    /// Beyond what there is.
    OutOfRange = 11, "out-of-range";
    /// The server does not know the method.
    Unimplemented = 12, "unimplemented";
    /// The server is broken.
    Internal = 13, "internal";
    /// The server does not serve now.
    Unavailable = 14, "unavailable";
    /// Data is lost.
    DataLoss = 15, "data-loss";
    /// The caller has not shown who it is.
    Unauthenticated = 16, "unauthenticated";
}

impl Code {
    /// The code with this number.
    fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// What a response without one means to the caller.
    pub(crate) fn of_http(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502..=504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// What a reply made here with this status of HTTP is to a call.
    pub(crate) fn of_reply(status: u16) -> Self {
        match status {
            504 => Self::DeadlineExceeded,
            other => Self::of_http(other),
        }
    }
}

/// How a call has ended, as its server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallEnd {
    /// Its status.
    pub code: Code,
    /// What is said of another try.
    pub pushback: Option<Pushback>,
}

/// What a server says of another try of the same call ("gRPC Retry Design", A6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// It may come after so long.
    After(Duration),
    /// There is to be none.
    Never,
}

impl CallEnd {
    /// Reads it from names and values of a head or of trailers; `None`: they have no
    /// status. One that is no number, or an unknown one, is that of an unknown error.
    pub(crate) fn read<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Self> {
        let (mut code, mut pushback) = (None, None);
        for (name, value) in fields {
            if name.eq_ignore_ascii_case(STATUS) {
                let number = number(value).and_then(|number| u8::try_from(number).ok());
                let read = number.and_then(Code::of_number).unwrap_or(Code::Unknown);
                code.get_or_insert(read);
            } else if name.eq_ignore_ascii_case(PUSHBACK) {
                let after = number(value).map(Duration::from_millis);
                pushback.get_or_insert(after.map_or(Pushback::Never, Pushback::After));
            }
        }
        let code = code?;
        Some(Self { code, pushback })
    }
}

/// Whether messages of this type are those of a call: `application/grpc`, and what
/// follows a plus sign or semicolon.
pub(crate) fn is_call(content_type: &[u8]) -> bool {
    let Some((start, rest)) = content_type.split_at_checked(CONTENT_TYPE.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(CONTENT_TYPE.as_bytes()) && matches!(rest, [] | [b'+' | b';', ..])
}

/// A text as `grpc-message` has it: what is not printable ASCII is percent-encoded.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            // Writing to a String cannot fail.
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// Digits and nothing else.
fn number(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    is_number.then(|| str::from_utf8(value).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(fields: &[(&str, &str)]) -> Option<CallEnd> {
        let fields = fields.iter();
        CallEnd::read(fields.map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    #[test]
    fn numbers_are_those_of_the_codes() {
        for (number, code) in Code::ALL.iter().enumerate() {
            assert_eq!(*code as usize, number);
            let value = number.to_string();
            let read = end(&[("x", "7"), ("Grpc-Status", &value)]);
            assert_eq!(read.map(|end| end.code), Some(*code));
        }
        for odd in ["17", "256", "-1", "", "x", "0x1", "99999999999999999999"] {
            let read = end(&[("grpc-status", odd)]);
            assert_eq!(read.map(|end| end.code), Some(Code::Unknown), "{odd}");
        }
        assert_eq!(end(&[("grpc-message", "0")]), None);
    }

    #[test]
    fn another_try_may_be_put_off_or_refused() {
        let pushback = |value| {
            let read = end(&[("grpc-retry-pushback-ms", value), ("grpc-status", "14")]);
            read.and_then(|end| end.pushback)
        };
        let after = |ms| Some(Pushback::After(Duration::from_millis(ms)));
        assert_eq!((pushback("0"), pushback("250")), (after(0), after(250)));
        for never in ["-1", "", "soon", "1.5", "99999999999999999999"] {
            assert_eq!(pushback(never), Some(Pushback::Never), "{never}");
        }
    }

    #[test]
    fn a_call_is_known_by_its_type() {
        for call in [
            "application/grpc",
            "Application/gRPC",
            "application/grpc+proto",
            "application/grpc+json; q=1",
            "application/grpc;charset=utf-8",
        ] {
            assert!(is_call(call.as_bytes()), "{call}");
        }
        for other in [
            "",
            "application/grp",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/json",
        ] {
            assert!(!is_call(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_is_not_printable_is_encoded() {
        assert_eq!(encoded("100 % of ü\n~"), "100 %25 of %C3%BC%0A~");
    }

    #[test]
    fn a_response_without_a_status_has_that_of_http() {
        for (status, expected) in [
            (200, Code::Unknown),
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (500, Code::Unknown),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
        ] {
            assert_eq!(Code::of_http(status), expected, "{status}");
        }
        assert_eq!(Code::of_reply(503), Code::Unavailable);
        assert_eq!(Code::of_reply(504), Code::DeadlineExceeded);
    }
}
