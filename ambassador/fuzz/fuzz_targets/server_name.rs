//! A TLS client hello: no input panics, and more bytes never change what the
//! first ones have told.

#![no_main]

use ambassador::testing::sniff::{ServerName, server_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = server_name(bytes);
    for at in 0..bytes.len().min(256) {
        match server_name(&bytes[..at]) {
            ServerName::NeedMore => {}
            early => {
                assert_eq!(early, whole);
                return;
            }
        }
    }
});
