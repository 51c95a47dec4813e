//! Frames of a server that a client must not take (RFC 9113, sections 4 to 6), beyond
//! those of h2spec.

use ambassador_tests::http2::{Frame, block, code, kind, setting};

use super::script::{Answer, Case, Outcome, RESET, WRONG, case};

use Outcome::{ConnectionError, Nothing, StreamError};

const PROTOCOL: &[u32] = &[code::PROTOCOL_ERROR];
const SIZE: &[u32] = &[code::FRAME_SIZE_ERROR];
const SIZE_OR_PROTOCOL: &[u32] = &[code::FRAME_SIZE_ERROR, code::PROTOCOL_ERROR];
const FLOW: &[u32] = &[code::FLOW_CONTROL_ERROR];
const COMPRESSION: &[u32] = &[code::COMPRESSION_ERROR];

const WINDOW_MAX: u32 = (1 << 31) - 1;

/// The head of an answer.
pub fn head() -> Frame {
    Frame::fields(1, &[(":status", "200")])
}

/// The rest of it.
pub fn rest() -> Frame {
    Frame::data(1, "ok").ending()
}

fn wrong(
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
    vec![
        wrong(
            "4.3",
            "a field whose name is cut",
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
            "6.1",
            "DATA with more padding than octets",
            PROTOCOL,
            vec![head().on(0x1), Frame::data(1, "test").padded_by_claim(5)],
        )
        .expects(ConnectionError(PROTOCOL), Answer::Cut),
        wrong(
            "6.5",
            "SETTINGS that acknowledge and say something",
            SIZE,
            vec![Frame::settings(&[(0xff, 1)]).ack()],
        ),
        wrong(
            "6.5.2",
            "ENABLE_PUSH of a server",
            PROTOCOL,
            vec![Frame::settings(&[(setting::ENABLE_PUSH, 1)])],
        ),
        wrong(
            "6.8",
            "GOAWAY of 7 octets",
            SIZE_OR_PROTOCOL,
            vec![Frame::new(kind::GOAWAY, 0, 0, [0; 7])],
        ),
        wrong(
            "6.10",
            "CONTINUATION without HEADERS",
            PROTOCOL,
            vec![Frame::continuation(1, "")],
        ),
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
        case("6.3", "PRIORITY of 4 octets before an answer")
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
        case("6.9", "WINDOW_UPDATE of 0 before an answer")
            .sends(Frame::window_update(1, 0))
            .expects(StreamError(PROTOCOL), WRONG),
        case("6.9.1", "a window above 2^31 - 1 before an answer")
            .sends(Frame::window_update(1, WINDOW_MAX))
            .sends(Frame::window_update(1, WINDOW_MAX))
            .expects(StreamError(FLOW), WRONG),
        case("5.1", "WINDOW_UPDATE and RST_STREAM after the end")
            .sends(head())
            .sends(rest())
            .sends(Frame::window_update(1, 1))
            .sends(Frame::reset(1, code::NO_ERROR)),
    ]
}
