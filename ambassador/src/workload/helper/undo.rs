//! What the helper undoes when the proxy has ended.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Duties;
use crate::clock;
use crate::workload::{Cgroup, Netns, cgroup};

/// How long what runs in a cgroup may take to end after SIGTERM. In the usual
/// case the cgroup is empty by now and nothing is waited for.
const GRACE: Duration = Duration::from_secs(5);

/// The admin socket of `exec`, in its directory.
pub const ADMIN_SOCKET: &str = "admin.sock";

pub(super) struct Undo {
    duties: Duties,
    steps: Vec<Step>,
}

enum Step {
    Cgroup(PathBuf),
    Iptables(Netns, u32),
    TokenPrefix(Netns, u16),
    AdminDirectory(PathBuf),
}

impl Undo {
    pub(super) fn new(duties: Duties) -> Self {
        Self {
            duties,
            steps: Vec::new(),
        }
    }

    /// Only groups that `exec` makes: whoever speaks for the proxy must not
    /// have other services ended.
    pub(super) fn cgroup(&mut self, path: PathBuf) -> io::Result<()> {
        of_exec(&path)?;
        self.steps.push(Step::Cgroup(path));
        Ok(())
    }

    pub(super) fn iptables(&mut self, netns: Netns, owner: u32) {
        self.steps.push(Step::Iptables(netns, owner));
    }

    pub(super) fn token_prefix(&mut self, netns: Netns, proxy_port: u16) {
        self.steps.push(Step::TokenPrefix(netns, proxy_port));
    }

    /// Only a directory that `exec` made for its admin socket.
    pub(super) fn admin_directory(&mut self, path: PathBuf) -> io::Result<()> {
        of_exec(&path)?;
        self.steps.push(Step::AdminDirectory(path));
        Ok(())
    }

    /// The latest first: rules name the cgroup. A step that fails does not
    /// keep the others from being done.
    pub(super) fn all(self) -> io::Result<()> {
        let mut result = Ok(());
        for step in self.steps.into_iter().rev() {
            result = result.and(match step {
                Step::Cgroup(path) => end_cgroup(&path, GRACE),
                Step::Iptables(netns, owner) => (self.duties.remove_iptables)(&netns, owner),
                Step::TokenPrefix(netns, port) => (self.duties.remove_token_prefix)(&netns, port),
                Step::AdminDirectory(path) => remove_admin_directory(&path),
            });
        }
        result
    }
}

/// Removes the socket and its directory; anything else in there stays, and the
/// directory with it. One that is gone already is no error.
fn remove_admin_directory(path: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    gone(fs::remove_file(path.join(ADMIN_SOCKET)))?;
    gone(fs::remove_dir(path))
}

fn of_exec(path: &Path) -> io::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str());
    match name.is_some_and(|name| name.starts_with(cgroup::EXEC_PREFIX)) {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Sends a signal to a process that is in a group of `exec`.
pub(super) fn signal_in(path: &Path, pid: i32, number: i32) -> io::Result<()> {
    of_exec(path)?;
    match cgroup::processes(path)?.contains(&pid) {
        true => signal(pid, number),
        false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

/// Ends what still runs in a group, first by SIGTERM, after `grace` by
/// SIGKILL, and removes the group. One that is gone already is no error.
pub fn end_cgroup(path: &Path, grace: Duration) -> io::Result<()> {
    let group = match Cgroup::open(path) {
        Ok(group) => group,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if group.events()?.populated()? {
        for pid in group.processes()? {
            // It may have ended since. A stopped program handles nothing before
            // it goes on.
            let _ = signal(pid, libc::SIGTERM).and_then(|()| signal(pid, libc::SIGCONT));
        }
        if !empty_within(&group, grace)? {
            kill_all(&group)?;
            // Only a process that the kernel holds up outlives SIGKILL.
            empty_within(&group, GRACE)?;
        }
    }
    cgroup::remove(path)
}

#[expect(unsafe_code, reason = "std signals only its own children")]
fn signal(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory. The pid was read from the group a moment
    // ago; that it has ended since, and been reused, is as unlikely as with
    // any use of kill.
    match unsafe { libc::kill(pid, number) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `cgroup.kill` (5.14) kills those that are being forked, too.
fn kill_all(group: &Cgroup) -> io::Result<()> {
    fs::write(group.path().join("cgroup.kill"), "1")
}

#[expect(unsafe_code, reason = "std has no poll")]
fn empty_within(group: &Cgroup, limit: Duration) -> io::Result<bool> {
    let events = group.events()?;
    let until: Instant = clock::now() + limit;
    while events.populated()? {
        let left = until.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut watched = libc::pollfd {
            fd: events.as_fd().as_raw_fd(),
            events: libc::POLLPRI,
            revents: 0,
        };
        // SAFETY: one live pollfd.
        unsafe { libc::poll(&raw mut watched, 1, left.as_millis() as i32 + 1) };
    }
    Ok(true)
}
