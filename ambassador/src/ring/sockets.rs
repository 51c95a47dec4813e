//! Sockets and their options.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{self, PollFd, PollFlags, Timespec};

use super::Backend;

/// A socket address as the kernel wants it.
pub(super) struct RawAddress {
    /// The address, of `length` bytes.
    pub storage: libc::sockaddr_storage,
    /// Its length for its family.
    pub length: libc::socklen_t,
}

/// A TCP socket to connect to `address` with, for the backend of this shard.
pub fn dial_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    // The ring takes O_NONBLOCK as "fail rather than wait"; epoll needs it.
    let nonblocking = match super::with(|core| core.driver.backend()) {
        Backend::Ring => 0,
        Backend::Epoll => libc::SOCK_NONBLOCK,
    };
    let socket = socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | nonblocking)?;
    set_int(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    Ok(socket)
}

/// Steers the connections of a reuseport group to the shard of the CPU that
/// connects: number `cpu % shards` in the order in which the sockets began to
/// listen (classic BPF on SO_ATTACH_REUSEPORT_CBPF, Linux 4.5, no privilege).
#[expect(unsafe_code, reason = "the standard library has no such socket option")]
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
pub(super) fn turn_away(listener: &impl AsRawFd) -> io::Result<()> {
    match get_int(listener, libc::SO_DOMAIN)? {
        libc::AF_UNIX => shutdown_read(listener),
        _ => set_int(
            listener,
            libc::SOL_SOCKET,
            libc::SO_BINDTOIFINDEX,
            libc::c_int::MAX,
        ),
    }
}

