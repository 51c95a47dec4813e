//! Connections, frames as such, and streams (RFC 9113, sections 4 and 5).

use ambassador_tests::http2::frame::request;
use ambassador_tests::http2::{Frame, PREFACE, block, code, hpack, kind};

use super::case::{COMPRESSION, Case, Expect, PROTOCOL, STREAM_CLOSED, Talk, Verdict, case};

use Expect::{Answer, Check, Closed, ConnectionError, Either, StreamError};

/// What no RFC knows yet.
const UNKNOWN: u8 = 0xf0;

/// Frames as such.
pub fn frames() -> Vec<Case> {
    vec![
        case("4.3", "a field whose name is cut")
            .sends(Frame::headers(1, [0x40, 0x40, 0x40, 0x40]).ending())
            .expects(ConnectionError(COMPRESSION)),
        case("5.4.1", "GOAWAY names the last stream that was processed")
            .sends(Frame::get(1, "/"))
            .awaits(1)
            .sends(Frame::new(kind::PING, 0, 0, "6octet"))
            .expects(Check(|talk| last_stream(talk, 1))),
        case("5.5", "an unknown frame on a stream")
            .sends(Frame::post(1, "/"))
            .sends(Frame::new(UNKNOWN, 0xff, 1, "octets"))
            .sends(Frame::data(1, "x").ending())
            .expects(Answer(1)),
    ]
}

/// Streams and their states.
pub fn streams() -> Vec<Case> {
    let trailers = || Frame::fields(1, &[("x-sum", "9")]).ending();
    vec![
        case("5.1", "half-closed: trailers")
            .sends(Frame::get(1, "/silent"))
            .sends(trailers())
            .expects(StreamError(1, STREAM_CLOSED)),
        case("5.1", "closed by RST_STREAM: trailers")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::reset(1, code::CANCEL))
            .sends(trailers())
            .expects(Either(1, STREAM_CLOSED)),
        case("5.3.1", "PRIORITY that depends on itself")
            .of("RFC 7540")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::priority(1, 1, 255))
            .expects(StreamError(1, PROTOCOL)),
    ]
}

/// What a server cannot read as a field block (RFC 7541). All that was left of the
/// connection would be read wrongly.
pub fn field_blocks() -> Vec<Case> {
    let cases: [(_, _, Vec<u8>); 5] = [
        (
            "5.1",
            "a number without an end",
            [&[0xff][..], &[0xff; 12], &[0x01]].concat(),
        ),
        ("5.1", "a number that is cut", vec![0xff, 0x80]),
        (
            "5.2",
            "a string that is cut",
            vec![0x00, 0x01, b'x', 0x05, b'v'],
        ),
        ("5.2", "a string without its length", vec![0x00, 0x01, b'x']),
        (
            "6.3",
            "a size of the table amid fields",
            [hpack::table_size(9), hpack::indexed(2)].concat(),
        ),
    ];
    let cases = cases.into_iter().map(|(section, what, wrong)| {
        let block = [block(&request("GET", "/")), wrong].concat();
        case(section, what)
            .of("RFC 7541")
            .sends(Frame::headers(1, block).ending())
            .expects(ConnectionError(COMPRESSION))
    });
    cases.collect()
}

/// Beginnings that are none (section 3.4).
pub fn beginnings() -> Vec<(&'static str, Vec<u8>)> {
    let after = |preface: &[u8]| [preface, &Frame::settings(&[]).bytes()].concat();
    vec![
        (
            "another preface",
            after(b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n"),
        ),
        ("half a preface", after(b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n")),
        (
            "a PING before SETTINGS",
            [PREFACE, &Frame::ping(b"12345678").bytes()].concat(),
        ),
    ]
}

fn last_stream(talk: &mut Talk, wanted: u32) -> Verdict {
    while let Some(frame) = talk.next()? {
        if frame.kind == kind::GOAWAY {
            return match frame.number(0) {
                Some(last) if last == wanted => talk.expect(&Closed),
                last => Err(format!("stream {wanted} wanted in GOAWAY, not {last:?}")),
            };
        }
    }
    Err("GOAWAY wanted, not the end of the connection".to_owned())
}
