//! Whether the socket at the other end of a connection still has an owner.
//!
//! A program that closes its socket and one that only ends its direction send
//! the same FIN. Where both ends are on this machine, the kernel knows which it
//! was: a closed socket belongs to no file any more. `sock_diag(7)` tells the
//! inode of that file, without a privilege, for the sockets of one network
//! namespace.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags, recv, send};

/// Who has the socket at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A program.
    Program,
    /// Nobody: it was closed.
    Nobody,
}

/// Asks for owners in one network namespace. The kernel answers while it is
/// asked, so that nothing waits.
#[derive(Debug)]
pub(crate) struct OwnerLookup {
    socket: OwnedFd,
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` (linux/netlink.h,
/// linux/inet_diag.h).
const HEADER_BYTES: usize = 16;
const QUESTION_BYTES: usize = HEADER_BYTES + 56;
/// `idiag_inode`, the last of `struct inet_diag_msg`.
const INODE_AT: usize = HEADER_BYTES + 68;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;

impl OwnerLookup {
    /// One that asks over this NETLINK_SOCK_DIAG socket, in whose namespace the
    /// connections are.
    pub(crate) fn over(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Who has the other end of the TCP connection between `local` and `peer`.
    ///
    /// # Errors
    /// Where the kernel cannot tell, for instance because it was built without
    /// `tcp_diag`.
    pub(crate) fn owner_of(&self, local: SocketAddr, peer: SocketAddr) -> io::Result<Owner> {
        send(&self.socket, &question(local, peer), SendFlags::DONTWAIT)?;
        let mut reply = [0; 512];
        let (_, length) = recv(&self.socket, &mut reply, RecvFlags::DONTWAIT)?;
        answer(&reply[..length.min(reply.len())])
    }
}

/// Names the peer's socket: its own address comes first.
fn question(local: SocketAddr, peer: SocketAddr) -> [u8; QUESTION_BYTES] {
    const ANY_COOKIE: [u8; 8] = [0xff; 8];
    let (peer_ip, local_ip) = (peer.ip().to_canonical(), local.ip().to_canonical());
    let family = match peer_ip {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    let mut bytes = [0; QUESTION_BYTES];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &(QUESTION_BYTES as u32).to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &NLM_F_REQUEST.to_ne_bytes());
    put(16, &[family as u8, libc::IPPROTO_TCP as u8]);
    // In whatever state it is.
    put(20, &u32::MAX.to_ne_bytes());
    put(24, &peer.port().to_be_bytes());
    put(26, &local.port().to_be_bytes());
    for (at, ip) in [(28, peer_ip), (44, local_ip)] {
        match ip {
            IpAddr::V4(ip) => put(at, &ip.octets()),
            IpAddr::V6(ip) => put(at, &ip.octets()),
        }
    }
    put(64, &ANY_COOKIE);
    bytes
}

fn answer(reply: &[u8]) -> io::Result<Owner> {
    let word = |at: usize| {
        let bytes = reply.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let kind = word(4).map(|kind_and_flags| kind_and_flags.to_ne_bytes());
    let kind = kind.map(|[low, high, ..]| u16::from_ne_bytes([low, high]));
    match (kind, word(HEADER_BYTES), word(INODE_AT)) {
        (Some(SOCK_DIAG_BY_FAMILY), _, Some(0)) => Ok(Owner::Nobody),
        (Some(SOCK_DIAG_BY_FAMILY), _, Some(_)) => Ok(Owner::Program),
        (Some(NLMSG_ERROR), Some(error), _) => match -(error as i32) {
            // Even what the kernel keeps of a closed socket is gone.
            libc::ENOENT => Ok(Owner::Nobody),
            error => Err(io::Error::from_raw_os_error(error)),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;
    use crate::workload::{Family, Kind, SocketSpec, sockets};

    fn lookup() -> OwnerLookup {
        let spec = SocketSpec {
            family: Family::V4,
            kind: Kind::Diagnosis,
            count: 1,
            mark: None,
        };
        OwnerLookup::over(sockets::make(&spec).unwrap().remove(0))
    }

    fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn a_closed_socket_is_nobodys_and_a_half_closed_one_is_somebodys() {
        let lookup = lookup();
        for address in ["127.0.0.1:0", "[::1]:0", "127.64.0.9:0"] {
            let (near, far) = pair(address);
            let (local, peer) = (far.local_addr().unwrap(), far.peer_addr().unwrap());
            let owner = || lookup.owner_of(local, peer).unwrap();
            assert_eq!(owner(), Owner::Program, "{address}");
            near.shutdown(Shutdown::Write).unwrap();
            assert_eq!(owner(), Owner::Program, "{address}");
            drop(near);
            assert_eq!(owner(), Owner::Nobody, "{address}");
        }
    }

    #[test]
    fn a_client_of_a_listener_of_both_families_is_found() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let near = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let far = listener.accept().unwrap().0;
        let (local, peer) = (far.local_addr().unwrap(), far.peer_addr().unwrap());
        assert_eq!(lookup().owner_of(local, peer).unwrap(), Owner::Program);
        drop(near);
        assert_eq!(lookup().owner_of(local, peer).unwrap(), Owner::Nobody);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for reply in [&[][..], &[0; 20], &[0; 200]] {
            assert!(answer(reply).is_err());
        }
        let mut refusal = [0; 36];
        refusal[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        refusal[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        let error = answer(&refusal).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
