//! A request head: no input panics, a cut changes nothing, and what is
//! accepted is written as a head that means the same.

#![no_main]

use ambassador::testing::http1::{parse_request, write_request};
use ambassador::testing::message::trace::Formats;
use ambassador::testing::message::{Limits, RequestHead, RequestRewrite};
use libfuzzer_sys::fuzz_target;

const HOP_BY_HOP: [&[u8]; 3] = [b"keep-alive", b"proxy-connection", b"http2-settings"];

const PLAIN: RequestRewrite<'static> = RequestRewrite {
    strip_path: 0,
    host: None,
    keep_absolute: false,
    set: &[],
    remove: &[],
    trace: Formats::OFF,
    add: &[],
    credential: None,
    addressed_here: false,
    presented_here: false,
};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let mut request = RequestHead::default();
    if let Some((&cut, bytes)) = bytes.split_first() {
        // What a front part says stays true with the rest behind it.
        let front = parse_request(
            &mut request,
            &bytes[..usize::from(cut).min(bytes.len())],
            &limits,
        );
        let whole = parse_request(&mut request, bytes, &limits);
        match front {
            Ok(None) => {}
            Ok(length) => assert_eq!(whole, Ok(length)),
            Err(_) => assert!(whole.is_err()),
        }
    }

    let Ok(Some(length)) = parse_request(&mut request, bytes, &limits) else {
        return;
    };
    let head = &bytes[..length];
    let authority = request.authority(head, None);
    let mut out = Vec::new();
    write_request(&mut out, head, &request, &PLAIN);

    let mut again = RequestHead::default();
    let roomy = Limits {
        head_bytes_max: usize::MAX,
        ..limits
    };
    match parse_request(&mut again, &out, &roomy) {
        Ok(Some(length)) => assert_eq!(length, out.len()),
        // Host or Connection were added to as many fields as there may be.
        refused => {
            assert!(
                request.fields().iter().count() + 2 > limits.fields_max,
                "{refused:?}"
            );
            return;
        }
    }
    assert_eq!(again.method_bytes(&out), request.method_bytes(head));
    assert_eq!(again.length(), request.length());
    assert_eq!(again.is_upgrade(), request.is_upgrade());
    assert_eq!(again.takes_trailers(), request.takes_trailers());
    assert!(again.keep_alive() && !again.is_http10() && !again.is_absolute());
    assert_eq!(again.authority(&out, None), authority);
    for field in again.fields().iter() {
        let name = field.name(&out);
        assert!(!HOP_BY_HOP.iter().any(|hop| hop.eq_ignore_ascii_case(name)));
    }
});
