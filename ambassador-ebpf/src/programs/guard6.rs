//! connect() of any IPv6 socket of the machine; everything as guard4.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::guard4::guard;

#[cgroup_sock_addr(connect6)]
pub fn guard6(ctx: SockAddrContext) -> i32 {
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
    guard(&ctx, &addr, port)
}
