//! Takes unused slots of the token table back.
//!
//! A slot matters from a connect until the proxy has accepted the connection
//! and looked it up; after that the proxy knows the destination, and the
//! socket itself remembers it for getpeername(). So how long connections live
//! is of no account: a slot is unused when no connect has gone there for a
//! while, and its destination gets another one when it is wanted again.
//!
//! What must never happen is that a connection which is still on its way under
//! one token is taken for one to another destination. Three things hold that:
//! 1. A slot is *withdrawn* first: programs do not find it any more, while
//!    whatever is under way is still served. Only when no connect has gone there
//!    for another [`QUARANTINE`] is it *freed*. A program that had found it just
//!    before it was withdrawn notes that it did, long before.
//! 2. A freed slot is given out under another number, so under another token: a
//!    connection that comes too late finds no destination, and is reset.
//! 3. The numbers of a slot are used up after 256 times, of which each takes as
//!    long as rest and quarantine: some five hours in all, while the kernel
//!    gives a handshake up after four, however often it is told to repeat it.
//!    Time does not count while some shard accepts nothing.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use ambassador_ebpf::{
    Destination, KINDS, NUMBER_NONE, SLOTS, Slot, TICK_SHIFT, next_number, slot_of,
};

use super::bpf;
use super::shares::{self, Assigned, Shares};
use super::table::{FREE, SharedPage};
use crate::clock::Instant;

/// Unused for so many ticks, a slot is withdrawn: 17 s.
pub(super) const REST: u32 = 16;

/// And for so many more, it is freed: a minute.
pub(super) const QUARANTINE: u32 = 56;

/// A shard that has been silent for so long accepts nothing.
pub(super) const HANGS: Duration = Duration::from_secs(10);

const _: () = assert!(
    (REST + QUARANTINE) as u64 * 256 > ((4 * 3_600 + 600_u64) * 1_000_000_000) >> TICK_SHIFT,
    "a number recurs later than the kernel gives a handshake up"
);

/// The maps of the table, as far as the proxy writes them.
#[derive(Debug)]
pub(super) struct Maps {
    pub slots: OwnedFd,
    pub interned: OwnedFd,
    pub returned: OwnedFd,
    pub shares: Shares,
}

/// What is known of slots besides what stands in the table.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    pub assigned: Assigned,
    resting: WithdrawnSlots,
    /// Slots that were freed so far.
    pub freed: u64,
}

/// Slots that were withdrawn, by number, and when each was.
#[derive(Debug, Default)]
struct WithdrawnSlots {
    withdrawn: HashMap<u32, u32>,
    /// When some shard accepted nothing, the last time that it was looked.
    accepting_since: u32,
}

/// What is to become of a slot now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Keep,
    Withdraw,
    Free,
}

/// A time in ticks.
fn tick(time: Instant) -> u32 {
    (time.kernel_ns() >> TICK_SHIFT) as u32
}

impl WithdrawnSlots {
    fn step(&self, number: u32, used_at: u32, now: u32) -> Step {
        let used_at = used_at.max(self.accepting_since);
        let unused = |since: u32| now.saturating_sub(since.max(used_at));
        match self.withdrawn.get(&number) {
            None if unused(0) >= REST => Step::Withdraw,
            Some(since) if unused(*since) >= QUARANTINE => Step::Free,
            _ => Step::Keep,
        }
    }

    /// A step was taken.
    fn took(&mut self, step: Step, number: u32, now: u32) {
        match step {
            Step::Keep => {}
            Step::Withdraw => {
                self.withdrawn.insert(number, now);
            }
            Step::Free => {
                self.withdrawn.remove(&number);
            }
        }
    }
}

impl Reclaim {
    /// Says that some shard accepts nothing now.
    pub(super) fn wait(&mut self, now: Instant) {
        self.resting.accepting_since = tick(now);
    }

    /// Looks at every slot that was ever given out. What fails is tried again the
    /// next time.
    pub(super) fn sweep(&mut self, maps: &Maps, page: &SharedPage, now: Instant) -> io::Result<()> {
        let now = tick(now);
        let touched = page.slots_touched().load(Ordering::Acquire);
        for slot in 1..touched.min(SLOTS) {
            let mut entry = [FREE];
            bpf::read(maps.slots.as_fd(), &slot, &mut entry)?;
            let [entry] = entry;
            if entry.number == NUMBER_NONE {
                continue;
            }
            let step = self.resting.step(entry.number, entry.used_at, now);
            match step {
                Step::Keep => {}
                Step::Withdraw => withdraw(maps, &entry)?,
                Step::Free => self.free(maps, page, entry)?,
            }
            self.resting.took(step, entry.number, now);
        }
        Ok(())
    }

    fn free(&mut self, maps: &Maps, page: &SharedPage, entry: Slot) -> io::Result<()> {
        let slot = slot_of(entry.number);
        // All else stays: whoever reads it at this moment reads the same.
        let freed = Slot {
            number: NUMBER_NONE,
            ..entry
        };
        bpf::write(maps.slots.as_fd(), &slot, &freed)?;
        if let Err(error) = bpf::push(maps.returned.as_fd(), &next_number(entry.number)) {
            bpf::write(maps.slots.as_fd(), &slot, &entry)?;
            return Err(error);
        }
        let kind = usize::from(entry.destination.kind).min(KINDS - 1);
        shares::subtract(page.held(kind));
        let share = self.assigned.of(entry.destination.workload);
        maps.shares.give_back(share, kind);
        self.freed += 1;
        Ok(())
    }
}

