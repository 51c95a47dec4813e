//! Counts the slots of each workload in a word of mapped memory: programs add,
//! the proxy subtracts.
#![expect(unsafe_code, reason = "the counts are mapped memory")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use ambassador_ebpf::{KINDS, SHARE_OF_THE_REST, SHARES, Share};

use super::mapping::Mapping;

/// Which workload has which share.
#[derive(Debug, Default)]
pub(super) struct Assigned(BTreeMap<u32, u32>);

/// The counts of all shares.
#[derive(Debug)]
pub(super) struct Shares(Mapping<[Share; SHARES as usize]>);

impl Assigned {
    /// The share of a workload that programs are attached for. Those for whom
    /// there is none left have one together.
    pub(super) fn assign(&mut self, workload: u32) -> u32 {
        if let Some(share) = self.0.get(&workload) {
            return *share;
        }
        let taken: BTreeSet<u32> = self.0.values().copied().collect();
        let free = (SHARE_OF_THE_REST + 1..SHARES).find(|share| !taken.contains(share));
        match free {
            Some(share) => *self.0.entry(workload).or_insert(share),
            None => SHARE_OF_THE_REST,
        }
    }

    /// The share in which the slots of a workload are counted.
    pub(super) fn of(&self, workload: u32) -> u32 {
        self.0.get(&workload).copied().unwrap_or(SHARE_OF_THE_REST)
    }

    /// Keeps those that are in use.
    pub(super) fn retain(&mut self, is_in_use: impl Fn(u32, u32) -> bool) {
        self.0
            .retain(|workload, share| is_in_use(*workload, *share));
    }

    /// Every workload that has a share of its own, with that.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().map(|(workload, share)| (*workload, *share))
    }
}

impl Shares {
    pub(super) fn map(map: BorrowedFd<'_>) -> io::Result<Self> {
        Mapping::of(map).map(Self)
    }

    /// How many slots a share holds.
    pub(super) fn held(&self, share: u32) -> u32 {
        let held = (0..KINDS).map(|kind| self.count(share, kind).load(Ordering::Relaxed));
        held.fold(0, u32::saturating_add)
    }

    /// Takes a slot of a kind from a share.
    pub(super) fn give_back(&self, share: u32, kind: usize) {
        subtract(self.count(share, kind));
    }

    fn count(&self, share: u32, kind: usize) -> &AtomicU32 {
        // SAFETY: aligned, mapped as long as self, shared with the kernel only;
        // the indices are bounds-checked.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.0.as_ptr())[share as usize].held[kind]) }
    }
}

/// One less, never below none.
pub(super) fn subtract(count: &AtomicU32) {
    let less = |count: u32| count.checked_sub(1);
    let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_workload_has_a_share_until_there_are_too_many() {
        let mut assigned = Assigned::default();
        for workload in 0..SHARES - 1 {
            assert_eq!(assigned.assign(workload << 16), workload + 1);
        }
        assert_eq!(assigned.assign(7 << 16), 8, "the same as before");
        assert_eq!(assigned.assign(1), SHARE_OF_THE_REST);
        assert_eq!(assigned.of(1), SHARE_OF_THE_REST);
        assigned.retain(|_, share| share != 5);
        assert_eq!(assigned.assign(2), 5, "the one that came free");
        assert_eq!(assigned.of(4 << 16), SHARE_OF_THE_REST);
    }
}
