//! Where a redirected connection meant to go.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};

use crate::addr::OriginalDst;

/// The original destination of an accepted connection whose own address is
/// `local`. None when it was not redirected: the client called the proxy's
/// port itself.
pub(crate) fn original_dst(
    socket: BorrowedFd<'_>,
    local: SocketAddr,
) -> io::Result<Option<OriginalDst>> {
    // A v6 listener gets v4 connections as mapped ones: conntrack knows them
    // as v4.
    let original = match local.ip().to_canonical().is_ipv4() {
        true => ip_original_dst(socket).map(SocketAddr::from),
        false => ipv6_original_dst(socket).map(|v6| (*v6.ip(), v6.port()).into()),
    };
    match original.map(OriginalDst) {
        Ok(original) => Ok((original != OriginalDst(local).canonical()).then_some(original)),
        // ENOENT: conntrack does not know it. ENOPROTOOPT: there is no
        // conntrack in this kernel at all.
        Err(Errno::NOENT | Errno::NOPROTOOPT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
