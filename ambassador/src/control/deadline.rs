//! Ends the process if its drain takes too long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What the end may take beyond the drain, whatever hangs.
const BEYOND: Duration = Duration::from_millis(800);

/// A thread that hangs, in a helper that was stopped for instance, must not keep
/// the process from ending in time.
pub(crate) struct Deadline {
    drain: Box<dyn Fn() -> Option<Duration> + Send + Sync>,
    armed: AtomicBool,
}

impl Deadline {
    /// A drain may take as long as `drain` says when it begins; `None`: it is
    /// nobody's here to end the process.
    pub(crate) fn new(drain: impl Fn() -> Option<Duration> + Send + Sync + 'static) -> Self {
        Self {
            drain: Box::new(drain),
            armed: AtomicBool::new(false),
        }
    }

    /// A drain begins, or is told again to.
    pub(crate) fn arm(&self) {
        let Some(drain) = (self.drain)() else {
            return;
        };
        if self.armed.swap(true, Ordering::Relaxed) {
            return;
        }
        let within = drain + BEYOND;
        let wait = move || {
            thread::sleep(within);
            tracing::error!("the drain took too long; remaining connections are cut");
            std::process::exit(0);
        };
        if let Err(error) = thread::Builder::new().name("deadline".into()).spawn(wait) {
            tracing::error!(%error, "cannot start the thread that ends a hung drain");
        }
    }
}
