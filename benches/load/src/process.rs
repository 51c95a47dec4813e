//! What a process asks of the kernel for itself.

use std::num::NonZeroU64;

use rustix::io::{Errno, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};

/// Keeps this thread, and what it starts, on `cpu`.
pub fn pin(cpu: usize) -> Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(Errno::INVAL);
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}

/// Raises the soft limit of open files to the hard one.
pub fn raise_open_files() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
}

/// Has timed waits of this thread end when they are due, not up to 50 us later
/// as the kernel's default slack allows.
pub fn wake_on_time() -> Result<()> {
    set_current_timer_slack(NonZeroU64::new(1))
}
