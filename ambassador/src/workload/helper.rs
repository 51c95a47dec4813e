//! The privileged helper: the proxy's side of it.
//!
//! The helper is this binary executed again with a hidden subcommand, so it
//! has one thread and little memory whatever the proxy has become. The two
//! share one SOCK_SEQPACKET pair; each request is one datagram, a JSON text
//! with its descriptors, answered by one or more. The helper answers only what
//! `message::Request` lists, and does it only to what was registered before the
//! proxy gave up its privileges, or is in the configuration since
//! (`registry`). It ends when the proxy's end of the
//! pair is closed: by [`Helper::finish`], or by the kernel when the proxy dies.
//! It undoes then what it was told to, in reverse order. From the seal on it is
//! two processes, each of which goes on without the other (`keeper`).

mod files;
mod journal;
mod keeper;
mod life;
mod loaders;
mod message;
mod registry;
mod serve;
mod undo;

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use life::{Life, Reliance};
pub use message::Registration;
pub(crate) use registry::TargetsIn;
pub use serve::{SUBCOMMAND, serve};
pub(crate) use undo::ADMIN_SOCKET;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{self, Shutdown};
use serde::{Deserialize, Serialize};

use super::cgroup::{self, Cgroup, EXEC_PREFIX};
use super::named::Access;
use super::{BindSpec, Netns, SocketSpec, Target, descriptors};
use crate::clock::{self, Instant};
use message::{Answer, Question, Reply, Request};

/// What the helper does for capture: functions of that module, which this one,
/// being below it, does not know. They are called in any namespace.
#[derive(Debug, Clone, Copy)]
pub struct Duties {
    /// The hidden subcommand that makes this binary a loader.
    pub loader: &'static str,
    /// Gives the targets that the text of a configuration names.
    pub targets_in: TargetsIn,
    /// What rules name that is not the proxy's to choose.
    pub named_by_iptables: fn(&serde_json::Value) -> io::Result<NamedByRules>,
    /// Sets up the rules of the process with this pid, or replaces those of
    /// before.
    pub install_iptables: fn(&Netns, owner: u32, serde_json::Value) -> io::Result<()>,
    /// Removes the iptables rules of the process with this pid.
    pub remove_iptables: fn(&Netns, owner: u32) -> io::Result<()>,
    /// Removes the route of the IPv6 tokens of the proxy at this port.
    pub remove_token_prefix: fn(&Netns, proxy_port: u16) -> io::Result<()>,
}

/// What iptables rules name.
#[derive(Debug)]
pub struct NamedByRules {
    /// Whose connections they take.
    pub cgroups: Vec<PathBuf>,
    /// Where they are taken to.
    pub proxy_port: u16,
    /// The mark of sockets whose connections they leave.
    pub mark: Option<u32>,
}

/// What a loader of capture is told by the helper, before the proxy speaks to
/// it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Licence {
    /// Whose programs it may attach, and whose links it may name.
    pub targets: Vec<Target>,
    /// The port that captured connections are sent to, where it is known.
    pub proxy_port: Option<u16>,
}

/// The [`Licence`] that a loader finds on its socket.
pub(crate) fn take_licence(socket: BorrowedFd<'_>) -> io::Result<Licence> {
    let (text, _) = descriptors::receive(socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(serde_json::from_slice(&text)?)
}

/// How long the helper may take to undo what was set up: loaders, rules, a cgroup
/// with what runs in it.
const UNDONE_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer may take: iptables waits some seconds for its lock, in
/// each of its tables.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The same of sockets, which are made at once. A helper that takes longer is said
/// not to answer.
const SOCKETS_WITHIN: Duration = Duration::from_secs(1);

/// What a helper is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Capture, and files.
    Capture,
    /// Files that the proxy cannot open itself.
    Files,
}

/// Whether a datagram is a question, whatever it asks; for fuzzing.
pub fn is_question(datagram: &[u8]) -> bool {
    serde_json::from_slice::<Question>(datagram).is_ok()
}

