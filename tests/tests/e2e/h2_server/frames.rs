//! Frames of each type that are wrong (RFC 9113, section 6), and flow control.

use ambassador_tests::http2::frame::request;
use ambassador_tests::http2::{Frame, block, code, kind, setting};

use super::case::{Case, Expect, FLOW, PROTOCOL, SIZE, STREAM_CLOSED, Talk, Verdict, case};

use Expect::{Alive, Answer, Check, ConnectionError, Either, StreamError};

const PROTOCOL_OR_SIZE: &[u32] = &[code::PROTOCOL_ERROR, code::FRAME_SIZE_ERROR];

/// The largest window (section 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION.
pub fn of_streams() -> Vec<Case> {
    let rest = |stream| Frame::continuation(stream, block(&[("x-more", "1")]));
    vec![
        case("6.1", "DATA on stream 0")
            .sends(Frame::data(0, "test"))
            .expects(ConnectionError(PROTOCOL)),
        case("6.1", "DATA on a stream that the client has ended")
            .sends(Frame::get(1, "/silent"))
            .sends(Frame::data(1, "test"))
            .expects(StreamError(1, STREAM_CLOSED)),
        case("6.1", "DATA with more padding than it has octets")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::data(1, "test").padded_by_claim(5).ending())
            .expects(ConnectionError(PROTOCOL)),
        case("6.1", "padded DATA without an octet")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::new(kind::DATA, 0x8, 1, ""))
            .expects(ConnectionError(PROTOCOL_OR_SIZE)),
        case("6.2", "PRIORITY after HEADERS without an end")
            .sends(Frame::get(1, "/").unfinished())
            .sends(Frame::priority(3, 0, 255))
            .expects(ConnectionError(PROTOCOL)),
        case(
            "6.2",
            "HEADERS of another stream after HEADERS without an end",
        )
        .sends(Frame::get(1, "/").unfinished())
        .sends(Frame::get(3, "/").unfinished())
        .expects(ConnectionError(PROTOCOL)),
        case("6.2", "HEADERS on stream 0")
            .sends(Frame::get(0, "/"))
            .expects(ConnectionError(PROTOCOL)),
        case("6.2", "HEADERS with more padding than they have octets")
            .sends(Frame::get(1, "/").padded_by_claim(255))
            .expects(ConnectionError(PROTOCOL)),
        case("6.2", "HEADERS with a priority that is cut")
            .sends(Frame::headers(1, [0; 4]).with(0x20).ending())
            .expects(ConnectionError(PROTOCOL_OR_SIZE)),
        case("6.3", "PRIORITY on stream 0")
            .sends(Frame::priority(0, 1, 255))
            .expects(ConnectionError(PROTOCOL)),
        case("6.3", "PRIORITY of 4 octets")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::new(kind::PRIORITY, 0, 1, [0; 4]))
            .expects(StreamError(1, SIZE)),
        case("6.4", "RST_STREAM on stream 0")
            .sends(Frame::reset(0, 8))
            .expects(ConnectionError(PROTOCOL)),
        case("6.4", "RST_STREAM on an idle stream")
            .sends(Frame::reset(1, 8))
            .expects(ConnectionError(PROTOCOL)),
        case("6.4", "RST_STREAM of 3 octets")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::new(kind::RST_STREAM, 0, 1, [0; 3]))
            .expects(ConnectionError(SIZE)),
        case("6.10", "CONTINUATION, as many as a field block may need")
            .sends_all(Frame::get(1, "/").in_parts_of(12))
            .expects(Answer(1)),
        case("6.10", "a frame of another type between two CONTINUATION")
            .sends(Frame::get(1, "/").unfinished())
            .sends(rest(1).unfinished())
            .sends(Frame::data(1, "test"))
            .expects(ConnectionError(PROTOCOL)),
        case("6.10", "CONTINUATION on stream 0")
            .sends(Frame::get(1, "/").unfinished())
            .sends(rest(0))
            .expects(ConnectionError(PROTOCOL)),
        case("6.10", "CONTINUATION on another stream")
            .sends(Frame::get(1, "/").unfinished())
            .sends(rest(3))
            .expects(ConnectionError(PROTOCOL)),
        case("6.10", "CONTINUATION after HEADERS with an end")
            .sends(Frame::post(1, "/silent"))
            .sends(rest(1))
            .expects(ConnectionError(PROTOCOL)),
        case("6.10", "CONTINUATION after CONTINUATION with an end")
            .sends(Frame::post(1, "/silent").unfinished())
            .sends(rest(1))
            .sends(rest(1))
            .expects(ConnectionError(PROTOCOL)),
        case("6.10", "CONTINUATION after DATA")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::data(1, "test"))
            .sends(rest(1))
            .expects(ConnectionError(PROTOCOL)),
    ]
}

