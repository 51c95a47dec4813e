//! Frames of a server that a client must not take (RFC 9113, sections 4 to 6).

use ambassador_tests::http2::{Frame, block, code, hpack, kind, setting};

use super::script::{Answer, Case, Outcome, RESET, WRONG, case};

use Outcome::{ConnectionError, Nothing, StreamError};

const PROTOCOL: &[u32] = &[code::PROTOCOL_ERROR];
const SIZE: &[u32] = &[code::FRAME_SIZE_ERROR];
const SIZE_OR_PROTOCOL: &[u32] = &[code::FRAME_SIZE_ERROR, code::PROTOCOL_ERROR];
const FLOW: &[u32] = &[code::FLOW_CONTROL_ERROR];
const COMPRESSION: &[u32] = &[code::COMPRESSION_ERROR];
const CLOSED_OR_PROTOCOL: &[u32] = &[code::STREAM_CLOSED, code::PROTOCOL_ERROR];

const WINDOW_MAX: u32 = (1 << 31) - 1;

/// The head of an answer.
pub fn head() -> Frame {
    Frame::fields(1, &[(":status", "200")])
}

/// The rest of it.
pub fn rest() -> Frame {
    Frame::data(1, "ok").ending()
}

fn connection_error(
    section: &'static str,
    what: &'static str,
    codes: &'static [u32],
    sends: Vec<Frame>,
) -> Case {
    let case = sends.into_iter().fold(case(section, what), Case::sends);
    case.expects(ConnectionError(codes), WRONG)
}

/// What ends the connection.
pub fn of_connections() -> Vec<Case> {
    let unfinished = || head().unfinished();
    let setting = |what, name, value, codes| {
        connection_error(
            "6.5.2",
            what,
            codes,
            vec![Frame::settings(&[(name, value)])],
        )
    };
    let wrong = connection_error;
    vec![
        wrong(
            "4.2",
            "HEADERS larger than the client takes",
            SIZE,
            vec![Frame::headers(
                1,
                block(&[(":status", "200"), ("x-long", &"x".repeat(1 << 14))]),
            )],
        ),
        wrong(
            "4.3",
            "a field block that is none",
            COMPRESSION,
            vec![Frame::headers(1, [0x40; 4])],
        ),
        wrong(
            "4.3",
            "a frame within a field block",
            PROTOCOL,
            vec![unfinished(), Frame::ping(b"12345678")],
        ),
        wrong(
            "5.1",
            "idle: DATA",
            CLOSED_OR_PROTOCOL,
            vec![Frame::data(0x7fff_ffff, "x")],
        ),
        wrong(
            "5.1",
            "idle: RST_STREAM",
            PROTOCOL,
            vec![Frame::reset(0x7fff_ffff, 8)],
        ),
        wrong(
            "5.1",
            "idle: WINDOW_UPDATE",
            PROTOCOL,
            vec![Frame::window_update(0x7fff_ffff, 1)],
        ),
        wrong(
            "5.1.1",
            "HEADERS on a stream of the server's",
            PROTOCOL,
            vec![head().on(2)],
        ),
        wrong(
            "5.5",
            "an unknown frame within a field block",
            PROTOCOL,
            vec![unfinished(), Frame::new(0xf0, 0, 0, "octets")],
        ),
        wrong(
            "6.1",
            "DATA on stream 0",
            PROTOCOL,
            vec![Frame::data(0, "x")],
        ),
        wrong(
            "6.1",
            "DATA with more padding than octets",
            PROTOCOL,
            vec![head().on(0x1), Frame::data(1, "test").padded_by_claim(5)],
        )
        .expects(ConnectionError(PROTOCOL), Answer::Cut),
        wrong("6.2", "HEADERS on stream 0", PROTOCOL, vec![head().on(0)]),
        wrong(
            "6.2",
            "HEADERS with more padding than octets",
            PROTOCOL,
            vec![head().padded_by_claim(255)],
        ),
        wrong(
            "6.3",
            "PRIORITY on stream 0",
            PROTOCOL,
            vec![Frame::priority(0, 1, 9)],
        ),
        wrong(
            "6.4",
            "RST_STREAM on stream 0",
            PROTOCOL,
            vec![Frame::reset(0, 8)],
        ),
        wrong(
            "6.4",
            "RST_STREAM of 3 octets",
            SIZE,
            vec![Frame::new(kind::RST_STREAM, 0, 1, [0; 3])],
        ),
        wrong(
            "6.5",
            "SETTINGS that acknowledge and say something",
            SIZE,
            vec![Frame::settings(&[(0xff, 1)]).ack()],
        ),
        wrong(
            "6.5",
            "SETTINGS on a stream",
            PROTOCOL,
            vec![Frame::settings(&[]).on(1)],
        ),
        wrong(
            "6.5",
            "SETTINGS of 3 octets",
            SIZE,
            vec![Frame::new(kind::SETTINGS, 0, 0, [0; 3])],
        ),
        setting("ENABLE_PUSH of a server", setting::ENABLE_PUSH, 1, PROTOCOL),
        setting(
            "a window of 2^31",
            setting::INITIAL_WINDOW_SIZE,
            1 << 31,
            FLOW,
        ),
        setting(
            "frames of less than 2^14",
            setting::MAX_FRAME_SIZE,
            1,
            PROTOCOL,
        ),
        setting(
            "frames of more than 2^24 - 1",
            setting::MAX_FRAME_SIZE,
            1 << 24,
            PROTOCOL,
        ),
        wrong(
            "6.6",
            "PUSH_PROMISE that was not allowed",
            PROTOCOL,
            vec![Frame::push_promise(
                1,
                2,
                &ambassador_tests::http2::frame::request("GET", "/"),
            )],
        ),
        wrong(
            "6.7",
            "PING on a stream",
            PROTOCOL,
            vec![Frame::ping(b"12345678").on(1)],
        ),
        wrong(
            "6.7",
            "PING of 6 octets",
            SIZE,
            vec![Frame::new(kind::PING, 0, 0, [0; 6])],
        ),
        wrong(
            "6.8",
            "GOAWAY on a stream",
            PROTOCOL,
            vec![Frame::go_away(1, 0).on(1)],
        ),
        wrong(
            "6.8",
            "GOAWAY of 7 octets",
            SIZE_OR_PROTOCOL,
            vec![Frame::new(kind::GOAWAY, 0, 0, [0; 7])],
        ),
        wrong(
            "6.9",
            "WINDOW_UPDATE of 0",
            PROTOCOL,
            vec![Frame::window_update(0, 0)],
        ),
        wrong(
            "6.9",
            "WINDOW_UPDATE of 3 octets",
            SIZE,
            vec![Frame::new(kind::WINDOW_UPDATE, 0, 0, [0; 3])],
        ),
        wrong(
            "6.9.1",
            "the connection's window above 2^31 - 1",
            FLOW,
            vec![
                Frame::window_update(0, WINDOW_MAX),
                Frame::window_update(0, WINDOW_MAX),
            ],
        ),
        wrong(
            "6.10",
            "CONTINUATION on stream 0",
            PROTOCOL,
            vec![unfinished(), Frame::continuation(0, "")],
        ),
        wrong(
            "6.10",
            "CONTINUATION after an end",
            PROTOCOL,
            vec![Frame::continuation(1, "")],
        ),
        wrong(
            "6.1",
            "an index above both tables",
            COMPRESSION,
            vec![Frame::headers(1, hpack::indexed(99))],
        )
        .of("RFC 7541"),
        wrong(
            "6.3",
            "a size of the table above what the client allows",
            COMPRESSION,
            vec![Frame::headers(1, hpack::table_size(1 << 20))],
        )
        .of("RFC 7541"),
        wrong(
            "5.2",
            "Huffman's code padded with zeros",
            COMPRESSION,
            vec![Frame::headers(
                1,
                hpack::literal(hpack::Literal::Never, &hpack::text("x"), &[0x81, 0x18]),
            )],
        )
        .of("RFC 7541"),
    ]
}

