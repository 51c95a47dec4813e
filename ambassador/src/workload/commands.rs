//! Commands that print credentials, run by a process that can do nothing else.
//!
//! The proxy cannot run a program. Before it confines itself it starts a *keeper*, a
//! process of the same binary, where the configuration names commands. The keeper starts
//! a *runner*, which becomes the proxy's user without capabilities and runs the commands
//! when it is asked. Each command has a socket of its own, and what is sent there says
//! no more than "now": whoever takes the proxy over can have those commands run, and no
//! other, with no other argument.
//!
//! The keeper replaces a runner that has ended. It does so as well where a reload brings
//! other commands, if it finds them in the configuration, which it reads itself.

mod keeper;
mod runner;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::descriptors;
use super::user::{Ids, UserChange};
use crate::clock::{self, Instant};

/// The hidden subcommand that makes this binary a keeper.
pub(crate) const SUBCOMMAND: &str = "credential-commands";
/// Its argument that makes it a runner.
const RUNNER: &str = "runner";

/// How long a command may take.
pub(crate) const RUNS_WITHIN: Duration = Duration::from_secs(10);
/// How long its reply may take: what went wrong with it is told.
const REPLIES_WITHIN: Duration = RUNS_WITHIN.saturating_add(Duration::from_secs(1));
/// How long the keeper may take to take other commands.
const TAKES_WITHIN: Duration = Duration::from_secs(5);
/// Bytes that a command may print.
const OUTPUT_BYTES_MAX: usize = 16 << 10;
/// Commands at most: each has a thread of the runner, and a socket in one datagram.
const COMMANDS_MAX: usize = descriptors::FDS_MAX;

const RUN: &[u8] = b"run";
const READY: &[u8] = b"ready";
/// A runner has ended, and is replaced.
const REPLACED: &[u8] = b"replaced";

/// Gives the commands that the text of a configuration names.
pub(crate) type CommandsIn = fn(&str) -> io::Result<Vec<Vec<String>>>;

/// What a keeper is told first, and a runner; a socket for each command comes along.
#[derive(Serialize, Deserialize)]
struct Setup {
    user: Option<Ids>,
    environment: Vec<(OsString, OsString)>,
    /// Where commands are named that come later.
    config: Option<PathBuf>,
    commands: Vec<Vec<String>>,
}

/// What runs commands for the proxy.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    known: Mutex<Vec<KnownCommand>>,
    /// `None`: there is no keeper, as there were no commands at the start.
    keeper: Option<Mutex<KeeperChannel>>,
}

#[derive(Debug)]
struct KeeperChannel {
    /// The keeper ends when this is closed.
    socket: OwnedFd,
    /// Runners that were replaced while something else was waited for.
    replaced: u32,
}

#[derive(Debug, Clone)]
struct KnownCommand {
    words: Vec<String>,
    socket: Arc<OwnedFd>,
}

/// What has become of the processes that run commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunnerNews {
    /// One has ended, and is replaced.
    Replaced,
    /// None is left.
    Ended,
}

impl Commands {
    /// Has these run, as the user whom the proxy becomes, and later those that are in
    /// the file `config`. To be called before this process gives its privileges up.
    ///
    /// # Errors
    /// The keeper does not start, or there are too many.
    pub(crate) fn start(
        user: &UserChange,
        config: Option<PathBuf>,
        commands: Vec<Vec<String>>,
    ) -> io::Result<Self> {
        if commands.is_empty() {
            return Ok(Self::default());
        }
        let (channel, theirs) = descriptors::pair()?;
        start_self(&[SUBCOMMAND], theirs)?;
        let (known, sockets) = pairs(&commands)?;
        let setup = Setup {
            user: user.ids(),
            environment: environment(user),
            config,
            commands,
        };
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        descriptors::send(channel.as_fd(), &serde_json::to_vec(&setup)?, &sockets)?;
        take_readiness(channel.as_fd())?;
        Ok(Self {
            known: Mutex::new(known),
            keeper: Some(Mutex::new(KeeperChannel {
                socket: channel,
                replaced: 0,
            })),
        })
    }

    /// Has these run from now on, where one is not known yet: each must be known or in
    /// the configuration. Others that are known are so no longer.
    ///
    /// # Errors
    /// The keeper does not take them, and those of before stay.
    pub(crate) fn replace(&self, commands: &[Vec<String>]) -> io::Result<()> {
        let is_known = |command: &Vec<String>| self.known().iter().any(|it| it.words == *command);
        if commands.iter().all(is_known) {
            return Ok(());
        }
        let Some(mut channel) = self.keeper() else {
            let error = "needs a restart: there were no commands at the start";
            return Err(io::Error::other(error));
        };
        let (known, sockets) = pairs(commands)?;
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let text = serde_json::to_vec(commands)?;
        descriptors::send(channel.socket.as_fd(), &text, &sockets)?;
        channel.replaced += take_readiness(channel.socket.as_fd())?;
        *self.known() = known;
        Ok(())
    }

