//! What a server has to accept: every kind of frame, as it should be.

use ambassador_tests::http2::frame::request;
use ambassador_tests::http2::{Frame, block, code, flag, hpack, setting};

use super::case::{Case, Expect, Talk, Verdict, case};

use Expect::{Answer, Check};

/// Frames (RFC 9113).
pub fn frames() -> Vec<Case> {
    vec![
        case("3.4", "SETTINGS of a client").with(setting::INITIAL_WINDOW_SIZE, 65_535),
        case("5.1", "PRIORITY on an idle stream").sends(Frame::priority(1, 0, 255)),
        case("5.1", "WINDOW_UPDATE on a half-closed stream")
            .with(setting::INITIAL_WINDOW_SIZE, 0)
            .sends(Frame::get(1, "/"))
            .sends(Frame::window_update(1, 1))
            .expects(Check(|talk| length_of_data(talk, 1))),
        case("5.1", "PRIORITY on a half-closed stream")
            .with(setting::INITIAL_WINDOW_SIZE, 0)
            .sends(Frame::get(1, "/"))
            .sends(Frame::priority(1, 0, 255))
            .sends(Frame::window_update(1, 2))
            .expects(Check(|talk| length_of_data(talk, 2))),
        case("5.1", "RST_STREAM on a half-closed stream")
            .sends(Frame::get(1, "/silent"))
            .sends(Frame::reset(1, code::CANCEL)),
        case("5.1", "PRIORITY on a closed stream")
            .sends(Frame::get(1, "/"))
            .awaits(1)
            .sends(Frame::priority(1, 0, 255)),
        case("5.1", "WINDOW_UPDATE on a closed stream")
            .sends(Frame::get(1, "/"))
            .awaits(1)
            .sends(Frame::window_update(1, 9)),
        case("5.1", "RST_STREAM on a closed stream")
            .sends(Frame::get(1, "/"))
            .awaits(1)
            .sends(Frame::reset(1, code::NO_ERROR)),
        case("6.1", "DATA")
            .sends(Frame::post(1, "/"))
            .sends(Frame::data(1, "test").ending())
            .expects(Answer(1)),
        case("6.1", "two DATA")
            .sends(Frame::post(1, "/"))
            .sends(Frame::data(1, "test"))
            .sends(Frame::data(1, "test").ending())
            .expects(Answer(1)),
        case("6.1", "DATA with padding")
            .sends(Frame::post(1, "/"))
            .sends(Frame::data(1, "test").padded(5).ending())
            .expects(Answer(1)),
        case("6.1", "DATA of nothing but padding")
            .sends(Frame::post(1, "/"))
            .sends(Frame::data(1, "").padded(255).ending())
            .expects(Answer(1)),
        case("6.2", "HEADERS")
            .sends(Frame::get(1, "/"))
            .expects(Answer(1)),
        case("6.2", "HEADERS with padding")
            .sends(Frame::get(1, "/").padded(8))
            .expects(Answer(1)),
        case("6.2", "HEADERS with a priority")
            .sends(Frame::get(1, "/").depending(0, 255))
            .expects(Answer(1)),
        case("6.2", "HEADERS with a priority and padding")
            .sends(Frame::get(1, "/").depending(0, 255).padded(3))
            .expects(Answer(1)),
        case("6.3", "PRIORITY with weight 1").sends(Frame::priority(1, 0, 0)),
        case("6.3", "PRIORITY with weight 256").sends(Frame::priority(1, 0, 255)),
        case("6.3", "PRIORITY with a dependency").sends(Frame::priority(3, 1, 255)),
        case("6.3", "PRIORITY with an exclusive dependency").sends(Frame::priority(
            3,
            1 | 1 << 31,
            255,
        )),
        case("6.3", "PRIORITY, and HEADERS on a stream below")
            .sends(Frame::priority(5, 0, 255))
            .sends(Frame::get(1, "/"))
            .expects(Answer(1)),
        case("6.4", "RST_STREAM")
            .sends(Frame::post(1, "/silent"))
            .sends(Frame::reset(1, code::CANCEL)),
        case("6.5", "SETTINGS").sends(Frame::settings(&[
            (setting::ENABLE_PUSH, 0),
            (setting::MAX_CONCURRENT_STREAMS, 100),
            (setting::INITIAL_WINDOW_SIZE, 70_000),
            (setting::MAX_FRAME_SIZE, 20_000),
            (setting::MAX_HEADER_LIST_SIZE, 9_000),
        ])),
        case("6.5", "SETTINGS without a word").sends(Frame::settings(&[])),
        case("6.8", "GOAWAY")
            .sends(Frame::get(1, "/"))
            .sends(Frame::go_away(0, code::NO_ERROR))
            .expects(Check(|talk| talk.answer(1, "200").map(drop))),
        case("6.9", "WINDOW_UPDATE of the connection").sends(Frame::window_update(0, 1)),
        case("6.9", "WINDOW_UPDATE of a stream")
            .sends(Frame::post(1, "/"))
            .sends(Frame::window_update(1, 1))
            .sends(Frame::data(1, "x").ending())
            .expects(Answer(1)),
        case("6.10", "CONTINUATION")
            .sends_all(Frame::get(1, "/").in_parts_of(30))
            .expects(Answer(1)),
        case("6.10", "two CONTINUATION")
            .sends_all(Frame::get(1, "/").in_parts_of(20))
            .expects(Answer(1)),
        case("6.10", "CONTINUATION without a fragment")
            .sends(Frame::get(1, "/").unfinished())
            .sends(Frame::continuation(1, ""))
            .expects(Answer(1)),
    ]
}

