//! What the helper undoes when the proxy has ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Duties;
use super::registry::refused;
use crate::clock::{self, Instant};
use crate::workload::cgroup::{self, Cgroup, EXEC_PREFIX};
use crate::workload::{Netns, signals};

/// How long what runs in a cgroup may take to end after SIGTERM. In the usual
/// case the cgroup is empty by now and nothing is waited for.
const GRACE: Duration = Duration::from_secs(5);

/// The admin socket of `exec`, in its directory.
pub(crate) const ADMIN_SOCKET: &str = "admin.sock";

/// What undoes itself, and whose it is.
pub(super) struct Undo {
    duties: Duties,
    /// The proxy's process, whose number stands in the names of what is made.
    owner: u32,
    steps: Vec<Step>,
}

pub(super) enum Step {
    Cgroup(Cgroup),
    Iptables(Netns),
    TokenPrefix(Netns, u16),
    /// The directory that it is in.
    AdminDirectory(OwnedFd),
}

impl Undo {
    pub(super) fn new(duties: Duties, owner: u32) -> Self {
        Self {
            duties,
            owner,
            steps: Vec::new(),
        }
    }

    /// In the order in which they came to be.
    pub(super) fn list(&self) -> &[Step] {
        &self.steps
    }

    /// Makes the cgroup of `exec` beside our own, which is the proxy's. There
    /// is one.
    pub(super) fn make_cgroup(&mut self) -> io::Result<OwnedFd> {
        if self.cgroup().is_some() {
            return Err(refused("there is a cgroup already"));
        }
        let parent = cgroup::own_cgroup().map_err(io::Error::other)?;
        let cgroup = Cgroup::create(&parent, &self.name())?;
        let directory = cgroup.as_fd().try_clone_to_owned()?;
        self.steps.push(Step::Cgroup(cgroup));
        Ok(directory)
    }

    /// The directory of the admin socket, in this one.
    pub(super) fn admin_directory(&mut self, base: OwnedFd) {
        self.steps.push(Step::AdminDirectory(base));
    }

    /// Once for each namespace.
    pub(super) fn iptables(&mut self, netns: Netns) {
        let known = |step: &Step| matches!(step, Step::Iptables(known) if *known == netns);
        if !self.steps.iter().any(known) {
            self.steps.push(Step::Iptables(netns));
        }
    }

    /// Once for each namespace.
    pub(super) fn token_prefix(&mut self, netns: Netns, proxy_port: u16) {
        let known = |step: &Step| matches!(step, Step::TokenPrefix(known, port) if (known, *port) == (&netns, proxy_port));
        if !self.steps.iter().any(known) {
            self.steps.push(Step::TokenPrefix(netns, proxy_port));
        }
    }

    /// Sends a signal to a process that is in the cgroup of `exec`.
    pub(super) fn signal(&self, pid: i32, number: i32) -> io::Result<()> {
        let forwarded = signals::FORWARDED.contains(&number);
        let signal = Signal::from_named_raw(number).filter(|_| forwarded);
        let signal = signal.ok_or_else(|| refused("not a signal that is forwarded"))?;
        let cgroup = self.cgroup().ok_or_else(|| refused("there is no cgroup"))?;
        signal_in(cgroup, pid, signal)
    }

    fn cgroup(&self) -> Option<&Cgroup> {
        self.steps.iter().find_map(|step| match step {
            Step::Cgroup(cgroup) => Some(cgroup),
            _ => None,
        })
    }

    fn name(&self) -> String {
        format!("{EXEC_PREFIX}{}", self.owner)
    }

    /// The latest first: rules name the cgroup. A step that fails does not
    /// keep the others from being done.
    pub(super) fn all(self) -> io::Result<()> {
        let mut result = Ok(());
        let name = self.name();
        for step in self.steps.into_iter().rev() {
            result = result.and(match step {
                Step::Cgroup(cgroup) => end_cgroup(&cgroup, GRACE),
                Step::Iptables(netns) => (self.duties.remove_iptables)(&netns, self.owner),
                Step::TokenPrefix(netns, port) => (self.duties.remove_token_prefix)(&netns, port),
                Step::AdminDirectory(base) => remove_admin_directory(&base, &name),
            });
        }
        result
    }
}

/// Removes the socket and its directory; anything else in there stays, and the
/// directory with it. One that is gone already is no error.
fn remove_admin_directory(base: &OwnedFd, name: &str) -> io::Result<()> {
    let gone = |result: rustix::io::Result<()>| match result {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        result => result.map_err(io::Error::from),
    };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(base, name, flags, Mode::empty()) {
        Ok(made) => gone(rustix::fs::unlinkat(made, ADMIN_SOCKET, AtFlags::empty()))?,
        Err(error) => return gone(Err(error)),
    }
    gone(rustix::fs::unlinkat(base, name, AtFlags::REMOVEDIR))
}

/// Sends a signal to a process if it is in the group. The process is held by
/// a descriptor while that is looked up: its number may be given out again.
fn signal_in(group: &Cgroup, pid: i32, signal: Signal) -> io::Result<()> {
    let gone = || io::Error::from_raw_os_error(libc::ESRCH);
    let number = Some(pid).filter(|&pid| pid > 0).and_then(Pid::from_raw);
    let number = number.ok_or_else(gone)?;
    let process = pidfd_open(number, PidfdFlags::empty())?;
    match group.processes()?.contains(&pid) {
        true => Ok(pidfd_send_signal(process, signal)?),
        false => Err(gone()),
    }
}

/// Ends what still runs in a group, first by SIGTERM, after `grace` by
/// SIGKILL, and removes the group. One that is gone already is no error.
pub(crate) fn end_cgroup(group: &Cgroup, grace: Duration) -> io::Result<()> {
    let events = match group.events() {
        Err(error) if cgroup::gone(&error) => return Ok(()),
        events => events?,
    };
    if events.populated()? {
        for pid in group.processes()? {
            // It may have ended since. A stopped program handles nothing before
            // it goes on.
            let _ = signal_in(group, pid, Signal::TERM)
                .and_then(|()| signal_in(group, pid, Signal::CONT));
        }
        if !empty_within(&events, grace)? {
            group.kill()?;
            // Only a process that the kernel holds up outlives SIGKILL.
            empty_within(&events, GRACE)?;
        }
    }
    group.remove()
}

fn empty_within(events: &cgroup::Events, limit: Duration) -> io::Result<bool> {
    let until: Instant = clock::now() + limit;
    while events.populated()? {
        let left = until.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec::try_from(left).ok();
        // Interrupted or not: the group is looked at again.
        let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], left.as_ref());
    }
    Ok(true)
}
