//! Making sockets: in the caller's own namespace directly, in another
//! through the [`Helper`].

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, netlink, sockopt};
use serde::{Deserialize, Serialize};

use super::capabilities::{self, Capability};
use super::socket_owner::{Owner, OwnerLookup};
use super::supply::Shelf;
use super::user;
use super::{Helper, LocalAddresses, Netns, Supply, descriptors};
use crate::clock::{self, Instant};

/// Connections that wait to be accepted, per listening socket; the kernel
/// caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// How long an address may stay in use before that is an error.
pub(crate) const FREE_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// SO_MARK of the proxy's sockets in iptables mode, where its own cgroup is
/// captured.
pub(crate) const PROXY_MARK: u32 = 0x616d;

/// A listener to open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BindSpec {
    /// Where; with port 0 the kernel chooses one, the same for all sockets.
    pub addr: SocketAddr,
    /// How many sockets share the port (SO_REUSEPORT); a single one is opened
    /// without, so that a busy port is an error.
    pub count: u16,
    /// An IPv6 listener takes v6 connections only.
    pub v6_only: bool,
    /// Accept connections to addresses that are not local (IP_TRANSPARENT).
    pub transparent: bool,
    /// Who may connect.
    pub reach: Reach,
}

/// From where a listener is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// From everywhere.
    Anywhere,
    /// Over the loopback device alone: what comes over another one is dropped
    /// before the handshake, and gets no answer.
    Loopback,
}

/// A socket family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(addr: &SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::INET,
            Family::V6 => Self::INET6,
        }
    }
}

/// What a socket carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// TCP.
    Stream,
    /// UDP, for the questions to name servers.
    Datagram,
    /// NETLINK_SOCK_DIAG, for questions about sockets; of no family.
    Diagnosis,
    /// NETLINK_ROUTE, for questions about addresses; of no family.
    Routes,
}

/// Sockets to make, neither bound nor connected.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SocketSpec {
    /// Their family.
    pub family: Family,
    /// What they carry.
    pub kind: Kind,
    /// How many.
    pub count: u16,
    /// SO_MARK, by which iptables rules know the proxy where they can't tell
    /// it by its cgroup.
    pub mark: Option<u32>,
}

impl SocketSpec {
    /// As many at once as go into one datagram.
    pub const COUNT_MAX: u16 = descriptors::FDS_MAX as u16;
}

/// Opens listening sockets in the namespace of the calling thread:
/// non-blocking, close-on-exec, SO_REUSEADDR. The port is taken exclusively
/// when `count` is 1. With more, sockets of the same user can join it: a probe
/// without SO_REUSEPORT comes first, so that a busy port is an error in either
/// case, and where this thread may (CAP_CHOWN) the sockets are given to a user
/// that no process is.
pub(crate) fn listen(spec: &BindSpec) -> io::Result<Vec<OwnedFd>> {
    if spec.count == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut addr = spec.addr;
    let mut sharing = Sharing::Exclusive;
    let owner = capabilities::has(Capability::Chown).then(user::nobody);
    // Held until the others have the port; it never listens.
    let probe;
    if spec.count > 1 {
        probe = bound(spec, addr, Sharing::Exclusive)?;
        addr.set_port(port_of(&probe)?);
        sharing = Sharing::Shared(owner.flatten());
    }
    (0..spec.count)
        .map(|_| {
            let socket = bound(spec, addr, sharing)?;
            net::listen(&socket, BACKLOG)?;
            Ok(socket)
        })
        .collect()
}

/// Tries again while the address is in use: of a listener that closes, or of a
/// process that was killed, the kernel takes its time to let go. Says once that
/// it waits for `what`.
pub(crate) fn once_free<T>(
    what: impl fmt::Display,
    until: Instant,
    mut bind: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let mut said = false;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && clock::now() < until => {
                if !said {
                    tracing::info!("{what} is in use, waiting for it");
                    said = true;
                }
                std::thread::sleep(LOOK_EVERY);
            }
            bound => return bound,
        }
    }
}

/// Makes sockets in the namespace of the calling thread: non-blocking,
/// close-on-exec.
pub(crate) fn make(spec: &SocketSpec) -> io::Result<Vec<OwnedFd>> {
    (0..spec.count).map(|_| make_one(spec)).collect()
}

/// One of [`make`]; does not allocate, so that a forked child may call it.
pub(super) fn make_one(spec: &SocketSpec) -> io::Result<OwnedFd> {
    let socket = socket(spec.family, spec.kind)?;
    if let Some(mark) = spec.mark {
        option(&socket, libc::SOL_SOCKET, libc::SO_MARK, mark as i32)?;
    }
    Ok(socket)
}

/// Where one shard gets its upstream sockets of one workload from: its own
/// namespace, or a small stock of what the helper made in another.
#[derive(Debug)]
pub struct SocketStock {
    remote: Option<Remote>,
    stock: RefCell<[Vec<OwnedFd>; 2]>,
    /// That of our own namespace is made when it is asked for.
    owners: RefCell<Option<OwnerLookup>>,
}

#[derive(Debug)]
struct Remote {
    supply: Arc<Supply>,
    /// By family.
    shelves: [Arc<Shelf>; 2],
}

impl SocketStock {
    /// Sockets of the proxy's own namespace; needs no privilege.
    pub fn own() -> Self {
        Self {
            remote: None,
            stock: RefCell::default(),
            owners: RefCell::default(),
        }
    }

