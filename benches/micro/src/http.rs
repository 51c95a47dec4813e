//! Heads: read, and written for the next hop.

use std::hint::black_box;

use ambassador::testing::http1::{
    ResponseRewrite, parse_request, parse_response, write_request, write_response,
};
use ambassador::testing::message::{
    Framing, Limits, Method, RequestHead, RequestRewrite, ResponseHead, TraceParent, request_id,
};

use crate::Measure;

/// What a client library sends: 9 fields, 377 bytes.
const REQUEST: &[u8] = b"GET /v1/accounts/4711/transactions?page=2&limit=50 HTTP/1.1\r\n\
    Host: payments.default.svc.cluster.local:8080\r\n\
    User-Agent: a-client/3.14 (linux)\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\
    Cache-Control: no-cache\r\n\
    Connection: keep-alive\r\n\
    X-Tenant: north\r\n\
    X-Request-Id: 0192f4a0-7b1c-7def-8abc-0123456789ab\r\n\r\n";

/// What a server answers: 7 fields, 237 bytes.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Date: Sat, 21 Nov 2026 10:00:00 GMT\r\n\
    Server: a-server/2.7\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Cache-Control: no-store\r\n\
    ETag: \"33a64df551425fcc55e4d42a148795d9\"\r\n\
    Vary: Accept-Encoding\r\n\r\n";

pub(crate) fn all(measure: &mut impl Measure) {
    requests(measure);
    responses(measure);
    measure.each("http/request_id", || {
        request_id(black_box(1_795_000_000_000), black_box(0x0123_4567 << 90))
    });
    measure.each("http/traceparent", || {
        TraceParent::start(black_box(0x0123_4567 << 90), black_box(4_711)).encode()
    });
}

fn requests(measure: &mut impl Measure) {
    let limits = Limits::default();
    let mut request = RequestHead::default();
    measure.each("http/parse_request", || {
        parse_request(&mut request, black_box(REQUEST), &limits)
    });
    // A case may be run without the one before.
    assert_eq!(
        parse_request(&mut request, REQUEST, &limits),
        Ok(Some(REQUEST.len()))
    );
    let mut before = None;
    measure.each("http/authority", || {
        let authority = request.authority(black_box(REQUEST), before.take());
        before = authority.ok().flatten();
    });
    let trace = TraceParent::start(1, 1).encode();
    let rewrite = RequestRewrite {
        strip_path: 0,
        host: None,
        keep_absolute: false,
        set: &[],
        remove: &[],
        trace: Default::default(),
        add: &[("traceparent", &trace)],
        credential: None,
        addressed_here: true,
        presented_here: true,
    };
    let mut out = Vec::with_capacity(2 * REQUEST.len());
    measure.each("http/write_request", || {
        out.clear();
        write_request(&mut out, black_box(REQUEST), &request, &rewrite);
    });
}

fn responses(measure: &mut impl Measure) {
    let limits = Limits::default();
    let mut response = ResponseHead::default();
    measure.each("http/parse_response", || {
        parse_response(&mut response, black_box(RESPONSE), Method::Get, &limits)
    });
    let parsed = parse_response(&mut response, RESPONSE, Method::Get, &limits);
    assert_eq!(parsed, Ok(Some(RESPONSE.len())));
    let rewrite = ResponseRewrite {
        close: false,
        http10: false,
        framing: Framing::Kept,
    };
    let mut out = Vec::with_capacity(2 * RESPONSE.len());
    measure.each("http/write_response", || {
        out.clear();
        write_response(&mut out, black_box(RESPONSE), &response, &rewrite);
    });
}
