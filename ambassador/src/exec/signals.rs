//! The signals that `exec` forwards, taken one by one from a descriptor.

#![expect(unsafe_code, reason = "std has no signalfd")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::workload::signals::FORWARDED;

#[derive(Debug)]
pub(super) struct Signals {
    fd: OwnedFd,
    before: libc::sigset_t,
}

pub(super) struct Signal {
    pub(super) number: i32,
    /// The terminal's driver sent it, to the whole foreground process group.
    pub(super) from_terminal: bool,
}

impl Signals {
    /// Blocks the forwarded signals in the calling thread, and in those it
    /// starts from now on. One that was ignored when we were started (nohup)
    /// stays ignored.
    pub(super) fn block() -> io::Result<Self> {
        // SAFETY: the sets are initialised by sigemptyset before use, and all
        // pointers are to live values; the descriptor is new and ours.
        unsafe {
            let mut set = MaybeUninit::uninit();
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for signal in FORWARDED {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, std::ptr::null(), &raw mut action);
                if action.sa_sigaction != libc::SIG_IGN {
                    libc::sigaddset(&raw mut set, signal);
                }
            }
            let fd =
                match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                    -1 => return Err(io::Error::last_os_error()),
                    fd => OwnedFd::from_raw_fd(fd),
                };
            let mut before = MaybeUninit::uninit();
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr());
            Ok(Self {
                fd,
                before: before.assume_init(),
            })
        }
    }

    /// The mask as it was.
    pub(super) fn before(&self) -> &libc::sigset_t {
        &self.before
    }

    /// The next signal that has arrived.
    pub(super) fn next(&self) -> io::Result<Option<Signal>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer has the size given; signalfd writes whole records.
        let length = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if length == size as isize {
            // SAFETY: plain data, zeroed before and filled now.
            let info = unsafe { info.assume_init() };
            return Ok(Some(Signal {
                number: info.ssi_signo as i32,
                from_terminal: info.ssi_code == SI_KERNEL,
            }));
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            error => Err(error),
        }
    }
}

/// `SI_KERNEL` of siginfo.h.
const SI_KERNEL: i32 = 0x80;

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends a signal to a process of the cgroup of the command.
pub(super) fn send(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory. The pid is that of our unreaped child,
    // or was read from the cgroup a moment ago.
    match unsafe { libc::kill(pid, number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
