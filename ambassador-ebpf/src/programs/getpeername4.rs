//! getpeername() of an IPv4 socket: shows the destination behind a token.
//! Kernel 5.8; attached to the workload's cgroup; reads GRANTED and SLOT_TABLE.
//! A token that it cannot place is shown as it is.

use ambassador_ebpf::{CANARY, slot_of};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

use crate::connect::{ALLOW, grant};
use crate::maps::{PROXY_PORT, SLOT_TABLE, WORKLOAD};
use crate::token::{self, Addr, MAPPED};

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    // SAFETY: checked context loads.
    let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    if let Some((addr, port)) = behind(&ctx, &[0, 0, MAPPED, ip], port)
        && token::is_mapped(&addr)
    {
        // SAFETY: checked context stores.
        unsafe {
            (*ctx.sock_addr).user_ip4 = addr[3];
            (*ctx.sock_addr).user_port = u32::from(port);
        }
    }
    ALLOW
}

/// The destination behind one of our tokens; address and port in network order.
/// The socket itself remembers it: the slot may have been given to another
/// since. A multipath socket was not there at the connect, its subflow was; it
/// sees its destination for as long as the slot has the number of its token.
#[inline(always)]
pub fn behind(ctx: &SockAddrContext, addr: &Addr, port_be: u32) -> Option<(Addr, u16)> {
    if u32::from(u16::from_be(port_be as u16)) != PROXY_PORT.load() & 0xffff
        || !token::is_token(addr)
    {
        return None;
    }
    let number = token::number(addr)?;
    if number == CANARY {
        return None;
    }
    if let Some(granted) = grant(ctx) {
        if granted.number != number {
            return None;
        }
        return Some((granted.addr, granted.port));
    }
    let slot = SLOT_TABLE.get(slot_of(number))?;
    let destination = &slot.destination;
    if slot.number != number || destination.workload != WORKLOAD.load() {
        return None;
    }
    Some((destination.addr, destination.port))
}
