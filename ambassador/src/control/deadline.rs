//! Ends the process where its drain does not end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// What the end may take beyond the drain, whatever hangs.
const BEYOND: Duration = Duration::from_millis(800);

/// A thread that hangs, in a helper that was stopped for instance, must not keep
/// the process from ending in time.
pub struct Deadline {
    drain: Box<dyn Fn() -> Option<Duration> + Send + Sync>,
    armed: AtomicU32,
}

impl Deadline {
    /// A drain may take as long as `drain` says when it begins; `None`: it is
    /// nobody's here to end the process.
    pub fn new(drain: impl Fn() -> Option<Duration> + Send + Sync + 'static) -> Self {
        Self {
            drain: Box::new(drain),
            armed: AtomicU32::new(0),
        }
    }

    /// A drain begins. The second time it is to end at once.
    pub fn arm(&self) {
        let Some(drain) = (self.drain)() else {
            return;
        };
        let within = match self.armed.fetch_add(1, Ordering::Relaxed) {
            0 => drain + BEYOND,
            1 => BEYOND,
            _ => return,
        };
        let wait = move || {
            thread::sleep(within);
            tracing::error!("the drain has not ended in time; what is left is cut");
            std::process::exit(0);
        };
        if let Err(error) = thread::Builder::new().name("deadline".into()).spawn(wait) {
            tracing::error!(%error, "nothing ends a drain that hangs");
        }
    }
}
