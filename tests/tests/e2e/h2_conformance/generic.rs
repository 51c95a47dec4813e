//! What every endpoint takes: the suite `generic` up to its section 4.

use ambassador_tests::http2::{Frame, code, setting};

use super::case::{Asked, Case, Expect, Reply, case};
use super::end::{End, OTHER, Role, STREAM};

/// One of each, as a client may send them.
const SETTINGS: [(u16, u32); 6] = [
    (setting::HEADER_TABLE_SIZE, 4096),
    (setting::ENABLE_PUSH, 1),
    (setting::MAX_CONCURRENT_STREAMS, 100),
    (setting::INITIAL_WINDOW_SIZE, 65_535),
    (setting::MAX_FRAME_SIZE, 16_384),
    (setting::MAX_HEADER_LIST_SIZE, 100),
];

/// The proxy sends as much as it may, and then the rest.
fn with_a_window_of_1(end: &mut End) -> &mut End {
    let end = end.send(Frame::window_update(STREAM, 1));
    end.expects_data(1).opens()
}

/// The proxy has a message under way, no window for it, and all of the other message.
fn half_closed_without_window(end: &mut End) -> &mut End {
    end.window(0);
    if end.role == Role::Server {
        end.whole();
    }
    end.asks()
}

pub fn starts_and_streams() -> Vec<Case> {
    vec![
        case("generic/1", "a preface", End::was_greeted_first),
        case("generic/2", "PRIORITY on an idle stream", |end| {
            end.send(Frame::priority(OTHER, 0, 255))
        }),
        case("generic/2", "WINDOW_UPDATE, half-closed", |end| {
            with_a_window_of_1(half_closed_without_window(end))
        })
        .asked(Asked::Post),
        case("generic/2", "PRIORITY, half-closed", |end| {
            let end = half_closed_without_window(end);
            with_a_window_of_1(end.send(Frame::priority(STREAM, 0, 255)))
        })
        .asked(Asked::Post),
        case("generic/2", "RST_STREAM, half-closed", |end| {
            end.half_closed().reset(code::CANCEL)
        })
        .asked(Asked::Post)
        .expects(Expect::Alive),
        case("generic/2", "PRIORITY on a closed stream", |end| {
            end.closed().send(Frame::priority(STREAM, 0, 255))
        }),
    ]
}

pub fn frames() -> Vec<Case> {
    vec![
        case("generic/3.1", "DATA", |end| end.head().last("test")),
        case("generic/3.1", "DATA twice", |end| {
            end.head().data("test").last("test")
        }),
        case("generic/3.1", "DATA with padding", |end| {
            end.head()
                .send(Frame::data(STREAM, "test").ending().padded(5))
        }),
        case("generic/3.2", "HEADERS", End::whole),
        case("generic/3.2", "HEADERS with padding", |end| {
            end.whole_as(|head| head.padded(8))
        }),
        case("generic/3.2", "HEADERS with a priority", |end| {
            end.whole_as(|head| head.depending(0, 255))
        }),
        case("generic/3.3", "PRIORITY of weight 1", |end| {
            end.send(Frame::priority(STREAM, 0, 0)).whole()
        }),
        case("generic/3.3", "PRIORITY of weight 256", |end| {
            end.send(Frame::priority(STREAM, 0, 255)).whole()
        }),
        case("generic/3.3", "PRIORITY that depends on a stream", |end| {
            end.send(Frame::priority(OTHER, STREAM, 0)).whole()
        }),
        case("generic/3.3", "PRIORITY, exclusive", |end| {
            end.send(Frame::priority(STREAM, 1 << 31, 0)).whole()
        }),
        case("generic/3.3", "PRIORITY, then HEADERS below it", |end| {
            end.send(Frame::priority(OTHER, 0, 255)).whole()
        }),
        case("generic/3.4", "RST_STREAM", |end| {
            end.head().reset(code::CANCEL)
        })
        .expects(Expect::Alive)
        .replies(Reply::Cut("upstream-reset")),
        case("generic/3.5", "SETTINGS of every kind", |end| {
            end.settings(&SETTINGS)
        })
        .expects(Expect::Alive)
        // RFC 9113, section 6.5.2: a server may not set ENABLE_PUSH to 1.
        .mirrored("SETTINGS of every kind a server may send", |end| {
            let mut settings = SETTINGS;
            settings[1].1 = 0;
            end.settings(&settings)
        })
        .mirror_expects(Expect::Fine),
        case("generic/3.7", "PING", |end| end.pings(b"h2spec\0\0")),
        case("generic/3.8", "GOAWAY", |end| {
            end.send(Frame::go_away(0, code::NO_ERROR))
        })
        .expects(Expect::Alive)
        .mirrored("GOAWAY, and the answer", |end| {
            end.send(Frame::go_away(STREAM, code::NO_ERROR))
                .head()
                .last("ok")
        })
        .mirror_expects(Expect::Leaves),
        case("generic/3.9", "WINDOW_UPDATE of the connection", |end| {
            end.send(Frame::window_update(0, 1))
        }),
        case("generic/3.9", "WINDOW_UPDATE of a stream", |end| {
            end.whole().send(Frame::window_update(STREAM, 1))
        }),
        case("generic/3.10", "CONTINUATION", |end| end.cut_at(&[5])),
        case("generic/3.10", "CONTINUATION twice", |end| {
            end.cut_at(&[5, 10])
        }),
    ]
}

pub fn messages() -> Vec<Case> {
    vec![
        case("generic/4", "GET", End::whole).mirrored("an answer without content", End::whole),
        case("generic/4", "HEAD", |end| {
            end.fields_as(|fields| fields[0].1 = "HEAD").asked_head()
        })
        .asked(Asked::Head)
        .mirrored("an answer to HEAD", |end| {
            end.whole_with(&[("content-length", "10")])
        }),
        case("generic/4", "POST", |end| end.head().last("test"))
            .mirrored("an answer with content", |end| end.head().last("test")),
        case("generic/4", "POST with trailers", with_trailers)
            .mirrored("an answer with trailers", with_trailers),
    ]
}

fn with_trailers(end: &mut End) -> &mut End {
    let end = end.carries("x-test", "ok");
    let end = end.head_with(&[("trailer", "x-test")]).data("test");
    end.trailers(&[("x-test", "ok")])
}
