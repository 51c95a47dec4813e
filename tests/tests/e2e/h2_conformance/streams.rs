//! The start of a connection, frames as such, and streams: sections 3 to 5 of the suite
//! `http2`.

use ambassador_tests::http2::hpack::Literal;
use ambassador_tests::http2::{Frame, code, hpack, setting};

use super::case::{
    Asked, Begins, COMPRESSION, Case, Expect, PROTOCOL, REFUSED, Reply, SIZE, STREAM_CLOSED, case,
};
use super::end::{End, OTHER, PROMISED, Role, STREAM};

use Expect::{ConnectionError, StreamError, StreamErrorOn};

/// A type of frames that nobody knows.
const UNKNOWN: u8 = 0x16;
/// Flags that PING does not have.
const UNDEFINED: u8 = 0x16;

/// A stream that nobody has used.
fn idle(end: &End) -> u32 {
    match end.role {
        Role::Client => STREAM,
        Role::Server => OTHER,
    }
}

pub fn start() -> Vec<Case> {
    vec![
        case("http2/3.5", "a preface", End::was_greeted_first),
        case("http2/3.5", "an invalid preface", |end| {
            end.bytes(b"INVALID CONNECTION PREFACE\r\n\r\n")
        })
        .begins(Begins::Silent)
        .expects(ConnectionError(PROTOCOL)),
    ]
}

pub fn frames() -> Vec<Case> {
    vec![
        case("http2/4.1", "a frame of an unknown type", |end| {
            end.send(Frame::new(UNKNOWN, 0, 0, [0; 8]))
        }),
        case("http2/4.1", "undefined flags", |end| {
            end.send(Frame::ping(&[0; 8]).with(UNDEFINED))
                .wait_for_pong(&[0; 8])
        }),
        case("http2/4.1", "the reserved bit", |end| {
            end.send(Frame::ping(&[0; 8]).with(UNDEFINED).on(1 << 31))
                .wait_for_pong(&[0; 8])
        }),
        case("http2/4.2", "DATA of 2^14", |end| {
            end.head().last(&"x".repeat(1 << 14))
        }),
        case("http2/4.2", "DATA larger than allowed", |end| {
            let size = frame_max(end) + 1;
            end.head().last(&"x".repeat(size))
        })
        .expects(ConnectionError(SIZE))
        .replies(Reply::Cut("protocol-error")),
        case("http2/4.2", "HEADERS larger than allowed", |end| {
            let value = "x".repeat(frame_max(end));
            let octets =
                hpack::literal(Literal::Unindexed, &hpack::text("x"), &hpack::text(&value));
            end.suffixed(&octets)
        })
        .expects(ConnectionError(SIZE)),
        case("http2/4.3", "a field block that is none", |end| {
            end.send(Frame::headers(STREAM, [0x40]).ending())
        })
        .expects(ConnectionError(COMPRESSION)),
        case("http2/4.3", "PRIORITY within a field block", |end| {
            end.part().send(Frame::priority(STREAM, 0, 255)).rest()
        })
        .expects(ConnectionError(PROTOCOL)),
        case("http2/4.3", "HEADERS within a field block", |end| {
            end.part().whole_on(OTHER).rest()
        })
        .expects(ConnectionError(PROTOCOL)),
    ]
}

/// The size that frames to the proxy may have.
fn frame_max(end: &End) -> usize {
    end.setting(setting::MAX_FRAME_SIZE).unwrap_or(1 << 14) as usize
}

