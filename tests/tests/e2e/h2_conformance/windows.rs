//! Windows: section 6.9 of the suite `http2`.

use ambassador_tests::http2::{Frame, kind, setting};

use super::case::{Asked, Case, Expect, FLOW, PROTOCOL, Reply, SIZE, case};
use super::end::STREAM;

use Expect::{ConnectionError, StreamError};

/// The largest window there is.
const WINDOW_MAX: u32 = (1 << 31) - 1;

pub fn updates() -> Vec<Case> {
    vec![
        case("http2/6.9", "WINDOW_UPDATE of 0", |end| {
            end.send(Frame::window_update(0, 0))
        })
        .expects(ConnectionError(PROTOCOL)),
        case("http2/6.9", "WINDOW_UPDATE of 0 of a stream", |end| {
            end.head().send(Frame::window_update(STREAM, 0))
        })
        .expects(StreamError(PROTOCOL))
        .replies(Reply::Cut("protocol-error")),
        case("http2/6.9", "WINDOW_UPDATE of 3 octets", |end| {
            end.send(Frame::new(kind::WINDOW_UPDATE, 0, 0, [0, 0, 1]))
        })
        .expects(ConnectionError(SIZE)),
    ]
}

pub fn sizes() -> Vec<Case> {
    vec![
        case("http2/6.9.1", "a window of 1", |end| {
            end.window(1).asks().expects_data(1).opens()
        })
        .asked(Asked::Post),
        case("http2/6.9.1", "a window above 2^31 - 1", |end| {
            let most = || Frame::window_update(0, WINDOW_MAX);
            end.send(most()).send(most())
        })
        .expects(ConnectionError(FLOW)),
        case("http2/6.9.1", "a stream's window above 2^31 - 1", |end| {
            let most = || Frame::window_update(STREAM, WINDOW_MAX);
            end.head().send(most()).send(most())
        })
        .asked(Asked::Post)
        .expects(StreamError(FLOW))
        .replies(Reply::Cut("protocol-error")),
        case("http2/6.9.2", "a window that opens later", |end| {
            end.window(0)
                .asks()
                .expects_no_data()
                .window(1)
                .expects_data(1)
                .opens()
        })
        .asked(Asked::Post),
        case("http2/6.9.2", "a window below 0", |end| {
            let end = end.window(3).asks().expects_data(3).window(2);
            end.send(Frame::window_update(STREAM, 2))
                .expects_data(1)
                .opens()
        })
        .asked(Asked::Post),
        case("http2/6.9.2", "SETTINGS with a window of 2^31", |end| {
            end.send(Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]))
        })
        .expects(ConnectionError(FLOW)),
    ]
}
