//! Whether the program is ready: `/readyz`.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How far the program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Listeners do not accept yet.
    Starting = 0,
    /// Every listener accepts.
    Serving = 1,
    /// No new work is taken.
    Draining = 2,
}

/// The phase, and a check that capture works.
pub(crate) struct Readiness {
    phase: AtomicU8,
    canary: Option<Canary>,
    /// What is worth knowing although it serves.
    remarks: Mutex<[Option<String>; 2]>,
}

/// What `/readyz` may say something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remark {
    /// The slots of the token table.
    Slots = 0,
    /// The processes that run commands.
    Runners = 1,
}

/// Makes a connection in the captured group and says why it was not captured.
/// It may block; it runs on a thread of its own.
pub(super) type Canary = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A canary that takes longer has failed.
pub(super) const CANARY_WITHIN: Duration = Duration::from_secs(1);

impl Readiness {
    /// A program that starts; `canary` where capture is on.
    pub(crate) fn new(canary: Option<Canary>) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Starting as u8),
            canary,
            remarks: Mutex::default(),
        }
    }

    /// Has `/readyz` say something more, from now on, or no more.
    pub(crate) fn remark(&self, about: Remark, text: Option<String>) {
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        remarks[about as usize] = text;
    }

    /// What it says while the program serves.
    pub(super) fn text(&self) -> String {
        let remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = "ok".to_owned();
        for remark in remarks.iter().flatten() {
            text.push('\n');
            text.push_str(remark);
        }
        text
    }

    /// Says how far the program is.
    pub(crate) fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// How far the program is.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Runs the canary, where there is one.
    pub(super) fn try_canary(&self) -> Result<(), String> {
        self.canary.as_ref().map_or(Ok(()), |canary| canary())
    }

    pub(super) fn has_canary(&self) -> bool {
        self.canary.is_some()
    }
}
