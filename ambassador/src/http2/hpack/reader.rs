//! Walks over a field section: bytes, integers, strings.

use crate::http2::hpack::error::CompressionError;
use crate::http2::hpack::{huffman, integer};

/// Where in a section the next byte is.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// At the first byte of a section.
    pub(super) fn new(section: &'a [u8]) -> Self {
        Self { rest: section }
    }

    /// The next byte, which stays the next; `None` at the end.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The integer that begins with the lower `prefix` bits of the next byte.
    #[inline]
    pub(super) fn integer(&mut self, prefix: u32) -> Result<usize, CompressionError> {
        let (first, rest) = self.split_first()?;
        self.rest = rest;
        integer::read(first, prefix, &mut self.rest)
    }

    /// Appends the next string to `out` (RFC 7541 section 5.2).
    #[inline]
    pub(super) fn string(&mut self, out: &mut Vec<u8>) -> Result<(), CompressionError> {
        let (first, _) = self.split_first()?;
        let length = self.integer(7)?;
        let whole = self.rest;
        let (string, rest) = whole
            .split_at_checked(length)
            .ok_or(CompressionError::Truncated)?;
        self.rest = rest;
        match first & 0x80 {
            0 => out.extend_from_slice(string),
            _ => huffman::decode(whole, length, out)?,
        }
        Ok(())
    }

    #[inline]
    fn split_first(&self) -> Result<(u8, &'a [u8]), CompressionError> {
        let (first, rest) = self.rest.split_first().ok_or(CompressionError::Truncated)?;
        Ok((*first, rest))
    }
}
