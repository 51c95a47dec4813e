//! connect() of any IPv4 socket of the machine: a token of ours is refused to
//! a socket that was not given it. Kernel 6.1; attached to the root of cgroup2,
//! whose programs run after those of the workloads; reads GRANTED.

use ambassador_ebpf::Verdict;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::connect::{ALLOW, refuse};
use crate::maps::{GRANTED, PROXY_PORT, count};
use crate::token::{self, Addr, MAPPED};

#[cgroup_sock_addr(connect4)]
pub fn guard4(ctx: SockAddrContext) -> i32 {
    // SAFETY: checked context loads.
    let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    guard(&ctx, &[0, 0, MAPPED, ip], port)
}

/// Refuses a token that was not granted.
#[inline(always)]
pub fn guard(ctx: &SockAddrContext, addr: &Addr, port_be: u32) -> i32 {
    if u32::from(u16::from_be(port_be as u16)) != PROXY_PORT.load() & 0xffff
        || !token::is_token(addr)
    {
        return ALLOW;
    }
    // SAFETY: the storage belongs to the context's own socket.
    let granted = unsafe {
        if (*ctx.sock_addr).__bindgen_anon_1.sk.is_null() {
            return ALLOW;
        }
        GRANTED.get_ptr_mut(ctx)
    };
    // SAFETY: checked for null first.
    if !granted.is_null() && token::slot(addr) == Some(unsafe { *granted }) {
        return ALLOW;
    }
    count(Verdict::ForgedToken);
    refuse()
}
