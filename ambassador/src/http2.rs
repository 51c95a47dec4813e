//! HTTP/2 as a codec: bytes to events and back (RFC 9113). No I/O, no clock.
//!
//! Field sections become heads of [`message`](crate::message), as those of HTTP/1
//! do. Whatever a peer can make grow has a limit.

mod block;
#[cfg_attr(not(test), expect(dead_code, reason = "no connection uses it yet"))]
mod connection;
#[cfg_attr(not(test), expect(dead_code, reason = "no connection uses it yet"))]
mod error;
mod event;
mod fields;
mod flood;
mod frame;
mod hpack;
mod request;
mod response;
mod role;
#[cfg(test)]
mod sample;
mod settings;
mod stream;
mod streams;
mod trailers;
mod window;

pub use block::{FieldBlock, Indexing};
pub use hpack::{Decoder, Encoder};
pub use request::read_request;
pub use response::read_response;
pub use trailers::read_trailers;

#[expect(unused_imports, reason = "no connection uses it yet")]
pub(crate) use self::{
    connection::{Connection, FieldLine, OpenError},
    error::{Cause, ConnectionError, ErrorCode, Flood},
    event::{Event, Section},
    frame::PREFACE,
    role::Role,
    settings::LocalSettings,
    stream::StreamId,
};
