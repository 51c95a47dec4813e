//! Each type of frame: section 6 of the suite `http2`, but for its windows.

use ambassador_tests::http2::{Frame, code, kind, setting};

use super::case::{Asked, Case, Expect, FLOW, PROTOCOL, Reply, SIZE, STREAM_CLOSED, case};
use super::end::{OTHER, STREAM};

use Expect::{ConnectionError, StreamError};

pub fn of_streams() -> Vec<Case> {
    vec![
        case("http2/6.1", "DATA on stream 0", |end| {
            end.send(Frame::data(0, "test").ending())
        })
        .expects(ConnectionError(PROTOCOL)),
        case("http2/6.1", "DATA on a stream that is not open", |end| {
            end.half_closed().last("test")
        })
        .asked(Asked::Post)
        .expects(StreamError(STREAM_CLOSED))
        .replies(Reply::Whole),
        case("http2/6.1", "DATA with more padding than octets", |end| {
            end.head_with(&[("content-length", "4")])
                .send(Frame::data(STREAM, "test").ending().padded_by_claim(6))
        })
        .expects(ConnectionError(PROTOCOL))
        .replies(Reply::Cut("protocol-error")),
        case("http2/6.2", "HEADERS, PRIORITY, CONTINUATION", |end| {
            end.part().send(Frame::priority(STREAM, 0, 255)).rest()
        })
        .expects(ConnectionError(PROTOCOL)),
        case("http2/6.2", "HEADERS, HEADERS, CONTINUATION", |end| {
            end.part().whole_on(OTHER).rest()
        })
        .expects(ConnectionError(PROTOCOL)),
        case("http2/6.2", "HEADERS on stream 0", |end| end.whole_on(0))
            .expects(ConnectionError(PROTOCOL)),
        case(
            "http2/6.2",
            "HEADERS with more padding than octets",
            |end| {
                end.whole_as(|head| {
                    let claim = head.payload.len() + 1;
                    head.padded_by_claim(claim.try_into().expect("a short head"))
                })
            },
        )
        .expects(ConnectionError(PROTOCOL)),
        case("http2/6.3", "PRIORITY on stream 0", |end| {
            end.send(Frame::priority(0, 0, 255))
        })
        .expects(ConnectionError(PROTOCOL)),
        case("http2/6.3", "PRIORITY of 4 octets", |end| {
            let short = [0x80, 0, 0, 1];
            end.half_closed()
                .send(Frame::new(kind::PRIORITY, 0, STREAM, short))
        })
        .expects(StreamError(SIZE))
        .asked(Asked::Post)
        .replies(Reply::Whole),
        case("http2/6.4", "RST_STREAM on stream 0", |end| {
            end.send(Frame::reset(0, code::CANCEL))
        })
        .expects(ConnectionError(PROTOCOL)),
        case("http2/6.4", "RST_STREAM on an idle stream", |end| {
            end.send(Frame::reset(OTHER, code::CANCEL))
        })
        .expects(ConnectionError(PROTOCOL)),
        case("http2/6.4", "RST_STREAM of 3 octets", |end| {
            end.half_closed()
                .send(Frame::new(kind::RST_STREAM, 0, STREAM, [0; 3]))
        })
        .expects(ConnectionError(SIZE))
        .asked(Asked::Post)
        .replies(Reply::Whole),
    ]
}

pub fn of_settings() -> Vec<Case> {
    let wrong =
        |section, says, act, codes| case(section, says, act).expects(ConnectionError(codes));
    vec![
        wrong(
            "http2/6.5",
            "an acknowledgement with a payload",
            |end| end.send(Frame::new(kind::SETTINGS, 0, 0, [0]).ack()),
            SIZE,
        ),
        wrong(
            "http2/6.5",
            "SETTINGS on a stream",
            |end| end.send(Frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 100)]).on(STREAM)),
            PROTOCOL,
        ),
        wrong(
            "http2/6.5",
            "SETTINGS of 3 octets",
            |end| end.send(Frame::new(kind::SETTINGS, 0, 0, [0, 3, 0])),
            SIZE,
        ),
        wrong(
            "http2/6.5.2",
            "ENABLE_PUSH of 2",
            |end| end.send(Frame::settings(&[(setting::ENABLE_PUSH, 2)])),
            PROTOCOL,
        ),
        wrong(
            "http2/6.5.2",
            "INITIAL_WINDOW_SIZE of 2^31",
            |end| end.send(Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)])),
            FLOW,
        ),
        wrong(
            "http2/6.5.2",
            "MAX_FRAME_SIZE of 2^14 - 1",
            |end| end.send(Frame::settings(&[(setting::MAX_FRAME_SIZE, (1 << 14) - 1)])),
            PROTOCOL,
        ),
        wrong(
            "http2/6.5.2",
            "MAX_FRAME_SIZE of 2^24",
            |end| end.send(Frame::settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)])),
            PROTOCOL,
        ),
        case("http2/6.5.2", "an unknown setting", |end| {
            end.settings(&[(0xff, 1)])
        }),
        case("http2/6.5.3", "a window twice in one frame", |end| {
            let window = setting::INITIAL_WINDOW_SIZE;
            end.settings(&[(window, 100), (window, 1)])
                .asks()
                .expects_data(1)
                .opens()
        })
        .asked(Asked::Post),
        case(
            "http2/6.5.3",
            "SETTINGS that are to be acknowledged",
            |end| end.settings(&[(setting::ENABLE_PUSH, 0)]),
        ),
    ]
}

pub fn of_connections() -> Vec<Case> {
    let wrong =
        |section, says, act, codes| case(section, says, act).expects(ConnectionError(codes));
    vec![
        case("http2/6.7", "PING", |end| end.pings(b"h2spec\0\0")),
        case("http2/6.7", "PING that acknowledges", |end| {
            end.send(Frame::ping(b"invalid\0").ack())
                .pings(b"h2spec\0\0")
                .expects_no_pong(b"invalid\0")
        }),
        wrong(
            "http2/6.7",
            "PING on a stream",
            |end| end.send(Frame::ping(&[0; 8]).on(STREAM)),
            PROTOCOL,
        ),
        wrong(
            "http2/6.7",
            "PING of 6 octets",
            |end| end.send(Frame::new(kind::PING, 0, 0, [0; 6])),
            SIZE,
        ),
        wrong(
            "http2/6.8",
            "GOAWAY on a stream",
            |end| end.send(Frame::go_away(0, code::NO_ERROR).on(STREAM)),
            PROTOCOL,
        ),
    ]
}

pub fn of_continuation() -> Vec<Case> {
    let wrong = |says, act| case("http2/6.10", says, act).expects(ConnectionError(PROTOCOL));
    vec![
        case("http2/6.10", "HEADERS and CONTINUATION twice", |end| {
            end.part_of_whole().more().rest()
        }),
        wrong("CONTINUATION, then another frame", |end| {
            end.part().more().last("test")
        }),
        wrong("CONTINUATION on stream 0", |end| {
            end.part_of_whole().rest_on(0)
        }),
        wrong("CONTINUATION behind whole HEADERS", |end| {
            end.half_closed().rest()
        })
        .asked(Asked::Post)
        .replies(Reply::Whole),
        wrong("CONTINUATION behind the last one", |end| {
            end.part_of_whole().rest().rest()
        })
        .replies(Reply::Whole),
        wrong("CONTINUATION behind DATA", |end| {
            end.part().last("test").more().rest_on(0)
        }),
    ]
}
