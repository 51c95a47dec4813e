//! The two processes of a helper after the seal, so that it survives the death of
//! one.
//!
//! The *worker* answers the proxy. The *keeper* hears from nobody but its worker:
//! it holds the same state, starts another worker when that one dies, and undoes
//! everything at the end. A worker whose keeper dies becomes the keeper of
//! another. Both are confined alike, and neither opens the other.
//!
//! If workers die too often, no more are started. The proxy then finds its
//! channel closed, and everything is still undone at the end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::Shutdown;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait, waitpid,
};

use super::journal;
use super::message::{Answer, Reply};
use super::serve::Serving;
use crate::clock::{self, Instant};
use crate::workload::descriptors;

/// Deaths within [`DEATHS_WITHIN`] after which nothing is started again: it would
/// only die once more.
const DEATHS_MAX: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(60);

/// How long a worker may go on with its last question once the proxy has ended,
/// and then what it has started.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Whom a worker has beside it.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Hung up when it has ended.
    line: OwnedFd,
    /// The question that is being answered: a counter in the kernel that is zero
    /// in between, and outlives the worker.
    current: OwnedFd,
}

/// Which of the two a process is.
enum Role {
    Worker(Keeper),
    /// And the proxy has ended.
    Keeper,
}

/// When the other one died, lately.
#[derive(Debug, Default)]
struct Deaths(Vec<Instant>);

impl Deaths {
    /// Counts one; says whether somebody else is to be started.
    fn count(&mut self, now: Instant) -> bool {
        self.0.retain(|death| now < *death + DEATHS_WITHIN);
        self.0.push(now);
        self.0.len() <= DEATHS_MAX
    }
}

/// Goes on with a conversation in two processes; returns in each when it is
/// done, having undone everything in one of them. The proxy hears by `news` that
/// it has another helper.
pub(super) fn serve_in_two(
    mut serving: Serving,
    channel: BorrowedFd<'_>,
    news: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut deaths = Deaths::default();
    let mut is_first = true;
    loop {
        let keeper = match keep(&mut serving, &mut deaths, is_first, channel, news) {
            Role::Worker(keeper) => keeper,
            Role::Keeper => return serving.undo(),
        };
        let conversation = serving.converse(channel, Some(&keeper));
        if keeper.lives() {
            return conversation.map(drop);
        }
        // What was known to both is known here.
        is_first = false;
    }
}

/// Starts workers, and returns in each; here only when the proxy has ended.
fn keep(
    serving: &mut Serving,
    deaths: &mut Deaths,
    mut is_first: bool,
    channel: BorrowedFd<'_>,
    news: BorrowedFd<'_>,
) -> Role {
    // Of loaders whose worker has died, too.
    let _ = set_child_subreaper(Some(getpid()));
    loop {
        if hung_up(channel) {
            return Role::Keeper;
        }
        if !is_first && !deaths.count(clock::now()) {
            break;
        }
        let Ok(fork) = Fork::new() else {
            break;
        };
        let worker = match fork.into_two() {
            Ok(Forked::Worker(keeper)) => return Role::Worker(keeper),
            Ok(Forked::Keeper(worker)) => worker,
            Err(_) => break,
        };
        if !is_first {
            // Nobody waits for it: a full pipe holds the same news.
            let _ = rustix::io::write(news, b"+");
        }
        is_first = false;
        worker.watch(serving, channel);
        worker.report(channel);
    }
    // The proxy's end of the channel reads as ended, ours tells of its end.
    let _ = rustix::net::shutdown(channel, Shutdown::Write);
    serving.code.unmap();
    while !hung_up(channel) {
        wait_for(
            &mut [PollFd::from_borrowed_fd(channel, PollFlags::empty())],
            None,
        );
    }
    Role::Keeper
}

impl Keeper {
    /// Takes note of the question that is answered from now on.
    pub(super) fn begin(&self, number: Option<u64>) {
        if let Some(number) = number {
            // The one that is refused, all ones, is none that the proxy gives.
            let _ = rustix::io::write(&self.current, &number.to_ne_bytes());
        }
    }

    /// The question is answered.
    pub(super) fn end(&self) {
        take_number(&self.current);
    }

    pub(super) fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    /// Waits until there is something to receive; false once the keeper has
    /// ended.
    pub(super) fn waits_along(&self, channel: BorrowedFd<'_>) -> bool {
        let mut is_ready = false;
        while !is_ready && self.lives() {
            let mut watched = [
                PollFd::from_borrowed_fd(channel, PollFlags::IN),
                PollFd::new(&self.line, PollFlags::empty()),
            ];
            wait_for(&mut watched, None);
            is_ready = !watched[0].revents().is_empty();
        }
        self.lives()
    }

