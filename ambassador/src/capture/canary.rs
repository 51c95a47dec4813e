//! The canary: a socket that belongs to the captured cgroup and connects to an
//! address nobody has. A socket keeps the cgroup it was made in, so one made at
//! start serves for good, without privilege.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ambassador_ebpf::{CANARY, CANARY_PORT, CANARY_V4, TOKEN_V4};
use rustix::event::{self, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::netns;

/// How long a canary may take to connect over loopback.
const PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Makes the socket inside the cgroup. A cgroup that distributes controllers
/// takes no processes: then a child of it serves, and is removed again.
pub(super) fn socket(cgroup: &Path, netns: Option<&File>) -> io::Result<OwnedFd> {
    let home = own_cgroup(cgroup)?;
    let child = cgroup.join("ambassador-canary");
    let joined = match join(cgroup) {
        Ok(()) => Ok(()),
        Err(_) => {
            fs::create_dir(&child).or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            })?;
            join(&child)
        }
    };
    let socket = joined.and_then(|()| netns::within(netns, make));
    join(&home)?;
    match fs::remove_dir(&child) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => socket,
    }
}

/// The cgroup this process is in, as a path below the mount of `cgroup`.
fn own_cgroup(cgroup: &Path) -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let own = text
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .ok_or_else(|| io::Error::other("/proc/self/cgroup names no cgroup2 group"))?;
    Ok(root_of(cgroup)?.join(own))
}

/// The topmost directory of the cgroup2 mount that holds `path`.
pub(super) fn root_of(path: &Path) -> io::Result<PathBuf> {
    let mut root = path.canonicalize()?;
    let device = root.metadata()?.dev();
    while let Some(parent) = root.parent() {
        if parent.metadata()?.dev() != device {
            break;
        }
        root = parent.to_path_buf();
    }
    Ok(root)
}

fn join(cgroup: &Path) -> io::Result<()> {
    let mut procs = File::options()
        .write(true)
        .open(cgroup.join("cgroup.procs"))?;
    procs.write_all(b"0")
}

fn make() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
    Ok(socket?)
}

/// Connects the canary and looks at its peer: the canary's token at our port,
/// which getpeername() hides for every other connection. Whoever else answers
/// at an address for documentation captured it instead of us.
pub(super) fn sing(socket: BorrowedFd<'_>, proxy_port: u16) -> io::Result<()> {
    let result = connect(socket).and_then(|()| peer(socket));
    disconnect(socket)?;
    let token = Ipv4Addr::from_bits(TOKEN_V4 + CANARY);
    match result? {
        peer if peer == SocketAddrV4::new(token, proxy_port) => Ok(()),
        _ => Err(io::Error::other("another program answered in our place")),
    }
}

fn peer(socket: BorrowedFd<'_>) -> io::Result<SocketAddrV4> {
    let peer = net::getpeername(socket)?.ok_or(Errno::NOTCONN)?;
    Ok(peer.try_into()?)
}

fn connect(socket: BorrowedFd<'_>) -> io::Result<()> {
    let address = SocketAddrV4::new(Ipv4Addr::from_bits(CANARY_V4), CANARY_PORT);
    match net::connect(socket, &address) {
        Err(Errno::INPROGRESS) => {}
        done => return Ok(done?),
    }
    let mut polled = [PollFd::new(&socket, PollFlags::OUT)];
    if event::poll(&mut polled, Some(&PATIENCE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(sockopt::socket_error(socket)??)
}

/// Makes the socket as new, whatever became of its last connect.
fn disconnect(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(net::connect_unspec(socket)?)
}
