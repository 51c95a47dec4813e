//! Connections, frames as such, and streams (RFC 9113, sections 4 and 5).

use ambassador_tests::http2::frame::request;
use ambassador_tests::http2::{Frame, PREFACE, block, code, hpack, kind, setting};

use super::case::{COMPRESSION, Case, Expect, PROTOCOL, SIZE, STREAM_CLOSED, Talk, Verdict, case};

use Expect::{Alive, Answer, Check, Closed, ConnectionError, Either, StreamError};

/// What no RFC knows yet.
const UNKNOWN: u8 = 0xf0;

const CLOSED_OR_PROTOCOL: &[u32] = &[code::STREAM_CLOSED, code::PROTOCOL_ERROR];
const REFUSED: &[u32] = &[code::REFUSED_STREAM, code::PROTOCOL_ERROR];

/// Frames as such.
pub fn frames() -> Vec<Case> {
    let ping = Frame::ping(b"12345678");
    vec![
        case("4.1", "a frame of an unknown type")
            .sends(Frame::new(UNKNOWN, 0, 0, "octets"))
            .expects(Alive),
        case("4.1", "a flag without a meaning")
            .sends(ping.clone().with(0x16))
            .expects(Check(pong)),
        case("4.1", "the reserved bit of a stream")
            .sends(ping.on(1 << 31))
            .expects(Check(pong)),
        case("4.2", "DATA of 2^14 octets")
            .sends(Frame::post(1, "/"))
            .sends(Frame::data(1, vec![b'x'; 1 << 14]).ending())
            .expects(Answer(1)),
        case("4.2", "DATA larger than the server takes")
            .sends(Frame::post(1, "/silent"))
            .expects(Check(|talk| oversized(talk, Frame::data(1, "")))),
        case("4.2", "HEADERS larger than the server takes")
            .expects(Check(|talk| oversized(talk, Frame::get(1, "/")))),
        case("4.3", "a field block that is none")
            .sends(Frame::headers(1, [0x40, 0x40, 0x40, 0x40]).ending())
            .expects(ConnectionError(COMPRESSION)),
        case("4.3", "PRIORITY within a field block")
            .sends(Frame::get(1, "/").unfinished())
            .sends(Frame::priority(1, 0, 255))
            .sends(Frame::continuation(1, ""))
            .expects(ConnectionError(PROTOCOL)),
        case("4.3", "HEADERS of another stream within a field block")
            .sends(Frame::get(1, "/").unfinished())
            .sends(Frame::get(3, "/"))
            .expects(ConnectionError(PROTOCOL)),
        case("5.4.1", "an error of the connection: GOAWAY, and the end")
            .sends(Frame::new(kind::PING, 0, 0, "6octet"))
            .expects(ConnectionError(SIZE)),
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
        case("5.5", "an unknown frame within a field block")
            .sends(Frame::get(1, "/").unfinished())
            .sends(Frame::new(UNKNOWN, 0, 0, "octets"))
            .sends(Frame::continuation(1, ""))
            .expects(ConnectionError(PROTOCOL)),
    ]
}