/// The proxy's end of the helper; threads share it, one request at a time.
#[derive(Debug)]
pub struct Helper {
    channel: OwnedFd,
    /// How many questions were asked; held by whose is being answered.
    turn: Mutex<u64>,
    process: Option<Process>,
    life: life::LifeCell,
}

/// What was started.
#[derive(Debug)]
struct Process {
    /// A byte for each process of it that was replaced; hung up when there is none
    /// left.
    news: PipeReader,
    first: Mutex<Child>,
}

impl Helper {
    /// Starts the helper with the privileges that this process has now.
    /// Binaries that call this must handle [`SUBCOMMAND`] by [`serve()`]; one that
    /// does not would start itself without end, and gets an error instead.
    ///
    /// It leads a process group of its own, so that what is typed on the
    /// terminal does not reach it, and holds none of the standard streams.
    pub fn start(errand: Errand) -> io::Result<Self> {
        if std::env::args_os()
            .nth(1)
            .is_some_and(|first| first == SUBCOMMAND)
        {
            return Err(io::Error::other(
                "this program was started as a helper but cannot be one",
            ));
        }
        let (ours, theirs) = descriptors::pair()?;
        let (news, end) = io::pipe()?;
        let mut command = Command::new("/proc/self/exe");
        let first = std::os::unix::process::CommandExt::process_group(&mut command, 0)
            .arg(SUBCOMMAND)
            .args((errand == Errand::Files).then_some(serve::FILES_ONLY))
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(end))
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()?;
        let first = Mutex::new(first);
        Ok(Self::over(ours, Some(Process { news, first })))
    }

    fn over(channel: OwnedFd, process: Option<Process>) -> Self {
        Self {
            channel,
            turn: Mutex::default(),
            process,
            life: life::LifeCell::default(),
        }
    }

    /// Whether it can be asked, as far as that was noticed.
    pub fn life(&self) -> Life {
        self.life.get()
    }

    /// Takes note of how it is, and says so where that is news.
    pub(super) fn note(&self, life: Life) {
        if !self.life.note(life) {
            return;
        }
        match life {
            Life::Answers => tracing::info!("the privileged helper answers again"),
            Life::Silent => tracing::error!("the privileged helper does not answer"),
            Life::Ended => tracing::error!(
                "the privileged helper has ended: nothing more can be captured, and cgroups, rules and routes may stay behind"
            ),
        }
    }

    /// Hung up, or closed for reading, when it has ended.
    pub(super) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Readable when a process of it was replaced.
    pub(super) fn news(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|process| process.news.as_fd())
    }

    /// Says that one was, where it was. For one thread: another one could be left
    /// with nothing to read.
    pub(super) fn hear_news(&self) {
        let Some(process) = &self.process else {
            return;
        };
        let mut watched = [PollFd::new(&process.news, PollFlags::IN)];
        let is_there = poll(&mut watched, Some(&Timespec::default()));
        if is_there.is_ok() && watched[0].revents().contains(PollFlags::IN) {
            let mut bytes = [0; 16];
            if (&process.news)
                .read(&mut bytes)
                .is_ok_and(|heard| heard > 0)
            {
                tracing::warn!("a process of the privileged helper ended and was replaced");
            }
        }
    }

    /// Says what later requests may be about. Only before [`Helper::seal`].
    pub fn register(&self, registration: &Registration) -> io::Result<()> {
        self.ask(&Request::Register(registration.clone()), &[])
            .map(drop)
    }

    /// Ends what is said in good faith: nothing more is registered. To be called
    /// before this process hears from anybody.
    pub fn seal(&self) -> io::Result<()> {
        self.ask(&Request::Seal, &[]).map(drop)
    }

    /// Makes a cgroup of our own beside this process. At the end the helper
    /// ends what runs in it, and removes it. Only before [`Helper::seal`].
    pub fn make_cgroup(&self) -> io::Result<Cgroup> {
        let parent = cgroup::own_cgroup().map_err(io::Error::other)?;
        let path = parent.join(format!("{EXEC_PREFIX}{}", std::process::id()));
        Cgroup::of(&path, one(self.ask(&Request::MakeCgroup, &[])?)?)
    }

    /// Has the helper open this file when it is asked to; its directory is named
    /// without links. Not after [`Helper::seal`].
    pub fn remember_file(&self, path: &Path, access: Access) -> io::Result<()> {
        self.ask(&Request::RememberFile(path.to_owned(), access), &[])
            .map(drop)
    }

    /// Opens the file that was remembered at this place.
    pub fn open_file(&self, place: usize) -> io::Result<OwnedFd> {
        one(self.ask(&Request::OpenFile(place), &[])?)
    }

    /// Opens a network namespace by its path. That of a process with more
    /// capabilities than the proxy has kept is out of the proxy's own reach.
    pub fn netns(&self, path: &Path) -> io::Result<Netns> {
        Netns::from_fd(one(self.ask(&Request::OpenNetns(path.to_owned()), &[])?)?)
    }

    /// Opens the root directory of the process by which a namespace is named
    /// (`/proc/PID/ns/net`): another's root can't be looked up without
    /// privileges.
    pub fn root_of(&self, netns: &Path) -> io::Result<OwnedFd> {
        one(self.ask(&Request::OpenRoot(netns.to_owned()), &[])?)
    }

    /// Opens listening sockets in a namespace.
    pub fn listener(&self, netns: &Netns, spec: &BindSpec) -> io::Result<Vec<OwnedFd>> {
        self.ask(&Request::Listener(spec.clone()), &[netns.as_fd()])
    }

    /// Makes sockets in a namespace; `TimedOut` where that takes long. Who waits
    /// here keeps others waiting, shards among them in the end.
    pub fn sockets(&self, netns: &Netns, spec: &SocketSpec) -> io::Result<Vec<OwnedFd>> {
        self.ask_within(SOCKETS_WITHIN, &Request::Sockets(*spec), &[netns.as_fd()])
    }

    /// Starts a loader of capture, with the privileges of the helper and this
    /// process's standard error, for these targets. It ends when it is done, or
    /// when the socket to it is closed; [`Helper::end_loader`] waits for that.
    pub fn start_loader(&self, targets: Vec<Target>) -> io::Result<OwnedFd> {
        let error = io::stderr();
        one(self.ask(&Request::StartLoader(targets), &[error.as_fd()])?)
    }

    /// Waits for the end of the loader that was started last, of those not
    /// waited for. Its socket must be closed, or it be done.
    pub fn end_loader(&self) -> io::Result<()> {
        self.ask(&Request::EndLoader, &[]).map(drop)
    }

    /// Sets up iptables rules in a namespace, or replaces those of before. What
    /// they look like is between capture and [`Duties::install_iptables`].
    pub fn install_iptables(&self, netns: &Netns, rules: serde_json::Value) -> io::Result<()> {
        self.ask(&Request::InstallIptables(rules), &[netns.as_fd()])
            .map(drop)
    }

    /// Sends a signal to a process in the cgroup that was made, whoever's
    /// process it is.
    pub fn signal(&self, pid: i32, number: i32) -> io::Result<()> {
        self.ask(&Request::Signal { pid, number }, &[]).map(drop)
    }

    /// Has the helper remove the directory of the admin socket from this one,
    /// at the end. Only before [`Helper::seal`].
    pub fn remove_admin_directory_at_end(&self, base: BorrowedFd<'_>) -> io::Result<()> {
        self.ask(&Request::RemoveAdminDirectory, &[base]).map(drop)
    }

    /// Has the helper remove the iptables rules that this process set up in a
    /// namespace, at the end.
    pub fn remove_iptables_at_end(&self, netns: &Netns) -> io::Result<()> {
        self.ask(&Request::RemoveIptables, &[netns.as_fd()])
            .map(drop)
    }

    /// Has the helper remove the route of the IPv6 tokens of the proxy at this
    /// port from a namespace, at the end.
    pub fn remove_token_prefix_at_end(&self, netns: &Netns, proxy_port: u16) -> io::Result<()> {
        self.ask(&Request::RemoveTokenPrefix { proxy_port }, &[netns.as_fd()])
            .map(drop)
    }

    /// Ends the helper and waits until it has undone everything; one that hangs is
    /// left to itself. What is asked of it afterwards fails with BrokenPipe.
    pub fn finish(&self) -> io::Result<()> {
        self.life.note(Life::Ended);
        // Whoever waits for an answer gets none: no lock.
        let _ = net::shutdown(&self.channel, Shutdown::Both);
        self.process.as_ref().map_or(Ok(()), Process::wait)
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
        self.ask_within(ANSWER_WITHIN, request, fds)
    }

    /// Asks; what is not answered in time is not waited for.
    fn ask_within(
        &self,
        limit: Duration,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<Vec<OwnedFd>> {
        let mut turn = self.lock();
        let until = clock::now() + limit;
        let mut ask = || match self.life() {
            Life::Ended => Err(ended()),
            _ => {
                *turn += 1;
                self.converse(*turn, until, request, fds)
            }
        };
        let mut answered = ask();
        if let Err(error) = &answered
            && error.kind() == io::ErrorKind::Interrupted
            && request.may_be_asked_again()
        {
            // Once: what is asked may be what ends whoever is to answer.
            answered = ask();
        }
        self.note(match &answered {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Life::Silent,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Life::Ended,
            _ => Life::Answers,
        });
        answered
    }

    fn converse(
        &self,
        number: u64,
        until: Instant,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<Vec<OwnedFd>> {
        let channel = self.channel();
        let text = serde_json::to_vec(&Question { number, request })?;
        ready(channel, PollFlags::OUT, until)?;
        descriptors::send(channel, &text, fds)?;
        let mut received = Vec::new();
        loop {
            ready(channel, PollFlags::IN, until)?;
            let (text, fds) = descriptors::receive(channel)?.ok_or_else(ended)?;
            let answer: Answer = serde_json::from_slice(&text)?;
            if answer.number != Some(number) {
                // To a question whose asker did not wait for it.
                continue;
            }
            received.extend(fds);
            match answer.reply {
                Reply::More => {}
                Reply::Done => return Ok(received),
                Reply::Restarted => {
                    let text = "the privileged helper died meanwhile, and was started again";
                    return Err(io::Error::new(io::ErrorKind::Interrupted, text));
                }
                Reply::Failed {
                    code: Some(code), ..
                } => return Err(io::Error::from_raw_os_error(code)),
                Reply::Failed { text, .. } => return Err(io::Error::other(text)),
            }
        }
    }

    /// A panic elsewhere leaves no half-read answer here: nothing between the
    /// send and the last receive panics.
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Waits until all of it has ended.
    fn wait(&self) -> io::Result<()> {
        let until = clock::now() + UNDONE_WITHIN;
        let mut watched = [PollFd::new(&self.news, PollFlags::empty())];
        while !watched[0].revents().contains(PollFlags::HUP) {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                let text = "the privileged helper does not end; it undoes the rest by itself";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            // Interrupted is woken early.
            let limit = Timespec::try_from(left).map_err(io::Error::other)?;
            let _ = poll(&mut watched, Some(&limit));
        }
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        // It has closed its end and is about to be no more.
        first.wait().map(drop)
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the privileged helper has ended")
}

/// Waits until the channel can be read or written, or is hung up.
fn ready(channel: BorrowedFd<'_>, what: PollFlags, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(clock::now());
        let limit = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut watched = [PollFd::from_borrowed_fd(channel, what)];
        match poll(&mut watched, Some(&limit)) {
            Ok(0) => {
                let text = "the privileged helper does not answer";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

fn one(mut fds: Vec<OwnedFd>) -> io::Result<OwnedFd> {
    fds.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
pub(crate) mod tests;
