//! A field section, read as each kind of head: no input panics, and a request
//! that is accepted is written for HTTP/1 as one that reads the same.

#![no_main]

use ambassador::testing::http1::{parse_request, write_request};
use ambassador::testing::http2::{Decoder, FieldBlock, read_request, read_response, read_trailers};
use ambassador::testing::message::trace::Formats;
use ambassador::testing::message::{
    Length, Limits, Method, RequestHead, RequestRewrite, ResponseHead,
};
use libfuzzer_sys::fuzz_target;

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
    let Some((&first, section)) = bytes.split_first() else {
        return;
    };
    let ends = first & 1 != 0;
    let mut block = FieldBlock::new(65_536, 128);
    if Decoder::new(4_096).decode(section, &mut block).is_err() {
        return;
    }
    let mut response = ResponseHead::default();
    let _ = read_response(&mut response, &block, Method::Get, ends);
    let _ = read_trailers(&block);

    let mut request = RequestHead::default();
    if read_request(&mut request, &mut block, ends).is_err() {
        return;
    }
    // Over HTTP/1 it is a GET with Upgrade, and not written like this.
    if request.method() == Method::Connect && !request.is_connect() {
        return;
    }
    let head = block.bytes();
    let mut out = Vec::new();
    write_request(&mut out, head, &request, &PLAIN);
    let mut again = RequestHead::default();
    let limits = Limits {
        head_bytes_max: usize::MAX,
        ..Limits::default()
    };
    assert_eq!(
        parse_request(&mut again, &out, &limits),
        Ok(Some(out.len()))
    );
    assert_eq!(again.method_bytes(&out), request.method_bytes(head));
    assert_eq!(again.target(&out), request.target(head));
    assert_eq!(again.length(), request.length());
    let authority = |request: &RequestHead, head: &[u8]| request.authority(head, None);
    assert_eq!(authority(&again, &out), authority(&request, head));
    if request.length() == Length::Unknown {
        assert!(again.field(&out, "transfer-encoding").is_some());
    }
    let names = request.fields().iter().map(|field| field.name(head));
    for name in names.filter(|name| !matches!(*name, b"host" | b"http2-settings" | b"te")) {
        assert!(again.fields().iter().any(|field| field.name(&out) == name));
    }
});