    /// What a command prints, which may take [`RUNS_WITHIN`]. One call at a time for
    /// each command.
    ///
    /// # Errors
    /// What went wrong with it, without what it has printed.
    pub(crate) fn run(&self, command: &[String]) -> io::Result<Zeroizing<Vec<u8>>> {
        let socket = {
            let known = self.known();
            let known = known.iter().find(|known| known.words == command);
            known.map(|known| Arc::clone(&known.socket))
        };
        let socket = socket.ok_or_else(|| io::Error::other("is not among the commands"))?;
        let socket = socket.as_fd();
        // Those for which nobody has waited.
        while is_readable_by(socket, clock::now())? && descriptors::receive(socket)?.is_some() {}
        let gone = |_| io::Error::other("cannot be run: the process that runs commands has ended");
        descriptors::send(socket, RUN, &[]).map_err(gone)?;
        if !is_readable_by(socket, clock::now() + REPLIES_WITHIN)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let reply = descriptors::receive(socket)?;
        let (reply, _) = reply.ok_or_else(|| gone(io::ErrorKind::BrokenPipe.into()))?;
        let mut reply = Zeroizing::new(reply);
        match reply.first() {
            Some(&runner::PRINTED) => {
                reply.remove(0);
                Ok(reply)
            }
            _ => {
                let why = String::from_utf8_lossy(reply.get(1..).unwrap_or_default());
                Err(io::Error::other(why.into_owned()))
            }
        }
    }

    /// Whether there are processes that run them, or were.
    pub(crate) fn may_end(&self) -> bool {
        self.keeper.is_some()
    }

    /// What is new of the processes that run them; does not wait.
    pub(crate) fn news(&self) -> Option<RunnerNews> {
        let mut channel = self.keeper.as_ref()?.try_lock().ok()?;
        if let Some(left) = channel.replaced.checked_sub(1) {
            channel.replaced = left;
            return Some(RunnerNews::Replaced);
        }
        let socket = channel.socket.as_fd();
        if !is_readable_by(socket, clock::now()).ok()? {
            return None;
        }
        match descriptors::receive(socket) {
            Ok(Some((said, _))) => (said == REPLACED).then_some(RunnerNews::Replaced),
            Ok(None) | Err(_) => Some(RunnerNews::Ended),
        }
    }

    fn keeper(&self) -> Option<MutexGuard<'_, KeeperChannel>> {
        let keeper = self.keeper.as_ref()?;
        Some(keeper.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn known(&self) -> MutexGuard<'_, Vec<KnownCommand>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is a keeper or a runner.
pub(crate) fn serve(commands_in: CommandsIn) -> ExitCode {
    let Ok(channel) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let served = match std::env::args_os().nth(2) {
        Some(word) if word == RUNNER => runner::serve(&channel),
        _ => keeper::serve(&channel, commands_in),
    };
    if let Err(error) = served {
        // Nobody may be there any more who could be told.
        let _ = descriptors::send(channel.as_fd(), error.to_string().as_bytes(), &[]);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Starts this binary with other words, and a channel to it.
fn start_self(words: &[&str], channel: OwnedFd) -> io::Result<std::process::Child> {
    Command::new("/proc/self/exe")
        .args(words)
        .process_group(0)
        .stdin(Stdio::from(channel))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
}

/// Both ends of a socket for each of these.
fn pairs(commands: &[Vec<String>]) -> io::Result<(Vec<KnownCommand>, Vec<OwnedFd>)> {
    if commands.len() > COMMANDS_MAX {
        let error = format!("there are more than {COMMANDS_MAX} commands");
        return Err(io::Error::other(error));
    }
    let (mut known, mut sockets) = (Vec::new(), Vec::new());
    for words in commands {
        let (ours, theirs) = descriptors::pair()?;
        known.push(KnownCommand {
            words: words.clone(),
            socket: Arc::new(ours),
        });
        sockets.push(theirs);
    }
    Ok((known, sockets))
}

/// Until whoever was told something says that it is ready; gives how many runners were
/// replaced meanwhile.
fn take_readiness(channel: BorrowedFd<'_>) -> io::Result<u32> {
    let until = clock::now() + TAKES_WITHIN;
    let mut replaced = 0;
    while is_readable_by(channel, until)? {
        match descriptors::receive(channel)? {
            Some((said, _)) if said == READY => return Ok(replaced),
            // It was on its way already.
            Some((said, _)) if said == REPLACED => replaced += 1,
            Some((said, _)) => {
                let said = String::from_utf8_lossy(&said);
                return Err(io::Error::other(said.into_owned()));
            }
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Waits until there is something to receive, or the other end is closed.
fn is_readable_by(socket: BorrowedFd<'_>, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(clock::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut watched = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        match poll(&mut watched, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What commands find in their environment. Another user has no home.
fn environment(user: &UserChange) -> Vec<(OsString, OsString)> {
    let home = match user.ids() {
        None => std::env::var_os("HOME"),
        Some(_) => None,
    };
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let home = home.unwrap_or_else(|| "/".into());
    vec![("PATH".into(), path), ("HOME".into(), home)]
}
