//! Commands that print credentials, run by a process that can do nothing else.
//!
//! The proxy cannot run a program. Before it confines itself it starts a *runner*, a
//! process of the same binary, where the configuration names commands. The runner gets
//! the commands once, becomes the proxy's user without capabilities, and runs them when
//! it is asked. Each command has a socket of its own, and what is sent there says no
//! more than "now": whoever takes the proxy over can have those commands run, and no
//! other, with no other argument.

mod runner;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::descriptors;
use super::identity::{Identity, Ids};

pub(crate) use runner::serve;

/// The hidden subcommand that makes this binary a runner.
pub(crate) const SUBCOMMAND: &str = "credential-commands";

/// How long a command may take.
pub(crate) const RUNS_WITHIN: Duration = Duration::from_secs(10);
/// Bytes that a command may print.
const OUTPUT_BYTES_MAX: usize = 16 << 10;
/// Commands at most: each has a thread of the runner.
const COMMANDS_MAX: usize = 64;

const RUN: &[u8] = b"run";
const READY: &[u8] = b"ready";

/// What the runner is told before the first descriptor.
#[derive(Serialize, Deserialize)]
struct Setup {
    user: Option<Ids>,
    commands: Vec<Vec<String>>,
    environment: Vec<(OsString, OsString)>,
}

/// The proxy's end of the runner.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    /// Each with its socket.
    known: Vec<(Vec<String>, OwnedFd)>,
    /// The runner ends when this is closed.
    _channel: Option<OwnedFd>,
}

impl Commands {
    /// Starts a runner for these, as the user whom the proxy becomes; none where there
    /// are none. To be called before this process gives its privileges up.
    ///
    /// # Errors
    /// It does not start, or there are too many.
    pub(crate) fn start(identity: &Identity, commands: Vec<Vec<String>>) -> io::Result<Self> {
        if commands.is_empty() {
            return Ok(Self::default());
        }
        if commands.len() > COMMANDS_MAX {
            let error = format!("there are more than {COMMANDS_MAX} commands");
            return Err(io::Error::other(error));
        }
        let (ours, theirs) = descriptors::pair()?;
        Command::new("/proc/self/exe")
            .arg(SUBCOMMAND)
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()?;
        let setup = Setup {
            user: identity.ids(),
            environment: environment(identity),
            commands,
        };
        descriptors::send(ours.as_fd(), &serde_json::to_vec(&setup)?, &[])?;
        let mut known = Vec::new();
        for command in setup.commands {
            let (socket, theirs) = descriptors::pair()?;
            descriptors::send(ours.as_fd(), RUN, &[theirs.as_fd()])?;
            known.push((command, socket));
        }
        match descriptors::receive(ours.as_fd())? {
            Some((said, _)) if said == READY => Ok(Self {
                known,
                _channel: Some(ours),
            }),
            Some((said, _)) => Err(io::Error::other(
                String::from_utf8_lossy(&said).into_owned(),
            )),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Whether it was known at the start.
    pub(crate) fn has(&self, command: &[String]) -> bool {
        self.known.iter().any(|(known, _)| known == command)
    }

    /// What a command prints, which may take [`RUNS_WITHIN`]. One call at a time for
    /// each command.
    ///
    /// # Errors
    /// What went wrong with it, without what it has printed.
    pub(crate) fn run(&self, command: &[String]) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut known = self.known.iter();
        let Some((_, socket)) = known.find(|(known, _)| known == command) else {
            return Err(io::Error::other("needs a restart: it is not known"));
        };
        descriptors::send(socket.as_fd(), RUN, &[])?;
        let reply = descriptors::receive(socket.as_fd())?;
        let (reply, _) = reply.ok_or(io::ErrorKind::BrokenPipe)?;
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
}

/// What commands find in their environment. Another user has no home.
fn environment(identity: &Identity) -> Vec<(OsString, OsString)> {
    let home = match identity.ids() {
        None => std::env::var_os("HOME"),
        Some(_) => None,
    };
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let home = home.unwrap_or_else(|| "/".into());
    vec![("PATH".into(), path), ("HOME".into(), home)]
}
