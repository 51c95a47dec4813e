//! An index of the shards that may have idle connections of an upstream, by pool
//! key.
//!
//! It is a hint, not a count. A shard enters itself when it begins to keep
//! connections for a key, and removes itself when it was found to have none. A
//! request that uses its own shard's connection writes nothing here, so a shard
//! may be listed while all of its connections are in use. Many keys share a slot,
//! and shards above 64 share bits: at worst a shard that is asked has none.

use crate::policy::sync::{AtomicU64, Ordering};

/// Slots of an upstream: one cache line.
pub(crate) const SLOTS: usize = 8;

/// The shards that may have idle connections.
#[derive(Default)]
pub struct Holders {
    slots: [AtomicU64; SLOTS],
}

impl Holders {
    /// `shard` keeps connections to places of `slot` from now on.
    pub fn announce(&self, slot: u8, shard: u16) {
        // What the shard has done before is there for those who ask it.
        self.slots[index(slot)].fetch_or(bit(shard), Ordering::Release);
    }

    /// `shard` keeps no connections of `slot` any more.
    pub fn withdraw(&self, slot: u8, shard: u16) {
        self.slots[index(slot)].fetch_and(!bit(shard), Ordering::Release);
    }

    /// The shards to ask, except `shard` itself: the next one first, so that not
    /// all ask the same.
    pub fn others(&self, slot: u8, shard: u16, shards: u16) -> impl Iterator<Item = u16> {
        let word = self.slots[index(slot)].load(Ordering::Acquire);
        let behind = (1..shards).map(move |step| (shard + step) % shards);
        behind.filter(move |other| word & bit(*other) != 0)
    }
}

fn index(slot: u8) -> usize {
    usize::from(slot) % SLOTS
}

fn bit(shard: u16) -> u64 {
    1 << (shard % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(holders: &Holders, slot: u8, shard: u16, shards: u16) -> Vec<u16> {
        holders.others(slot, shard, shards).collect()
    }

    #[test]
    fn those_that_announced_are_asked_in_turn_from_oneself_on() {
        let holders = Holders::default();
        for shard in [0, 2, 3, 5] {
            holders.announce(1, shard);
        }
        assert_eq!(others(&holders, 1, 2, 6), [3, 5, 0]);
        assert_eq!(others(&holders, 1, 4, 6), [5, 0, 2, 3]);
        assert!(others(&holders, 2, 4, 6).is_empty(), "none of those");
        holders.withdraw(1, 5);
        holders.withdraw(1, 4);
        assert_eq!(others(&holders, 1, 4, 6), [0, 2, 3]);
        assert!(others(&holders, 1, 0, 1).is_empty(), "there is nobody else");
    }

    #[test]
    fn shards_beyond_64_are_asked_in_vain_at_worst() {
        let holders = Holders::default();
        holders.announce(7, 70);
        assert_eq!(others(&holders, 7, 0, 96), [6, 70]);
        assert_eq!(others(&holders, 7, 70, 96), [6]);
    }
}
