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
    kept: Option<Box<Kept>>,
    /// The number of the next entry; it wraps.
    next: u16,
    /// That of the entry that was written last.
    last: u16,
}

#[derive(Debug)]
struct Kept {
    /// By the hash of a field.
    numbers: [u16; PLACES],
    /// By the number of an entry, the low half of that of the entry that was written
    /// next, when it was written last. Sections of a connection are much alike.
    followers: [u8; PLACES],
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
        let kept = self.kept.as_deref()?;
        steps(hash).find_map(|place| {
            let age = self.age(kept.numbers[place]);
            let line = table.line(age)?;
            (is_same(line.name(), name) && is_same(line.value(), value)).then_some(age)
        })
    }

    /// The age of this field in `table`, where it is the one that was written next when
    /// the last one was written before.
    #[inline]
    pub(super) fn next(
        &mut self,
        table: &DynamicTable,
        name: &[u8],
        value: &[u8],
    ) -> Option<usize> {
        let kept = self.kept.as_deref()?;
        let number = kept.followers[usize::from(self.last) % PLACES];
        let age = (self.next as u8)
            .wrapping_sub(number)
            .wrapping_sub(1)
            .into();
        let line = table.line(age)?;
        let is_next = is_same(line.name(), name) && is_same(line.value(), value);
        is_next.then(|| {
            self.last = self.number(age);
            age
        })
    }

    /// The entry of this age is written, and follows the one before.
    pub(super) fn follow(&mut self, age: usize) {
        let number = self.number(age);
        if let Some(kept) = &mut self.kept {
            kept.followers[usize::from(self.last) % PLACES] = number as u8;
        }
        self.last = number;
    }

    /// The field with this hash is the newest entry.
    pub(super) fn insert(&mut self, hash: u64) {
        let next = self.next;
        self.next = next.wrapping_add(1);
        // What was added here longest ago gives way.
        let age = |number: u16| next.wrapping_sub(number.wrapping_add(1));
        let kept = self.kept.get_or_insert_with(|| {
            Box::new(Kept {
                numbers: [next; PLACES],
                followers: [next as u8; PLACES],
            })
        });
        let numbers = &mut kept.numbers;
        if let Some(place) = steps(hash).max_by_key(|place| age(numbers[*place])) {
            numbers[place] = next;
        }
    }

    /// How many entries have come after this one.
    fn age(&self, number: u16) -> usize {
        self.next.wrapping_sub(number).wrapping_sub(1).into()
    }

    /// The number of an entry of this age.
    fn number(&self, age: usize) -> u16 {
        self.next.wrapping_sub(age as u16).wrapping_sub(1)
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

    #[test]
    fn what_came_next_before_is_found_without_a_hash() {
        let mut table = DynamicTable::new(TABLE_BYTES);
        let mut places = Places::default();
        let names: Vec<_> = (0..20).map(|number| format!("n-{number}")).collect();
        assert_eq!(places.next(&table, b"n-0", b"v"), None);
        for name in &names {
            table.insert(name.as_bytes(), b"v", None);
            places.insert(Places::hash(name.as_bytes(), b"v"));
            places.follow(0);
        }
        let first = places.find(Places::hash(b"n-0", b"v"), &table, b"n-0", b"v");
        places.follow(first.expect("the oldest"));
        for section in 0..3 {
            for (number, name) in names.iter().enumerate().skip(usize::from(section == 0)) {
                assert_eq!(places.next(&table, name.as_bytes(), b"w"), None);
                let age = places.next(&table, name.as_bytes(), b"v");
                assert_eq!(age, Some(names.len() - 1 - number));
            }
        }
        // Another order is followed from the next time on.
        for (name, is_known) in [
            (b"n-7", false),
            (b"n-3", false),
            (b"n-7", false),
            (b"n-3", true),
            (b"n-7", true),
        ] {
            let next = places.next(&table, name, b"v");
            assert_eq!(next.is_some(), is_known);
            if !is_known {
                let found = places.find(Places::hash(name, b"v"), &table, name, b"v");
                places.follow(found.expect("an entry"));
            }
        }
    }
}
