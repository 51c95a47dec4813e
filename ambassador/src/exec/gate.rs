//! The forked process that becomes the command once its gate is opened.

#![expect(unsafe_code, reason = "fork into a cgroup, exec and wait by hand")]

use std::ffi::{CString, c_char};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::{Command, Outcome, clone};
use crate::workload::Cgroup;

/// The exit status of a process whose gate was closed instead of opened;
/// nobody sees it.
const NEVER_RELEASED: i32 = 125;

/// The words of a command as execvp takes them, made before the fork, since
/// the child must not allocate.
pub(super) struct Words {
    program: CString,
    /// Points into `_words`, ends with a null pointer.
    pointers: Vec<*const c_char>,
    _words: Vec<CString>,
}

impl Words {
    /// None if a word contains a NUL byte.
    pub(super) fn new(command: &Command) -> Option<Self> {
        let program = CString::new(command.program.as_bytes()).ok()?;
        let words: Vec<CString> = std::iter::once(&command.program)
            .chain(&command.arguments)
            .map(|word| CString::new(word.as_bytes()))
            .collect::<Result<_, _>>()
            .ok()?;
        let pointers = words
            .iter()
            .map(|word| word.as_ptr())
            .chain(std::iter::once(std::ptr::null()))
            .collect();
        Some(Self {
            program,
            pointers,
            _words: words,
        })
    }
}

#[derive(Debug)]
pub(super) struct Gated {
    pid: libc::pid_t,
    pidfd: OwnedFd,
    /// Writing opens the gate, closing it ends the process.
    gate: Option<PipeWriter>,
    /// The errno of a failed exec arrives here; closed by a successful one.
    report: PipeReader,
}

impl Gated {
    /// `mask` is the signal mask that the command is to have.
    pub(super) fn fork(words: &Words, cgroup: &Cgroup, mask: &libc::sigset_t) -> io::Result<Self> {
        let (gate_reader, gate) = io::pipe()?;
        let (report, report_writer) = io::pipe()?;
        let mut pidfd = -1;
        let mut arguments = clone::Arguments::into_cgroup(cgroup.as_fd()).with_pidfd(&mut pidfd);
        // SAFETY: the child runs `become_command` alone, which allocates
        // nothing and does not return; `pidfd` outlives the call.
        let pid = unsafe { clone::clone(&mut arguments)? };
        if pid == 0 {
            let fds = [
                gate.as_raw_fd(),
                gate_reader.as_raw_fd(),
                report_writer.as_raw_fd(),
            ];
            // SAFETY: we are in the child, and these are its descriptors.
            unsafe { become_command(words, fds, mask) }
        }
        // SAFETY: CLONE_PIDFD put a new descriptor there; it is ours.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self {
            pid,
            pidfd,
            gate: Some(gate),
            report,
        })
    }

    pub(super) fn release(&mut self) -> io::Result<()> {
        match self.gate.take() {
            // EPIPE: the process was ended meanwhile, by a signal; waiting
            // for it tells.
            Some(mut gate) => match gate.write_all(b"x") {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    pub(super) fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Readable when the process has ended.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether the process is in the process group of its parent, where
    /// signals of the terminal reach both.
    pub(super) fn in_own_group(&self) -> bool {
        // SAFETY: both read a number; the pid is that of our unreaped child.
        unsafe { libc::getpgid(self.pid) == libc::getpgrp() }
    }

    /// Takes the status of the process, which has ended.
    pub(super) fn reap(&mut self) -> io::Result<Outcome> {
        let status = self.status()?;
        let mut errno = [0; 4];
        // The writing end is closed by now: by exec, or with the process.
        match self.report.read_exact(&mut errno) {
            Ok(()) => Ok(Outcome::NotRun(io::Error::from_raw_os_error(
                i32::from_ne_bytes(errno),
            ))),
            Err(_) => Ok(Outcome::Ended(status)),
        }
    }

    pub(super) fn end_if_gated(&mut self) {
        if self.gate.take().is_some() {
            // It ends by itself now; there is nobody to tell its status.
            let _ = self.status();
        }
    }

    fn status(&self) -> io::Result<ExitStatus> {
        let mut status = 0;
        loop {
            // SAFETY: the status is written to a live int.
            if unsafe { libc::waitpid(self.pid, &raw mut status, 0) } == self.pid {
                return Ok(ExitStatus::from_raw(status));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// The child's whole life until it is the command.
///
/// # Safety
/// Only in a forked child; `fds` are the gate's writing end, which is closed,
/// so that the end of the parent closes the gate, its reading end and the
/// report's writing end.
unsafe fn become_command(words: &Words, fds: [i32; 3], mask: &libc::sigset_t) -> ! {
    let [gate_writer, gate, report] = fds;
    // SAFETY: all of these are async-signal-safe calls on memory that was
    // made before the fork. The standard library ignores SIGPIPE at start; a
    // command expects the default.
    unsafe {
        libc::close(gate_writer);
        let mut byte = 0u8;
        loop {
            match libc::read(gate, (&raw mut byte).cast(), 1) {
                1 => break,
                -1 if *libc::__errno_location() == libc::EINTR => {}
                _ => libc::_exit(NEVER_RELEASED),
            }
        }
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut());
        libc::execvp(words.program.as_ptr(), words.pointers.as_ptr());
        let errno = *libc::__errno_location();
        libc::write(report, (&raw const errno).cast(), size_of::<i32>());
        libc::_exit(127)
    }
}
