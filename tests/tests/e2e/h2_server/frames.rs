//! Frames of each type that are wrong (RFC 9113, section 6), and flow control.

use ambassador_tests::http2::{Frame, block, code, kind, setting};

use super::case::{Case, Expect, FLOW, PROTOCOL, SIZE, Talk, Verdict, case};

use Expect::{Answer, Check, ConnectionError};

const PROTOCOL_OR_SIZE: &[u32] = &[code::PROTOCOL_ERROR, code::FRAME_SIZE_ERROR];

/// The largest window (section 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION.
pub fn of_streams() -> Vec<Case> {
    let rest = |stream| Frame::continuation(stream, block(&[("x-more", "1")]));
    vec![
        case("6.1", "DATA with more padding than it has octets")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::data(1, "test").padded_by_claim(5).ending())
            .expects(ConnectionError(PROTOCOL)),
        case("6.1", "padded DATA without an octet")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::new(kind::DATA, 0x8, 1, ""))
            .expects(ConnectionError(PROTOCOL_OR_SIZE)),
        case("6.2", "HEADERS with a priority that is cut")
            .sends(Frame::headers(1, [0; 4]).with(0x20).ending())
            .expects(ConnectionError(PROTOCOL_OR_SIZE)),
        case("6.10", "CONTINUATION, as many as a field block may need")
            .sends_all(Frame::get(1, "/").in_parts_of(12))
            .expects(Answer(1)),
        case("6.10", "CONTINUATION on another stream")
            .sends(Frame::get(1, "/").unfinished())
            .sends(rest(3))
            .expects(ConnectionError(PROTOCOL)),
        case("6.10", "CONTINUATION after DATA")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::data(1, "test"))
            .sends(rest(1))
            .expects(ConnectionError(PROTOCOL)),
    ]
}

/// SETTINGS, GOAWAY.
pub fn of_connections() -> Vec<Case> {
    vec![
        case("6.5", "SETTINGS that acknowledge and say something")
            .sends(Frame::settings(&[(0xff, 1)]).ack())
            .expects(ConnectionError(SIZE)),
        case("6.5", "an acknowledgement of SETTINGS on a stream")
            .sends(Frame::settings(&[]).ack().on(1))
            .expects(ConnectionError(PROTOCOL)),
        case("6.8", "GOAWAY of 7 octets")
            .sends(Frame::new(kind::GOAWAY, 0, 0, [0; 7]))
            .expects(ConnectionError(SIZE)),
    ]
}

/// WINDOW_UPDATE and what it is for (section 6.9).
pub fn flow_control() -> Vec<Case> {
    vec![
        case("6.9.1", "no more than the connection's window")
            .with(setting::INITIAL_WINDOW_SIZE, WINDOW_MAX)
            .sends(Frame::get(1, "/large"))
            .expects(Check(|talk| total(talk, 65_535))),
        case("6.9.2", "SETTINGS that open a window above 2^31 - 1")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::window_update(1, WINDOW_MAX - 65_535))
            .sends(Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 65_536)]))
            .expects(ConnectionError(FLOW)),
    ]
}

/// DATA of so many octets in all, and nothing more.
fn total(talk: &mut Talk, wanted: usize) -> Verdict {
    let mut sum = 0;
    while sum < wanted {
        sum += talk.data(1)?;
    }
    match sum == wanted {
        true => no_data(talk),
        false => Err(format!("DATA of {wanted} in all wanted, not {sum}")),
    }
}

/// None comes before the answer to a PING.
fn no_data(talk: &mut Talk) -> Verdict {
    let more = Frame::ping(b"no more?");
    talk.send(&more);
    let next = talk.until("an answer to a PING", |frame| {
        matches!(frame.kind, kind::PING) || frame.kind == kind::DATA && !frame.payload.is_empty()
    })?;
    match next.kind {
        kind::PING => Ok(()),
        _ => Err("more DATA than the window has room for".to_owned()),
    }
}