/// Removes the key that leads to a slot. It leads to no other meanwhile: a
/// program adds a key only where there is none.
fn withdraw(maps: &Maps, entry: &Slot) -> io::Result<()> {
    let key = Destination {
        kind: 0,
        ..entry.destination
    };
    let mut number = [NUMBER_NONE];
    let found = bpf::read(maps.interned.as_fd(), &key, &mut number)?;
    match found && number[0] == entry.number {
        true => bpf::remove(maps.interned.as_fd(), &key),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(resting: &mut WithdrawnSlots, number: u32, used_at: u32, now: u32) -> Step {
        let step = resting.step(number, used_at, now);
        resting.took(step, number, now);
        step
    }

    /// Steps of one slot, each at its time, with the time of the last connect.
    #[track_caller]
    fn steps(resting: &mut WithdrawnSlots, steps: &[(u32, u32, Step)]) {
        for (now, used_at, expected) in steps {
            assert_eq!(step(resting, 5, *used_at, *now), *expected, "at {now}");
        }
    }

    #[test]
    fn what_is_not_used_is_withdrawn_and_freed_later() {
        let withdrawn = 1_000 + REST;
        steps(
            &mut WithdrawnSlots::default(),
            &[
                (1_000, 1_000, Step::Keep),
                (withdrawn - 1, 1_000, Step::Keep),
                (withdrawn, 1_000, Step::Withdraw),
                (withdrawn + 1, 1_000, Step::Keep),
                (withdrawn + QUARANTINE - 1, 1_000, Step::Keep),
                (withdrawn + QUARANTINE, 1_000, Step::Free),
            ],
        );
    }

    #[test]
    fn what_is_used_is_kept() {
        let mut resting = WithdrawnSlots::default();
        for now in 1_000..3_000 {
            assert_eq!(step(&mut resting, 5, now - REST + 1, now), Step::Keep);
        }
    }

    #[test]
    fn a_connect_that_found_it_before_it_was_withdrawn_counts() {
        let withdrawn = 1_000 + REST;
        steps(
            &mut WithdrawnSlots::default(),
            &[
                (withdrawn, 1_000, Step::Withdraw),
                (withdrawn + 5, withdrawn + 2, Step::Keep),
                (withdrawn + QUARANTINE, withdrawn + 2, Step::Keep),
                (withdrawn + QUARANTINE + 2, withdrawn + 2, Step::Free),
            ],
        );
    }

    #[test]
    fn it_is_withdrawn_once_per_number() {
        let mut resting = WithdrawnSlots::default();
        let withdrawn = 1_000 + REST;
        let freed = withdrawn + QUARANTINE;
        assert_eq!(step(&mut resting, 5, 1_000, withdrawn), Step::Withdraw);
        assert_eq!(step(&mut resting, 5, 1_000, freed), Step::Free);
        let next = next_number(5);
        assert_eq!(slot_of(next), slot_of(5));
        assert_eq!(step(&mut resting, next, freed, freed + 1), Step::Keep);
        assert_eq!(
            step(&mut resting, next, freed, freed + REST),
            Step::Withdraw
        );
    }

    #[test]
    fn a_step_that_failed_is_due_again() {
        let mut resting = WithdrawnSlots::default();
        let withdrawn = 1_000 + REST;
        assert_eq!(resting.step(5, 1_000, withdrawn), Step::Withdraw);
        assert_eq!(
            resting.step(5, 1_000, withdrawn + QUARANTINE),
            Step::Withdraw
        );
        resting.took(Step::Withdraw, 5, withdrawn);
        for late in [0, 9] {
            let now = withdrawn + QUARANTINE + late;
            assert_eq!(resting.step(5, 1_000, now), Step::Free);
        }
    }

    #[test]
    fn time_does_not_count_while_nobody_accepts() {
        let withdrawn = 1_000 + REST;
        let mut resting = WithdrawnSlots::default();
        assert_eq!(step(&mut resting, 5, 1_000, withdrawn), Step::Withdraw);
        resting.accepting_since = 9_000;
        assert_eq!(step(&mut resting, 5, 1_000, 9_001), Step::Keep);
        assert_eq!(step(&mut resting, 6, 1_000, 9_001), Step::Keep);
        assert_eq!(step(&mut resting, 5, 1_000, 9_000 + QUARANTINE), Step::Free);
        assert_eq!(
            step(&mut resting, 6, 1_000, 9_000 + QUARANTINE),
            Step::Withdraw
        );
    }

    #[test]
    fn a_clock_that_was_read_before_the_slot_is_no_age() {
        assert_eq!(
            step(&mut WithdrawnSlots::default(), 5, 1_001, 1_000),
            Step::Keep
        );
    }

    #[test]
    fn the_numbers_of_a_slot_recur_after_256() {
        let mut number = 5;
        for turn in 1..256 {
            number = next_number(number);
            assert_eq!((slot_of(number), number / SLOTS), (5, turn));
        }
        assert_eq!(next_number(number), 5);
    }
}
