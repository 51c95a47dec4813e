//! What a proxy that was taken over can say to its helper and its loaders: no
//! datagram panics, and none is understood in two ways.

#![no_main]

use ambassador::testing::capture::is_loader_request;
use ambassador::testing::workload::helper::is_question;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert!(!(is_question(bytes) && is_loader_request(bytes)));
});
