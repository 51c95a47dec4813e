//! Memory of a BPF array that the programs and the proxy share.
#![expect(unsafe_code, reason = "mmap() gives raw memory")]

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// An array, mapped as a value of the type that its elements make up. Whoever
/// reads or writes it does so through atomics: the other side does as well.
pub(super) struct Mapping<T> {
    start: NonNull<T>,
}

// SAFETY: the memory lives as long as this value, is not tied to a thread, and
// is read and written through atomics only.
unsafe impl<T> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Mapping<T> {}

impl<T> Mapping<T> {
    /// Maps an array that was made to be mapped. Pages cost memory once they are
    /// touched.
    pub(super) fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map,
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start })
    }

    /// Where it is: page-aligned, mapped as long as `self`.
    pub(super) fn as_ptr(&self) -> *mut T {
        self.start.as_ptr()
    }
}

impl<T> fmt::Debug for Mapping<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mapping").field(&self.start).finish()
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: mapped in `of` with this length; nothing borrows it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), size_of::<T>()) };
    }
}
