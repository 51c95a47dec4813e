//! Received bytes, owned: a part of a shared buffer, or bytes on the heap.

use std::fmt;
use std::ops::{Deref, Range};
use std::rc::Rc;

use super::buffers::{Buffers, SIZE};
use super::spare;

/// Chunks that one send gathers at most.
pub(super) const GATHER_MAX: usize = 8;

/// Bytes of a transfer that one send takes along at most: those that wait when
/// its peer stops reading.
pub(super) const SENT_AT_ONCE: usize = 4 * SIZE;

/// Some bytes. Splitting one of a shared buffer copies nothing; both parts
/// then hold the buffer.
pub struct Chunk {
    store: Store,
    start: u32,
    end: u32,
}

enum Store {
    Shared { buffers: Rc<Buffers>, buffer: u16 },
    Heap(Vec<u8>),
}

/// Chunks that are sent together, in order.
#[derive(Debug, Default)]
pub struct Gather {
    /// A head and the first part of its body, or the one part of a relay: most
    /// have no more, and then nothing is allocated.
    first: Option<Chunk>,
    second: Option<Chunk>,
    rest: Vec<Chunk>,
    bytes: usize,
}

impl Chunk {
    /// The first `length` bytes of a buffer that the caller holds once; the
    /// chunk takes that hold over.
    pub(super) fn of_buffer(buffers: Rc<Buffers>, buffer: u16, length: usize) -> Self {
        Self {
            store: Store::Shared { buffers, buffer },
            start: 0,
            end: length as u32,
        }
    }

    /// The bytes that `write` appends to an empty buffer, about `bytes` of them.
    #[inline(always)]
    pub fn written(bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut buffer = spare::take(bytes);
        write(&mut buffer);
        Self::from(buffer)
    }

    /// The same bytes, on the heap.
    #[inline]
    fn copy_of(bytes: &[u8]) -> Self {
        Self::written(bytes.len(), |copy| copy.extend_from_slice(bytes))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether it holds a buffer that others need.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.store, Store::Shared { .. })
    }

    /// Keeps the first `at` bytes and returns the rest.
    ///
    /// # Panics
    /// When there are fewer than `at`.
    #[inline(always)]
    pub fn split_off(&mut self, at: usize) -> Self {
        assert!(at <= self.len(), "split within the chunk");
        let middle = self.start + at as u32;
        let store = match &mut self.store {
            Store::Shared { buffers, buffer } => {
                buffers.hold(*buffer);
                Store::Shared {
                    buffers: Rc::clone(buffers),
                    buffer: *buffer,
                }
            }
            Store::Heap(bytes) => {
                let rest = Self::copy_of(&bytes[middle as usize..self.end as usize]);
                self.end = middle;
                return rest;
            }
        };
        let rest = Self {
            store,
            start: middle,
            end: self.end,
        };
        self.end = middle;
        rest
    }

    /// The same where there is a rest.
    #[inline(always)]
    pub fn split_rest(&mut self, at: usize) -> Option<Self> {
        (at < self.len()).then(|| self.split_off(at))
    }

    /// A part of it.
    ///
    /// # Panics
    /// When it has not so many.
    pub fn part(&self, part: Range<usize>) -> Self {
        assert!(part.end <= self.len(), "a part within the chunk");
        match &self.store {
            Store::Shared { buffers, buffer } => {
                buffers.hold(*buffer);
                Self {
                    store: Store::Shared {
                        buffers: Rc::clone(buffers),
                        buffer: *buffer,
                    },
                    start: self.start + part.start as u32,
                    end: self.start + part.end as u32,
                }
            }
            Store::Heap(_) => Self::copy_of(&self[part]),
        }
    }

    /// Keeps the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        if length < self.len() {
            self.end = self.start + length as u32;
        }
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "advance within the chunk");
        self.start += count as u32;
    }

    /// Moves the bytes to the heap where they are in a shared buffer. For what
    /// is kept while a peer is waited for.
    pub fn detach(&mut self) {
        if self.is_shared() {
            *self = Self::copy_of(self);
        }
    }

    /// Takes `next` over, on the heap, where both together need no more than a
    /// buffer; else gives it back. A peer that sends byte by byte must not cost a
    /// chunk for each.
    pub(super) fn absorb(&mut self, next: Self) -> Option<Self> {
        if self.len() + next.len() > SIZE {
            return Some(next);
        }
        match &mut self.store {
            Store::Heap(bytes) if bytes.capacity() >= SIZE => {
                bytes.truncate(self.end as usize);
                if bytes.len() + next.len() > SIZE {
                    bytes.drain(..self.start as usize);
                    (self.start, self.end) = (0, bytes.len() as u32);
                }
                bytes.extend_from_slice(&next);
                self.end = bytes.len() as u32;
            }
            _ => {
                let mut both = Vec::with_capacity(SIZE);
                both.extend_from_slice(self);
                both.extend_from_slice(&next);
                *self = Self::from(both);
            }
        }
        None
    }
}

