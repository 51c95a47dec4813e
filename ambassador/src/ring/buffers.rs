//! The receive buffers that all streams of a shard share: one mapping, touched
//! only as it is used, handed to the kernel as a provided-buffer ring
//! (Linux 5.19) or to epoll's reads one by one.

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Buffers of a shard. Few: a provided-buffer ring is used in turn, so all of
/// them become resident under load.
pub(super) const COUNT: u16 = 32;

/// Bytes of one buffer.
pub(super) const SIZE: usize = 8 * 1024;

/// The buffers, counted per holder.
pub(super) struct Buffers {
    memory: Mapping,
    holders: [Cell<u16>; COUNT as usize],
    /// Buffers that nobody holds.
    free: Cell<u16>,
    supply: Supply,
}

/// Where a buffer goes that nobody holds any more.
enum Supply {
    /// Back to the kernel.
    Provided { ring: Mapping, tail: Cell<u16> },
    /// Onto a list.
    Listed(RefCell<Vec<u16>>),
}

/// An anonymous private mapping.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Buffers {
    /// Buffers on a list, for reads by syscall.
    pub(super) fn listed() -> io::Result<Self> {
        let free = (0..COUNT).rev().collect();
        Self::with(Supply::Listed(RefCell::new(free)))
    }

    /// Buffers in a ring at the address of [`Buffers::ring_address`], for the
    /// kernel to choose from. Nothing is in it before [`Buffers::provide_all`].
    pub(super) fn provided() -> io::Result<Self> {
        Self::with(Supply::Provided {
            ring: Mapping::new(usize::from(COUNT) * size_of::<BufRingEntry>())?,
            tail: Cell::new(0),
        })
    }

    fn with(supply: Supply) -> io::Result<Self> {
        Ok(Self {
            memory: Mapping::new(usize::from(COUNT) * SIZE)?,
            holders: [const { Cell::new(0) }; COUNT as usize],
            free: Cell::new(COUNT),
            supply,
        })
    }

    /// Where the ring is, where there is one.
    pub(super) fn ring_address(&self) -> Option<u64> {
        match &self.supply {
            Supply::Provided { ring, .. } => Some(ring.start.as_ptr() as u64),
            Supply::Listed(_) => None,
        }
    }

    /// Puts every buffer into the ring; once, after it was registered.
    pub(super) fn provide_all(&self) {
        (0..COUNT).for_each(|buffer| self.supply_again(buffer));
    }

    /// Buffers that nobody holds.
    pub(super) fn free(&self) -> usize {
        usize::from(self.free.get())
    }

    /// A free buffer of the list, to read into; held once.
    pub(super) fn take(&self) -> Option<u16> {
        match &self.supply {
            Supply::Listed(free) => {
                let buffer = free.borrow_mut().pop()?;
                self.chosen(buffer);
                Some(buffer)
            }
            Supply::Provided { .. } => None,
        }
    }

    /// The kernel has chosen this buffer: it is held once.
    pub(super) fn chosen(&self, buffer: u16) {
        let holders = &self.holders[usize::from(buffer)];
        debug_assert_eq!(holders.get(), 0, "only free buffers are chosen");
        holders.set(1);
        self.free.set(self.free.get() - 1);
    }

    /// One more holder.
    pub(super) fn hold(&self, buffer: u16) {
        let holders = &self.holders[usize::from(buffer)];
        holders.set(holders.get() + 1);
    }

    /// One holder less; the last one gives the buffer back.
    #[inline]
    pub(super) fn release(&self, buffer: u16) {
        let holders = &self.holders[usize::from(buffer)];
        holders.set(holders.get() - 1);
        if holders.get() == 0 {
            self.free.set(self.free.get() + 1);
            self.supply_again(buffer);
        }
    }

    /// The address of a buffer.
    pub(super) fn address(&self, buffer: u16) -> *mut u8 {
        assert!(buffer < COUNT, "a buffer of this set");
        // Within the mapping: the number is below COUNT.
        self.memory
            .start
            .as_ptr()
            .wrapping_add(usize::from(buffer) * SIZE)
    }

    /// The bytes `start..end` of a buffer that the caller holds.
    #[expect(unsafe_code, reason = "the kernel writes these buffers")]
    pub(super) fn bytes(&self, buffer: u16, start: usize, end: usize) -> &[u8] {
        assert!(start <= end && end <= SIZE, "within one buffer");
        // SAFETY: the range lies in the mapping, which is initialised (zeroed
        // by the kernel) and lives as long as `self`. Nobody writes to a
        // buffer that is held: it is in neither the ring nor the list.
        unsafe { std::slice::from_raw_parts(self.address(buffer).add(start), end - start) }
    }

    #[expect(
        unsafe_code,
        reason = "writes entries of a ring shared with the kernel"
    )]
    fn supply_again(&self, buffer: u16) {
        match &self.supply {
            Supply::Listed(free) => free.borrow_mut().push(buffer),
            Supply::Provided { ring, tail } => {
                let entries = ring.start.as_ptr().cast::<BufRingEntry>();
                let at = usize::from(tail.get() & (COUNT - 1));
                // SAFETY: `at` is below COUNT, the length of the ring. At most
                // COUNT buffers are in it, so the kernel has consumed what was
                // at this place. The tail overlays a field of entry 0 that the
                // setters below do not touch.
                unsafe {
                    let entry = &mut *entries.add(at);
                    entry.set_addr(self.address(buffer) as u64);
                    entry.set_len(SIZE as u32);
                    entry.set_bid(buffer);
                }
                tail.set(tail.get().wrapping_add(1));
                // SAFETY: `entries` is the base of the ring; the tail is an
                // aligned u16 in it that only this thread stores and the kernel
                // loads. Release: the entry is visible before the tail.
                unsafe {
                    let shared = BufRingEntry::tail(entries).cast::<AtomicU16>();
                    (*shared).store(tail.get(), Ordering::Release);
                }
            }
        }
    }
}

const _: () = assert!(COUNT.is_power_of_two(), "a ring's length is a power of two");

impl Mapping {
    #[expect(
        unsafe_code,
        reason = "page-aligned memory that is not touched before use"
    )]
    fn new(length: usize) -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        let start = NonNull::new(start.cast()).expect("a mapping is never at address 0");
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "the counterpart of mmap")]
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and what points into it (chunks, the
        // registered ring) holds the `Buffers` that owns it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
