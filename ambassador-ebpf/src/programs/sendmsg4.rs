//! sendmsg() of an unconnected IPv4 UDP socket: refuses QUIC where the rules
//! say so. Kernel 6.1; attached to the workload's cgroup under `quic: refuse`
//! only; reads RULES and SHARED.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::connect::{ALLOW, Outcome, quic, refuse};
use crate::token::MAPPED;

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: checked context loads.
    let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    match quic(&[0, 0, MAPPED, ip], port as u16) {
        Outcome::Refuse => refuse(),
        Outcome::Leave | Outcome::Rewrite => ALLOW,
    }
}
