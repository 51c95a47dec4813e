//! connect() of an IPv6 socket, to v4-mapped destinations too. Kernel 6.1;
//! attached to the workload's cgroup; maps and failures as connect4.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;

use crate::connect::{ALLOW, Outcome, decide, refuse};
use crate::maps::PROXY_PORT;

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: checked context loads, each of four bytes.
    let (mut addr, port) = unsafe {
        let a = &raw const (*ctx.sock_addr).user_ip6;
        let a = a.cast::<u32>();
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
    match decide(&ctx, &mut addr, port) {
        Outcome::Leave => {
            debug!(
                &ctx,
                "connect6: not captured, ..{:x}:{}",
                u32::from_be(addr[3]),
                u16::from_be(port as u16)
            );
            ALLOW
        }
        Outcome::Refuse => {
            debug!(
                &ctx,
                "connect6: refused, ..{:x}:{}",
                u32::from_be(addr[3]),
                u16::from_be(port as u16)
            );
            refuse()
        }
        Outcome::Rewrite => {
            debug!(&ctx, "connect6: captured as ..{:x}", u32::from_be(addr[3]));
            // SAFETY: checked context stores, each of four bytes.
            unsafe {
                let a = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
                core::ptr::write_volatile(a, addr[0]);
                core::ptr::write_volatile(a.add(1), addr[1]);
                core::ptr::write_volatile(a.add(2), addr[2]);
                core::ptr::write_volatile(a.add(3), addr[3]);
                (*ctx.sock_addr).user_port = u32::from((PROXY_PORT.load() as u16).to_be());
            }
            ALLOW
        }
    }
}
