//! clone3(2): a child that starts its life inside a cgroup (Linux 5.7).
//!
//! Moving a process afterwards would write-lock every fork of the machine for
//! some milliseconds, and leave an instant in which it is in the wrong group.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// `struct clone_args` of sched.h, up to the cgroup.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) flags: u64,
    /// Where CLONE_PIDFD puts its descriptor.
    pub(super) pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const _: () = assert!(size_of::<Arguments>() == 88, "CLONE_ARGS_SIZE_VER2");

/// `CLONE_INTO_CGROUP` of sched.h.
const INTO_CGROUP: u64 = 0x2_0000_0000;

impl Arguments {
    /// An ordinary fork into a cgroup.
    pub(super) fn into_cgroup(cgroup: BorrowedFd<'_>) -> Self {
        Self {
            flags: INTO_CGROUP,
            exit_signal: libc::SIGCHLD as u64,
            cgroup: cgroup.as_raw_fd() as u64,
            ..Self::default()
        }
    }

    /// Also asks for a pidfd, which lands in `slot` in the parent.
    pub(super) fn with_pidfd(mut self, slot: &mut RawFd) -> Self {
        self.flags |= libc::CLONE_PIDFD as u64;
        self.pidfd = (&raw mut *slot) as u64;
        self
    }
}

/// Clones; returns 0 in the child, its pid in the parent.
///
/// # Safety
/// As after any fork of a process that may have threads, the child may only do
/// what is async-signal-safe: no allocation, no lock, no unwinding, until it
/// executes a program or ends. What `pidfd` points to must be alive.
#[expect(unsafe_code, reason = "std has no clone3")]
pub(super) unsafe fn clone(arguments: &mut Arguments) -> io::Result<libc::pid_t> {
    // SAFETY: no stack is given and CLONE_VM is not set, so the child goes on
    // with a copy of this one; the rest is the caller's promise.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut *arguments,
            size_of::<Arguments>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid as libc::pid_t),
    }
}
