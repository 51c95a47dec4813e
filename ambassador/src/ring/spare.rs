//! Spare heap buffers of this thread: heads are written and copies taken for
//! every request, and each takes one of them.

use crate::spares::Spares;

/// Buffers kept.
const KEPT_MAX: usize = 128;

/// No buffer is smaller. Most heads have as many.
const BYTES_MIN: usize = 256;

/// A larger buffer is not kept. Few heads are as long.
const BYTES_MAX: usize = 2 * 1024;

thread_local! {
    static SPARES: Spares<Vec<u8>> = const { Spares::new(KEPT_MAX) };
}

/// An empty buffer with room for this many bytes.
#[inline(always)]
pub(crate) fn take(bytes: usize) -> Vec<u8> {
    if bytes > BYTES_MAX {
        return Vec::with_capacity(bytes);
    }
    let mut buffer = SPARES.with(Spares::take).unwrap_or_default();
    if buffer.capacity() < bytes {
        // Few sizes, so that most fit whoever takes them next.
        buffer.reserve_exact(bytes.next_power_of_two().max(BYTES_MIN));
    }
    buffer
}

/// Keeps a buffer whose bytes nobody needs any more.
#[inline]
pub(super) fn give_back(mut buffer: Vec<u8>) {
    if !(1..=BYTES_MAX).contains(&buffer.capacity()) {
        return;
    }
    buffer.clear();
    // No thread-local is left when a thread ends.
    let _ = SPARES.try_with(|spares| spares.keep(buffer));
}

/// Frees what is kept.
pub(crate) fn drop_all() {
    SPARES.with(Spares::drop_all);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_for_no_more_than_it_is_kept_for() {
        let mut buffer = take(100);
        buffer.extend_from_slice(b"what was in it");
        let place = buffer.as_ptr();
        give_back(buffer);
        let again = take(50);
        assert!(again.is_empty() && again.capacity() >= 100);
        assert_eq!(again.as_ptr(), place);
        give_back(take(BYTES_MAX + 1));
        (0..2 * KEPT_MAX).for_each(|_| give_back(Vec::with_capacity(1)));
        SPARES.with(|spares| {
            assert_eq!(spares.count(), KEPT_MAX);
            while let Some(kept) = spares.take() {
                assert!(kept.capacity() <= BYTES_MAX);
            }
        });
    }
}