pub fn states() -> Vec<Case> {
    let wrong = |says, act, expects| case("http2/5.1", says, act).expects(expects);
    vec![
        wrong(
            "idle: DATA",
            |end| end.send(Frame::data(idle(end), "test").ending()),
            ConnectionError(PROTOCOL),
        ),
        wrong(
            "idle: RST_STREAM",
            |end| end.send(Frame::reset(idle(end), code::CANCEL)),
            ConnectionError(PROTOCOL),
        ),
        wrong(
            "idle: WINDOW_UPDATE",
            |end| end.send(Frame::window_update(idle(end), 100)),
            ConnectionError(PROTOCOL),
        ),
        wrong(
            "idle: CONTINUATION",
            |end| end.rest_on(idle(end)),
            ConnectionError(PROTOCOL),
        ),
        wrong(
            "half-closed: DATA",
            |end| end.half_closed().last("test"),
            StreamError(STREAM_CLOSED),
        )
        .asked(Asked::Post)
        .replies(Reply::Whole),
        wrong(
            "half-closed: HEADERS",
            |end| end.half_closed().whole(),
            StreamError(STREAM_CLOSED),
        )
        .asked(Asked::Post)
        .replies(Reply::Whole),
        wrong(
            "half-closed: CONTINUATION",
            |end| end.half_closed().rest(),
            ConnectionError(PROTOCOL),
        )
        .asked(Asked::Post)
        .replies(Reply::Whole),
        wrong(
            "reset: DATA",
            |end| end.head().reset(code::CANCEL).last("test"),
            StreamError(STREAM_CLOSED),
        )
        .replies(Reply::Cut("upstream-reset")),
        wrong(
            "reset: HEADERS",
            |end| end.head().reset(code::CANCEL).whole(),
            ConnectionError(STREAM_CLOSED),
        )
        .replies(Reply::Cut("upstream-reset")),
        wrong(
            "reset: CONTINUATION",
            |end| end.head().reset(code::CANCEL).rest(),
            ConnectionError(PROTOCOL),
        )
        .replies(Reply::Cut("upstream-reset")),
        wrong(
            "closed: DATA",
            |end| end.closed().last("test"),
            StreamError(STREAM_CLOSED),
        )
        .replies(Reply::Whole),
        wrong(
            "closed: HEADERS",
            |end| end.closed().whole(),
            ConnectionError(STREAM_CLOSED),
        )
        .replies(Reply::Whole),
        wrong(
            "closed: CONTINUATION",
            |end| end.closed().rest(),
            ConnectionError(PROTOCOL),
        )
        .replies(Reply::Whole),
    ]
}

pub fn identifiers() -> Vec<Case> {
    vec![
        case("http2/5.1.1", "HEADERS on an even stream", |end| {
            end.whole_on(PROMISED)
        })
        .expects(ConnectionError(PROTOCOL))
        .mirrored("HEADERS on a stream that was not promised", |end| {
            end.whole_on(PROMISED)
        }),
        case("http2/5.1.1", "HEADERS on a stream below another", |end| {
            end.send(Frame::get(5, "/held")).whole_on(OTHER)
        })
        .expects(ConnectionError(PROTOCOL))
        .mirrored("HEADERS on a stream of no request", |end| {
            end.whole_on(OTHER)
        }),
        // Section 5.1.2 holds for each of the ends.
        case("http2/5.1.2", "more streams than allowed", |end| {
            more_streams_than_allowed(end)
        })
        .expects(StreamErrorOn(201, REFUSED))
        .mirrored("a limit of one stream, which the proxy keeps to", |end| {
            end.settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)])
                .answers_another_elsewhere()
        })
        .mirror_expects(Expect::Fine),
    ]
}

/// One stream more than the proxy allows, none of which it can answer.
fn more_streams_than_allowed(end: &mut End) -> &mut End {
    let allowed = end.setting(setting::MAX_CONCURRENT_STREAMS);
    end.has_to_be("a limit of 100", allowed == Some(100));
    let end = end.window(0);
    (0..=100).fold(end, |end, number| {
        end.send(Frame::get(2 * number + 1, "/held"))
    })
}

pub fn errors() -> Vec<Case> {
    vec![
        // RFC 9113 has no priorities; who wants one of itself is in error all the same.
        case("http2/5.3.1", "HEADERS that depend on themselves", |end| {
            end.whole_as(|head| head.depending(STREAM, 255))
        })
        .expects(StreamError(PROTOCOL))
        .mirrored(
            "HEADERS without an end, which depend on themselves",
            |end| end.send(Frame::fields(STREAM, &[(":status", "200")]).depending(STREAM, 255)),
        ),
        case("http2/5.3.1", "PRIORITY that depends on itself", |end| {
            end.send(Frame::priority(STREAM, STREAM, 255))
        })
        // Here its stream is idle, and cannot be reset (RFC 9113, section 6.4).
        .expects(ConnectionError(PROTOCOL))
        .mirror_expects(StreamError(PROTOCOL)),
        case("http2/5.4.1", "an invalid PING: the end", invalid_ping)
            .expects(ConnectionError(PROTOCOL)),
        case("http2/5.4.1", "an invalid PING: GOAWAY", invalid_ping)
            .expects(ConnectionError(PROTOCOL)),
        case("http2/5.5", "a frame of an extension", |end| {
            end.send(Frame::new(UNKNOWN, 0, 0, [0; 8]))
        }),
        case("http2/5.5", "such a frame within a field block", |end| {
            end.part_of_whole().send(Frame::new(UNKNOWN, 0, 0, [0; 8]))
        })
        .expects(ConnectionError(PROTOCOL)),
    ]
}

fn invalid_ping(end: &mut End) -> &mut End {
    end.send(Frame::ping(&[0; 8]).on(OTHER))
}
