//! Writes field sections.

use crate::http2::block::Indexing;
use crate::http2::hpack::dynamic_table::{DynamicTable, TABLE_BYTES, entry_size};
use crate::http2::hpack::indexing::{self, Representation};
use crate::http2::hpack::places::Places;
use crate::http2::hpack::{integer, static_table};

/// Bytes of a name that are put into lower case without memory of their own.
const NAME_BYTES: usize = 64;

/// The index of a name in the static table, the name, and the value.
type KnownField<'a> = (Option<usize>, &'a [u8], &'a [u8]);

/// Encodes the field sections of one direction of a connection, in order.
#[derive(Debug)]
pub struct Encoder {
    table: DynamicTable,
    places: Places,
    /// Since the last section, the smallest size that the table has been given.
    resized: Option<u16>,
}

impl Default for Encoder {
    /// For a peer of whose settings nothing is known.
    fn default() -> Self {
        Self {
            table: DynamicTable::new(TABLE_BYTES),
            places: Places::default(),
            resized: None,
        }
    }
}

impl Encoder {
    /// Takes in the peer's SETTINGS_HEADER_TABLE_SIZE.
    pub fn set_table_max(&mut self, max: u32) {
        let max = u16::try_from(max).map_or(TABLE_BYTES, |max| max.min(TABLE_BYTES));
        if max == self.table.max() {
            return;
        }
        self.resized = Some(self.resized.map_or(max, |before| before.min(max)));
        self.table.resize(max);
    }

    /// Begins a section: tells the peer first how large the table is now
    /// (RFC 7541 section 4.2).
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        let Some(smallest) = self.resized.take() else {
            return;
        };
        if smallest < self.table.max() {
            integer::write(out, 0x20, 5, smallest.into());
        }
        integer::write(out, 0x20, 5, self.table.max().into());
    }

    /// Appends a field; its name is written in lower case.
    pub fn field(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8], indexing: Indexing) {
        if indexing == Indexing::Free
            && let Some(age) = self.places.next(&self.table, name, value)
        {
            return integer::write(out, 0x80, 7, static_table::END + age);
        }
        // The names of the static table are in lower case.
        let known = static_table::find_name(name);
        if known.is_some() || !name.iter().any(u8::is_ascii_uppercase) {
            return self.write(out, (known, name, value), indexing);
        }
        let mut lower = [0; NAME_BYTES];
        let spilled;
        let name = match lower.get_mut(..name.len()) {
            Some(lower) => {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                &*lower
            }
            None => {
                spilled = name.to_ascii_lowercase();
                &spilled
            }
        };
        self.write(out, (static_table::find_name(name), name, value), indexing);
    }

    fn write(&mut self, out: &mut Vec<u8>, field: KnownField<'_>, indexing: Indexing) {
        let (known, name, value) = field;
        let representation = match indexing {
            Indexing::Never => Representation::NeverIndexed,
            Indexing::Free => indexing::of(known, name, value),
        };
        match representation {
            Representation::NeverIndexed => write_literal(out, 0x10, 4, field),
            Representation::Indexed => self.write_indexed(out, field),
            Representation::Unindexed => match value_of(known, value) {
                Some(index) => integer::write(out, 0x80, 7, index),
                None => write_literal(out, 0, 4, field),
            },
        }
    }

    fn write_indexed(&mut self, out: &mut Vec<u8>, field: KnownField<'_>) {
        let (known, name, value) = field;
        if let Some(index) = value_of(known, value) {
            return integer::write(out, 0x80, 7, index);
        }
        // It would take the place of most others.
        if entry_size(name, value) > usize::from(self.table.max()) / 4 * 3 {
            return write_literal(out, 0, 4, field);
        }
        let hash = Places::hash(name, value);
        if let Some(age) = self.places.find(hash, &self.table, name, value) {
            self.places.follow(age);
            return integer::write(out, 0x80, 7, static_table::END + age);
        }
        write_literal(out, 0x40, 6, field);
        // No field is read from this table.
        self.table.insert(name, value, None);
        self.places.insert(hash);
        self.places.follow(0);
    }
}

/// The index of the field in the static table.
fn value_of(known: Option<usize>, value: &[u8]) -> Option<usize> {
    static_table::find_value(known?, value)
}

/// Writes a field out, or its value where its name is `known` (RFC 7541 section
/// 6.2).
fn write_literal(out: &mut Vec<u8>, first: u8, prefix: u32, (known, name, value): KnownField<'_>) {
    integer::write(out, first, prefix, known.unwrap_or(0));
    if known.is_none() {
        write_string(out, name);
    }
    write_string(out, value);
}

fn write_string(out: &mut Vec<u8>, string: &[u8]) {
    integer::write(out, 0, 7, string.len());
    out.extend_from_slice(string);
}
