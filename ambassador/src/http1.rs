//! HTTP/1 as a codec: heads and bodies from bytes and into bytes. No I/O.
//!
//! A warm parse or encode allocates nothing. What is ambiguous is refused, never
//! repaired: a message that two parties could read differently is a smuggled one.
//! What is only odd in a response is written as it should have been.

mod body;
mod cursor;
mod encode;
mod fields;
mod framing;
mod reply;
mod request;
mod response;
mod trailers;

pub use body::BodyReader;
pub(crate) use body::Progress;
pub use encode::{ResponseRewrite, write_request, write_response};
pub(crate) use encode::{with_fields, with_values, written_head};
pub(crate) use reply::encode_reply;
pub use request::parse_request;
pub use response::parse_response;
pub(crate) use trailers::{read_trailers, write_chunk, write_last_chunk, write_trailers};
