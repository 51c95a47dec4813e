//! Sockets and their options.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{self, PollFd, PollFlags, Timespec};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::ioctl::{Getter, ioctl};
use rustix::net::{self, AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, sockopt};

use super::Backend;

/// A TCP socket to connect to `address` with, for the backend of this shard.
pub fn dial_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    // The ring takes O_NONBLOCK as "fail rather than wait"; epoll needs it.
    let nonblocking = match super::with(|core| core.driver.backend()) {
        Backend::Ring => SocketFlags::empty(),
        Backend::Epoll => SocketFlags::NONBLOCK,
    };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | nonblocking;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

/// Steers the connections of a reuseport group to the shard of the CPU that
/// connects: number `cpu % shards` in the order in which the sockets began to
/// listen (classic BPF on SO_ATTACH_REUSEPORT_CBPF, Linux 4.5, no privilege).
#[expect(unsafe_code, reason = "a socket option of pointers")]
pub(crate) fn steer_by_cpu(listener: BorrowedFd<'_>, shards: u16) -> io::Result<()> {
    const LOAD_CPU: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;
    let instruction = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, LOAD_CPU),
        instruction(
            libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K,
            u32::from(shards.max(1)),
        ),
        instruction(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the option takes a sock_fprog; the kernel copies the program.
    let set = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets no connection begin at a listening socket: it is refused. Handshakes
/// that have begun are finished, the queue stays as it is.
///
/// The kernel asks for the interface of a listener when a handshake begins, and
/// not later. Here it is one that does not exist (SO_BINDTOIFINDEX, without a
/// privilege since Linux 5.7). As long as another socket of a reuseport group
/// takes connections, it may share them with this one.
pub(super) fn turn_away(listener: &impl AsFd) -> io::Result<()> {
    match sockopt::socket_domain(listener)? {
        AddressFamily::UNIX => Ok(net::shutdown(listener, Shutdown::Read)?),
        _ => {
            let nowhere = libc::c_int::MAX.to_ne_bytes();
            set_option(listener, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, &nowhere)
        }
    }
}

/// Sets an option of plain bytes that rustix does not know.
#[expect(unsafe_code, reason = "setsockopt")]
fn set_option(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    let (fd, length) = (socket.as_fd().as_raw_fd(), value.len() as libc::socklen_t);
    // SAFETY: the pointer is to live bytes of the length that is named.
    match unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads an option of plain bytes that rustix does not know; how many there are.
#[expect(unsafe_code, reason = "getsockopt")]
fn option(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut [u8],
) -> io::Result<usize> {
    let (fd, mut length) = (socket.as_fd().as_raw_fd(), value.len() as libc::socklen_t);
    let place = value.as_mut_ptr().cast();
    // SAFETY: both pointers are to live values; the kernel writes no more bytes
    // than `length` says.
    match unsafe { libc::getsockopt(fd, level, name, place, &raw mut length) } {
        0 => Ok(length as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes that the kernel keeps for a socket: received and not read, or sent and
/// not acknowledged (SO_MEMINFO, Linux 4.12). Nothing where it does not say.
pub(super) fn queued(socket: &impl AsFd) -> usize {
    /// SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_WMEM_QUEUED of linux/sock_diag.h.
    const RECEIVED: usize = 0;
    const SENT: usize = 5;
    const SO_MEMINFO: libc::c_int = 55;
    let mut info = [0; 4 * (SENT + 1)];
    if option(socket, libc::SOL_SOCKET, SO_MEMINFO, &mut info).is_err() {
        return 0;
    }
    let (words, _) = info.as_chunks();
    let word = |index: usize| u32::from_ne_bytes(words[index]) as usize;
    word(RECEIVED) + word(SENT)
}

/// Whether a connected socket has neither bytes nor an end nor an error to tell of.
pub(crate) fn is_quiet(socket: &impl AsFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    net::recv(socket, &mut [0; 1], flags) == Err(Errno::AGAIN)
}

/// Whether the other end has said that it takes nothing more for now: its window
/// is closed (tcpi_snd_wnd, Linux 5.4).
pub(super) fn is_window_closed(socket: &impl AsFd) -> io::Result<bool> {
    /// Where in struct tcp_info of linux/tcp.h it stands.
    const WINDOW: std::ops::Range<usize> = 228..232;
    let mut info = [0; WINDOW.end];
    let length = option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    Ok(length == info.len() && info[WINDOW] == [0; 4])
}

/// How much of what was sent the peer has not taken: for TCP what it has not
/// acknowledged, for a unix socket what it has not read, with what the kernel
/// needs around it.
#[expect(unsafe_code, reason = "ioctl")]
pub(super) fn outgoing_bytes(socket: &impl AsFd) -> io::Result<u64> {
    // SAFETY: the kernel fills in an int. SIOCOUTQ has the number of TIOCOUTQ.
    let bytes = unsafe {
        ioctl(
            socket,
            Getter::<{ libc::TIOCOUTQ as _ }, libc::c_int>::new(),
        )
    }?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Sets or clears O_NONBLOCK as the backend needs it.
pub(super) fn suit(socket: &impl AsFd, backend: Backend) -> io::Result<()> {
    let flags = fcntl_getfl(socket)?;
    let wanted = match backend {
        Backend::Ring => flags - OFlags::NONBLOCK,
        Backend::Epoll => flags | OFlags::NONBLOCK,
    };
    if flags != wanted {
        fcntl_setfl(socket, wanted)?;
    }
    Ok(())
}

/// Makes the close of a socket send a reset.
pub(super) fn reset_on_close(socket: &impl AsFd) {
    // A failure leaves an orderly close.
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// How a peer has left, as far as its connection tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It has ended its direction, and may still read.
    Fin,
    /// The connection has failed.
    Failed,
    /// It has sent more than its reader has taken. Receiving has stopped, so
    /// that an end would not be seen.
    Unseen,
}

/// What became of the peer of a connected socket, as the kernel knows it now.
pub(super) fn departure(socket: &impl AsFd) -> Option<Departure> {
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    let now = Timespec::default();
    // Interrupted or out of memory: it is asked again before long.
    event::poll(&mut polled, Some(&now)).ok()?;
    let events = polled[0].revents();
    if events.intersects(PollFlags::HUP | PollFlags::ERR) {
        return Some(Departure::Failed);
    }
    events.contains(PollFlags::RDHUP).then_some(Departure::Fin)
}

/// Ends the sending direction.
pub(super) fn shutdown_write(socket: &impl AsFd) {
    // ENOTCONN means that it has ended already.
    let _ = net::shutdown(socket, Shutdown::Write);
}

/// The address of this end.
pub(crate) fn local_address(socket: &impl AsFd) -> io::Result<SocketAddr> {
    Ok(net::getsockname(socket)?.try_into()?)
}

/// The address of the other end.
pub(super) fn peer_address(socket: &impl AsFd) -> io::Result<SocketAddr> {
    let address = net::getpeername(socket)?.ok_or(Errno::NOTCONN)?;
    Ok(address.try_into()?)
}
