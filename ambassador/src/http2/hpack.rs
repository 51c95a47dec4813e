//! HPACK: field sections as HTTP/2 carries them (RFC 7541).
//!
//! The encoder writes strings as they are: Huffman coding, which the decoder
//! knows, would save a fifth of what is in no table, and cost more time than the
//! rest of the encoder.

mod decoder;
mod dynamic_table;
mod encoder;
mod error;
mod huffman;
mod indexing;
mod integer;
mod places;
mod reader;
mod static_table;

pub use decoder::Decoder;
pub use encoder::Encoder;
pub(crate) use error::CompressionError;

#[cfg(test)]
mod tests;
