//! The BPF programs, one file each. Kernel 6.1 or later.
#![no_std]
#![no_main]
#![allow(internal_features)]
#![feature(core_intrinsics)]
#![expect(unsafe_code, reason = "every helper call is unsafe")]

mod connect;
mod connect4;
mod connect6;
mod getpeername4;
mod getpeername6;
mod guard4;
mod guard6;
mod intern;
mod maps;
mod sendmsg4;
mod sendmsg6;
mod token;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier would refuse a program that can reach this.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
