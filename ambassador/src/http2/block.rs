//! A field section in clear: what HPACK decodes into and heads are read from.

use crate::message::fields::{Kind, Span, part};
use crate::spares::Spares;

/// Room for the first section of a connection: most are smaller.
const FIRST_BYTES: usize = 512;

/// Fields of the first section, likewise.
const FIRST_FIELDS: usize = 16;

/// Blocks whose memory a thread keeps.
const KEPT_MAX: usize = 128;

/// The memory of a larger block is not kept. Few heads are as long.
const KEPT_BYTES_MAX: usize = 2 * 1024;
const KEPT_FIELDS_MAX: usize = 64;

thread_local! {
    /// Lines and fields of blocks that were dropped, empty.
    static SPARES: Spares<(Vec<u8>, Vec<RawField>)> = const { Spares::new(KEPT_MAX) };
}

/// Frees what is kept for the next blocks.
pub(crate) fn drop_spares() {
    SPARES.with(Spares::drop_all);
}

/// What RFC 9113 section 6.5.2 counts for each field besides its text.
pub(super) const FIELD_OVERHEAD: usize = 32;

/// A section that is so many times larger than allowed is not decoded to its
/// end: a single byte can name a field of 4 KiB.
const OVERSIZE_MAX: usize = 4;

/// The lines of a field section, pseudo fields included, as they would stand in
/// an HTTP/1 head: `name: value`, CR and LF. It is used again for the next one.
///
/// Fields beyond the limits are counted and not kept.
#[derive(Debug)]
pub struct FieldBlock {
    bytes: Vec<u8>,
    fields: Vec<RawField>,
    /// Bytes of all fields, of those too that were not kept.
    list_bytes: usize,
    list_bytes_max: usize,
    /// All fields, likewise.
    count: usize,
    fields_max: usize,
}

/// Where a field is in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawField {
    /// Its name.
    pub(crate) name: Span,
    /// Its value.
    pub(crate) value: Span,
    /// Whether it may be in a table.
    pub indexing: Indexing,
    /// What it means, where it is known to be regular; else that is to be checked.
    pub(super) kind: Option<Kind>,
}

/// Whether a field may be in the dynamic table of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indexing {
    /// As each hop likes.
    Free,
    /// In none, up to the last hop: its value is a secret that could be guessed
    /// bit by bit (RFC 7541 section 7.1.3).
    Never,
}

/// One line of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// `name: value`, CR and LF.
    text: &'a [u8],
    name_bytes: usize,
    kind: Option<Kind>,
}

/// Between name and value.
pub(super) const COLON: &[u8] = b": ";

/// Behind a value.
pub(super) const LINE_END: &[u8] = b"\r\n";

/// Bytes of a line besides name and value.
pub(super) const LINE_OVERHEAD: usize = COLON.len() + LINE_END.len();

impl RawField {
    /// The name.
    #[inline]
    pub fn name<'a>(&self, lines: &'a [u8]) -> &'a [u8] {
        part(lines, self.name)
    }

    /// The value.
    #[inline]
    pub fn value<'a>(&self, lines: &'a [u8]) -> &'a [u8] {
        part(lines, self.value)
    }
}

impl FieldBlock {
    /// An empty block for at most so many fields, which have at most
    /// `list_bytes_max` bytes as SETTINGS_MAX_HEADER_LIST_SIZE counts them.
    pub fn new(list_bytes_max: usize, fields_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            fields: Vec::new(),
            list_bytes: 0,
            list_bytes_max,
            count: 0,
            fields_max,
        }
    }

    /// Forgets the section before.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        (self.list_bytes, self.count) = (0, 0);
    }

    /// The lines.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes the lines of the section have, of those too that were not kept.
    pub(crate) fn line_bytes(&self) -> u64 {
        let more = self.count * (FIELD_OVERHEAD - LINE_OVERHEAD);
        (self.list_bytes - more) as u64
    }

    /// Appends bytes that belong to no line; says where they are.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        (start, self.bytes.len() as u32)
    }

    /// The fields, in order.
    pub fn fields(&self) -> &[RawField] {
        &self.fields
    }

    /// There were more or larger fields than may be; not all are here.
    pub fn is_too_large(&self) -> bool {
        self.list_bytes > self.list_bytes_max || self.count > self.fields_max
    }

    /// The section is so large that nobody can mean it.
    pub(super) fn is_bomb(&self) -> bool {
        self.list_bytes > self.list_bytes_max.saturating_mul(OVERSIZE_MAX)
    }

    /// Makes room for a section, all at once.
    pub(super) fn reserve(&mut self) {
        if self.bytes.capacity() == 0 {
            let spare = SPARES.with(Spares::take);
            (self.bytes, self.fields) = spare.unwrap_or_default();
            self.bytes.reserve(FIRST_BYTES);
            self.fields.reserve(FIRST_FIELDS);
        }
    }

    /// Takes in a field.
    #[inline]
    pub(super) fn push(&mut self, line: Line<'_>) {
        let name_bytes = line.name_bytes;
        let value_bytes = line.value().len();
        if !self.admit(name_bytes, value_bytes) {
            return;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(line.text);
        self.note(start, name_bytes, value_bytes, Indexing::Free, line.kind);
    }

    /// Where the parts of a line are appended, before [`end_line`](Self::end_line).
    #[inline]
    pub(super) fn lines_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The last line is whole: it becomes a field, or is given up.
    #[inline]
    pub(super) fn end_line(&mut self, name_bytes: usize, value_bytes: usize, indexing: Indexing) {
        let start = self.bytes.len() - (name_bytes + value_bytes + LINE_OVERHEAD);
        match self.admit(name_bytes, value_bytes) {
            true => self.note(start, name_bytes, value_bytes, indexing, None),
            false => self.bytes.truncate(start),
        }
    }

    /// Counts a field; whether it is kept.
    #[inline]
    fn admit(&mut self, name_bytes: usize, value_bytes: usize) -> bool {
        self.list_bytes += name_bytes + value_bytes + FIELD_OVERHEAD;
        self.count += 1;
        !self.is_too_large()
    }

    #[inline]
    fn note(
        &mut self,
        start: usize,
        name_bytes: usize,
        value_bytes: usize,
        indexing: Indexing,
        kind: Option<Kind>,
    ) {
        let value = start + name_bytes + COLON.len();
        self.fields.push(RawField {
            name: (start as u32, (start + name_bytes) as u32),
            value: (value as u32, (value + value_bytes) as u32),
            indexing,
            kind,
        });
    }
}

