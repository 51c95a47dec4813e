//! A program that never waits, on the first CPU: what a proxy that is bound to
//! that CPU has to share it with.

use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::Running;

use crate::process;

/// It runs until it is dropped.
pub struct Neighbour(Running);

impl Neighbour {
    /// Starts it.
    pub fn start() -> Self {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", "sh", "-c", "while :; do :; done"]);
        Self(Running::start(command.stdin(Stdio::null())))
    }

    /// The time that it had on the CPU.
    pub fn cpu_time(&self) -> Duration {
        process::cpu_time(&[self.0.id()])
    }
}
