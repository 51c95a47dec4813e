//! connect() of any IPv4 socket of the machine: a token of ours is refused to
//! a socket that was not given it, or was so long ago that it is for another
//! destination now. Kernel 6.1; attached to the root of cgroup2, whose programs
//! run after those of the workloads; reads GRANTED and SLOT_TABLE.

use ambassador_ebpf::{CANARY, Granted, Verdict};
use aya_ebpf::helpers::bpf_get_retval;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::connect::{ALLOW, grant, refuse};
use crate::intern::leads_to;
use crate::maps::{PROXY_PORT, count};
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
    if let Some(granted) = grant(ctx)
        && token::number(addr) == Some(granted.number)
        && (granted.number == CANARY || stands(granted))
    {
        return ALLOW;
    }
    // SAFETY: reads the value that the system call would return: one that a
    // program before this has refused is neither refused nor counted twice.
    if unsafe { bpf_get_retval() } != 0 {
        return ALLOW;
    }
    count(Verdict::ForgedToken);
    refuse()
}

/// Whether a socket's token still is that of the destination which it was for.
#[inline(always)]
fn stands(granted: &Granted) -> bool {
    let Granted {
        number,
        workload,
        addr,
        port,
        ..
    } = granted;
    leads_to(*number, addr, *workload, *port)
}
