//! Heap buffers of this thread's chunks, used again for the next ones: heads
//! are written and copies taken for every request.

use std::cell::RefCell;

/// Buffers kept. More are made when more are in use at once, and dropped
/// afterwards.
const KEPT_MAX: usize = 64;

/// A larger buffer is not kept. Few heads are as long.
const BYTES_MAX: usize = 2 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for this many bytes.
pub fn take(bytes: usize) -> Vec<u8> {
    if bytes > BYTES_MAX {
        return Vec::with_capacity(bytes);
    }
    let mut buffer = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    buffer.reserve_exact(bytes);
    buffer
}

/// Keeps a buffer whose bytes nobody needs any more.
pub fn give_back(mut buffer: Vec<u8>) {
    if !(1..=BYTES_MAX).contains(&buffer.capacity()) {
        return;
    }
    buffer.clear();
    // No thread-local is left when a thread ends.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < KEPT_MAX {
            spare.push(buffer);
        }
    });
}