/// Streams and their states.
pub fn streams() -> Vec<Case> {
    let trailers = || Frame::fields(1, &[("x-sum", "9")]).ending();
    let rest = || Frame::continuation(1, block(&[("x-more", "1")]));
    let data = || Frame::data(1, "test").ending();
    // Whole, and not answered.
    let half_closed = |what| case("5.1", what).sends(Frame::get(1, "/silent"));
    let reset = |what| {
        let open = case("5.1", what).sends(Frame::post(1, "/silent"));
        open.sends(Frame::reset(1, code::CANCEL))
    };
    let closed = |what| case("5.1", what).sends(Frame::get(1, "/")).awaits(1);
    vec![
        case("5.1", "idle: DATA")
            .sends(data())
            .expects(ConnectionError(CLOSED_OR_PROTOCOL)),
        case("5.1", "idle: RST_STREAM")
            .sends(Frame::reset(1, code::CANCEL))
            .expects(ConnectionError(PROTOCOL)),
        case("5.1", "idle: WINDOW_UPDATE")
            .sends(Frame::window_update(1, 100))
            .expects(ConnectionError(PROTOCOL)),
        case("5.1", "idle: CONTINUATION")
            .sends(Frame::continuation(1, block(&request("GET", "/"))))
            .expects(ConnectionError(PROTOCOL)),
        half_closed("half-closed: DATA")
            .sends(data())
            .expects(StreamError(1, STREAM_CLOSED)),
        half_closed("half-closed: HEADERS")
            .sends(trailers())
            .expects(StreamError(1, STREAM_CLOSED)),
        half_closed("half-closed: CONTINUATION")
            .sends(rest())
            .expects(ConnectionError(CLOSED_OR_PROTOCOL)),
        reset("closed by RST_STREAM: DATA")
            .sends(data())
            .expects(Either(1, STREAM_CLOSED)),
        reset("closed by RST_STREAM: HEADERS")
            .sends(trailers())
            .expects(Either(1, STREAM_CLOSED)),
        reset("closed by RST_STREAM: CONTINUATION")
            .sends(rest())
            .expects(ConnectionError(CLOSED_OR_PROTOCOL)),
        closed("closed: DATA")
            .sends(data())
            .expects(Either(1, STREAM_CLOSED)),
        closed("closed: HEADERS")
            .sends(Frame::get(1, "/"))
            .expects(ConnectionError(STREAM_CLOSED)),
        closed("closed: CONTINUATION")
            .sends(rest())
            .expects(ConnectionError(CLOSED_OR_PROTOCOL)),
        case("5.1.1", "HEADERS on an even stream")
            .sends(Frame::get(2, "/"))
            .expects(ConnectionError(PROTOCOL)),
        case("5.1.1", "HEADERS on a stream below one that was opened")
            .sends(Frame::get(5, "/silent"))
            .sends(Frame::get(3, "/"))
            .expects(ConnectionError(PROTOCOL)),
        case("5.1.2", "a stream more than the server takes").expects(Check(crowd)),
        case("5.3.1", "HEADERS that depend on themselves")
            .of("RFC 7540")
            .sends(Frame::get(1, "/").depending(1, 255))
            .expects(StreamError(1, PROTOCOL)),
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
    use hpack::Literal::{Indexed, Unindexed};
    use hpack::{indexed, literal, literal_of, table_size, text};
    let cases: [(_, _, Vec<u8>); 13] = [
        ("2.3.3", "an index above both tables", indexed(70)),
        (
            "2.3.3",
            "the name of an index above both tables",
            [literal_of(Indexed, 70), text("value")].concat(),
        ),
        ("4.2", "a size of the table at the end", table_size(1)),
        (
            "5.1",
            "a number without an end",
            [&[0xff][..], &[0xff; 12], &[0x01]].concat(),
        ),
        ("5.1", "a number that is cut", vec![0xff, 0x80]),
        (
            "5.2",
            "Huffman's code with padding of more than 7 bits",
            literal(Unindexed, &text("x"), &[0x82, 0x1f, 0xff]),
        ),
        (
            "5.2",
            "Huffman's code padded with zeros",
            literal(Unindexed, &text("x"), &[0x81, 0x18]),
        ),
        (
            "5.2",
            "Huffman's code with the end's symbol",
            literal(Unindexed, &text("x"), &[0x84, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "5.2",
            "a string that is cut",
            vec![0x00, 0x01, b'x', 0x05, b'v'],
        ),
        ("5.2", "a string without its length", vec![0x00, 0x01, b'x']),
        ("6.1", "the index 0", indexed(0)),
        (
            "6.3",
            "a size of the table above what the server allows",
            Vec::new(),
        ),
        (
            "6.3",
            "a size of the table amid fields",
            [table_size(9), indexed(2)].concat(),
        ),
    ];
    let cases = cases.into_iter().map(|(section, what, wrong)| {
        let request = block(&request("GET", "/"));
        let block = match wrong.is_empty() {
            true => [table_size(1 << 20), request].concat(),
            false => [request, wrong].concat(),
        };
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

fn pong(talk: &mut Talk) -> Verdict {
    let pong = talk.until("an answer to a PING", |frame| frame.kind == kind::PING)?;
    match pong.payload == b"12345678" && pong == Frame::ping(b"12345678").ack() {
        true => talk.alive(),
        false => Err("the answer to a PING has what that had".to_owned()),
    }
}

/// An octet more than the server takes is an error of the size of a frame: of the
/// stream in DATA, of the connection in a field block (section 4.2).
fn oversized(talk: &mut Talk, mut frame: Frame) -> Verdict {
    let is_data = frame.kind == kind::DATA;
    match is_data {
        true => frame.payload = vec![b'x'; talk.frame_max() + 1],
        false => {
            let value = "x".repeat(talk.frame_max());
            frame.payload.extend(block(&[("x-long", &value)]));
        }
    }
    talk.send(&frame);
    match is_data {
        true => talk.expect(&Either(1, SIZE)),
        false => talk.expect(&ConnectionError(SIZE)),
    }
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

/// One stream more than the server takes at a time.
fn crowd(talk: &mut Talk) -> Verdict {
    let most = talk.setting(setting::MAX_CONCURRENT_STREAMS);
    let most = most.ok_or("a limit wanted in SETTINGS")?;
    for number in 0..=most {
        talk.send(&Frame::get(2 * number + 1, "/silent"));
    }
    talk.expect(&StreamError(2 * most + 1, REFUSED))
}