/// SETTINGS, PING, GOAWAY.
pub fn of_connections() -> Vec<Case> {
    let setting = |what, name, value, codes| {
        case("6.5.2", what)
            .sends(Frame::settings(&[(name, value)]))
            .expects(ConnectionError(codes))
    };
    let [ack, values] = [Frame::settings(&[]).ack(), Frame::settings(&[(0xff, 1)])];
    vec![
        case("6.5", "SETTINGS that acknowledge and say something")
            .sends(values.clone().ack())
            .expects(ConnectionError(SIZE)),
        case("6.5", "SETTINGS on a stream")
            .sends(ack.on(1))
            .expects(ConnectionError(PROTOCOL)),
        case("6.5", "SETTINGS of 3 octets")
            .sends(Frame::new(kind::SETTINGS, 0, 0, [0; 3]))
            .expects(ConnectionError(SIZE)),
        setting("ENABLE_PUSH of 2", setting::ENABLE_PUSH, 2, PROTOCOL),
        setting(
            "a window of 2^31",
            setting::INITIAL_WINDOW_SIZE,
            1 << 31,
            FLOW,
        ),
        setting(
            "frames of less than 2^14",
            setting::MAX_FRAME_SIZE,
            (1 << 14) - 1,
            PROTOCOL,
        ),
        setting(
            "frames of more than 2^24 - 1",
            setting::MAX_FRAME_SIZE,
            1 << 24,
            PROTOCOL,
        ),
        case("6.5.2", "an unknown setting")
            .sends(values)
            .expects(Alive),
        case("6.5.3", "the last of two values counts")
            .sends(Frame::settings(&[
                (setting::INITIAL_WINDOW_SIZE, 100),
                (setting::INITIAL_WINDOW_SIZE, 1),
            ]))
            .sends(Frame::get(1, "/"))
            .expects(Check(|talk| lengths(talk, &[1]))),
        case("6.5.3", "SETTINGS are acknowledged")
            .sends(Frame::settings(&[(setting::ENABLE_PUSH, 0)]))
            .expects(Check(|talk| {
                let wanted = Frame::settings(&[]).ack();
                talk.until("an acknowledgement", |frame| *frame == wanted)
                    .map(drop)
            })),
        case("6.7", "PING is answered with its octets")
            .sends(Frame::ping(b"ping-1-2"))
            .expects(Check(|talk| {
                let wanted = Frame::ping(b"ping-1-2").ack();
                talk.until("an answer to a PING", |frame| *frame == wanted)
                    .map(drop)
            })),
        case("6.7", "PING with ACK is not answered")
            .sends(Frame::ping(b"pong-1-2").ack())
            .expects(Check(|talk| {
                talk.send(&Frame::ping(b"ping-1-2"));
                let ping = talk.until("an answer to a PING", |frame| frame.kind == kind::PING)?;
                match &ping.payload[..] {
                    b"ping-1-2" => Ok(()),
                    _ => Err("an answer to an answer".to_owned()),
                }
            })),
        case("6.7", "PING on a stream")
            .sends(Frame::ping(b"12345678").on(1))
            .expects(ConnectionError(PROTOCOL)),
        case("6.7", "PING of 6 octets")
            .sends(Frame::new(kind::PING, 0, 0, [0; 6]))
            .expects(ConnectionError(SIZE)),
        case("6.8", "GOAWAY on a stream")
            .sends(Frame::go_away(0, 0).on(1))
            .expects(ConnectionError(PROTOCOL)),
        case("6.8", "GOAWAY of 7 octets")
            .sends(Frame::new(kind::GOAWAY, 0, 0, [0; 7]))
            .expects(ConnectionError(SIZE)),
        case("7", "GOAWAY with an unknown code")
            .sends(Frame::go_away(0, 0xff))
            .expects(Check(|talk| {
                talk.send(&Frame::ping(b"ping-1-2"));
                // It may close the connection instead.
                let is_pong = |frame: Frame| frame.kind == kind::PING;
                while let Some(false) = talk.next()?.map(is_pong) {}
                Ok(())
            })),
        case("7", "RST_STREAM with an unknown code")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::reset(1, 0xff)),
    ]
}

