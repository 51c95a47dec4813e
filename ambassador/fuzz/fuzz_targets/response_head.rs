//! A response head: no input panics, a cut changes nothing, and what is
//! accepted is written as a head that means the same.

#![no_main]

use ambassador::testing::http1::{ResponseRewrite, parse_response, write_response};
use ambassador::testing::message::{Framing, Limits, Method, ResponseHead};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [cut, method, bytes @ ..] = input else {
        return;
    };
    // The methods that a response is read differently for.
    let method = [Method::Get, Method::Head, Method::Connect][usize::from(method % 3)];
    let limits = Limits::default();
    let mut response = ResponseHead::default();
    // What a front part says stays true with the rest behind it.
    let front = parse_response(
        &mut response,
        &bytes[..usize::from(*cut).min(bytes.len())],
        method,
        &limits,
    );
    let whole = parse_response(&mut response, bytes, method, &limits);
    match front {
        Ok(None) => {}
        Ok(length) => assert_eq!(whole, Ok(length)),
        Err(_) => assert!(whole.is_err()),
    }

    let Ok(Some(length)) = whole else {
        return;
    };
    let head = &bytes[..length];
    let mut out = Vec::new();
    let rewrite = ResponseRewrite {
        close: false,
        http10: false,
        framing: Framing::Kept,
    };
    write_response(&mut out, head, &response, &rewrite);

    let mut again = ResponseHead::default();
    let roomy = Limits {
        head_bytes_max: usize::MAX,
        ..limits
    };
    assert_eq!(
        parse_response(&mut again, &out, method, &roomy),
        Ok(Some(out.len()))
    );
    assert_eq!(again.status(), response.status());
    assert_eq!(again.length(), response.length());
    assert!(again.keep_alive());
    // Written to the letter, however loosely it was read.
    let ends = out.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    assert!(ends.into_iter().all(|(at, _)| out[at - 1] == b'\r'));
    for field in again.fields().iter() {
        let name_end = field.line().start + field.name(&out).len();
        assert_eq!(out[name_end], b':');
    }
});
