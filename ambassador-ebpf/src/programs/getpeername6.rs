//! getpeername() of an IPv6 socket. Kernel 5.8; attached to the workload's
//! cgroup; reads GRANTED and SLOT_TABLE. A token that it cannot place is shown as it is.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::connect::ALLOW;
use crate::getpeername4::behind;

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    // SAFETY: checked context loads, each of four bytes.
    let (shown, port) = unsafe {
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
    if let Some((addr, port)) = behind(&ctx, &shown, port) {
        // SAFETY: checked context stores, each of four bytes.
        unsafe {
            let a = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
            core::ptr::write_volatile(a, addr[0]);
            core::ptr::write_volatile(a.add(1), addr[1]);
            core::ptr::write_volatile(a.add(2), addr[2]);
            core::ptr::write_volatile(a.add(3), addr[3]);
            (*ctx.sock_addr).user_port = u32::from(port);
        }
    }
    ALLOW
}
