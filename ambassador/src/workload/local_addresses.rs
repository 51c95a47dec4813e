//! Which addresses are local in a network namespace.
//!
//! The kernel is asked over a routing socket of that namespace (rtnetlink(7)),
//! without a privilege. It answers while it is asked, so that nothing waits.

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::clock::{self, Instant};

/// Addresses that are remembered at once; most namespaces have fewer.
const KNOWN_MAX: usize = 32;
/// How long an address that was local counts as such.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// `struct nlmsghdr`, `struct rtmsg`, then one attribute (linux/rtnetlink.h).
const HEADER_BYTES: usize = 16;
const ROUTE_BYTES: usize = 12;
const ATTRIBUTE_BYTES: usize = 4;
/// `rtm_type` in a `struct rtmsg`.
const TYPE_AT: usize = HEADER_BYTES + 7;
const NLM_F_REQUEST: u16 = 1;

/// Asks for one namespace, and remembers for a moment what is local.
#[derive(Debug)]
pub(crate) struct LocalAddresses {
    socket: OwnedFd,
    known: RefCell<Vec<(IpAddr, Instant)>>,
}

impl LocalAddresses {
    /// Those of the namespace of this routing socket.
    pub(crate) fn over(socket: OwnedFd) -> Self {
        Self {
            socket,
            known: RefCell::default(),
        }
    }

    /// Whether an address belongs to the namespace.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        let (ip, now) = (ip.to_canonical(), clock::now());
        let mut known = self.known.borrow_mut();
        known.retain(|(_, until)| now < *until);
        if known.iter().any(|(known, _)| *known == ip) {
            return true;
        }
        let is_local = self.ask(ip).unwrap_or(false);
        if is_local && known.len() < KNOWN_MAX {
            known.push((ip, now + KNOWN_FOR));
        }
        is_local
    }

    fn ask(&self, ip: IpAddr) -> io::Result<bool> {
        send(&self.socket, &question(ip), SendFlags::DONTWAIT)?;
        let mut reply = [0; 512];
        let (_, length) = recv(&self.socket, &mut reply, RecvFlags::DONTWAIT)?;
        Ok(is_local(&reply[..length.min(reply.len())]))
    }
}

/// Where would a packet to this address go?
fn question(ip: IpAddr) -> Vec<u8> {
    let (family, address) = match ip {
        IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
    };
    let length = HEADER_BYTES + ROUTE_BYTES + ATTRIBUTE_BYTES + address.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(libc::RTM_GETROUTE.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and sender: one question is on its way at a time.
    bytes.extend([0; 8]);
    bytes.extend([family as u8, address.len() as u8 * 8]);
    bytes.extend([0; ROUTE_BYTES - 2]);
    bytes.extend(((ATTRIBUTE_BYTES + address.len()) as u16).to_ne_bytes());
    bytes.extend(libc::RTA_DST.to_ne_bytes());
    bytes.extend(address);
    bytes
}

/// To this machine itself. An error says that it would go nowhere.
fn is_local(reply: &[u8]) -> bool {
    let kind = reply.get(4..6).map(|kind| [kind[0], kind[1]]);
    kind == Some(libc::RTM_NEWROUTE.to_ne_bytes()) && reply.get(TYPE_AT) == Some(&libc::RTN_LOCAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Family, Kind, SocketSpec, sockets};

    #[test]
    fn addresses_of_the_namespace_are_told_from_others() {
        let spec = SocketSpec {
            family: Family::V4,
            kind: Kind::Routes,
            count: 1,
            mark: None,
        };
        let here = LocalAddresses::over(sockets::make(&spec).unwrap().remove(0));
        for _ in 0..2 {
            for (ip, local) in [
                ("127.0.0.1", true),
                ("127.64.0.9", true),
                ("::ffff:127.0.0.1", true),
                ("::1", true),
                ("192.0.2.77", false),
                ("2001:db8::77", false),
                ("255.255.255.255", false),
                ("224.0.0.1", false),
            ] {
                assert_eq!(here.has(ip.parse().unwrap()), local, "{ip}");
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_not_local() {
        for reply in [&[][..], &[0; 10], &[0; 200], &[0xff; 200]] {
            assert!(!is_local(reply));
        }
    }
}
