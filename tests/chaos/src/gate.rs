//! Where callers wait while the books are checked.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Open at first.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    paused: bool,
    closed: bool,
    inside: usize,
    /// How often it was paused.
    pauses: u64,
}

/// What a caller finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It may pass at once. A connection from before the last of so many pauses
    /// is to be put away: whoever sleeps long may miss one.
    Open(u64),
    /// It is to put its connection away, and come back.
    Paused,
    /// The run is over.
    Closed,
}

impl Gate {
    /// Counts a caller in, where it may pass.
    pub fn enter(&self) -> Found {
        let mut state = self.state();
        if state.closed {
            return Found::Closed;
        }
        if state.paused {
            return Found::Paused;
        }
        state.inside += 1;
        Found::Open(state.pauses)
    }

    /// Counts it out again.
    pub fn leave(&self) {
        self.state().inside -= 1;
        self.changed.notify_all();
    }

    /// Waits until the gate is open, or closed for good.
    pub fn wait(&self) {
        let mut state = self.state();
        while state.paused && !state.closed {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets nobody in, and waits until everybody is out.
    pub fn pause(&self) {
        let mut state = self.state();
        state.paused = true;
        state.pauses += 1;
        while state.inside > 0 {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets callers in again.
    pub fn open(&self) {
        self.state().paused = false;
        self.changed.notify_all();
    }

    /// Ends the run for all callers.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
