//! Sockets: a listener, and the client's side of a connection.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, Result, ioctl_fionbio};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

/// As many waiting connections as the kernel lets a listener have by default.
const BACKLOG: i32 = 4096;

/// How long a blocking connect may take. It stops the whole generator, so it
/// is shorter than the first retransmission of a SYN (1 s).
const BLOCKING_CONNECT_MAX: Duration = Duration::from_millis(500);

/// Who waits for the end of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// epoll, as event-driven clients do.
    Event,
    /// The call itself, as most programs do.
    Blocking,
}

/// How a client ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Close {
    /// With a RST, which leaves no TIME_WAIT at either end: a connection per
    /// request would use up the ephemeral ports of a destination in seconds.
    Reset,
    /// With a FIN; the port is in TIME_WAIT afterwards. Linux gives such ports
    /// out again after a second on loopback, where `net.ipv4.tcp_tw_reuse` is 2.
    Fin,
}

/// A non-blocking listener; what it accepts sends without delay.
pub fn listen(address: SocketAddr) -> Result<OwnedFd> {
    let socket = stream_socket(address, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Accepted sockets inherit it.
    sockopt::set_tcp_nodelay(&socket, true)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Where `socket` is bound.
pub fn local_address(socket: impl AsFd) -> Result<SocketAddr> {
    net::getsockname(socket)?.try_into()
}

/// A socket that is to be connected to `address`.
pub fn client(address: SocketAddr, connect: Connect, close: Close) -> Result<OwnedFd> {
    let flags = match connect {
        Connect::Event => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Connect::Blocking => SocketFlags::CLOEXEC,
    };
    let socket = stream_socket(address, flags)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if connect == Connect::Blocking {
        sockopt::set_socket_timeout(&socket, Timeout::Send, Some(BLOCKING_CONNECT_MAX))?;
    }
    if close == Close::Reset {
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    }
    Ok(socket)
}

/// One connect() call, and nothing besides, so that it can be timed. What became
/// of it is [`connect_result`]'s to say, when epoll says that it has ended.
pub fn connect(socket: impl AsFd, address: SocketAddr, how: Connect) -> Result<()> {
    match (net::connect(socket, &address), how) {
        (Err(Errno::INPROGRESS), Connect::Event) => Ok(()),
        (result, _) => result,
    }
}

/// Makes a connected socket one that epoll can be used with.
pub fn stop_blocking(socket: impl AsFd) -> Result<()> {
    ioctl_fionbio(socket, true)
}

/// What became of a connect that has ended.
pub fn connect_result(socket: impl AsFd) -> Result<()> {
    sockopt::socket_error(socket)?
}

fn stream_socket(address: SocketAddr, flags: SocketFlags) -> Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    net::socket_with(family, SocketType::STREAM, flags, None)
}
