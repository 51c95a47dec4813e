//! The fields that both sides of a connection remember (RFC 7541 section 2.3.2).

use std::collections::VecDeque;

use crate::http2::block::{COLON, LINE_END, LINE_OVERHEAD, Line};
use crate::message::fields::Kind;

/// What SETTINGS_HEADER_TABLE_SIZE is until a peer says something else
/// (RFC 9113 section 6.5.2), and the most that is used here.
pub(crate) const TABLE_BYTES: u16 = 4_096;

/// What an entry counts besides its text (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// Bytes of lines that are made room for at first.
const FIRST_BYTES: usize = 256;

/// Entries, of which those that came first go first. An empty table has no
/// memory.
#[derive(Debug)]
pub(super) struct DynamicTable {
    /// The lines of the entries in the order in which they came, behind those of
    /// some that have gone.
    text: Vec<u8>,
    /// How many bytes have gone from the front of the text; it wraps.
    gone: u32,
    /// The newest in front.
    entries: VecDeque<Entry>,
    size: usize,
    max: u16,
}

/// Where a line is. Names and values are shorter than the table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Bytes in front of it, of all that ever were.
    start: u32,
    name_bytes: u16,
    value_bytes: u16,
    /// As of its [`Line`].
    kind: Option<Kind>,
}

impl DynamicTable {
    /// An empty table of at most `max` bytes.
    pub(super) fn new(max: u16) -> Self {
        Self {
            text: Vec::new(),
            gone: 0,
            entries: VecDeque::new(),
            size: 0,
            max,
        }
    }

    /// The entry after which `age` others have come.
    #[inline]
    pub(super) fn line(&self, age: usize) -> Option<Line<'_>> {
        let entry = self.entries.get(age)?;
        let start = entry.start.wrapping_sub(self.gone) as usize;
        let text = &self.text[start..][..entry.line_bytes()];
        Some(Line::of_kind(entry.kind, text, entry.name_bytes.into()))
    }

    /// Adds an entry, for which others go, with what its [`Line`] is to say. One that is
    /// larger than the table leaves it empty (RFC 7541 section 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], kind: Option<Kind>) {
        let size = entry_size(name, value);
        let Some(rest) = usize::from(self.max).checked_sub(size) else {
            return self.evict_to(0);
        };
        self.evict_to(rest);
        let entry = Entry {
            start: 0,
            name_bytes: name.len() as u16,
            value_bytes: value.len() as u16,
            kind,
        };
        self.make_room(entry.line_bytes());
        let start = self.gone.wrapping_add(self.text.len() as u32);
        self.entries.push_front(Entry { start, ..entry });
        self.size += size;
        for part in [name, COLON, value, LINE_END] {
            self.text.extend_from_slice(part);
        }
    }

    /// Allows `max` bytes.
    pub(super) fn resize(&mut self, max: u16) {
        self.max = max;
        self.evict_to(max.into());
    }

    /// Bytes that are allowed.
    pub(super) fn max(&self) -> u16 {
        self.max
    }

    /// Bytes of all entries, as RFC 7541 section 4.1 counts them.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Bytes of memory that it holds.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Lets the oldest go until at most `size` bytes are left.
    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_back() else {
                break;
            };
            self.size -= entry.line_bytes() - LINE_OVERHEAD + ENTRY_OVERHEAD;
        }
        if self.entries.is_empty() {
            (self.text, self.entries) = (Vec::new(), VecDeque::new());
        }
    }

    /// Makes room for so many bytes of text: where a third is of entries that
    /// have gone, by moving the rest to the front.
    fn make_room(&mut self, bytes: usize) {
        if self.text.len() + bytes <= self.text.capacity() {
            return;
        }
        let oldest = self.entries.back().map(|entry| entry.start);
        let dead = oldest.map_or(0, |start| start.wrapping_sub(self.gone));
        if 3 * dead as usize >= self.text.len() {
            self.text.drain(..dead as usize);
            self.gone = self.gone.wrapping_add(dead);
        }
        let needed = self.text.len() + bytes;
        if needed > self.text.capacity() {
            let most = usize::from(self.max) * 3 / 2;
            let room = (2 * self.text.capacity()).max(FIRST_BYTES).min(most);
            self.text.reserve_exact(room.max(needed) - self.text.len());
        }
    }
}

impl Entry {
    fn line_bytes(self) -> usize {
        usize::from(self.name_bytes) + usize::from(self.value_bytes) + LINE_OVERHEAD
    }
}

/// How large an entry is (RFC 7541 section 4.1).
pub(super) fn entry_size(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + ENTRY_OVERHEAD
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn it_keeps_what_fits_whatever_goes() {
        let mut table = DynamicTable::new(TABLE_BYTES);
        // Places run over what 32 bits hold.
        table.gone = u32::MAX - 50_000;
        let mut expected: VecDeque<(Vec<u8>, Vec<u8>)> = VecDeque::new();
        for number in 0..2_000_usize {
            let name = format!("n{}", number % 7).into_bytes();
            let value = vec![b'a' + (number % 26) as u8; (number * 7_919) % 300];
            table.insert(&name, &value, None);
            expected.push_front((name, value));
            let size = |list: &VecDeque<(Vec<u8>, Vec<u8>)>| -> usize {
                list.iter()
                    .map(|(name, value)| entry_size(name, value))
                    .sum()
            };
            while size(&expected) > 4_096 {
                expected.pop_back();
            }
            assert_eq!(table.size(), size(&expected));
            for (age, (name, value)) in expected.iter().enumerate() {
                let line = table.line(age).expect("an entry");
                assert_eq!((line.name(), line.value()), (&name[..], &value[..]));
            }
            assert_eq!(table.line(expected.len()), None);
            assert!(table.memory() <= 8_192, "{}", table.memory());
        }
    }

    #[test]
    fn an_empty_table_has_no_memory() {
        let mut table = DynamicTable::new(100);
        assert_eq!(table.memory(), 0);
        table.insert(b"name", b"value", None);
        assert!((1..600).contains(&table.memory()), "{}", table.memory());
        // RFC 7541 section 4.4: not an error.
        table.insert(b"name", &[b'x'; 65], None);
        assert_eq!((table.size(), table.memory()), (0, 0));
        table.insert(b"name", &[b'x'; 64], None);
        assert_eq!(table.size(), 100);
        table.resize(99);
        assert_eq!((table.size(), table.memory()), (0, 0));
    }
}
