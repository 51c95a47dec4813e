//! The IPv6 token prefix in a network namespace: `fd7f:656d:6261:PORT::/64` is
//! local there, for connections made there. The route stands in a table of its
//! own behind a rule for locally made packets, so that a neighbour who routes
//! the prefix here reaches nothing.

use std::fs::File;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;

use ambassador_ebpf::TOKEN_V6;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `work` with this thread in another network namespace.
pub(super) fn within<T>(
    netns: Option<&File>,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let Some(netns) = netns else {
        return work();
    };
    let home = File::open("/proc/thread-self/ns/net")?;
    enter(netns)?;
    let result = work();
    enter(&home)?;
    result
}

fn enter(netns: &File) -> io::Result<()> {
    let kind = Some(LinkNameSpaceType::Network);
    Ok(move_into_link_name_space(netns.as_fd(), kind)?)
}

/// The prefix of the proxy at this port; always a /64.
pub fn token_prefix(proxy_port: u16) -> Ipv6Addr {
    let [a, b, c] = TOKEN_V6;
    Ipv6Addr::new(a, b, c, proxy_port, 0, 0, 0, 0)
}

/// Adds rule and route in the current namespace; says whether they were not
/// there before.
pub(super) fn route(proxy_port: u16) -> io::Result<bool> {
    change(proxy_port, Change::Add)
}

/// Removes the token prefix of a proxy from a namespace; its own for `None`.
/// Needs CAP_NET_ADMIN, so it is for whoever outlives the proxy.
pub fn unroute(netns: Option<&File>, proxy_port: u16) -> io::Result<()> {
    within(netns, || change(proxy_port, Change::Remove)).map(drop)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

/// Routing tables of proxies: this plus the port.
const TABLE: u32 = 0x7f65_0000;
/// Asked before the main table (32766), after the local one (0).
const RULE_PRIORITY: u32 = 100;
const LOOPBACK_IFINDEX: u32 = 1;
const FRA_DST: u16 = 1;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;

fn change(proxy_port: u16, change: Change) -> io::Result<bool> {
    let prefix = token_prefix(proxy_port).octets();
    let table = TABLE + u32::from(proxy_port);
    let (route, rule) = match change {
        Change::Add => (libc::RTM_NEWROUTE, libc::RTM_NEWRULE),
        Change::Remove => (libc::RTM_DELROUTE, libc::RTM_DELRULE),
    };

    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
    let mut body = vec![
        libc::AF_INET6 as u8,
        64,
        0,
        0,
        libc::RT_TABLE_UNSPEC,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_LOCAL,
    ];
    body.extend(0_u32.to_ne_bytes());
    attribute(&mut body, libc::RTA_DST, &prefix);
    attribute(&mut body, libc::RTA_OIF, &LOOPBACK_IFINDEX.to_ne_bytes());
    attribute(&mut body, libc::RTA_TABLE, &table.to_ne_bytes());
    let changed = request(route, &body)?;

    // struct fib_rule_hdr: family, dst_len, src_len, tos, table, res, res, action, flags
    let mut body = vec![
        libc::AF_INET6 as u8,
        64,
        0,
        0,
        libc::RT_TABLE_UNSPEC,
        0,
        0,
        FR_ACT_TO_TBL,
    ];
    body.extend(0_u32.to_ne_bytes());
    attribute(&mut body, FRA_DST, &prefix);
    attribute(&mut body, FRA_IIFNAME, b"lo\0");
    attribute(&mut body, FRA_PRIORITY, &RULE_PRIORITY.to_ne_bytes());
    attribute(&mut body, FRA_TABLE, &table.to_ne_bytes());
    Ok(request(rule, &body)? || changed)
}

/// Appends a netlink attribute, padded to four bytes (netlink(7)).
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((value.len() + 4) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Sends one request and takes its acknowledgement. What is already so is so:
/// the result says whether anything has changed.
fn request(kind: u16, body: &[u8]) -> io::Result<bool> {
    // On a removal the other two bits would mean something else.
    let flags = match kind {
        libc::RTM_NEWROUTE | libc::RTM_NEWRULE => {
            libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL
        }
        _ => libc::NLM_F_REQUEST | libc::NLM_F_ACK,
    };
    let mut message = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    let mut answer = [0_u8; 1024];
    // One that was never bound talks to the kernel; NETLINK_ROUTE is number 0.
    let socket = net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    net::send(&socket, &message, SendFlags::empty())?;
    let (_, received) = net::recv(&socket, &mut answer, RecvFlags::empty())?;
    if received < 20 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // struct nlmsgerr after the 16 bytes of the header: a negative errno or 0.
    let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    match -code {
        0 => Ok(true),
        libc::EEXIST | libc::ESRCH | libc::ENOENT => Ok(false),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}
