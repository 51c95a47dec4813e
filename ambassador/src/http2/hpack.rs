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

/// Whether two texts are the same. Most are so short that a call would cost more than
/// it compares: of four bytes and more, the last four or eight are compared once more.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match one.len() {
        0..4 => one.iter().eq(other),
        4..8 => {
            one.first_chunk::<4>() == other.first_chunk()
                && one.last_chunk::<4>() == other.last_chunk()
        }
        _ => {
            let (words, others) = (one.as_chunks::<8>().0, other.as_chunks().0);
            one.last_chunk::<8>() == other.last_chunk() && words.iter().eq(others)
        }
    }
}

#[cfg(test)]
mod tests;
