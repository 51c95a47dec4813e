//! A TLS client hello: no input panics, it says the same byte by byte as at once, and
//! more bytes never change what the first ones have told.

#![no_main]

use ambassador::testing::sniff::{HelloReader, ServerName, server_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = server_name(bytes);
    let mut hello = HelloReader::default();
    for at in 0..bytes.len() {
        let told = hello.read(&bytes[..at]);
        if at < 256 {
            assert_eq!(told, server_name(&bytes[..at]));
        }
        if told != ServerName::NeedMore {
            assert_eq!(told, whole);
            return;
        }
    }
    assert_eq!(hello.read(bytes), whole);
});