    /// Sockets that the helper makes: in another namespace, or with a mark. The
    /// first are made now; to be called where waiting is fine.
    pub fn remote(supply: &Arc<Supply>, netns: &Netns, mark: Option<u32>) -> io::Result<Self> {
        let helper = supply.helper();
        let spec = |family| SocketSpec {
            family,
            kind: Kind::Stream,
            count: 0,
            mark,
        };
        // Not every kernel has IPv6.
        let v6 = Shelf::filled(helper, netns, spec(Family::V6))
            .unwrap_or_else(|_| Shelf::empty(netns, spec(Family::V6)));
        let shelves = [Shelf::filled(helper, netns, spec(Family::V4))?, v6];
        let owners = made_there(helper, netns, Kind::Diagnosis).map(OwnerLookup::over);
        Ok(Self {
            remote: Some(Remote {
                supply: Arc::clone(supply),
                shelves,
            }),
            stock: RefCell::default(),
            owners: RefCell::new(owners.ok()),
        })
    }

    /// Who has the other end of a TCP connection within the namespace.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn owner_of(&self, local: SocketAddr, peer: SocketAddr) -> io::Result<Owner> {
        let mut owners = self.owners.borrow_mut();
        let owners = match &mut *owners {
            Some(known) => known,
            None if self.remote.is_some() => return Err(io::ErrorKind::Unsupported.into()),
            none => none.insert(OwnerLookup::over(socket(Family::V4, Kind::Diagnosis)?)),
        };
        owners.owner_of(local, peer)
    }

    /// A fresh socket. Where they come from the helper, the calling task may
    /// have to wait for it.
    pub async fn take(&self, family: Family) -> io::Result<OwnedFd> {
        let Some(remote) = &self.remote else {
            return socket(family, Kind::Stream);
        };
        let index = usize::from(family == Family::V6);
        poll_fn(|context| {
            let here = &mut self.stock.borrow_mut()[index];
            remote.shelves[index].poll_take(&remote.supply, here, context)
        })
        .await
    }
}

/// Which addresses are local in the proxy's own namespace.
pub(crate) fn local_addresses() -> io::Result<LocalAddresses> {
    socket(Family::V4, Kind::Routes).map(LocalAddresses::over)
}

/// Which addresses are local in another namespace. To be called where waiting is
/// fine.
pub(crate) fn local_addresses_in(helper: &Helper, netns: &Netns) -> io::Result<LocalAddresses> {
    made_there(helper, netns, Kind::Routes).map(LocalAddresses::over)
}

fn made_there(helper: &Helper, netns: &Netns, kind: Kind) -> io::Result<OwnedFd> {
    let spec = SocketSpec {
        family: Family::V4,
        kind,
        count: 1,
        mark: None,
    };
    let made = helper.sockets(netns, &spec)?.pop();
    made.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[derive(Clone, Copy, PartialEq)]
enum Sharing {
    Exclusive,
    /// With sockets of this user.
    Shared(Option<u32>),
}

fn bound(spec: &BindSpec, addr: SocketAddr, sharing: Sharing) -> io::Result<OwnedFd> {
    let family = Family::of(&addr);
    let socket = socket(family, Kind::Stream)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if let Sharing::Shared(owner) = sharing {
        if owner.is_some() {
            // Before it is bound: the kernel remembers whose port it is.
            std::os::unix::fs::fchown(&socket, owner, None)?;
        }
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if family == Family::V6 {
        sockopt::set_ipv6_v6only(&socket, spec.v6_only)?;
    }
    if spec.transparent {
        match family {
            Family::V4 => option(&socket, libc::SOL_IP, libc::IP_TRANSPARENT, 1)?,
            Family::V6 => option(&socket, libc::SOL_IPV6, libc::IPV6_TRANSPARENT, 1)?,
        }
    }
    if spec.reach == Reach::Loopback {
        drop_from_outside(&socket)?;
    }
    net::bind(&socket, &addr)?;
    Ok(socket)
}

/// Binding to the device would do the same for IPv4; an IPv6 caller with an
/// address of another device would then get no answer. Accepted sockets inherit
/// the filter: four instructions per packet.
#[expect(unsafe_code, reason = "a socket option of pointers")]
fn drop_from_outside(socket: &OwnedFd) -> io::Result<()> {
    /// The loopback device's, in every network namespace.
    const LOOPBACK_INDEX: u32 = 1;
    const LOAD_DEVICE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;
    let instruction = |code: u32, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, LOAD_DEVICE),
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            1,
            LOOPBACK_INDEX,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the option takes a sock_fprog; the kernel copies the program.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn port_of(socket: &OwnedFd) -> io::Result<u16> {
    // The standard library reads a socket's address for any listener.
    let listener = std::net::TcpListener::from(socket.try_clone()?);
    listener.local_addr().map(|addr| addr.port())
}

fn socket(family: Family, kind: Kind) -> io::Result<OwnedFd> {
    use AddressFamily as A;
    let (family, kind, protocol) = match kind {
        Kind::Stream => (family.into(), SocketType::STREAM, None),
        Kind::Datagram => (family.into(), SocketType::DGRAM, None),
        Kind::Diagnosis => (A::NETLINK, SocketType::RAW, Some(netlink::SOCK_DIAG)),
        // NETLINK_ROUTE is number 0.
        Kind::Routes => (A::NETLINK, SocketType::RAW, None),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(net::socket_with(family, kind, flags, protocol)?)
}

/// Sets an integer that rustix does not know.
#[expect(unsafe_code, reason = "setsockopt")]
fn option(socket: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option value is an int that lives through the call, and its
    // size is given.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