/// Requests (RFC 9113).
pub fn requests() -> Vec<Case> {
    vec![
        case("8.1", "GET")
            .sends(Frame::get(1, "/"))
            .expects(Answer(1)),
        case("8.1", "HEAD")
            .sends(Frame::fields(1, &request("HEAD", "/")).ending())
            .expects(Answer(1)),
        case("8.1", "POST")
            .sends(Frame::post(1, "/echo"))
            .sends(Frame::data(1, "content").ending())
            .expects(Check(|talk| echo(talk, "body=content"))),
        case("8.1", "POST with trailers")
            .sends(Frame::post(1, "/echo"))
            .sends(Frame::data(1, "content"))
            .sends(Frame::fields(1, &[("x-sum", "9")]).ending())
            .expects(Check(|talk| echo(talk, "trailer x-sum=9"))),
        case("8.1", "POST without content, ended by DATA")
            .sends(Frame::post(1, "/"))
            .sends(Frame::data(1, "").ending())
            .expects(Answer(1)),
        case("8.1", "requests that are interleaved")
            .sends(Frame::post(1, "/echo"))
            .sends(Frame::post(3, "/echo"))
            .sends(Frame::data(3, "third"))
            .sends(Frame::data(1, "first").ending())
            .sends(Frame::data(3, " stream").ending())
            .expects(Check(both_echoes)),
        case("8.2.2", "te: trailers")
            .sends(with(&[("te", "trailers")]))
            .expects(Answer(1)),
        case("8.2.3", "cookies in pieces")
            .sends(with(&[("cookie", "a=1"), ("x-b", "2"), ("cookie", "c=3")]))
            .expects(Check(|talk| echo(talk, "field cookie=a=1; c=3\n"))),
        case("8.3.1", "a host that agrees with :authority")
            .sends(with(&[("host", "web.test")]))
            .expects(Answer(1)),
        case("8.3.1", "host in place of :authority")
            .sends({
                let [method, scheme, path, _] = request("GET", "/echo");
                Frame::fields(1, &[method, scheme, path, ("host", "web.test")]).ending()
            })
            .expects(Answer(1)),
        case("8.1.1", "content of the length that was told")
            .sends(Frame::headers(1, post_of("7")))
            .sends(Frame::data(1, "con"))
            .sends(Frame::data(1, "tent").ending())
            .expects(Check(|talk| echo(talk, "body=content"))),
        case("8.1.1", "an end that comes after the content")
            .sends(Frame::headers(1, post_of("7")))
            .sends(Frame::data(1, "content"))
            .later()
            .sends(Frame::data(1, "").ending())
            .expects(Check(|talk| echo(talk, "body=content"))),
        case("8.1.1", "an end that comes after a head without content")
            .sends(Frame::headers(1, post_of("0")))
            .later()
            .sends(Frame::data(1, "").ending())
            .expects(Check(|talk| echo(talk, "field content-length=0\n"))),
    ]
}

