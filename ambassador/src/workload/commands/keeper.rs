//! The keeper: starts the runner, and another one when it ends or is to run other
//! commands.
//!
//! It may become the proxy's user in those that it starts, and reads the configuration
//! where that is out of reach of that user. It hears from the proxy which commands are
//! wanted, and takes those alone that it finds there itself.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{self, SendFlags};

use super::{
    CommandsIn, READY, REPLACED, RUNNER, SUBCOMMAND, Setup, runner, start_self, take_readiness,
};
use crate::clock;
use crate::workload::confinement::confine_keeper_of_runners;
use crate::workload::descriptors;
use crate::workload::owned_file::OwnedFile;

/// How long a runner that has ended is left alone: one that ends at once must not keep
/// the machine busy.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How long one may take to end what it runs; one that hangs is left to itself.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What commands that were asked for are answered when their runner ends.
const ENDED: &[u8] = b"cannot be run: the process that runs commands has ended";

/// What there is to run, and who does.
struct Keeper {
    setup: Setup,
    /// By their commands.
    sockets: Vec<OwnedFd>,
    config: Option<OwnedFile>,
    commands_in: CommandsIn,
    runner: Option<Runner>,
}

struct Runner {
    process: Child,
    /// It ends when this is closed.
    line: OwnedFd,
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = net::shutdown(&self.line, net::Shutdown::Both);
        let until = clock::now() + ENDS_WITHIN;
        while matches!(self.process.try_wait(), Ok(None)) && clock::now() < until {
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Is a keeper, until the proxy's end of the channel is closed.
pub(super) fn serve(channel: &OwnedFd, commands_in: CommandsIn) -> io::Result<()> {
    confine_keeper_of_runners()?;
    let channel = channel.as_fd();
    let (setup, sockets) = descriptors::receive(channel)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let setup: Setup = serde_json::from_slice(&setup)?;
    let mut keeper = Keeper {
        // One that is a pipe, say, is not there for long: no commands come later.
        config: setup
            .config
            .clone()
            .and_then(|path| OwnedFile::at(path).ok()),
        setup,
        sockets,
        commands_in,
        runner: None,
    };
    keeper.start()?;
    descriptors::send(channel, READY, &[])?;
    keeper.keep(channel)
}

impl Keeper {
    fn keep(&mut self, channel: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let (has_said, has_ended) = self.wait(channel)?;
            if has_said {
                let Some((wanted, sockets)) = descriptors::receive(channel)? else {
                    return Ok(());
                };
                let reply = match self.take(&wanted, sockets) {
                    Ok(()) => READY.to_vec(),
                    Err(error) => error.to_string().into_bytes(),
                };
                descriptors::send(channel, &reply, &[])?;
            } else if has_ended {
                self.has_ended(channel);
            } else if self.runner.is_none() {
                // One that cannot be started is tried again.
                let _ = self.start();
            }
        }
    }

    /// Until the proxy says something, the runner has ended, or, where there is none, it
    /// is time to start one.
    fn wait(&self, channel: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
        let mut watched = vec![PollFd::from_borrowed_fd(channel, PollFlags::IN)];
        let mut limit = Some(Timespec::try_from(AGAIN_AFTER).map_err(io::Error::other)?);
        if let Some(runner) = &self.runner {
            watched.push(PollFd::new(&runner.line, PollFlags::IN));
            limit = None;
        }
        match poll(&mut watched, limit.as_ref()) {
            Err(rustix::io::Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |at: usize| {
            let watched: Option<&PollFd<'_>> = watched.get(at);
            watched.is_some_and(|watched| !watched.revents().is_empty())
        };
        Ok((is_ready(0), is_ready(1)))
    }

    /// Other commands are wanted.
    fn take(&mut self, wanted: &[u8], sockets: Vec<OwnedFd>) -> io::Result<()> {
        let wanted: Vec<Vec<String>> = serde_json::from_slice(wanted)?;
        if wanted.len() != sockets.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.admit(&wanted)?;
        let before = (
            mem::replace(&mut self.setup.commands, wanted),
            mem::replace(&mut self.sockets, sockets),
        );
        let started = self.start();
        if started.is_err() {
            (self.setup.commands, self.sockets) = before;
        }
        started
    }

    /// Those that it knows, and those that the configuration names now.
    fn admit(&self, wanted: &[Vec<String>]) -> io::Result<()> {
        let named = match &self.config {
            Some(config) => (self.commands_in)(&config.read()?)?,
            None => Vec::new(),
        };
        let known = &self.setup.commands;
        let may_run = |words| known.contains(words) || named.contains(words);
        match wanted.iter().all(may_run) {
            true => Ok(()),
            false => {
                let why = "the configuration names other commands, as who runs them reads it";
                Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
            }
        }
    }

    fn start(&mut self) -> io::Result<()> {
        // Its end first: no command runs twice.
        self.runner = None;
        let (line, theirs) = descriptors::pair()?;
        let process = start_self(&[SUBCOMMAND, RUNNER], theirs)?;
        let runner = Runner { process, line };
        let sockets: Vec<_> = self.sockets.iter().map(AsFd::as_fd).collect();
        let setup = serde_json::to_vec(&self.setup)?;
        descriptors::send(runner.line.as_fd(), &setup, &sockets)?;
        take_readiness(runner.line.as_fd())?;
        self.runner = Some(runner);
        Ok(())
    }

    /// Says so to the proxy, and to whoever waits for a command. A socket may be full of
    /// what nobody has read.
    fn has_ended(&mut self, channel: BorrowedFd<'_>) {
        self.runner = None;
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let _ = net::send(channel, REPLACED, flags);
        let reply = [&[runner::FAILED], ENDED].concat();
        for socket in &self.sockets {
            let _ = net::send(socket, &reply, flags);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn command(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    /// Whoever takes the proxy over may ask for anything.
    #[test]
    fn a_command_that_the_configuration_does_not_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        fs::write(&path, "old\nnew").unwrap();
        let keeper = Keeper {
            setup: Setup {
                user: None,
                environment: Vec::new(),
                config: None,
                commands: vec![command("old")],
            },
            sockets: Vec::new(),
            config: Some(OwnedFile::at(path.clone()).unwrap()),
            commands_in: |text| Ok(text.lines().map(command).collect()),
            runner: None,
        };
        let admit = |words: &[&str]| {
            let wanted: Vec<_> = words.iter().map(|word| command(word)).collect();
            let admitted = keeper.admit(&wanted);
            admitted.map_err(|error| error.kind())
        };
        assert_eq!(admit(&["old", "new"]), Ok(()));
        let refused = Err(io::ErrorKind::PermissionDenied);
        assert_eq!(admit(&["old", "other"]), refused);
        fs::write(&path, "other").unwrap();
        assert_eq!(admit(&["old", "other"]), Ok(()));
        assert_eq!(admit(&["new"]), refused);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(admit(&["other"]), refused);
    }
}
