//! Why a field section cannot be decoded.

/// What is wrong with a field section. The tables of both sides differ from then
/// on, so that the connection ends (RFC 9113 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionError {
    Truncated,
    Integer,
    Index,
    Huffman,
    TableSize,
    /// Sound, but many times larger than allowed.
    Bomb,
}

impl CompressionError {
    /// What is wrong.
    pub fn text(self) -> &'static str {
        match self {
            Self::Truncated => "a field section ends within a field",
            Self::Integer => "an integer of HPACK is too large",
            Self::Index => "a field section names a field that no table has",
            Self::Huffman => "malformed Huffman code",
            Self::TableSize => "a change of the table size that is too large, or not in front",
            Self::Bomb => "a field section is many times larger than allowed",
        }
    }
}
