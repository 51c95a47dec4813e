//! The few system calls that the standard library has no name for.
#![expect(
    unsafe_code,
    reason = "kill, setns, setsockopt and setrlimit have no safe binding here"
)]

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends `signal` to the process `pid`.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers and touches no memory.
    check(unsafe { libc::kill(pid.cast_signed(), signal) })
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

/// Keeps the kernel's receive buffer of `stream` at about `bytes`.
pub fn limit_receive_buffer(stream: &TcpStream, bytes: i32) -> io::Result<()> {
    set_option(stream, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes)
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
