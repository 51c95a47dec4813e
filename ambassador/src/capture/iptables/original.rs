//! Where a redirected connection meant to go.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::addr::OriginalDst;

/// `SO_ORIGINAL_DST` of netfilter_ipv4.h and `IP6T_SO_ORIGINAL_DST` of
/// netfilter_ipv6/ip6_tables.h.
const ORIGINAL_DST: i32 = 80;

/// The original destination of an accepted connection whose own address is
/// `local`. None when it was not redirected: the client called the proxy's
/// port itself.
#[expect(unsafe_code, reason = "std has no getsockopt")]
pub(crate) fn original_dst(
    socket: BorrowedFd<'_>,
    local: SocketAddr,
) -> io::Result<Option<OriginalDst>> {
    // A v6 listener gets v4 connections as mapped ones: conntrack knows them
    // as v4.
    let level = match local.ip().to_canonical().is_ipv4() {
        true => libc::SOL_IP,
        false => libc::SOL_IPV6,
    };
    let mut address = MaybeUninit::<libc::sockaddr_in6>::zeroed();
    let mut length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    // SAFETY: the buffer has the length given, and the larger of the two
    // address types; zeroes are valid for both.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            ORIGINAL_DST,
            address.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if got != 0 {
        let error = io::Error::last_os_error();
        // ENOENT: conntrack does not know it. ENOPROTOOPT: there is no
        // conntrack in this kernel at all.
        return match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOPROTOOPT) => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: filled by the kernel, or zero; a sockaddr_in fits in the buffer
    // and needs no stricter alignment.
    let original = unsafe {
        if level == libc::SOL_IP {
            let v4 = address.as_ptr().cast::<libc::sockaddr_in>().read();
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            SocketAddr::new(ip.into(), u16::from_be(v4.sin_port))
        } else {
            let v6 = address.assume_init();
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            SocketAddr::new(ip.into(), u16::from_be(v6.sin6_port))
        }
    };
    let original = OriginalDst(original);
    Ok((original != OriginalDst(local).canonical()).then_some(original))
}
