//! Where in the encoder's table a field may be.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use crate::http2::hpack::dynamic_table::DynamicTable;
use crate::http2::hpack::is_same;

/// More than a table of 4 KiB has entries of usual length.
const PLACES: usize = 128;

/// How many places a field may have.
const STEPS: usize = 4;

/// For hashes of fields, numbers of the entries that were added with such a hash.
/// It may forget one, and may name one that is another field or has gone: the
/// table is asked.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Made for the first entry.
    numbers: Option<Box<[u16; PLACES]>>,
    /// The number of the next entry; it wraps.
    next: u16,
}

impl Places {
    /// The hash of a field.
    #[inline]
    pub(super) fn hash(name: &[u8], value: &[u8]) -> u64 {
        let mut hasher = FixedState::with_seed(0).build_hasher();
        hasher.write(name);
        hasher.write(value);
        hasher.finish()
    }

    /// The age of this field in `table`.
    #[inline]
    pub(super) fn find(
        &self,
        hash: u64,
        table: &DynamicTable,
        name: &[u8],
        value: &[u8],
    ) -> Option<usize> {
        let numbers = self.numbers.as_deref()?;
        steps(hash).find_map(|place| {
            let age = self.age(numbers[place]);
            let line = table.line(age)?;
            (is_same(line.name(), name) && is_same(line.value(), value)).then_some(age)
        })
    }

    /// The field with this hash is the newest entry.
    pub(super) fn insert(&mut self, hash: u64) {
        let next = self.next;
        self.next = next.wrapping_add(1);
        // What was added here longest ago gives way.
        let age = |number: u16| next.wrapping_sub(number.wrapping_add(1));
        let numbers = self.numbers.get_or_insert_with(|| Box::new([next; PLACES]));
        if let Some(place) = steps(hash).max_by_key(|place| age(numbers[*place])) {
            numbers[place] = next;
        }
    }

    /// How many entries have come after this one.
    fn age(&self, number: u16) -> usize {
        self.next.wrapping_sub(number).wrapping_sub(1).into()
    }
}

/// The places of a hash.
fn steps(hash: u64) -> impl Iterator<Item = usize> {
    (0..STEPS).map(move |step| (hash as usize + step) % PLACES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::hpack::dynamic_table::TABLE_BYTES;

    #[test]
    fn an_entry_is_found_as_long_as_the_table_has_it() {
        let mut table = DynamicTable::new(TABLE_BYTES);
        let mut places = Places::default();
        let name = |number: usize| format!("name-{number}").into_bytes();
        let mut found = 0;
        // More than numbers have values.
        for number in 0..70_000 {
            let hash = Places::hash(&name(number), b"value");
            assert_eq!(places.find(hash, &table, &name(number), b"value"), None);
            table.insert(&name(number), b"value", None);
            places.insert(hash);
            assert_eq!(places.find(hash, &table, &name(number), b"value"), Some(0));
            if number % 100 == 99 {
                for age in 0..40 {
                    let old = name(number - age);
                    let hash = Places::hash(&old, b"value");
                    let place = places.find(hash, &table, &old, b"value");
                    assert!(place.is_none_or(|found| found == age));
                    found += usize::from(place.is_some());
                }
            }
        }
        assert!(found > 700 * 40 * 9 / 10, "{found} of {}", 700 * 40);
    }
}