/// What ends the stream, or nothing.
pub fn of_streams() -> Vec<Case> {
    vec![
        case("5.5", "unknown frames, flags and settings")
            .sends(Frame::new(0xf0, 0xff, 1, "octets"))
            .sends(Frame::new(0xf1, 0xff, 0, "octets"))
            .sends(Frame::settings(&[(0xff, 1)]))
            .sends(head().with(0x82))
            .sends(rest()),
        case("6.2", "padding, a priority and CONTINUATION")
            .sends(head().depending(0, 9).padded(9).unfinished())
            .sends(Frame::continuation(1, block(&[("x-more", "1")])))
            .sends(Frame::data(1, "o").padded(255))
            .sends(Frame::data(1, "k").padded(0).ending()),
        case("6.3", "PRIORITY of a server")
            .sends(Frame::priority(1, 0, 9))
            .sends(head())
            .sends(rest()),
        case("6.3", "PRIORITY of 4 octets")
            .sends(Frame::new(kind::PRIORITY, 0, 1, [0; 4]))
            .expects(StreamError(SIZE), WRONG),
        case("6.4", "RST_STREAM before an answer")
            .sends(Frame::reset(1, code::INTERNAL_ERROR))
            .expects(Nothing, RESET),
        case("6.4", "RST_STREAM amid an answer")
            .sends(head())
            .sends(Frame::data(1, "o"))
            .sends(Frame::reset(1, code::INTERNAL_ERROR))
            .expects(Nothing, Answer::Cut),
        case("6.9", "WINDOW_UPDATE of 0 of a stream")
            .sends(Frame::window_update(1, 0))
            .expects(StreamError(PROTOCOL), WRONG),
        case("6.9.1", "a stream's window above 2^31 - 1")
            .sends(Frame::window_update(1, WINDOW_MAX))
            .sends(Frame::window_update(1, WINDOW_MAX))
            .expects(StreamError(FLOW), WRONG),
        case("5.1", "WINDOW_UPDATE and RST_STREAM after the end")
            .sends(head())
            .sends(rest())
            .sends(Frame::window_update(1, 1))
            .sends(Frame::reset(1, code::NO_ERROR)),
        case("7", "RST_STREAM with an unknown code")
            .sends(Frame::reset(1, 0xff))
            .expects(Nothing, RESET),
    ]
}
