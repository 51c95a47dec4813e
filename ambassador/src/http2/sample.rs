//! Blocks for tests, written line by line.

use crate::http2::block::{COLON, FieldBlock, Indexing, LINE_END};

/// A block with the fields of `lines`: the name goes up to the first `: ` behind
/// its first byte.
pub(crate) fn block(lines: &str) -> FieldBlock {
    let mut block = FieldBlock::new(1 << 16, 128);
    for line in lines.split('\n').filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").expect("a field");
        push(&mut block, name.as_bytes(), value.as_bytes());
    }
    block
}

/// Adds a field of any bytes.
pub(crate) fn push(block: &mut FieldBlock, name: &[u8], value: &[u8]) {
    for part in [name, COLON, value, LINE_END] {
        block.lines_mut().extend_from_slice(part);
    }
    block.end_line(name.len(), value.len(), Indexing::Free);
}
