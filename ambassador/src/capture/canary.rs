//! The canary: a socket that belongs to the captured cgroup and connects to an
//! address nobody has. A socket keeps the cgroup it was made in, so one made at
//! start serves for good, without privilege.
#![expect(unsafe_code, reason = "socket calls on an address of our own making")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ambassador_ebpf::{CANARY, CANARY_PORT, CANARY_V4, TOKEN_V4};

use super::netns;

/// How long a canary may take to connect over loopback (milliseconds).
const PATIENCE_MS: libc::c_int = 1000;

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
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; the descriptor is new.
    unsafe {
        let fd = libc::socket(libc::AF_INET, kind, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
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
    let mut length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: zero is a valid address; the kernel writes at most the length.
    let (result, address) = unsafe {
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        let to = (&raw mut address).cast();
        (
            libc::getpeername(socket.as_raw_fd(), to, &mut length),
            address,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let ip = Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr));
    Ok(SocketAddrV4::new(ip, u16::from_be(address.sin_port)))
}

fn connect(socket: BorrowedFd<'_>) -> io::Result<()> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: CANARY_PORT.to_be(),
        sin_addr: libc::in_addr {
            s_addr: CANARY_V4.to_be(),
        },
        sin_zero: [0; 8],
    };
    match connect_to(socket, &address) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        done => return done,
    }
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    let mut status: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both calls write to live values of the lengths given.
    unsafe {
        match libc::poll(&mut poll, 1, PATIENCE_MS) {
            0 => return Err(io::ErrorKind::TimedOut.into()),
            n if n < 0 => return Err(io::Error::last_os_error()),
            _ => {}
        }
        if libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut status).cast(),
            &mut length,
        ) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    match status {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Makes the socket as new, whatever became of its last connect.
fn disconnect(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: zero is a valid address; AF_UNSPEC ends the connection.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_UNSPEC as u16;
    connect_to(socket, &address)
}

fn connect_to(socket: BorrowedFd<'_>, address: &libc::sockaddr_in) -> io::Result<()> {
    // SAFETY: the address is live and of the length given.
    let result = unsafe {
        libc::connect(
            socket.as_raw_fd(),
            std::ptr::from_ref(address).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
