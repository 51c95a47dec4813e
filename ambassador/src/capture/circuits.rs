//! The circuits of the kernel: for each upstream with `kernel_fail_fast` one word
//! of mapped memory, which says whether connects are refused. A change is a
//! store, no system call.
#![expect(unsafe_code, reason = "the words are mapped memory")]

use std::io;
use std::num::NonZeroU16;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ambassador_ebpf::{CIRCUIT_CLOSED, CIRCUITS};

use super::mapping::Mapping;
use crate::policy::breaker::RefusalPeriod;

type Words = [ambassador_ebpf::Circuit; CIRCUITS as usize];

/// Which circuit a claim has: from 1 to [`CircuitNumber::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CircuitNumber(NonZeroU16);

/// All circuits.
#[derive(Debug, Clone)]
pub(super) struct Circuits {
    words: Arc<Mapping<Words>>,
}

/// One of them, to be opened and closed.
#[derive(Debug, Clone)]
pub struct Circuit {
    words: Arc<Mapping<Words>>,
    number: CircuitNumber,
}

impl CircuitNumber {
    /// How many circuits there are.
    pub const MAX: u16 = (CIRCUITS - 1) as u16;

    /// Every number, the lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=Self::MAX).filter_map(NonZeroU16::new).map(Self)
    }

    /// As rules carry it.
    pub(super) fn get(self) -> u16 {
        self.0.get()
    }
}

impl Circuits {
    pub(super) fn map(map: BorrowedFd<'_>) -> io::Result<Self> {
        let words = Arc::new(Mapping::of(map)?);
        Ok(Self { words })
    }

    pub(super) fn circuit(&self, number: CircuitNumber) -> Circuit {
        Circuit {
            words: Arc::clone(&self.words),
            number,
        }
    }
}

impl Circuit {
    /// Has connects refused, by the programs, as a circuit breaker refuses tries.
    /// Behind the time of [`Refuses::Until`] one connect goes through, and a
    /// further one whenever the permit of the last has expired.
    pub fn set(&self, refuses: RefusalPeriod) {
        let word = match refuses {
            RefusalPeriod::Nothing => CIRCUIT_CLOSED,
            // No time is the word of a closed one.
            RefusalPeriod::Until(then) => then.kernel_ns().max(CIRCUIT_CLOSED + 1),
            RefusalPeriod::Always => u64::MAX,
        };
        self.open_until().store(word, Ordering::Relaxed);
    }

    /// How long the connect that goes through may take to show what it is worth.
    pub fn set_permit(&self, permit: Duration) {
        let ns = u64::try_from(permit.as_nanos()).unwrap_or(u64::MAX);
        // The programs add it to a time.
        let ns = ns.min(u64::MAX / 2);
        self.permit().store(ns, Ordering::Relaxed);
    }

    fn open_until(&self) -> &AtomicU64 {
        let index = usize::from(self.number.get());
        // SAFETY: aligned, mapped as long as self, shared with the kernel only;
        // the index is bounds-checked.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.words.as_ptr())[index].open_until) }
    }

    fn permit(&self) -> &AtomicU64 {
        let index = usize::from(self.number.get());
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.words.as_ptr())[index].permit) }
    }
}
