//! The few system calls that the standard library has no name for.
#![expect(
    unsafe_code,
    reason = "bpf, kill, openpty, setns, setrlimit, signal, sockets and their options have no safe binding here"
)]

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Sends `signal` to the process `pid`.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers and touches no memory.
    check(unsafe { libc::kill(pid.cast_signed(), signal) })
}

/// Sends a signal to every process of the group that this one leads.
pub fn kill_group(leader: u32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers and touches no memory.
    check(unsafe { libc::kill(-leader.cast_signed(), signal) })
}

/// Has the program that `command` starts not ignore SIGINT and SIGQUIT.
pub fn heed_interrupts(command: &mut Command) -> &mut Command {
    let heed = || {
        for signal in [libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: it sets the default action, and may be called after a fork.
            if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: what runs between fork and exec makes system calls only.
    unsafe { command.pre_exec(heed) }
}

/// Whether this is root.
pub fn is_root() -> bool {
    // SAFETY: it only asks.
    unsafe { libc::geteuid() == 0 }
}

/// Moves the calling thread into the network namespace behind `namespace`.
pub fn enter_network_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setns takes a descriptor, which is open, and a flag.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Makes the close of `stream` a reset.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(stream, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// Two ends of one connection.
pub fn connected_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    Ok((near, far))
}

/// Has a listener queue one connection at most.
pub fn shorten_queue(listener: &TcpListener) -> io::Result<()> {
    // SAFETY: listen takes two integers; the descriptor is open.
    check(unsafe { libc::listen(listener.as_raw_fd(), 0) })
}

/// Keeps the kernel's receive buffer of `stream` at about `bytes`.
pub fn limit_receive_buffer(stream: &TcpStream, bytes: i32) -> io::Result<()> {
    set_option(stream, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes)
}

/// Connects with the smallest receive buffer, and announces small segments:
/// both keep the peer's send buffer small.
pub fn connect_with_small_buffers(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = tcp_socket()?;
    set_option(&stream, libc::IPPROTO_TCP, libc::TCP_MAXSEG, &100)?;
    // The kernel makes it the least that it allows.
    limit_receive_buffer(&stream, 1)?;
    let to = sockaddr(address)?;
    let length = size_of_val(&to) as libc::socklen_t;
    // SAFETY: the pointer and the length describe one live address.
    check(unsafe { libc::connect(stream.as_raw_fd(), (&raw const to).cast(), length) })?;
    Ok(stream)
}

/// Connects from an address of this machine.
pub fn connect_from(from: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = tcp_socket()?;
    let (from, to) = (sockaddr((from, 0).into())?, sockaddr(address)?);
    let length = size_of_val(&to) as libc::socklen_t;
    // SAFETY: the pointer and the length describe one live address.
    check(unsafe { libc::bind(stream.as_raw_fd(), (&raw const from).cast(), length) })?;
    // SAFETY: the same.
    check(unsafe { libc::connect(stream.as_raw_fd(), (&raw const to).cast(), length) })?;
    Ok(stream)
}

fn tcp_socket() -> io::Result<TcpStream> {
    // SAFETY: socket takes three integers and touches no memory.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn sockaddr(address: SocketAddr) -> io::Result<libc::sockaddr_in> {
    let SocketAddr::V4(address) = address else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    Ok(libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.ip().octets()),
        },
        sin_zero: [0; 8],
    })
}

/// A new pseudo-terminal: the end of whoever types and reads, and that of the
/// programs.
pub fn open_terminal() -> io::Result<(File, File)> {
    let (mut ours, mut theirs) = (-1, -1);
    let (name, settings, size) = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
    // SAFETY: both numbers are live for the kernel to fill; the rest may be null.
    check(unsafe { libc::openpty(&raw mut ours, &raw mut theirs, name, settings, size) })?;
    // SAFETY: both descriptors are new, and nobody else's.
    let (ours, theirs) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    for end in [&ours, &theirs] {
        // SAFETY: fcntl takes three integers here and touches no memory.
        check(unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    }
    Ok((ours, theirs))
}

/// The kinds of BPF objects that have an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BpfKind {
    /// Programs.
    Program,
    /// Maps.
    Map,
    /// Links.
    Link,
}

/// Whether the kernel has a BPF object of this id.
pub fn has_bpf_object(kind: BpfKind, id: u32) -> io::Result<bool> {
    // BPF_PROG_GET_NEXT_ID, BPF_MAP_GET_NEXT_ID and BPF_LINK_GET_NEXT_ID.
    let command = match kind {
        BpfKind::Program => 11,
        BpfKind::Map => 12,
        BpfKind::Link => 31,
    };
    // start_id, next_id and open_flags: asked for the first id after the one before.
    let mut attributes = [id - 1, 0, 0];
    let (place, size) = (attributes.as_mut_ptr(), size_of_val(&attributes));
    // SAFETY: the attributes are live, and of the size given.
    if unsafe { libc::syscall(libc::SYS_bpf, command, place, size) } < 0 {
        return match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::NotFound => Ok(false),
            error => Err(error),
        };
    }
    Ok(attributes[1] == id)
}

fn set_option<T>(stream: &TcpStream, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let value: *const T = value;
    // SAFETY: the pointer and the length describe one live value.
    check(unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, value.cast(), length) })
}

/// Raises the soft limit of open files to the hard one; children inherit it.
pub fn raise_open_files() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live rlimit for the kernel to fill.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a live rlimit for the kernel to read.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