/// Representations of fields (RFC 7541).
pub fn representations() -> Vec<Case> {
    use hpack::Literal::{Indexed, Never, Unindexed};
    use hpack::{huffman, indexed, literal, literal_of, table_size, text};
    /// `user-agent`.
    const AGENT: usize = 58;
    let sent = |what, field: Vec<u8>| {
        let found = Check(|talk| echo(talk, "=echoed\n"));
        let block = [block(&request("GET", "/echo")), field].concat();
        case("6.2", what)
            .of("RFC 7541")
            .sends(Frame::headers(1, block).ending())
            .expects(found)
    };
    let of = |kept, value: Vec<u8>| [literal_of(kept, AGENT), value].concat();
    vec![
        case("6.1", "indexed fields")
            .of("RFC 7541")
            .sends({
                let indexes = [2, 4, 6].map(indexed).concat();
                let authority = [literal_of(Unindexed, 1), text("web.test")].concat();
                Frame::headers(1, [indexes, authority].concat()).ending()
            })
            .expects(Check(|talk| talk.answer(1, "200").map(drop))),
        sent("indexed, a name of the table", of(Indexed, text("echoed"))),
        sent(
            "indexed, a name of the table, Huffman",
            of(Indexed, huffman("echoed")),
        ),
        sent(
            "indexed, a new name",
            literal(Indexed, &text("x-new"), &text("echoed")),
        ),
        sent(
            "indexed, a new name, Huffman",
            literal(Indexed, &huffman("x-new"), &huffman("echoed")),
        ),
        sent(
            "unindexed, a name of the table",
            of(Unindexed, text("echoed")),
        ),
        sent(
            "unindexed, a name of the table, Huffman",
            of(Unindexed, huffman("echoed")),
        ),
        sent(
            "unindexed, a new name",
            literal(Unindexed, &text("x-new"), &text("echoed")),
        ),
        sent(
            "unindexed, a new name, Huffman",
            literal(Unindexed, &huffman("x-new"), &huffman("echoed")),
        ),
        sent(
            "never indexed, a name of the table",
            of(Never, text("echoed")),
        ),
        sent(
            "never indexed, a name of the table, Huffman",
            of(Never, huffman("echoed")),
        ),
        sent(
            "never indexed, a new name",
            literal(Never, &text("x-new"), &text("echoed")),
        ),
        sent(
            "never indexed, a new name, Huffman",
            literal(Never, &huffman("x-new"), &huffman("echoed")),
        ),
        case("6.1", "a field of the dynamic table")
            .of("RFC 7541")
            .sends(
                Frame::headers(
                    1,
                    [
                        block(&request("GET", "/")),
                        literal(Indexed, &text("x-new"), &huffman("echoed")),
                    ]
                    .concat(),
                )
                .ending(),
            )
            .awaits(1)
            .sends(
                Frame::headers(3, [block(&request("GET", "/echo")), indexed(62)].concat()).ending(),
            )
            .expects(Check(|talk| echoed(talk, 3, "field x-new=echoed"))),
        case("6.3", "a new size of the dynamic table")
            .of("RFC 7541")
            .sends(
                Frame::headers(1, [table_size(128), block(&request("GET", "/"))].concat()).ending(),
            )
            .expects(Answer(1)),
        case("4.2", "two new sizes of the dynamic table")
            .of("RFC 7541")
            .sends(
                Frame::headers(
                    1,
                    [
                        table_size(128),
                        table_size(4096),
                        block(&request("GET", "/")),
                    ]
                    .concat(),
                )
                .ending(),
            )
            .expects(Answer(1)),
    ]
}

/// A GET of what was asked for, with more fields.
fn with(fields: &[hpack::Field<'_>]) -> Frame {
    let request = request("GET", "/echo");
    Frame::fields(1, &[&request[..], fields].concat()).ending()
}

fn post_of(length: &str) -> Vec<u8> {
    let request = request("POST", "/echo");
    block(&[&request[..], &[("content-length", length)]].concat())
}

/// The answer tells that the request had this.
fn echo(talk: &mut Talk, wanted: &str) -> Verdict {
    echoed(talk, 1, wanted)
}

fn echoed(talk: &mut Talk, stream: u32, wanted: &str) -> Verdict {
    let echo = talk.answer(stream, "200")?;
    let echo = String::from_utf8_lossy(&echo).to_lowercase();
    match echo.contains(wanted) {
        true => talk.alive(),
        false => Err(format!("the upstream got {echo:?}, without {wanted:?}")),
    }
}

/// The two answers come in any order.
fn both_echoes(talk: &mut Talk) -> Verdict {
    let mut content = [Vec::new(), Vec::new()];
    let mut ended = 0;
    while ended < 2 {
        let frame = talk.until("both answers", |frame| frame.stream != 0)?;
        let content = &mut content[usize::from(frame.stream == 3)];
        if frame.kind == ambassador_tests::http2::kind::DATA {
            content.extend(frame.content());
        }
        ended += usize::from(frame.has(flag::END_STREAM));
    }
    let content = content.map(|content| String::from_utf8_lossy(&content).into_owned());
    match content[0].contains("body=first") && content[1].contains("body=third stream") {
        true => Ok(()),
        false => Err(format!("wrong contents: {content:?}")),
    }
}

fn length_of_data(talk: &mut Talk, wanted: usize) -> Verdict {
    match talk.data(1)? {
        length if length == wanted => Ok(()),
        length => Err(format!("DATA of {wanted} wanted, not {length}")),
    }
}
