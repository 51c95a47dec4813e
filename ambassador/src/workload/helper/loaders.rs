//! Loaders of capture that are at work.
//!
//! Each is held by a descriptor of its process, so that whoever of the helper's
//! two processes is left can wait for it, be it its child or not.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use super::registry::refused;
use crate::clock;

/// How long loaders may take to see that the proxy is gone: loading programs
/// takes tens of milliseconds, a busy machine more.
const END_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Loaders at work at most: a proxy has one, and one more that prints what the
/// programs log.
const LOADERS_MAX: usize = 2;

/// Those that have not been waited for.
#[derive(Debug, Default)]
pub(super) struct Loaders(Vec<OwnedFd>);

impl Loaders {
    /// Fails where there are enough.
    pub(super) fn admit(&mut self) -> io::Result<()> {
        self.0.retain(|loader| !has_ended(loader));
        match self.0.len() < LOADERS_MAX {
            true => Ok(()),
            false => Err(refused("too many loaders at once")),
        }
    }

    pub(super) fn start(
        &mut self,
        subcommand: &str,
        socket: OwnedFd,
        error: Stdio,
    ) -> io::Result<()> {
        let loader = Command::new("/proc/self/exe")
            .arg(subcommand)
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .stderr(error)
            .spawn()?;
        // Its number is not given out again before it was waited for.
        let number = Pid::from_raw(loader.id() as i32).ok_or(Errno::SRCH)?;
        self.0.push(pidfd_open(number, PidfdFlags::empty())?);
        Ok(())
    }

    /// Waits for the one that was started last. One that is still spoken to
    /// does not end.
    pub(super) fn end_last(&mut self) -> io::Result<()> {
        match self.0.last() {
            Some(loader) if !ends_in_time(loader) => return Err(io::ErrorKind::TimedOut.into()),
            _ => drop(self.0.pop()),
        }
        Ok(())
    }

    /// Waits for all of them, and ends those that do not see the end.
    pub(super) fn end_all(self) {
        for loader in self.0 {
            if !ends_in_time(&loader) {
                // It cannot be stuck in anything but the kernel.
                let _ = pidfd_send_signal(&loader, Signal::KILL);
                ends_in_time(&loader);
            }
        }
    }

    pub(super) fn as_fds(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd).collect()
    }

    pub(super) fn replace(&mut self, loaders: Vec<OwnedFd>) {
        self.0 = loaders;
    }
}

fn ends_in_time(loader: &OwnedFd) -> bool {
    let until = clock::now() + END_WITHIN;
    while !has_ended(loader) {
        if clock::now() > until {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// Reaps it where it is a child of ours.
fn has_ended(loader: &OwnedFd) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match waitid(WaitId::PidFd(loader.as_fd()), options) {
        Ok(status) => status.is_some(),
        Err(_) => {
            let mut watched = [PollFd::new(loader, PollFlags::IN)];
            poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ended| ended > 0)
        }
    }
}
