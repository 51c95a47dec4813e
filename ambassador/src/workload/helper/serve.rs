//! The helper's own side.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use super::message::{Reply, Request};
use super::undo::{self, Undo, Undoing};
use crate::workload::capabilities::{Capability, keep_only};
use crate::workload::{Netns, SocketSpec, clone, descriptors, sockets};

/// The hidden subcommand that makes this binary a helper.
pub const SUBCOMMAND: &str = "privileged-helper";

/// What the helper's requests and undoing take; all else is given up.
const KEPT: [Capability; 8] = [
    Capability::DacOverride,
    Capability::Kill,
    Capability::NetBindService,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::SysPtrace,
    Capability::SysAdmin,
    Capability::Bpf,
];

/// How long a socket of another cgroup may take: the cgroup can be frozen, or
/// out of its CPU quota.
const IN_CGROUP_MS: i32 = 1_000;

/// The life of the helper process: serves the pair on its standard input
/// until the other end is closed, then undoes what it was told to.
pub fn serve(undoing: Undoing) -> ExitCode {
    close_inherited();
    outlive_the_proxy();
    let served = keep_only(&KEPT).and_then(|()| serve_on(io::stdin().as_fd(), undoing));
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

pub(super) fn serve_on(channel: BorrowedFd<'_>, undoing: Undoing) -> io::Result<()> {
    let mut steps = Undo::new(undoing);
    loop {
        let (text, fds) = match descriptors::receive(channel) {
            Ok(Some(request)) => request,
            // However the conversation ends, what was set up is undone.
            Ok(None) => return steps.all(),
            Err(error) => return steps.all().and(Err(error)),
        };
        let answer = serde_json::from_slice(&text)
            .map_err(io::Error::from)
            .and_then(|request| carry_out(request, fds, &mut steps));
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
        Err(error) => send(
            &Reply::Failed(error.raw_os_error().unwrap_or(libc::EINVAL)),
            &[],
        ),
    }
}

fn carry_out(request: Request, fds: Vec<OwnedFd>, steps: &mut Undo) -> io::Result<Vec<OwnedFd>> {
    let mut fds = fds.into_iter();
    let mut next = || {
        fds.next()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    };
    match request {
        Request::OpenNetns(path) => {
            let netns = Netns::open(&path)?;
            Ok(vec![netns.as_fd().try_clone_to_owned()?])
        }
        Request::Listener(spec) => {
            Netns::from_fd(next()?)?.enter()?;
            sockets::listen(&spec)
        }
        Request::Sockets(spec) => {
            Netns::from_fd(next()?)?.enter()?;
            sockets::make(&spec)
        }
        Request::SocketInCgroup(spec) => {
            Netns::from_fd(next()?)?.enter()?;
            socket_in_cgroup(next()?.as_fd(), &spec).map(|socket| vec![socket])
        }
        Request::Relink { attach_type } => {
            let (program, cgroup) = (next()?, next()?);
            link(program.as_fd(), cgroup.as_fd(), attach_type).map(|link| vec![link])
        }
        Request::Signal {
            cgroup,
            pid,
            number,
        } => undo::signal_in(&cgroup, pid, number).map(|()| Vec::new()),
        Request::RemoveCgroup(path) => steps.cgroup(path).map(|()| Vec::new()),
        Request::RemoveAdminDirectory(path) => steps.admin_directory(path).map(|()| Vec::new()),
        Request::RemoveIptables { owner } => {
            steps.iptables(Netns::from_fd(next()?)?, owner);
            Ok(Vec::new())
        }
        Request::RemoveTokenPrefix { proxy_port } => {
            steps.token_prefix(Netns::from_fd(next()?)?, proxy_port);
            Ok(Vec::new())
        }
    }
}

/// A socket belongs to the cgroup of the process that makes it, so a child is
/// cloned into the cgroup; it shares our descriptor table and tells us the
/// number.
#[expect(unsafe_code, reason = "std cannot clone into a cgroup")]
fn socket_in_cgroup(cgroup: BorrowedFd<'_>, spec: &SocketSpec) -> io::Result<OwnedFd> {
    let (mut numbers, tell) = io::pipe()?;
    let mut arguments = clone::Arguments::into_cgroup(cgroup);
    arguments.flags |= libc::CLONE_FILES as u64;
    // SAFETY: the child makes a socket, writes its number and ends, without allocating or unwinding.
    let child = unsafe { clone::clone(&mut arguments)? };
    if child == 0 {
        let number: i32 = match sockets::make_one(spec) {
            Ok(socket) => std::os::fd::IntoRawFd::into_raw_fd(socket),
            Err(error) => -error.raw_os_error().unwrap_or(libc::EINVAL),
        };
        let told = io::Write::write_all(&mut &tell, &number.to_ne_bytes());
        // SAFETY: ends the child at once; nothing of the parent is dropped.
        unsafe { libc::_exit(i32::from(told.is_err())) }
    }
    let mut watched = libc::pollfd {
        fd: numbers.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one live pollfd; then the child that we made is ended, if need
    // be, and reaped: its number cannot have been reused before that.
    let ready = unsafe { libc::poll(&raw mut watched, 1, IN_CGROUP_MS) };
    if ready <= 0 {
        // SAFETY: as above.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    let mut number = [0; 4];
    let read = match ready {
        1 => io::Read::read_exact(&mut numbers, &mut number),
        _ => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
    };
    let flags = if ready == 1 { 0 } else { libc::WNOHANG };
    // SAFETY: as above; a child that is frozen is left to be reaped by init.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), flags) };
    read?;
    match RawFd::from_ne_bytes(number) {
        // SAFETY: the child made this descriptor in the table we share and
        // left it to us.
        fd @ 0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// `BPF_LINK_CREATE` of bpf.h.
const LINK_CREATE: libc::c_long = 28;

/// The part of `union bpf_attr` that BPF_LINK_CREATE reads.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[expect(unsafe_code, reason = "a bpf(2) call")]
fn link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: program.as_raw_fd() as u32,
        target: cgroup.as_raw_fd() as u32,
        attach_type,
        flags: 0,
    };
    // SAFETY: bpf(2) reads as many bytes of the attributes as it is told; the
    // descriptor it returns is new and ours.
    unsafe {
        match libc::syscall(
            libc::SYS_bpf,
            LINK_CREATE,
            &raw const attributes,
            size_of::<LinkCreate>(),
        ) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd as RawFd)),
        }
    }
}
