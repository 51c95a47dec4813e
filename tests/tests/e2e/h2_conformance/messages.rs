//! Error codes and messages: sections 7 and 8 of the suite `http2`. What is wrong in a
//! request has a counterpart that is wrong in a response (RFC 9113, section 8).

use ambassador_tests::http2::{Frame, frame};

use super::case::{Case, Expect, PROTOCOL, Reply, case};
use super::end::{End, PROMISED, Role, STREAM};

use Expect::{ConnectionError, StreamError};

/// A code that nobody knows.
const UNKNOWN: u32 = 0xff;

pub fn codes() -> Vec<Case> {
    vec![
        case("http2/7", "GOAWAY with an unknown code", |end| {
            end.send(Frame::go_away(0, UNKNOWN))
        })
        .expects(Expect::Alive)
        .mirrored("GOAWAY with an unknown code, and the answer", |end| {
            end.send(Frame::go_away(STREAM, UNKNOWN)).head().last("ok")
        })
        .mirror_expects(Expect::Leaves),
        case("http2/7", "RST_STREAM with an unknown code", |end| {
            end.head().reset(UNKNOWN)
        })
        .expects(Expect::Alive)
        .replies(Reply::Cut("upstream-reset")),
    ]
}

/// A malformed message, which is an error of its stream.
fn malformed(section: &'static str, says: &'static str, act: super::case::Act) -> Case {
    case(section, says, act).expects(StreamError(PROTOCOL))
}

pub fn exchanges() -> Vec<Case> {
    vec![
        malformed(
            "http2/8.1",
            "HEADERS a second time, without an end",
            |end| {
                let again = Frame::fields(STREAM, &[("x-test", "ok")]);
                end.head().data("test").send(again)
            },
        )
        .replies(Reply::Cut("protocol-error")),
        malformed("http2/8.1.2", "a name in capitals", |end| {
            end.fields_as(|fields| fields.push(("X-TEST", "ok")))
        }),
        // Section 8.4: a client may not push, and a server may not to who forbids it.
        case("http2/8.2", "PUSH_PROMISE", |end| {
            let promised = match end.role {
                Role::Client => 3,
                Role::Server => PROMISED,
            };
            let fields = frame::request("GET", "/");
            end.send(Frame::push_promise(STREAM, promised, &fields))
        })
        .expects(ConnectionError(PROTOCOL)),
    ]
}

pub fn pseudo_fields() -> Vec<Case> {
    let section = "http2/8.1.2.1";
    vec![
        malformed(section, "an unknown pseudo field", |end| {
            end.fields_as(|fields| fields.push((":test", "ok")))
        }),
        malformed(section, "a pseudo field of responses", |end| {
            end.fields_as(|fields| fields.push((":status", "200")))
        })
        .mirrored("a pseudo field of requests", |end| {
            end.fields_as(|fields| fields.push((":path", "/")))
        }),
        malformed(section, "a pseudo field in trailers", |end| {
            end.head()
                .data("test")
                .send(Frame::fields(STREAM, &[(":method", "POST")]))
        })
        .mirrored(":status in trailers", |end| {
            end.head()
                .data("test")
                .send(Frame::fields(STREAM, &[(":status", "200")]))
        })
        .replies(Reply::Cut("protocol-error")),
        malformed(section, "a pseudo field behind another field", |end| {
            end.fields_as(|fields| fields.insert(0, ("x-test", "ok")))
        }),
    ]
}

pub fn connection_fields() -> Vec<Case> {
    let section = "http2/8.1.2.2";
    vec![
        malformed(section, "connection", |end| {
            end.fields_as(|fields| fields.push(("connection", "keep-alive")))
        }),
        malformed(section, "te with more than trailers", |end| {
            end.fields_as(|fields| {
                fields.extend([("trailers", "test"), ("te", "trailers, deflate")]);
            })
        }),
    ]
}

/// Of responses, section 8.3.2 of RFC 9113 asks for `:status` alone.
pub fn request_fields() -> Vec<Case> {
    let section = "http2/8.1.2.3";
    let wrong =
        |says, act, mirrored, mirror| malformed(section, says, act).mirrored(mirrored, mirror);
    vec![
        wrong(
            "an empty :path",
            |end| end.fields_as(|fields| fields[2].1 = ""),
            "an empty :status",
            |end| end.fields_alone(&[(":status", "")]),
        ),
        wrong(
            "no :method",
            |end| without(end, ":method"),
            "no :status",
            |end| end.fields_alone(&[("x-test", "ok")]),
        ),
        wrong(
            "no :scheme",
            |end| without(end, ":scheme"),
            "no field at all",
            |end| end.fields_alone(&[]),
        ),
        wrong(
            "no :path",
            |end| without(end, ":path"),
            "a :status of two digits",
            |end| end.fields_alone(&[(":status", "20")]),
        ),
        wrong(
            "two :method",
            |end| twice(end, 0),
            "two :status",
            |end| twice(end, 0),
        ),
        wrong(
            "two :scheme",
            |end| twice(end, 1),
            "two :status that differ",
            |end| end.fields_alone(&[(":status", "200"), (":status", "204")]),
        ),
        wrong(
            "two :path",
            |end| twice(end, 2),
            "an interim :status that ends the stream",
            |end| end.trailers(&[(":status", "103")]),
        ),
    ]
}

/// A message whose head lacks a field.
fn without<'a>(end: &'a mut End, name: &str) -> &'a mut End {
    let mut fields = frame::request("GET", "/").to_vec();
    fields.retain(|field| field.0 != name);
    end.fields_alone(&fields)
}

/// A message whose head has one of its fields twice.
fn twice(end: &mut End, number: usize) -> &mut End {
    let mut fields = match end.role {
        Role::Client => frame::request("GET", "/").to_vec(),
        Role::Server => vec![(":status", "200")],
    };
    fields.push(fields[number]);
    end.fields_alone(&fields)
}

pub fn lengths() -> Vec<Case> {
    let section = "http2/8.1.2.6";
    vec![
        malformed(section, "DATA longer than content-length", |end| {
            end.head_with(&[("content-length", "1")]).last("test")
        })
        .replies(Reply::Cut("protocol-error")),
        malformed(section, "two DATA longer than content-length", |end| {
            end.head_with(&[("content-length", "1")])
                .data("test")
                .last("test")
        })
        .replies(Reply::Cut("protocol-error")),
    ]
}
