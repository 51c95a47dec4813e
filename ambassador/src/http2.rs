//! HTTP/2 as a codec: bytes to events and back (RFC 9113). No I/O, no clock.
//!
//! Field sections become heads of [`message`](crate::message), as those of HTTP/1
//! do. Whatever a peer can make grow has a limit.

mod block;
mod hpack;

pub use block::{FieldBlock, Indexing};
pub use hpack::{Decoder, Encoder};