/// WINDOW_UPDATE and what it is for (section 6.9).
pub fn flow_control() -> Vec<Case> {
    let update = Frame::window_update;
    vec![
        case("6.9", "WINDOW_UPDATE of 0 of the connection")
            .sends(update(0, 0))
            .expects(ConnectionError(PROTOCOL)),
        case("6.9", "WINDOW_UPDATE of 0 of a stream")
            .sends(Frame::post(1, "/silent"))
            .sends(update(1, 0))
            .expects(Either(1, PROTOCOL)),
        case("6.9", "WINDOW_UPDATE of 3 octets")
            .sends(Frame::new(kind::WINDOW_UPDATE, 0, 0, [0, 0, 1]))
            .expects(ConnectionError(SIZE)),
        case("6.9.1", "DATA no longer than the window")
            .sends(Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]))
            .sends(Frame::get(1, "/"))
            .expects(Check(|talk| lengths(talk, &[1]))),
        case("6.9.1", "the rest of DATA when the window opens")
            .with(setting::INITIAL_WINDOW_SIZE, 1)
            .sends(Frame::get(1, "/"))
            .expects(Check(|talk| {
                lengths(talk, &[1])?;
                talk.send(&Frame::window_update(1, 9));
                lengths(talk, &[1])
            })),
        case("6.9.1", "no more than the connection's window")
            .with(setting::INITIAL_WINDOW_SIZE, WINDOW_MAX)
            .sends(Frame::get(1, "/large"))
            .expects(Check(|talk| total(talk, 65_535))),
        case("6.9.1", "the connection's window above 2^31 - 1")
            .sends(update(0, WINDOW_MAX))
            .sends(update(0, WINDOW_MAX))
            .expects(ConnectionError(FLOW)),
        case("6.9.1", "a stream's window above 2^31 - 1")
            .sends(Frame::post(1, "/silent"))
            .sends(update(1, WINDOW_MAX))
            .sends(update(1, WINDOW_MAX))
            .expects(StreamError(1, FLOW)),
        case("6.9.2", "SETTINGS change the windows of open streams")
            .with(setting::INITIAL_WINDOW_SIZE, 0)
            .sends(Frame::get(1, "/"))
            .sends(Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1)]))
            .expects(Check(|talk| lengths(talk, &[1]))),
        case("6.9.2", "a window below 0")
            .with(setting::INITIAL_WINDOW_SIZE, 3)
            .sends(Frame::get(1, "/large"))
            .expects(Check(|talk| {
                lengths(talk, &[3])?;
                talk.send(&Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 2)]));
                talk.send(&Frame::window_update(1, 2));
                lengths(talk, &[1])
            })),
        case("6.9.2", "SETTINGS that open a window above 2^31 - 1")
            .sends(Frame::post(1, "/silent"))
            .sends(update(1, WINDOW_MAX - 65_535))
            .sends(Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 65_536)]))
            .expects(ConnectionError(FLOW)),
        case("6.9.2", "an initial window above 2^31 - 1")
            .sends(Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]))
            .expects(ConnectionError(FLOW)),
        case("6.9", "credit for DATA that was thrown away")
            .sends(Frame::headers(1, block(&request("POST", "/silent"))))
            .sends(Frame::reset(1, 8))
            .expects(Alive),
    ]
}

/// DATA of these lengths, and nothing more without a larger window.
fn lengths(talk: &mut Talk, wanted: &[usize]) -> Verdict {
    for length in wanted {
        match talk.data(1)? {
            found if found == *length => {}
            found => return Err(format!("DATA of {length} wanted, not {found}")),
        }
    }
    no_data(talk)
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
