//! HTTP/2 as a codec: bytes to events and back (RFC 9113). No I/O, no clock.
//!
//! Field sections become heads of [`message`](crate::message), as those of HTTP/1
//! do. Whatever a peer can make grow has a limit.

mod block;
mod connection;
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
pub(crate) mod sample;
mod settings;
mod stream;
mod streams;
mod trailers;
mod window;
mod write;

pub use block::{FieldBlock, Indexing};
pub use connection::Connection;
pub use error::{ConnectionError, ErrorCode};
pub use event::{Event, Section};
pub use hpack::{Decoder, Encoder};
pub use request::read_request;
pub use response::read_response;
pub use role::Role;
pub use settings::LocalSettings;
pub use stream::StreamId;
pub use trailers::read_trailers;

pub(crate) use self::{
    block::drop_spares,
    error::{Cause, Flood},
    write::{write_end_of_call, write_established, write_reply, write_request, write_response},
};
