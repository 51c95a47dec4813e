//! Heads of HTTP/2: field sections decoded, read and encoded.

use std::hint::black_box;

use ambassador::testing::http2::{
    Decoder, Encoder, FieldBlock, Indexing, read_request, read_response,
};
use ambassador::testing::message::{Method, RequestHead, ResponseHead};

use crate::Measure;

/// What a client library sends: 12 fields.
const REQUEST: [(&str, &str); 12] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "payments.default.svc.cluster.local:8080"),
    (":path", "/v1/accounts/4711/transactions?page=2&limit=50"),
    ("user-agent", "a-client/3.14 (linux)"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate"),
    ("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
    ("cache-control", "no-cache"),
    ("x-tenant", "north"),
    ("x-request-id", "0192f4a0-7b1c-7def-8abc-0123456789ab"),
    ("te", "trailers"),
];

/// RFC 7541 appendix C.6.1: four fields with Huffman coding.
const RESPONSE: [u8; 54] = [
    0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b, 0x61, 0x96, 0xd0, 0x7a, 0xbe,
    0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0, 0x82, 0xa6,
    0x2d, 0x1b, 0xff, 0x6e, 0x91, 0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8,
    0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3,
];

pub(crate) fn all(measure: &mut impl Measure) {
    let mut encoder = Encoder::default();
    let mut encode = |out: &mut Vec<u8>| {
        out.clear();
        encoder.begin(out);
        for (name, value) in black_box(REQUEST) {
            encoder.field(out, name.as_bytes(), value.as_bytes(), Indexing::Free);
        }
    };
    let (mut first, mut section) = (Vec::new(), Vec::new());
    encode(&mut first);
    measure.each("http2/encode_request", || encode(&mut section));
    encode(&mut section);

    let mut decoder = Decoder::new(4_096);
    let mut block = FieldBlock::new(65_536, 128);
    assert_eq!(decoder.decode(&first, &mut block), Ok(()));
    measure.each("http2/decode_request", || {
        decoder.decode(black_box(&section), &mut block)
    });
    assert_eq!(decoder.decode(&section, &mut block), Ok(()));
    let mut request = RequestHead::default();
    measure.each("http2/read_request", || {
        read_request(&mut request, black_box(&mut block), true)
    });
    assert_eq!(read_request(&mut request, &mut block, true), Ok(()));

    measure.each("http2/decode_response", || {
        decoder.decode(black_box(&RESPONSE), &mut block)
    });
    assert_eq!(decoder.decode(&RESPONSE, &mut block), Ok(()));
    let mut response = ResponseHead::default();
    measure.each("http2/read_response", || {
        read_response(&mut response, black_box(&block), Method::Get, false)
    });
}
