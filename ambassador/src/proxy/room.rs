//! Limits connections of applications, of one listener and of the process,
//! counted over all shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// All connections of the process.
static ALL: Room = Room::unlimited();

/// Room for a number of connections.
#[derive(Debug)]
pub struct Room {
    /// `u32::MAX`: any number.
    max: AtomicU32,
    taken: AtomicU32,
}

/// The place of one connection, at its listener and in the process, until it is
/// dropped.
#[derive(Debug)]
pub struct Seat(Arc<Room>);

/// Changes how many connections the process may have; `None`: any number.
/// Those that are there may stay.
pub(crate) fn set_total(max: Option<u32>) {
    ALL.set_max(max);
}

impl Room {
    const fn unlimited() -> Self {
        Self {
            max: AtomicU32::new(u32::MAX),
            taken: AtomicU32::new(0),
        }
    }

    /// That of a listener; `None`: any number.
    pub fn new(max: Option<u32>) -> Arc<Self> {
        let room = Self::unlimited();
        room.set_max(max);
        Arc::new(room)
    }

    /// Changes its size; those who are there may stay.
    pub fn set_max(&self, max: Option<u32>) {
        self.max.store(max.unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Its size.
    pub fn max(&self) -> Option<u32> {
        Some(self.max.load(Ordering::Relaxed)).filter(|max| *max < u32::MAX)
    }

    /// A place for one more connection; `None`: there is none, here or in the
    /// process.
    pub fn enter(self: &Arc<Self>) -> Option<Seat> {
        if !self.take() {
            return None;
        }
        if !ALL.take() {
            self.leave();
            return None;
        }
        Some(Seat(Arc::clone(self)))
    }

    fn take(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        if before >= max {
            self.leave();
        }
        before < max
    }

    fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.leave();
        ALL.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_room_has_a_place_when_somebody_leaves_or_it_grows() {
        let room = Room::new(Some(2));
        assert_eq!(room.max(), Some(2));
        let first = room.enter().unwrap();
        let _second = room.enter().unwrap();
        assert!(room.enter().is_none());
        assert!(room.enter().is_none(), "who was refused is not counted");
        drop(first);
        let _third = room.enter().unwrap();
        assert!(room.enter().is_none());
        room.set_max(None);
        assert_eq!(room.max(), None);
        let _fourth = room.enter().unwrap();
        room.set_max(Some(1));
        assert!(room.enter().is_none());
    }
}
