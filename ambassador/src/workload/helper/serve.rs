//! The helper's own side.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use super::Duties;
use super::files::Files;
use super::message::{Reply, Request};
use super::undo::{self, Undo};
use crate::clock;
use crate::workload::capabilities::{Capability, keep_only};
use crate::workload::confinement::keep_memory_private;
use crate::workload::memory::MappedFiles;
use crate::workload::{Netns, descriptors, sockets};

/// The hidden subcommand that makes this binary a helper.
pub const SUBCOMMAND: &str = "privileged-helper";

/// What the helper's requests and undoing take; all else is given up.
const KEPT: [Capability; 9] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Kill,
    Capability::NetBindService,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::SysPtrace,
    Capability::SysAdmin,
    Capability::Bpf,
];

/// The same where nothing is captured.
const KEPT_FOR_FILES: [Capability; 1] = [Capability::DacOverride];
/// The word behind the subcommand that says so.
pub(super) const FILES_ONLY: &str = "files";

/// How long loaders may take to see that the proxy is gone: loading programs
/// takes tens of milliseconds, a busy machine more.
const LOADERS_END_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The life of the helper process: serves the pair on its standard input
/// until the other end is closed, then undoes what it was told to.
pub fn serve(duties: Duties) -> ExitCode {
    close_inherited();
    outlive_the_proxy();
    let kept = match std::env::args_os().nth(2) {
        Some(word) if word == FILES_ONLY => &KEPT_FOR_FILES[..],
        _ => &KEPT,
    };
    let served = keep_only(kept)
        .and_then(|()| keep_memory_private())
        .and_then(|()| serve_on(io::stdin().as_fd(), duties));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Descriptors that our caller's caller meant for the command: a pipe among
/// them would stay open for as long as we live.
#[expect(unsafe_code, reason = "std has no close_range")]
fn close_inherited() {
    // SAFETY: at the start of the process nothing above the standard streams
    // is open that anything in it knows of.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

/// A service manager, or a terminal that goes away, signals all processes at
/// once; the proxy finishes its work then, and what it set up is undone after
/// that.
#[expect(unsafe_code, reason = "std ignores no signals")]
fn outlive_the_proxy() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

pub(super) fn serve_on(channel: BorrowedFd<'_>, duties: Duties) -> io::Result<()> {
    let mut serving = Serving {
        home: Netns::own()?,
        duties,
        loaders: Vec::new(),
        files: Files::default(),
        steps: Undo::new(duties),
    };
    let files = MappedFiles::find();
    loop {
        // The next request may be hours away.
        files.unmap();
        let (text, fds) = match descriptors::receive(channel) {
            Ok(Some(request)) => request,
            // However the conversation ends, what was set up is undone.
            Ok(None) => return serving.undo(),
            Err(error) => return serving.undo().and(Err(error)),
        };
        let answer = serde_json::from_slice(&text)
            .map_err(io::Error::from)
            .and_then(|request| serving.carry_out(request, fds));
        // The proxy may be gone by now: the next receive says so.
        let _ = reply(channel, answer);
    }
}

fn reply(channel: BorrowedFd<'_>, answer: io::Result<Vec<OwnedFd>>) -> io::Result<()> {
    let send = |reply: &Reply, fds: &[BorrowedFd<'_>]| {
        descriptors::send(channel, &serde_json::to_vec(reply)?, fds)
    };
    match answer {
        Ok(fds) => {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            let mut rest = &fds[..];
            while rest.len() > descriptors::FDS_MAX {
                let (now, later) = rest.split_at(descriptors::FDS_MAX);
                send(&Reply::More, now)?;
                rest = later;
            }
            send(&Reply::Done, rest)
        }
        Err(error) => {
            let (code, text) = (error.raw_os_error(), error.to_string());
            send(&Reply::Failed { code, text }, &[])
        }
    }
}

struct Serving {
    home: Netns,
    duties: Duties,
    /// Loaders that have not been waited for.
    loaders: Vec<Child>,
    files: Files,
    steps: Undo,
}

impl Serving {
    fn carry_out(&mut self, request: Request, fds: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
        let mut fds = fds.into_iter();
        let mut next = || {
            fds.next()
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        };
        let nothing = Vec::new();
        match request {
            Request::RememberFile(path, access) => {
                self.files.remember(path, access).map(|()| nothing)
            }
            Request::OpenFile(number) => self.files.open(number).map(|file| vec![file]),
            Request::Seal => {
                self.files.seal();
                Ok(nothing)
            }
            Request::OpenNetns(path) => {
                let netns = Netns::open(&path)?;
                Ok(vec![netns.as_fd().try_clone_to_owned()?])
            }
            Request::OpenRoot(netns) => open_root(&netns).map(|root| vec![root]),
            Request::Listener(spec) => {
                Netns::from_fd(next()?)?.enter()?;
                sockets::listen(&spec)
            }
            Request::Sockets(spec) => {
                Netns::from_fd(next()?)?.enter()?;
                sockets::make(&spec)
            }
            Request::StartLoader => self.start_loader(next()?).map(|socket| vec![socket]),
            Request::EndLoader => match self.loaders.pop() {
                Some(mut loader) => loader.wait().map(|_| nothing),
                None => Ok(nothing),
            },
            Request::InstallIptables(rules) => {
                let netns = Netns::from_fd(next()?)?;
                (self.duties.install_iptables)(&netns, rules).map(|()| nothing)
            }
            Request::Signal {
                cgroup,
                pid,
                number,
            } => undo::signal_in(&cgroup, pid, number).map(|()| nothing),
            Request::RemoveCgroup(path) => self.steps.cgroup(path).map(|()| nothing),
            Request::RemoveAdminDirectory(path) => {
                self.steps.admin_directory(path).map(|()| nothing)
            }
            Request::RemoveIptables { owner } => {
                self.steps.iptables(Netns::from_fd(next()?)?, owner);
                Ok(nothing)
            }
            Request::RemoveTokenPrefix { proxy_port } => {
                self.steps
                    .token_prefix(Netns::from_fd(next()?)?, proxy_port);
                Ok(nothing)
            }
        }
    }

    /// A loader that is at work when the proxy dies is waited for: it may be in
    /// the cgroup that is to be removed, or about to add a route.
    fn undo(mut self) -> io::Result<()> {
        let until = clock::now() + LOADERS_END_WITHIN;
        let ended = |loader: &mut Child| matches!(loader.try_wait(), Ok(Some(_)) | Err(_));
        while !self.loaders.iter_mut().all(ended) {
            if clock::now() > until {
                // It cannot be stuck in anything but the kernel.
                let kill = |loader: &mut Child| drop(loader.kill().and_then(|()| loader.wait()));
                self.loaders.iter_mut().for_each(kill);
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.files.remove_sockets();
        self.steps.all()
    }

    /// The loader starts where the helper did, whatever namespace a request
    /// has led it to since.
    fn start_loader(&mut self, error: OwnedFd) -> io::Result<OwnedFd> {
        self.home.enter()?;
        let (ours, theirs) = descriptors::pair()?;
        let loader = Command::new("/proc/self/exe")
            .arg(self.duties.loader)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::from(error))
            .spawn()?;
        self.loaders.push(loader);
        Ok(ours)
    }
}

/// The root directory of a process, to be looked up in but not to be read.
fn open_root(netns: &Path) -> io::Result<OwnedFd> {
    let process = match netns.ancestors().nth(2) {
        Some(process) if netns.ends_with("ns/net") => process,
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(process.join("root"))?;
    Ok(root.into())
}
