//! HTTP/1 messages: heads, body framing, the replies made here. No I/O.
//!
//! Heads are kept as ranges into the bytes they were read from; a warm parse
//! or encode allocates nothing. What is ambiguous is refused, never repaired:
//! a message that two parties could read differently is a smuggled one. What is
//! only odd in a response is written as it should have been.

pub mod body;
pub mod caller_timeout;
pub mod challenge;
mod cursor;
pub mod encode;
mod fields;
pub mod hops;
pub mod identity;
pub mod keep_alive;
pub mod method;
pub mod reason;
pub mod refusal;
pub mod reply;
pub mod request;
pub mod response;
pub mod server_name;
pub mod sniff;
pub mod trace;
pub mod trailers;

pub use body::{BodyReader, Progress};
pub use caller_timeout::CallerTimeout;
pub use encode::{RequestRewrite, ResponseRewrite, write_request, write_response};
pub use hops::{Hops, X_HOPS};
pub use identity::request_id;
pub use method::Method;
pub use reason::Reason;
pub use refusal::BadMessage;
pub use reply::LocalReply;
pub use request::{RequestBody, RequestHead};
pub use response::{ResponseBody, ResponseHead};
pub use server_name::{ServerName, server_name};
pub use sniff::{Sniff, sniff};
pub use trace::{TraceContext, TraceParent};
pub use trailers::{may_trail, write_trailers};

/// The field by which a request is known from hop to hop.
pub const X_REQUEST_ID: &str = "x-request-id";

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
