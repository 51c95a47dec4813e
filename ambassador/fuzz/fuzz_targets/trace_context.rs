//! The trace fields of a request: no input panics, and what is passed on is
//! bounded, stays on its line, and reads the same again.

#![no_main]

use ambassador::testing::http1::parse_request;
use ambassador::testing::message::trace::{Formats, Settings};
use ambassador::testing::message::{Limits, RequestHead, TraceContext, TraceParent};
use libfuzzer_sys::fuzz_target;

/// A list of 32 members, of 512 bytes in all, and a little of our own.
const VALUE_MAX: usize = 1024;

fuzz_target!(|input: &[u8]| {
    let [formats, bytes @ ..] = input else {
        return;
    };
    let formats = Formats {
        tracecontext: formats & 1 != 0,
        b3: formats & 2 != 0,
        baggage: formats & 4 != 0,
    };
    let settings = Settings {
        sample: 0.5,
        formats,
    };
    let mut request = RequestHead::default();
    let Ok(Some(length)) = parse_request(&mut request, bytes, &Limits::default()) else {
        return;
    };
    let head = &bytes[..length];
    let Some(context) = TraceContext::of(&request, head, &settings, 7) else {
        assert!(!formats.tracecontext && !formats.b3);
        return;
    };
    for (name, value) in context.fields(&request, head, 9).iter() {
        assert!(value.len() <= VALUE_MAX, "{name}");
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)), "{name}");
        if name == "traceparent" {
            assert!(TraceParent::parse(value).is_some());
        }
    }
});
