//! What peers advise in single fields, `Retry-After`, `Keep-Alive`, time limits
//! and challenges: no input panics, and what is passed on is never more.

#![no_main]

use std::time::{Duration, SystemTime};

use ambassador::testing::http1::{parse_request, parse_response};
use ambassador::testing::message::keep_alive::KeepAlive;
use ambassador::testing::message::{
    CallerTimeout, Limits, Method, RequestHead, ResponseHead, challenge,
};
use ambassador::testing::policy::retry_after;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    if let Some(wait) = retry_after::parse(bytes, now) {
        // A moment later the wait to a date is shorter, and that in seconds the same.
        let later = retry_after::parse(bytes, now + Duration::from_secs(1));
        assert!(later.is_some_and(|later| later <= wait));
    }
    let mut keep_alive = KeepAlive::default();
    keep_alive.read(bytes);
    let limit = keep_alive.idle_limit();
    keep_alive.read(bytes);
    assert_eq!(keep_alive.idle_limit(), limit);
    assert!(keep_alive.allows_another() || limit.is_none_or(|_| true));

    let limits = Limits::default();
    let mut request = RequestHead::default();
    if let Ok(Some(length)) = parse_request(&mut request, bytes, &limits) {
        let head = &bytes[..length];
        let _ = challenge::presented(&request, head);
        let timeout = CallerTimeout::of(&request, head);
        if let Some(limit) = timeout.limit() {
            for (name, value) in timeout.fields(limit).into_iter().flatten() {
                assert!(passed_on(name, &value) <= limit.max(Duration::from_millis(1)));
            }
        }
    }
    let mut response = ResponseHead::default();
    if let Ok(Some(length)) = parse_response(&mut response, bytes, Method::Get, &limits) {
        let _ = challenge::offered(&response, &bytes[..length]);
    }
});

/// What the next hop reads in the field.
fn passed_on(name: &str, value: &[u8]) -> Duration {
    let text = [
        b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice(),
        name.as_bytes(),
        b": ",
        value,
        b"\r\n\r\n",
    ]
    .concat();
    let mut request = RequestHead::default();
    let parsed = parse_request(&mut request, &text, &Limits::default());
    assert_eq!(parsed, Ok(Some(text.len())));
    let timeout = CallerTimeout::of(&request, &text);
    timeout.limit().expect("what is written can be read")
}
