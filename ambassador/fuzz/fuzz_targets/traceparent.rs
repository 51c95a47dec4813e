//! A traceparent field: no input panics, and what is accepted is written as one
//! that reads the same.

#![no_main]

use ambassador::testing::message::TraceParent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(parent) = TraceParent::parse(bytes) else {
        return;
    };
    let text = parent.encode();
    assert_eq!(TraceParent::parse(&text), Some(parent));
    // The trace id and the span id are passed on digit by digit.
    assert_eq!(text[3..52], bytes[3..52]);
    assert!(TraceParent::parse(&parent.child(0).encode()).is_some());
});
