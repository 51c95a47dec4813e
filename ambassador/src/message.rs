//! Messages, whatever carried them: heads, fields, the replies made here. No I/O.
//!
//! A head is a block of bytes and where its parts are in it; a codec reads it and
//! writes it anew. Nothing here knows how it travels.

pub(crate) mod bad_message;
pub(crate) mod caller_timeout;
pub(crate) mod challenge;
pub(crate) mod field_list;
pub(crate) mod fields;
pub(crate) mod grammar;
pub(crate) mod grpc;
pub(crate) mod hops;
pub(crate) mod identity;
pub(crate) mod keep_alive;
pub(crate) mod method;
pub(crate) mod reason;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod rewrite;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod trace;
pub(crate) mod trailers;

pub(crate) use bad_message::BadMessage;
pub use caller_timeout::CallerTimeout;
pub(crate) use field_list::{FieldList, Secrecy};
pub(crate) use hops::{Hops, X_HOPS};
pub use identity::request_id;
pub use method::Method;
pub use reason::Reason;
pub(crate) use reply::LocalReply;
pub use request::RequestHead;
pub use response::ResponseHead;
pub use rewrite::{CredentialField, RequestRewrite};
pub(crate) use rewrite::{FieldWriter, WrittenHead};
pub use trace::{TraceContext, TraceParent};
pub(crate) use trailers::may_trail;

/// The field by which a request is known from hop to hop.
pub(crate) const X_REQUEST_ID: &str = "x-request-id";

/// Bytes of a head at most: 64 KiB of fields, and a start line.
pub(crate) const HEAD_BYTES_MAX: usize = 80 * 1024;

/// How long the content of a message is, as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Length {
    /// There is none.
    #[default]
    None,
    /// So many bytes; not 0.
    Exact(u64),
    /// Its end says so.
    Unknown,
}

/// Whether more follows of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End<'a> {
    /// It does.
    More,
    /// Nothing but these trailers, a list of fields; empty: there are none.
    Whole(&'a [u8]),
}

impl<'a> End<'a> {
    /// The end of a body that has come as far as `is_whole` says.
    #[inline]
    pub(crate) fn of(is_whole: bool, trailers: &'a [u8]) -> Self {
        match is_whole {
            true => Self::Whole(trailers),
            false => Self::More,
        }
    }

    /// The list of trailers, as far as it has come.
    pub(crate) fn trailers(self) -> &'a [u8] {
        match self {
            Self::Whole(trailers) => trailers,
            Self::More => b"",
        }
    }
}

/// What the sender of a message speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

/// What becomes of the framing of a body on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// It passes as it came: from HTTP/1 to HTTP/1, or content alone.
    Kept,
    /// Only the content passes: from HTTP/1.
    Removed,
    /// The content is put into chunks: to HTTP/1.1.
    Added,
}

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
