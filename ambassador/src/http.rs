//! HTTP/1 messages: heads, body framing, the replies made here. No I/O.
//!
//! Heads are kept as ranges into the bytes they were read from; a warm parse
//! or encode allocates nothing. What is ambiguous is refused, never repaired:
//! a message that two parties could read differently is a smuggled one. What is
//! only odd in a response is written as it should have been.

pub(crate) mod body;
pub(crate) mod caller_timeout;
pub(crate) mod challenge;
mod cursor;
pub(crate) mod encode;
mod fields;
pub(crate) mod hops;
pub(crate) mod identity;
pub(crate) mod keep_alive;
pub(crate) mod method;
pub(crate) mod reason;
pub(crate) mod refusal;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod response;
pub mod server_name;
pub mod sniff;
pub(crate) mod trace;
pub(crate) mod trailers;

pub use body::BodyReader;
pub use caller_timeout::CallerTimeout;
pub use encode::{RequestRewrite, ResponseRewrite, write_request, write_response};
pub(crate) use hops::{Hops, X_HOPS};
pub use identity::request_id;
pub use method::Method;
pub use reason::Reason;
pub(crate) use refusal::BadMessage;
pub(crate) use reply::LocalReply;
pub use request::{RequestBody, RequestHead};
pub use response::{ResponseBody, ResponseHead};
pub use server_name::{ServerName, server_name};
pub use sniff::{Sniff, sniff};
pub use trace::{TraceContext, TraceParent};
pub(crate) use trailers::{may_trail, write_trailers};

/// The field by which a request is known from hop to hop.
pub(crate) const X_REQUEST_ID: &str = "x-request-id";

/// Bytes of a head at most: 64 KiB of fields, and a start line.
const HEAD_BYTES_MAX: usize = 80 * 1024;

/// How large a message head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes from the first of the start line to the empty line.
    pub head_bytes_max: usize,
    /// Fields; at most [`fields::FIELDS_MAX`].
    pub fields_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: HEAD_BYTES_MAX,
            fields_max: fields::FIELDS_MAX,
        }
    }
}
