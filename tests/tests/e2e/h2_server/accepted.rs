//! What a server has to accept, beyond what h2spec sends.

use ambassador_tests::http2::frame::request;
use ambassador_tests::http2::{Frame, block, code, flag, hpack, setting};

use super::case::{Case, Expect, Talk, Verdict, case};

use Expect::{Answer, Check};

/// Frames (RFC 9113).
pub fn frames() -> Vec<Case> {
    vec![
        case("5.1", "WINDOW_UPDATE on a closed stream")
            .sends(Frame::get(1, "/"))
            .awaits(1)
            .sends(Frame::window_update(1, 9)),
        case("5.1", "RST_STREAM on a closed stream")
            .sends(Frame::get(1, "/"))
            .awaits(1)
            .sends(Frame::reset(1, code::NO_ERROR)),
        case("6.1", "DATA of nothing but padding")
            .sends(Frame::post(1, "/"))
            .sends(Frame::data(1, "").padded(255).ending())
            .expects(Answer(1)),
        case("6.2", "HEADERS with a priority and padding")
            .sends(Frame::get(1, "/").depending(0, 255).padded(3))
            .expects(Answer(1)),
        case("6.5", "SETTINGS").sends(Frame::settings(&[
            (setting::ENABLE_PUSH, 0),
            (setting::MAX_CONCURRENT_STREAMS, 100),
            (setting::INITIAL_WINDOW_SIZE, 70_000),
            (setting::MAX_FRAME_SIZE, 20_000),
            (setting::MAX_HEADER_LIST_SIZE, 9_000),
        ])),
        case("6.8", "GOAWAY")
            .sends(Frame::get(1, "/"))
            .sends(Frame::go_away(0, code::NO_ERROR))
            .expects(Check(|talk| talk.answer(1, "200").map(drop))),
        case("6.9", "WINDOW_UPDATE of a stream")
            .sends(Frame::post(1, "/"))
            .sends(Frame::window_update(1, 1))
            .sends(Frame::data(1, "x").ending())
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
        case("8.1", "trailers that were not announced")
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
    use hpack::Literal::{Indexed, Unindexed};
    use hpack::{huffman, indexed, literal, literal_of, text};
    vec![
        case("6.1", "indexed fields")
            .of("RFC 7541")
            .sends({
                let indexes = [2, 4, 6].map(indexed).concat();
                let authority = [literal_of(Unindexed, 1), text("web.test")].concat();
                Frame::headers(1, [indexes, authority].concat()).ending()
            })
            .expects(Check(|talk| talk.answer(1, "200").map(drop))),
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