    pub(super) fn lives(&self) -> bool {
        !hung_up(self.line())
    }
}

/// What the two are to share.
struct Fork {
    keepers: OwnedFd,
    workers: OwnedFd,
    current: OwnedFd,
}

enum Forked {
    Worker(Keeper),
    Keeper(Worker),
}

/// What a keeper has of its worker.
struct Worker {
    process: Pid,
    line: OwnedFd,
    current: OwnedFd,
}

impl Fork {
    fn new() -> io::Result<Self> {
        let (keepers, workers) = descriptors::pair()?;
        let current = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            keepers,
            workers,
            current,
        })
    }

    #[expect(unsafe_code, reason = "std has no fork")]
    fn into_two(self) -> io::Result<Forked> {
        // SAFETY: this process has one thread, so that no lock is held by another
        // and everything in its memory is whole in the child.
        let number = unsafe { libc::fork() };
        match number {
            0 => Ok(Forked::Worker(Keeper {
                line: self.workers,
                current: self.current,
            })),
            _ => match Pid::from_raw(number) {
                Some(process) if number > 0 => Ok(Forked::Keeper(Worker {
                    process,
                    line: self.keepers,
                    current: self.current,
                })),
                _ => Err(io::Error::last_os_error()),
            },
        }
    }
}

impl Worker {
    /// Takes note of what it says until it has ended.
    fn watch(&self, serving: &mut Serving, channel: BorrowedFd<'_>) {
        let mut until = None;
        loop {
            serving.code.unmap();
            let mut watched = [
                PollFd::new(&self.line, PollFlags::IN),
                PollFd::from_borrowed_fd(channel, PollFlags::empty()),
            ];
            // The proxy's end is told once.
            let count = 2 - usize::from(until.is_some());
            wait_for(&mut watched[..count], until);
            let [line, channel] = watched.map(|watched| !watched.revents().is_empty());
            if line {
                match descriptors::receive(self.line.as_fd()) {
                    // One that is not understood is of a worker that fails.
                    Ok(Some((text, fds))) => drop(journal::learn(serving, &text, fds)),
                    Ok(None) | Err(_) => break,
                }
            } else if channel && until.is_none() {
                until = Some(clock::now() + ENDS_WITHIN);
            } else if until.is_some_and(|until| clock::now() >= until) {
                let _ = kill_process(self.process, Signal::KILL);
                until = None;
            }
        }
        // Its end of the line was open: it is ending, or to be ended.
        let _ = kill_process(self.process, Signal::KILL);
        let _ = waitpid(Some(self.process), WaitOptions::empty());
        // What it has started may go on, but not beside the undoing: rules that
        // come then would stay.
        let limit = match hung_up(channel) {
            true => ENDS_WITHIN,
            false => Duration::ZERO,
        };
        reap(clock::now() + limit);
    }

    /// Who waits for its answer need not do so any longer.
    fn report(&self, channel: BorrowedFd<'_>) {
        if let Some(number) = take_number(&self.current) {
            let answer = Answer {
                number: Some(number),
                reply: Reply::Restarted,
            };
            let text = serde_json::to_vec(&answer).unwrap_or_default();
            // The proxy may be gone by now.
            let _ = descriptors::send(channel, &text, &[]);
        }
    }
}

/// Waits for all that was started by a worker which is dead, but not for long.
fn reap(until: Instant) {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) if clock::now() < until => std::thread::sleep(LOOK_EVERY),
            Ok(None) | Err(_) => return,
        }
    }
}

fn take_number(current: &OwnedFd) -> Option<u64> {
    let mut number = [0; 8];
    rustix::io::read(current, &mut number).ok()?;
    Some(u64::from_ne_bytes(number))
}

fn hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut watched = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let _ = poll(&mut watched, Some(&Timespec::default()));
    watched[0].revents().contains(PollFlags::HUP)
}

/// Waits for any of them; being interrupted is being woken early.
fn wait_for(watched: &mut [PollFd<'_>], until: Option<Instant>) {
    let left = until.map(|until| until.saturating_duration_since(clock::now()));
    let limit = left.and_then(|left| Timespec::try_from(left).ok());
    let _ = poll(watched, limit.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_dies_again_and_again_is_not_started_again() {
        let start = Instant::now();
        let mut deaths = Deaths::default();
        let at = |second| start + Duration::from_secs(second);
        for second in 0..DEATHS_MAX as u64 {
            assert!(deaths.count(at(second)), "{second}");
        }
        assert!(!deaths.count(at(59)), "the sixth in a minute");
        // One in a quarter of a minute goes on for ever.
        let mut deaths = Deaths::default();
        assert!((0..100).all(|death| deaths.count(at(15 * death))));
    }
}
