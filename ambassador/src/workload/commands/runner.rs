//! The runner: runs each command when its socket says so.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use super::{OUTPUT_BYTES_MAX, READY, RUNS_WITHIN, Setup};
use crate::clock::{self, Instant};
use crate::workload::confinement::confine_runner;
use crate::workload::descriptors;
use crate::workload::user::UserChange;

/// The first byte of a reply that holds what a command has printed.
pub(super) const PRINTED: u8 = 0;
/// That of one that says why there is nothing.
pub(super) const FAILED: u8 = 1;

/// How often it is looked whether a command has ended that prints no more.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The process groups of commands that run.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Is a runner, until the keeper's end of the channel is closed.
pub(super) fn serve(channel: &OwnedFd) -> io::Result<()> {
    set_up(channel)?;
    while let Ok(Some(_)) = descriptors::receive(channel.as_fd()) {}
    // Held to the end: no command starts any more.
    for group in running().iter() {
        let _ = kill_process_group(*group, Signal::KILL);
    }
    // Threads wait for commands that were ended just now.
    std::process::exit(0);
}

fn set_up(channel: &OwnedFd) -> io::Result<()> {
    let told = descriptors::receive(channel.as_fd())?;
    let (setup, sockets) = told.ok_or(io::ErrorKind::UnexpectedEof)?;
    let setup: Setup = serde_json::from_slice(&setup)?;
    confine_runner(&UserChange::of(setup.user))?;
    let environment = Arc::new(setup.environment);
    for (words, socket) in setup.commands.into_iter().zip(sockets) {
        let environment = Arc::clone(&environment);
        thread::Builder::new().spawn(move || answer(&socket, &words, &environment))?;
    }
    descriptors::send(channel.as_fd(), READY, &[])
}

/// Runs one command as often as its socket says so.
fn answer(socket: &OwnedFd, words: &[String], environment: &[(OsString, OsString)]) {
    while let Ok(Some(_)) = descriptors::receive(socket.as_fd()) {
        let reply = match run(words, environment) {
            Ok(printed) => Zeroizing::new([&[PRINTED], &**printed].concat()),
            Err(why) => Zeroizing::new([&[FAILED], why.as_bytes()].concat()),
        };
        if descriptors::send(socket.as_fd(), &reply, &[]).is_err() {
            return;
        }
    }
}

/// What a command prints, or what is wrong with it.
fn run(
    words: &[String],
    environment: &[(OsString, OsString)],
) -> Result<Zeroizing<Vec<u8>>, String> {
    let [program, arguments @ ..] = words else {
        return Err("names no program".to_owned());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let (mut child, group) = {
        let mut running = running();
        let child = command.spawn();
        let child = child.map_err(|error| format!("cannot be run: {error}"))?;
        let group = Pid::from_child(&child);
        running.push(group);
        (child, group)
    };
    let until = clock::now() + RUNS_WITHIN;
    let printed = collect(child.stdout.take(), until);
    let ended = printed.and_then(|printed| {
        wait(&mut child, until)?;
        Ok(printed)
    });
    // It, where it still runs, and what it has left behind. Its number is its own
    // until it is waited for.
    {
        let mut running = running();
        let _ = kill_process_group(group, Signal::KILL);
        running.retain(|other| *other != group);
    }
    let _ = child.wait();
    ended
}

/// All that comes from a pipe until it is closed.
fn collect(pipe: Option<ChildStdout>, until: Instant) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut printed = Zeroizing::new(Vec::with_capacity(OUTPUT_BYTES_MAX + 1));
    let Some(mut pipe) = pipe else {
        return Ok(printed);
    };
    let failed = |error: io::Error| format!("cannot be read: {error}");
    let mut part = Zeroizing::new([0; 4096]);
    loop {
        let left = until.saturating_duration_since(clock::now());
        let left = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut watched = [PollFd::new(&pipe, PollFlags::IN)];
        match poll(&mut watched, Some(&left)) {
            Ok(0) => return Err(too_slow()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(failed(error.into())),
        }
        match pipe.read(&mut *part).map_err(failed)? {
            0 => return Ok(printed),
            count if printed.len() + count > OUTPUT_BYTES_MAX => {
                return Err(format!("prints more than {OUTPUT_BYTES_MAX} bytes"));
            }
            count => printed.extend_from_slice(&part[..count]),
        }
    }
}

/// Until it has ended, well.
fn wait(child: &mut Child, until: Instant) -> Result<(), String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("ends with {status}")),
            Ok(None) if clock::now() >= until => return Err(too_slow()),
            Ok(None) => thread::sleep(LOOK_EVERY),
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

fn too_slow() -> String {
    format!("takes longer than {RUNS_WITHIN:?}")
}

fn running() -> MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
