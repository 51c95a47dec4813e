//! Reads field sections.

use crate::http2::block::{COLON, FieldBlock, Indexing, LINE_END, Line};
use crate::http2::fields;
use crate::http2::hpack::dynamic_table::{DynamicTable, TABLE_BYTES};
use crate::http2::hpack::error::CompressionError;
use crate::http2::hpack::reader::Reader;
use crate::http2::hpack::static_table;

/// Decodes the field sections of one direction of a connection, in order.
#[derive(Debug)]
pub struct Decoder {
    table: DynamicTable,
    /// What our SETTINGS_HEADER_TABLE_SIZE allows.
    table_max: u16,
}

impl Decoder {
    /// For a peer that is allowed a table of `table_max` bytes, at least the
    /// 4,096 that it may use before it has heard of that.
    pub fn new(table_max: u16) -> Self {
        Self {
            table: DynamicTable::new(TABLE_BYTES),
            table_max: table_max.max(TABLE_BYTES),
        }
    }

    /// Decodes a whole field section into `block`, in place of what is in there.
    /// What exceeds the limits of the block is decoded too, because the table
    /// depends on it.
    pub fn decode(
        &mut self,
        section: &[u8],
        block: &mut FieldBlock,
    ) -> Result<(), CompressionError> {
        block.clear();
        block.reserve();
        let mut reader = Reader::new(section);
        self.read_table_sizes(&mut reader)?;
        while let Some(first) = reader.peek() {
            match first {
                0x80.. => block.push(self.line(reader.integer(7)?)?),
                0x20..0x40 => return Err(CompressionError::TableSize),
                _ => self.read_literal(first, &mut reader, block)?,
            }
            if block.is_bomb() {
                return Err(CompressionError::Bomb);
            }
        }
        Ok(())
    }

    /// Changes of the table's size, which come before the fields (RFC 7541
    /// sections 4.2 and 6.3).
    fn read_table_sizes(&mut self, reader: &mut Reader<'_>) -> Result<(), CompressionError> {
        while let Some(0x20..0x40) = reader.peek() {
            let size = u16::try_from(reader.integer(5)?).ok();
            let size = size.filter(|size| *size <= self.table_max);
            self.table.resize(size.ok_or(CompressionError::TableSize)?);
        }
        Ok(())
    }

    /// A field that is written out, or its value is (RFC 7541 section 6.2).
    fn read_literal(
        &mut self,
        first: u8,
        reader: &mut Reader<'_>,
        block: &mut FieldBlock,
    ) -> Result<(), CompressionError> {
        let is_for_table = first & 0x40 != 0;
        let index = reader.integer(if is_for_table { 6 } else { 4 })?;
        let lines = block.lines_mut();
        let name = lines.len();
        match index {
            0 => reader.string(lines)?,
            index => lines.extend_from_slice(self.line(index)?.name()),
        }
        let name = name..lines.len();
        lines.extend_from_slice(COLON);
        let value = lines.len();
        reader.string(lines)?;
        let value = value..lines.len();
        if is_for_table {
            let (name, value) = (&lines[name.clone()], &lines[value.clone()]);
            let kind = fields::check(name, value).ok();
            self.table.insert(name, value, kind);
        }
        lines.extend_from_slice(LINE_END);
        let indexing = match first & 0x50 {
            0x10 => Indexing::Never,
            _ => Indexing::Free,
        };
        block.end_line(name.len(), value.len(), indexing);
        Ok(())
    }

    /// The field with this index (RFC 7541 section 2.3.3).
    #[inline]
    fn line(&self, index: usize) -> Result<Line<'_>, CompressionError> {
        let line = match index.checked_sub(static_table::END) {
            None => static_table::line(index),
            Some(age) => self.table.line(age),
        };
        line.ok_or(CompressionError::Index)
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &DynamicTable {
        &self.table
    }
}
