//! The streams of a connection, in the order of their ids, and what is
//! remembered of those that are gone.

use std::cell::Cell;
use std::collections::VecDeque;

use crate::http2::stream::{ReceiveState, SendState, Stream, StreamId};
use crate::http2::window::WindowError;

/// Streams reset here that are remembered at most: what is on its way for them
/// is ignored, what comes for older ones is an error.
const RESETS_REMEMBERED_MAX: usize = 256;

/// Streams that fit without new memory after many have gone.
const CAPACITY_KEPT: usize = 4;

/// The table.
#[derive(Debug)]
pub(super) struct Streams<T> {
    list: VecDeque<Stream<T>>,
    /// Where the stream is that was asked for last: most ask for the same again.
    found: Cell<usize>,
    /// How many of them are not closed.
    active: usize,
    /// The highest id that was used.
    highest: StreamId,
    /// The ids that were passed over last: above the first, below the second.
    skipped: (StreamId, StreamId),
    /// Streams reset here to which the peer may still send.
    reset: VecDeque<StreamId>,
}

/// What an id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A stream that is not closed, and where it is in the table.
    Active(usize),
    /// Nobody has used it yet.
    Idle,
    /// It was reset here: what comes is to be ignored.
    ResetHere,
    /// It was closed.
    Closed,
    /// It was passed over, which closes it without use (5.1.1).
    Skipped,
}

impl<T> Streams<T> {
    pub(super) const fn new() -> Self {
        Self {
            list: VecDeque::new(),
            found: Cell::new(0),
            active: 0,
            highest: StreamId::CONNECTION,
            skipped: (StreamId::CONNECTION, StreamId::CONNECTION),
            reset: VecDeque::new(),
        }
    }

    /// How many there are that are not closed.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// How many there are, those included that are closed and kept by their user.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The highest id that was used.
    pub(super) fn highest(&self) -> StreamId {
        self.highest
    }

    /// What an id stands for.
    pub(super) fn place(&self, id: StreamId) -> Place {
        if let Some(at) = self.find(id)
            && !self.list[at].is_closed()
        {
            return Place::Active(at);
        }
        if !id.is_of_client() || id > self.highest {
            Place::Idle
        } else if self.reset.contains(&id) {
            Place::ResetHere
        } else if id > self.skipped.0 && id < self.skipped.1 {
            Place::Skipped
        } else {
            Place::Closed
        }
    }

    /// An id is used for the first time; it is above all before.
    pub(super) fn use_id(&mut self, id: StreamId) {
        if id.0 > self.highest.0 + 2 {
            self.skipped = (self.highest, id);
        }
        self.highest = id;
    }

    /// A stream begins; its id is the one used last.
    pub(super) fn insert(&mut self, stream: Stream<T>) {
        self.active += usize::from(!stream.is_closed());
        self.found.set(self.list.len());
        self.list.push_back(stream);
    }

    /// The stream at a place.
    pub(super) fn at(&mut self, at: usize) -> &mut Stream<T> {
        &mut self.list[at]
    }

    /// A stream, closed or not.
    pub(super) fn get(&self, id: StreamId) -> Option<&Stream<T>> {
        self.find(id).map(|at| &self.list[at])
    }

    /// A stream, closed or not.
    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream<T>> {
        self.find(id).map(|at| &mut self.list[at])
    }

    /// Every stream, in the order of ids.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream<T>> {
        self.list.iter_mut()
    }

    /// Nothing more is received in a stream.
    pub(super) fn finish_receive(&mut self, at: usize) {
        self.change(at, |stream| stream.receive = ReceiveState::Finished);
    }

    /// Nothing more is sent in a stream.
    pub(super) fn finish_send(&mut self, at: usize) {
        self.change(at, |stream| stream.send = SendState::Finished);
    }

    /// Closes a stream in both directions.
    pub(super) fn close(&mut self, at: usize) {
        self.finish_receive(at);
        self.finish_send(at);
    }

    /// A stream was reset here.
    pub(super) fn remember_reset(&mut self, id: StreamId) {
        if self.reset.len() == RESETS_REMEMBERED_MAX {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// The peer has ended a stream that was reset here: nothing more comes.
    pub(super) fn forget_reset(&mut self, id: StreamId) {
        if let Some(at) = self.reset.iter().position(|reset| *reset == id) {
            self.reset.remove(at);
        }
    }

    /// Takes a stream out of the table.
    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream<T>> {
        let at = self.find(id)?;
        let stream = self.list.remove(at)?;
        self.active -= usize::from(!stream.is_closed());
        if self.list.is_empty() {
            self.list.shrink_to(CAPACITY_KEPT);
        }
        Some(stream)
    }

    /// Takes out the stream with the highest id, where that is above `last`.
    pub(super) fn remove_above(&mut self, last: StreamId) -> Option<Stream<T>> {
        let id = self.list.back()?.id;
        if id <= last {
            return None;
        }
        self.remove(id)
    }

    /// The peer has changed the window that streams begin with (6.9.2).
    pub(super) fn shift_send_windows(&mut self, by: i64) -> Result<(), WindowError> {
        let mut active = self.list.iter_mut().filter(|stream| !stream.is_closed());
        active.try_for_each(|stream| stream.send_window.shift(by).map(drop))
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Stream<T>)) {
        let stream = &mut self.list[at];
        let was_closed = stream.is_closed();
        change(stream);
        self.active -= usize::from(!was_closed && stream.is_closed());
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.list.capacity()
    }

    /// Where in the table a stream is.
    #[inline]
    pub(super) fn find(&self, id: StreamId) -> Option<usize> {
        let found = self.found.get();
        if self.list.get(found).is_some_and(|stream| stream.id == id) {
            return Some(found);
        }
        self.search(id)
    }

    #[inline(never)]
    fn search(&self, id: StreamId) -> Option<usize> {
        // Where none has gone in between, the number says where it is.
        let behind = id.0.checked_sub(self.list.front()?.id.0)? as usize / 2;
        let found = match self.list.get(behind) {
            Some(stream) if stream.id == id => behind,
            _ => self
                .list
                .binary_search_by_key(&id, |stream| stream.id)
                .ok()?,
        };
        self.found.set(found);
        Some(found)
    }
}
