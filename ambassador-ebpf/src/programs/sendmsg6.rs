//! sendmsg() of an unconnected IPv6 UDP socket; everything as sendmsg4.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::connect::{ALLOW, Outcome, quic, refuse};

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    // SAFETY: checked context loads, each of four bytes.
    let (addr, port) = unsafe {
        let a = (&raw const (*ctx.sock_addr).user_ip6).cast::<u32>();
        (
            [
                core::ptr::read_volatile(a),
                core::ptr::read_volatile(a.add(1)),
                core::ptr::read_volatile(a.add(2)),
                core::ptr::read_volatile(a.add(3)),
            ],
            (*ctx.sock_addr).user_port,
        )
    };
    match quic(&addr, port as u16) {
        Outcome::Refuse => refuse(),
        Outcome::Leave | Outcome::Rewrite => ALLOW,
    }
}
