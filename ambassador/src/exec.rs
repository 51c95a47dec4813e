//! `ambassador exec`: runs a command in a cgroup of its own, beside the proxy.
//!
//! The order is what makes it work:
//! 1. The caller starts the helper.
//! 2. [`Launched::prepare`] tells the helper of the cgroup, makes it and forks
//!    the command into it, before the proxy starts a thread or gives up a
//!    privilege, so that the command keeps the ones it was called with. It
//!    waits at a gate.
//! 3. The caller attaches the programs, gives up its privileges and starts its
//!    threads.
//! 4. [`Launched::release`] opens the gate: the command is executed.
//! 5. [`Launched::wait`] forwards signals until the command has ended and its
//!    cgroup is empty, daemonised children included.
//! 6. The caller ends the proxy and then the helper, which removes the cgroup.
//!    It does the same, on its own, when the proxy is killed.
//!
//! The command stays in the process group it was called in, so that the
//! terminal, job control and pipes of the shell behave as without us. Its
//! cgroup is a sibling of the proxy: the proxy's own group does not change.

mod clone;
mod gate;
mod signals;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitStatus;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::workload::Helper;
use crate::workload::cgroup::{self, Cgroup, CgroupError};
use gate::Gated;
use signals::Signals;

/// What to run, as on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// Looked up in PATH where it has no slash.
    pub program: OsString,
    /// Its arguments, without the program.
    pub arguments: Vec<OsString>,
}

/// Why a command could not be prepared.
#[derive(Debug)]
pub(crate) enum LaunchError {
    /// There is no usable cgroup2 hierarchy.
    NoCgroup(CgroupError),
    /// The cgroup could not be made: needs root, or a delegated group.
    MakeCgroup(io::Error),
    /// The program or an argument contains a NUL byte.
    NulByte,
    /// The process could not be forked into the cgroup.
    Fork(io::Error),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCgroup(_) => "exec needs cgroup2",
            Self::MakeCgroup(_) => "cannot make a cgroup; run as root, or in a delegated cgroup",
            Self::NulByte => "the command contains a NUL byte",
            Self::Fork(_) => "cannot start a process in its cgroup",
        })
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoCgroup(error) => Some(error),
            Self::MakeCgroup(error) | Self::Fork(error) => Some(error),
            Self::NulByte => None,
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ran.
    Ended(ExitStatus),
    /// It could not be executed.
    NotRun(io::Error),
}

impl Outcome {
    /// The exit code to end with: the command's own, 128 + n when it was
    /// killed by signal n, 127 when it does not exist, 126 when it can't be
    /// run.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Ended(status) => {
                let signal = std::os::unix::process::ExitStatusExt::signal(status);
                let code = status.code().or(signal.map(|n| 128 + n));
                code.and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(u8::MAX)
            }
            Self::NotRun(error) if error.kind() == io::ErrorKind::NotFound => 127,
            Self::NotRun(_) => 126,
        }
    }
}

/// A command in its cgroup: forked, then running.
///
/// Dropping it before it is released ends the process; either way its cgroup
/// is removed if it is empty. So return from main instead of calling
/// `process::exit` while one is alive.
#[derive(Debug)]
pub(crate) struct Launched {
    cgroup: Cgroup,
    process: Gated,
    signals: Signals,
}

impl Launched {
    /// Makes the cgroup, which the helper removes with all that runs in it when
    /// the proxy has ended, however it ended; forks the process that will become
    /// the command. Blocks the signals that [`wait`](Self::wait) forwards, for this thread
    /// and those it starts: call it before any other thread runs.
    pub(crate) fn prepare(command: &Command, helper: &Helper) -> Result<Self, LaunchError> {
        let words = gate::Words::new(command).ok_or(LaunchError::NulByte)?;
        cgroup::own_cgroup().map_err(LaunchError::NoCgroup)?;
        // By the helper, which removes it: we may be killed between any two lines.
        let cgroup = helper.make_cgroup().map_err(LaunchError::MakeCgroup)?;
        let started = Signals::block().and_then(|signals| {
            Gated::fork(&words, &cgroup, signals.before()).map(|process| (process, signals))
        });
        match started {
            Ok((process, signals)) => Ok(Self {
                cgroup,
                process,
                signals,
            }),
            Err(error) => {
                // The first failure is the one to report.
                let _ = cgroup.remove();
                Err(LaunchError::Fork(error))
            }
        }
    }

    /// The cgroup of the command: what to capture.
    pub(crate) fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// The process that is, or will be, the command.
    #[cfg(test)]
    fn process_id(&self) -> i32 {
        self.process.pid()
    }

    /// Opens the gate: the command is executed now.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        self.process.release()
    }

    /// Blocks the calling thread until the command has ended and no process
    /// is left in its cgroup; forwards signals meanwhile. A signal that the
    /// terminal sent has reached the command itself. Once the command has
    /// ended, signals go to all that it left running. The helper delivers
    /// those for programs of another user, which a proxy without CAP_KILL
    /// cannot.
    pub(crate) fn wait(&mut self, helper: &Helper) -> io::Result<Outcome> {
        let events = self.cgroup.events()?;
        let mut outcome = None;
        loop {
            if outcome.is_some() && !events.populated()? {
                break;
            }
            let (process, is_over) = (self.process.pidfd(), outcome.is_some());
            let mut watched = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&events, PollFlags::PRI),
                PollFd::new(&process, PollFlags::IN),
            ];
            // A process that has ended stays ready.
            let watched = &mut watched[..if is_over { 2 } else { 3 }];
            match poll(watched, None) {
                Err(Errno::INTR) => {}
                polled => drop(polled?),
            }
            if !is_over && !watched[2].revents().is_empty() {
                outcome = Some(self.process.reap()?);
            }
            while let Some(signal) = self.signals.next()? {
                match &outcome {
                    None if signal.from_terminal && self.process.in_own_group() => {}
                    None => self.forward(signal.number, &[self.process.pid()], helper),
                    Some(_) => self.forward(signal.number, &self.cgroup.processes()?, helper),
                }
            }
        }
        outcome.ok_or_else(|| io::ErrorKind::Interrupted.into())
    }

    /// A process that has ended meanwhile, or that cannot be reached at all,
    /// is no reason to stop waiting.
    fn forward(&self, number: i32, to: &[i32], helper: &Helper) {
        for &pid in to {
            if let Err(error) = signals::send(pid, number)
                && error.raw_os_error() == Some(libc::EPERM)
            {
                let _ = helper.signal(pid, number);
            }
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.process.end_if_gated();
        // Not empty, or not ours to remove any more: the helper does it.
        let _ = self.cgroup.remove();
    }
}

#[cfg(test)]
mod tests;
