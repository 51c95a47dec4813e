//! What connect4 and connect6 share: the slot of a destination.
//!
//! The proxy frees slots that nobody uses (`ambassador/src/capture/reclaim.rs`)
//! and relies on this: a program runs for far less time than a slot rests
//! before it is free, and only programs write a slot that is free.

use ambassador_ebpf::{
    Destination, Kind, NUMBER_NONE, SLOTS, SLOTS_CLAIMED_ONLY, Share, Shared, Slot, Verdict, rule,
    slot_of,
};
use aya_ebpf::bindings::BPF_NOEXIST;

use crate::maps::{INTERNED, RETURNED, SHARE, SHARES, SLOT_TABLE};
use crate::token::Addr;

/// All but the canary's.
const SLOTS_FOR_DESTINATIONS: u32 = SLOTS - 1;

/// What a token's number is where there is none.
pub const UNKNOWN: u32 = u32::MAX;

/// Whether a destination got a slot.
pub enum InternResult {
    /// The number of its token.
    Number(u32),
    /// None, and why.
    Not(Verdict),
}

/// The number of a destination that has a slot. The table has the last word:
/// the proxy may remove the key at any time, and the kernel then lets others
/// use the memory that it was found in.
#[inline(always)]
pub fn known(destination: &Destination) -> u32 {
    // SAFETY: what is read is checked against the slot.
    let Some(number) = (unsafe { INTERNED.get(destination) }) else {
        return UNKNOWN;
    };
    let number = *number;
    let Destination {
        addr,
        workload,
        port,
        ..
    } = destination;
    if leads_to(number, addr, *workload, *port) {
        number
    } else {
        UNKNOWN
    }
}

/// Whether the token of a number is that of a destination now.
#[inline(always)]
pub fn leads_to(number: u32, addr: &Addr, workload: u32, port: u16) -> bool {
    let Some(slot) = SLOT_TABLE.get(slot_of(number)) else {
        return false;
    };
    // SAFETY: a word of a live array element.
    let stands = unsafe { core::ptr::read_volatile(&raw const slot.number) };
    let found = &slot.destination;
    stands == number
        && found.addr[3] == addr[3]
        && found.addr[2] == addr[2]
        && found.addr[1] == addr[1]
        && found.addr[0] == addr[0]
        && found.workload == workload
        && found.port == port
}

/// Gives a destination a slot: the slot is written before the key that leads
/// to it.
///
/// A workload may hold as many slots of a kind as are left, and fewer the
/// scarcer they are: see [`allowance`].
#[inline(always)]
pub fn intern(
    destination: &Destination,
    decision: u32,
    epoch: u32,
    tick: u32,
    shared: &Shared,
) -> InternResult {
    let claimed = decision & rule::CLAIMED != 0;
    let kind = if claimed {
        Kind::Claimed
    } else {
        Kind::Unclaimed
    };
    let all = &raw const shared.all;
    let allowance = allowance(all, kind);
    if allowance == 0 {
        return InternResult::Not(Verdict::TableFull);
    }
    let Some(share) = SHARES.get_ptr_mut(SHARE.load()) else {
        return InternResult::Not(Verdict::TableFull);
    };
    if held(share, kind) >= allowance {
        return InternResult::Not(Verdict::OverQuota);
    }
    let number = free_number(shared);
    if number == UNKNOWN {
        return InternResult::Not(Verdict::TableFull);
    }
    let mut value = Slot {
        destination: *destination,
        decision: (u64::from(epoch) << 32) | u64::from(decision),
        number,
        used_at: tick,
    };
    value.destination.kind = kind as u16;
    if SLOT_TABLE.set(slot_of(number), value, 0).is_err() {
        return InternResult::Not(Verdict::TableFull);
    }
    if INTERNED
        .insert(destination, number, BPF_NOEXIST.into())
        .is_ok()
    {
        add(all.cast_mut(), kind);
        add(share, kind);
        return InternResult::Number(number);
    }
    // Another CPU was first, or memory is short. Nobody knows the number yet.
    if let Some(slot) = SLOT_TABLE.get_ptr_mut(slot_of(number)) {
        // SAFETY: a live array element; the word is stored whole.
        unsafe { core::ptr::write_volatile(&raw mut (*slot).number, NUMBER_NONE) };
    }
    let _ = RETURNED.push(number, 0);
    match known(destination) {
        UNKNOWN => InternResult::Not(Verdict::TableFull),
        number => InternResult::Number(number),
    }
}

/// How many slots of a kind one workload may hold: as many as are left. So one
/// that asks for all gets half. Once more than half are taken it is less, by
/// the share that is left of that half: were it not, each further one that asks
/// for all would leave half of what it found, and soon nothing.
#[inline(always)]
fn allowance(all: *const Share, kind: Kind) -> u32 {
    let (unclaimed, claimed) = (held(all, Kind::Unclaimed), held(all, Kind::Claimed));
    let of_all = SLOTS_FOR_DESTINATIONS
        .saturating_sub(unclaimed)
        .saturating_sub(claimed);
    let (most, left) = match kind {
        Kind::Claimed => (SLOTS_FOR_DESTINATIONS, of_all),
        Kind::Unclaimed => {
            let most = SLOTS_FOR_DESTINATIONS - SLOTS_CLAIMED_ONLY;
            (most, of_all.min(most.saturating_sub(unclaimed)))
        }
    };
    left.min(left * left / (most / 2))
}

/// One that was never given out, as long as there are such, so that numbers
/// recur as late as they can; then the one that was given back the longest ago.
#[inline(always)]
fn free_number(shared: &Shared) -> u32 {
    let touched = (&raw const shared.slots_touched).cast_mut();
    // SAFETY: the word is in the shared page; only programs change it.
    unsafe {
        if core::ptr::read_volatile(touched) < SLOTS {
            // SeqCst: a relaxed add whose result is used is miscompiled.
            let slot = core::intrinsics::atomic_xadd::<
                u32,
                u32,
                { core::intrinsics::AtomicOrdering::SeqCst },
            >(touched, 1);
            if slot < SLOTS {
                return slot;
            }
        }
    }
    match RETURNED.pop() {
        Ok(Some(number)) => number,
        _ => UNKNOWN,
    }
}

#[inline(always)]
fn held(share: *const Share, kind: Kind) -> u32 {
    // SAFETY: the words are in mapped maps and are changed whole.
    unsafe { core::ptr::read_volatile((&raw const (*share).held).cast::<u32>().add(kind as usize)) }
}

#[inline(always)]
fn add(share: *mut Share, kind: Kind) {
    // SAFETY: as above.
    unsafe {
        core::intrinsics::atomic_xadd::<u32, u32, { core::intrinsics::AtomicOrdering::SeqCst }>(
            (&raw mut (*share).held).cast::<u32>().add(kind as usize),
            1,
        );
    }
}
