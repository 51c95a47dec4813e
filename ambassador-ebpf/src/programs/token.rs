//! Token addresses: making them and telling them from others. All values are
//! in network order, as `bpf_sock_addr` has them.

use ambassador_ebpf::{NUMBERS, TOKEN_V4, TOKEN_V4_MASK, TOKEN_V6};

use crate::maps::PROXY_PORT;

/// The second word of a v4-mapped address's prefix, ::ffff:0:0/96.
pub const MAPPED: u32 = 0xffff_u32.to_be();

/// A destination with IPv4 as v4-mapped, or a true IPv6 one.
pub type Addr = [u32; 4];

/// 127.64.0.0 + number.
#[inline(always)]
pub fn v4(number: u32) -> u32 {
    (TOKEN_V4 + number).to_be()
}

/// `fd7f:656d:6261:PORT::NUMBER`.
#[inline(always)]
pub fn v6(number: u32) -> Addr {
    [
        (((TOKEN_V6[0] as u32) << 16) | TOKEN_V6[1] as u32).to_be(),
        (((TOKEN_V6[2] as u32) << 16) | (PROXY_PORT.load() & 0xffff)).to_be(),
        0,
        number.to_be(),
    ]
}

/// Any proxy's token space: ours or another's.
#[inline(always)]
pub fn is_token(addr: &Addr) -> bool {
    if is_mapped(addr) {
        return u32::from_be(addr[3]) & TOKEN_V4_MASK == TOKEN_V4;
    }
    addr[0] == (((TOKEN_V6[0] as u32) << 16) | TOKEN_V6[1] as u32).to_be()
        && u32::from_be(addr[1]) >> 16 == TOKEN_V6[2] as u32
}

/// The number of an address in the token space.
#[inline(always)]
pub fn number(addr: &Addr) -> Option<u32> {
    let number = if is_mapped(addr) {
        u32::from_be(addr[3]) & !TOKEN_V4_MASK
    } else {
        if addr[2] != 0 {
            return None;
        }
        u32::from_be(addr[3])
    };
    if number < NUMBERS { Some(number) } else { None }
}

/// ::ffff:a.b.c.d
#[inline(always)]
pub fn is_mapped(addr: &Addr) -> bool {
    addr[0] == 0 && addr[1] == 0 && addr[2] == MAPPED
}
