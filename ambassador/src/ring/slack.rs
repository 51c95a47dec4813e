//! Shrinks tables after a burst of connections, when few entries are left. It
//! also notes that a burst has ended, for the thread that has the allocator
//! return memory: no shard may wait for that.

use std::sync::atomic::{AtomicBool, Ordering};

use slab::Slab;

/// Room that a table may always keep.
const ROOM: usize = 256;

/// A table is too large when it has room for this many times its entries. That is
/// far from the factor by which it grows, so few tables are moved for it.
const TIMES: usize = 8;

/// Some shard has seen the end of a burst.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Shrinks a table from which an entry was removed, where few are left. That
/// costs something only while its last entries are vacant.
pub(crate) fn shrink<T>(table: &mut Slab<T>) {
    shrink_and_tell(table, &ENDED);
}

fn shrink_and_tell<T>(table: &mut Slab<T>, ended: &AtomicBool) {
    if is_too_large(table.capacity(), table.len()) {
        // Entries go one by one: each burst passes here once.
        if table.len() == table.capacity() / TIMES {
            ended.store(true, Ordering::Relaxed);
        }
        table.shrink_to_fit();
    }
}

/// Whether a table with room for `capacity` entries has too much of it.
pub(crate) fn is_too_large(capacity: usize, len: usize) -> bool {
    capacity > ROOM && len <= capacity / TIMES
}

/// Whether a burst has ended, on any shard, since this was last asked.
pub(crate) fn burst_has_ended() -> bool {
    ENDED.swap(false, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shrinks_when_few_are_left_of_many() {
        let mut table: Slab<usize> = (0..4096).map(|key| (key, key)).collect();
        let ended = AtomicBool::new(false);
        let has_ended = || ended.swap(false, Ordering::Relaxed);
        let mut keys = 0..4096;
        for key in keys.by_ref().rev().take(4096 - 512 - 1) {
            table.remove(key);
            shrink_and_tell(&mut table, &ended);
        }
        assert!(table.capacity() >= 4096 && !has_ended());
        for key in keys.rev() {
            table.remove(key);
            shrink_and_tell(&mut table, &ended);
        }
        assert!(table.capacity() <= ROOM, "{}", table.capacity());
        assert!(has_ended());
        assert!(!has_ended(), "told once");
    }

    #[test]
    fn what_is_left_keeps_its_key() {
        let mut table: Slab<usize> = (0..1000).map(|key| (key, key)).collect();
        for key in (0..1000).filter(|key| *key != 700) {
            table.remove(key);
            shrink(&mut table);
        }
        assert_eq!(table.get(700), Some(&700));
        assert!((700..1000).contains(&table.capacity()));
        let next = table.insert(1);
        assert!(next < 700, "freed places are used again: {next}");
    }
}