impl Drop for FieldBlock {
    /// Keeps its memory for the next one.
    fn drop(&mut self) {
        if !(1..=KEPT_BYTES_MAX).contains(&self.bytes.capacity())
            || self.fields.capacity() > KEPT_FIELDS_MAX
        {
            return;
        }
        self.clear();
        let memory = (
            std::mem::take(&mut self.bytes),
            std::mem::take(&mut self.fields),
        );
        // No thread-local is left when a thread ends.
        let _ = SPARES.try_with(|spares| spares.keep(memory));
    }
}

impl<'a> Line<'a> {
    /// A line of which the first bytes are the name.
    pub(super) const fn new(text: &'a [u8], name_bytes: usize) -> Self {
        Self::of_kind(None, text, name_bytes)
    }

    /// The same of a field of this kind, which is regular (RFC 9113 section 8.2).
    pub(super) const fn of_kind(kind: Option<Kind>, text: &'a [u8], name_bytes: usize) -> Self {
        Self {
            text,
            name_bytes,
            kind,
        }
    }

    /// The name.
    #[inline]
    pub(super) const fn name(self) -> &'a [u8] {
        self.text.split_at(self.name_bytes).0
    }

    /// The value.
    #[inline]
    pub(super) fn value(self) -> &'a [u8] {
        &self.text[self.name_bytes + COLON.len()..self.text.len() - LINE_END.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line<'static> = Line::new(b"name: value\r\n", 4);

    #[test]
    fn lines_are_as_in_a_head() {
        let mut block = FieldBlock::new(1_000, 10);
        block.push(LINE);
        block.lines_mut().extend(b"b: \r\n");
        block.end_line(1, 0, Indexing::Never);
        assert_eq!(block.bytes(), b"name: value\r\nb: \r\n");
        let field = |name, value, indexing| RawField {
            name,
            value,
            indexing,
            kind: None,
        };
        let expected = [
            field((0, 4), (6, 11), Indexing::Free),
            field((13, 14), (16, 16), Indexing::Never),
        ];
        assert_eq!(block.fields(), expected);
        block.clear();
        assert!(block.bytes().is_empty() && block.fields().is_empty());
    }

    /// RFC 9113 section 6.5.2: 32 bytes are counted for each field besides its
    /// text.
    #[test]
    fn what_is_beyond_the_limits_is_not_kept() {
        for (list_bytes_max, fields_max, kept) in [(82, 9, 2), (81, 9, 1), (999, 2, 2), (9, 9, 0)] {
            let mut block = FieldBlock::new(list_bytes_max, fields_max);
            for _ in 0..3 {
                block.push(LINE);
                block.lines_mut().extend(b"name: value\r\n");
                block.end_line(4, 5, Indexing::Free);
            }
            assert!(block.is_too_large());
            assert_eq!(block.fields().len(), kept);
            assert_eq!(block.bytes(), b"name: value\r\n".repeat(kept));
            // What is appended to it is nothing that came.
            block.append(b"GET");
            assert_eq!(block.line_bytes(), 6 * 13);
            block.clear();
            assert!(!block.is_too_large());
        }
    }

    #[test]
    fn memory_is_used_again_for_no_more_than_it_is_kept_for() {
        drop_spares();
        let used = |bytes: usize| {
            let mut block = FieldBlock::new(1_000, 10);
            block.reserve();
            block.lines_mut().resize(bytes, b'a');
            block
        };
        let block = used(FIRST_BYTES);
        let place = block.bytes().as_ptr();
        drop(block);
        let block = used(1);
        assert_eq!((block.bytes(), block.bytes().as_ptr()), (&b"a"[..], place));
        drop(used(KEPT_BYTES_MAX + 1));
        assert_eq!(SPARES.with(Spares::count), 0);
        drop(Vec::from_iter((0..2 * KEPT_MAX).map(|_| used(1))));
        assert_eq!(SPARES.with(Spares::count), KEPT_MAX);
    }
}
