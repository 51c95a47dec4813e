//! connect() of an IPv4 socket. Kernel 6.1 (bpf_set_retval); attached to the
//! workload's cgroup; reads RULES, writes SHARED, SHARES, SLOT_TABLE,
//! INTERNED, RETURNED, CIRCUITS, GRANTED, VERDICTS. What fails does what `on_failure` says.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;

use crate::connect::{ALLOW, Outcome, decide, refuse};
use crate::maps::PROXY_PORT;
use crate::token::MAPPED;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: checked context loads.
    let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    let mut addr = [0, 0, MAPPED, ip];
    match decide(&ctx, &mut addr, port) {
        Outcome::Leave => {
            debug!(
                &ctx,
                "connect4: not captured, {:i}:{}",
                u32::from_be(ip),
                u16::from_be(port as u16)
            );
            ALLOW
        }
        Outcome::Refuse => {
            debug!(
                &ctx,
                "connect4: refused, {:i}:{}",
                u32::from_be(ip),
                u16::from_be(port as u16)
            );
            refuse()
        }
        Outcome::Rewrite => {
            debug!(&ctx, "connect4: captured as {:i}", u32::from_be(addr[3]));
            // SAFETY: checked context stores.
            unsafe {
                (*ctx.sock_addr).user_ip4 = addr[3];
                (*ctx.sock_addr).user_port = u32::from((PROXY_PORT.load() as u16).to_be());
            }
            ALLOW
        }
    }
}