impl From<Vec<u8>> for Chunk {
    /// # Panics
    /// Above 4 GiB.
    fn from(bytes: Vec<u8>) -> Self {
        let end = u32::try_from(bytes.len()).expect("a chunk is smaller than 4 GiB");
        Self {
            store: Store::Heap(bytes),
            start: 0,
            end,
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, end) = (self.start as usize, self.end as usize);
        match &self.store {
            Store::Shared { buffers, buffer } => buffers.bytes(*buffer, start, end),
            Store::Heap(bytes) => &bytes[start..end],
        }
    }
}

impl Drop for Chunk {
    #[inline]
    fn drop(&mut self) {
        match &mut self.store {
            Store::Shared { buffers, buffer } => buffers.release(*buffer),
            Store::Heap(bytes) => spare::give_back(std::mem::take(bytes)),
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}

impl Gather {
    /// Adds a chunk at the end; an empty one is dropped.
    ///
    /// # Panics
    /// When the gather is full.
    #[inline(always)]
    pub fn push(&mut self, chunk: Chunk) {
        assert!(!self.is_full(), "a gather holds {GATHER_MAX} chunks");
        if chunk.is_empty() {
            return;
        }
        self.bytes += chunk.len();
        match (&self.first, &self.second) {
            (None, _) => self.first = Some(chunk),
            (_, None) => self.second = Some(chunk),
            _ => self.rest.push(chunk),
        }
    }

    /// Adds a chunk before all others; an empty one is dropped.
    ///
    /// # Panics
    /// When the gather is full.
    #[inline(always)]
    pub fn push_front(&mut self, chunk: Chunk) {
        assert!(!self.is_full(), "a gather holds {GATHER_MAX} chunks");
        if chunk.is_empty() {
            return;
        }
        self.bytes += chunk.len();
        if let Some(second) = self.second.take() {
            self.rest.insert(0, second);
        }
        self.second = self.first.replace(chunk);
    }

    /// Whether another chunk has no place.
    pub fn is_full(&self) -> bool {
        self.rest.len() + 2 >= GATHER_MAX
    }

    /// Whether one more chunk of a transfer may go along.
    pub fn has_room(&self) -> bool {
        !self.is_full() && self.bytes() + SIZE <= SENT_AT_ONCE
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The chunk, where there is one and no other.
    pub(super) fn only(&self) -> Option<&Chunk> {
        self.first.as_ref().filter(|_| self.second.is_none())
    }

    /// Bytes in all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The chunks, in order.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.first.iter().chain(&self.second).chain(&self.rest)
    }

    /// Drops the first `count` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn advance(&mut self, mut count: usize) {
        if count == self.bytes {
            *self = Self::default();
            return;
        }
        assert!(count <= self.bytes, "advance within the gather");
        self.bytes -= count;
        for chunk in self.chunks_mut() {
            let dropped = count.min(chunk.len());
            chunk.advance(dropped);
            count -= dropped;
        }
        // What is used up gives its buffer back.
        while self.first.as_ref().is_some_and(|first| first.is_empty()) {
            self.first = self.second.take();
            self.second = (!self.rest.is_empty()).then(|| self.rest.remove(0));
        }
    }

    /// Moves what is in shared buffers to the heap. For what is kept while a
    /// peer is waited for.
    pub fn detach(&mut self) {
        self.chunks_mut().for_each(Chunk::detach);
    }

    fn chunks_mut(&mut self) -> impl Iterator<Item = &mut Chunk> {
        let few = self.first.iter_mut().chain(&mut self.second);
        few.chain(&mut self.rest)
    }
}

impl From<Chunk> for Gather {
    fn from(chunk: Chunk) -> Self {
        Self {
            bytes: chunk.len(),
            first: (!chunk.is_empty()).then_some(chunk),
            ..Self::default()
        }
    }
}
