//! The files of an identity in PEM: no input panics, and who it is is a SPIFFE ID.

#![no_main]

use ambassador::testing::control::spiffe::identity_in;
use libfuzzer_sys::fuzz_target;

/// In a year in which the certificates of the corpus are valid.
const NOW: u64 = 2_000_000_000;

fuzz_target!(|bytes: &[u8]| {
    match identity_in(bytes, NOW) {
        Ok(id) => assert!(id.starts_with("spiffe://")),
        Err(why) => assert!(!why.is_empty()),
    }
});