#[expect(unsafe_code, reason = "shutdown on a raw descriptor")]
fn shutdown_read(socket: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    match unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(
    unsafe_code,
    reason = "the standard library makes no unconnected TCP sockets"
)]
fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(family, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an integer option.
#[expect(unsafe_code, reason = "setsockopt")]
pub(super) fn set_int(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer is to a live int of the size that is named.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The error that is pending on a socket.
pub(super) fn pending_error(socket: &impl AsRawFd) -> io::Result<()> {
    match get_int(socket, libc::SO_ERROR)? {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// An integer option of any socket.
#[expect(unsafe_code, reason = "getsockopt")]
fn get_int(socket: &impl AsRawFd, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to live values, of the size that is named.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    match got {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes that the kernel keeps for a socket: received and not read, or sent and
/// not acknowledged (SO_MEMINFO, Linux 4.12). Nothing where it does not say.
#[expect(unsafe_code, reason = "getsockopt")]
pub(super) fn queued(socket: &impl AsRawFd) -> usize {
    /// SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_WMEM_QUEUED of linux/sock_diag.h.
    const RECEIVED: usize = 0;
    const SENT: usize = 5;
    const SO_MEMINFO: libc::c_int = 55;
    let mut info = [0_u32; SENT + 1];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: both pointers are to live values, of the size that is named; the
    // kernel writes no more than that.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match got {
        0 => info[RECEIVED] as usize + info[SENT] as usize,
        _ => 0,
    }
}

/// Whether a connected socket has neither bytes nor an end nor an error to tell of.
#[expect(unsafe_code, reason = "recv with MSG_PEEK")]
pub(crate) fn is_quiet(socket: &impl AsRawFd) -> bool {
    let mut byte = [0_u8; 1];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the buffer is one live byte.
    let peeked = unsafe { libc::recv(socket.as_raw_fd(), byte.as_mut_ptr().cast(), 1, flags) };
    peeked < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}

/// Whether the other end has said that it takes nothing more for now: its window
/// is closed (tcpi_snd_wnd, Linux 5.4).
#[expect(
    unsafe_code,
    reason = "getsockopt with a struct that libc knows in part"
)]
pub(super) fn is_window_closed(socket: &impl AsRawFd) -> io::Result<bool> {
    /// Where in struct tcp_info of linux/tcp.h it stands.
    const WINDOW: std::ops::Range<usize> = 228..232;
    let mut info = [0_u8; WINDOW.end];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: both pointers are to live values, of the size that is named; the
    // kernel writes no more than that.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(length as usize == info.len() && info[WINDOW] == [0; 4])
}

/// How much of what was sent the peer has not taken: for TCP what it has not
/// acknowledged, for a unix socket what it has not read, with what the kernel
/// needs around it.
#[expect(unsafe_code, reason = "ioctl")]
pub(super) fn outgoing_bytes(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the pointer is to a live int, which the kernel fills. SIOCOUTQ has
    // the number of TIOCOUTQ.
    let got = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    match got {
        0 => Ok(u64::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets or clears O_NONBLOCK as the backend needs it.
#[expect(unsafe_code, reason = "fcntl")]
pub(super) fn suit(socket: &impl AsRawFd, backend: Backend) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    // SAFETY: no pointers are passed.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let wanted = match backend {
        Backend::Ring => flags & !libc::O_NONBLOCK,
        Backend::Epoll => flags | libc::O_NONBLOCK,
    };
    // SAFETY: as above.
    if flags < 0 || flags != wanted && unsafe { libc::fcntl(fd, libc::F_SETFL, wanted) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes the close of a socket send a reset.
#[expect(unsafe_code, reason = "setsockopt with a struct")]
pub(super) fn reset_on_close(socket: &impl AsRawFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the pointer is to a live linger of the size that is named. A
    // failure leaves an orderly close.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
}

/// What became of a peer, as far as its connection tells.
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
#[expect(unsafe_code, reason = "shutdown on a raw descriptor")]
pub(super) fn shutdown_write(socket: &impl AsRawFd) {
    // SAFETY: no pointers. ENOTCONN means that it has ended already.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

/// The address of this end.
pub(crate) fn local_address(socket: &impl AsRawFd) -> io::Result<SocketAddr> {
    address_by(socket, libc::getsockname)
}

/// The address of the other end.
pub(super) fn peer_address(socket: &impl AsRawFd) -> io::Result<SocketAddr> {
    address_by(socket, libc::getpeername)
}

type AddressCall =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

#[expect(unsafe_code, reason = "getsockname and getpeername")]
fn address_by(socket: &impl AsRawFd, call: AddressCall) -> io::Result<SocketAddr> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the storage is large enough for every family, and `length` says
    // so. Zeroes are a valid sockaddr_storage.
    let storage = unsafe {
        if call(
            socket.as_raw_fd(),
            storage.as_mut_ptr().cast(),
            &raw mut length,
        ) != 0
        {
            return Err(io::Error::last_os_error());
        }
        storage.assume_init()
    };
    read_address(&storage)
}

#[expect(
    unsafe_code,
    reason = "reads the variant of a sockaddr that its family names"
)]
fn read_address(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    let storage: *const libc::sockaddr_storage = storage;
    // SAFETY: a sockaddr_storage is large and aligned enough for every family.
    unsafe {
        match i32::from((*storage).ss_family) {
            libc::AF_INET => {
                let v4 = &*storage.cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Ok(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let v6 = &*storage.cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                let port = u16::from_be(v6.sin6_port);
                Ok(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => Err(io::Error::other("not an internet socket")),
        }
    }
}

impl RawAddress {
    /// The raw form of `address`.
    #[expect(
        unsafe_code,
        reason = "writes the variant of a sockaddr that the family names"
    )]
    pub(super) fn new(address: &SocketAddr) -> Self {
        // SAFETY: zeroes are a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let place = &raw mut storage;
        // SAFETY: a sockaddr_storage is large and aligned enough for both.
        let length = unsafe {
            match address {
                SocketAddr::V4(v4) => {
                    let raw = &mut *place.cast::<libc::sockaddr_in>();
                    raw.sin_family = libc::AF_INET as libc::sa_family_t;
                    raw.sin_port = v4.port().to_be();
                    raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                    size_of::<libc::sockaddr_in>()
                }
                SocketAddr::V6(v6) => {
                    let raw = &mut *place.cast::<libc::sockaddr_in6>();
                    raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                    raw.sin6_port = v6.port().to_be();
                    raw.sin6_flowinfo = v6.flowinfo();
                    raw.sin6_addr.s6_addr = v6.ip().octets();
                    raw.sin6_scope_id = v6.scope_id();
                    size_of::<libc::sockaddr_in6>()
                }
            }
        };
        Self {
            storage,
            length: length as libc::socklen_t,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_the_kernel_and_back() {
        for text in ["10.1.2.3:80", "[2001:db8::1%7]:443", "[::ffff:1.2.3.4]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(
                read_address(&RawAddress::new(&address).storage).unwrap(),
                address
            );
        }
    }
}
