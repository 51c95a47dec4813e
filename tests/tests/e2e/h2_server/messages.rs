//! Requests that are malformed (RFC 9113, section 8). None of them may reach an
//! upstream whole, all of which ask for `/bad`.

use ambassador_tests::http2::frame::request;
use ambassador_tests::http2::hpack::Field;
use ambassador_tests::http2::{Frame, block};

use super::case::{Case, Expect, PROTOCOL, case};

use Expect::{ConnectionError, Either, StreamError};

/// What malformed requests ask for.
pub const BAD: &str = "/bad";

/// Requests whose fields are wrong.
pub fn fields() -> Vec<Case> {
    let wrong: [(_, _, &[Field<'_>]); 18] = [
        ("8.2.1", "a name without a character", &[("", "1")]),
        ("8.2.1", "a name with a space", &[("x test", "1")]),
        ("8.2.1", "a name with a colon", &[("x:test", "1")]),
        ("8.2.1", "a name with a control", &[("x\u{1}test", "1")]),
        (
            "8.2.1",
            "a name with a character of two octets",
            &[("x-\u{e9}", "1")],
        ),
        ("8.2.1", "a value with NUL", &[("x-test", "a\0b")]),
        ("8.2.1", "a value with LF", &[("x-test", "a\nb")]),
        ("8.2.1", "a value with CR", &[("x-test", "a\rb")]),
        (
            "8.2.1",
            "a value with another request",
            &[("x-test", "a\r\n\r\nGET / HTTP/1.1\r\n")],
        ),
        (
            "8.2.1",
            "a value that begins with a space",
            &[("x-test", " a")],
        ),
        (
            "8.2.1",
            "a value that ends with a tab",
            &[("x-test", "a\t")],
        ),
        (
            "8.2.2",
            "proxy-connection",
            &[("proxy-connection", "keep-alive")],
        ),
        ("8.2.2", "keep-alive", &[("keep-alive", "timeout=9")]),
        (
            "8.2.2",
            "transfer-encoding",
            &[("transfer-encoding", "chunked")],
        ),
        ("8.2.2", "upgrade", &[("upgrade", "websocket")]),
        (
            "8.3.1",
            "a host that is not the authority",
            &[("host", "other.test")],
        ),
        (
            "8.1.1",
            "a content-length that is no number",
            &[("content-length", "+5")],
        ),
        (
            "8.1.1",
            "two different content-lengths",
            &[("content-length", "5"), ("content-length", "6")],
        ),
    ];
    let wrong = wrong.into_iter();
    let malformed = wrong.map(|(section, what, fields)| {
        let fields = [&request("POST", BAD), fields].concat();
        malformed(section, what, &fields)
    });
    malformed.collect()
}

/// Requests whose pseudo fields are wrong.
pub fn pseudo_fields() -> Vec<Case> {
    let [method, scheme, path, authority] = request("POST", BAD);
    let wrong: [(_, _, &[Field<'_>]); 10] = [
        (
            "8.3.1",
            "two :authority",
            &[method, scheme, path, authority, authority],
        ),
        (
            "8.3.1",
            "a :path without a slash",
            &[method, scheme, (":path", "bad"), authority],
        ),
        (
            "8.3.1",
            "a :path with a space",
            &[method, scheme, (":path", "/bad HTTP/1.1"), authority],
        ),
        (
            "8.3.1",
            "a :path with another request",
            &[
                method,
                scheme,
                (":path", "/bad HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n"),
                authority,
            ],
        ),
        (
            "8.3.1",
            "a :method with a space",
            &[(":method", "GET /bad"), scheme, path, authority],
        ),
        (
            "8.3.1",
            "an empty :method",
            &[(":method", ""), scheme, path, authority],
        ),
        (
            "8.3.1",
            "user information",
            &[method, scheme, path, (":authority", "me@web.test")],
        ),
        (
            "8.3.1",
            "an authority with a space",
            &[method, scheme, path, (":authority", "web .test")],
        ),
        (
            "8.5",
            "CONNECT with :scheme and :path",
            &[(":method", "CONNECT"), scheme, path, authority],
        ),
        (
            "8.5",
            "CONNECT without :authority",
            &[(":method", "CONNECT")],
        ),
    ];
    let wrong = wrong.into_iter();
    let malformed = wrong.map(|(section, what, fields)| malformed(section, what, fields));
    malformed.collect()
}

/// Requests whose frames are wrong together.
pub fn exchanges() -> Vec<Case> {
    let post = |fields: &[Field<'_>]| {
        Frame::headers(1, block(&[&request("POST", BAD)[..], fields].concat()))
    };
    let length = |what, length| case("8.1.1", what).sends(post(&[("content-length", length)]));
    vec![
        length("content longer than was told, in pieces", "5")
            .sends(Frame::data(1, "test"))
            .sends(Frame::data(1, "test").ending())
            .expects(StreamError(1, PROTOCOL)),
        length("content shorter than was told", "5")
            .sends(Frame::data(1, "test").ending())
            .expects(StreamError(1, PROTOCOL)),
        length("content shorter than was told, before trailers", "5")
            .sends(Frame::data(1, "test"))
            .sends(Frame::fields(1, &[("x-sum", "9")]).ending())
            .expects(StreamError(1, PROTOCOL)),
        case("8.1.1", "no content in place of what was told")
            .sends(post(&[("content-length", "5")]).ending())
            .expects(StreamError(1, PROTOCOL)),
        // In one piece: a server may have answered a head that tells of no content.
        case("8.1.1", "content where none was told")
            .sends_bytes({
                let head = post(&[("content-length", "0")]);
                [head.bytes(), Frame::data(1, "test").ending().bytes()].concat()
            })
            .expects(StreamError(1, PROTOCOL)),
        length("content where none was told, later", "0")
            .later()
            .sends(Frame::data(1, "test").ending())
            .expects(StreamError(1, PROTOCOL)),
        length("content behind what was told, later", "4")
            .sends(Frame::data(1, "test"))
            .later()
            .sends(Frame::data(1, "s").ending())
            .expects(StreamError(1, PROTOCOL)),
        length(
            "a pseudo field in trailers behind what was told, later",
            "4",
        )
        .sends(Frame::data(1, "test"))
        .later()
        .sends(Frame::fields(1, &[(":method", "GET")]).ending())
        .expects(StreamError(1, PROTOCOL)),
        case("8.1", "a pseudo field in trailers")
            .sends(post(&[]))
            .sends(Frame::data(1, "test"))
            .sends(Frame::fields(1, &[(":method", "GET")]).ending())
            .expects(StreamError(1, PROTOCOL)),
        case("8.2", "an upper-case name in trailers")
            .sends(post(&[]))
            .sends(Frame::data(1, "test"))
            .sends(Frame::fields(1, &[("X-Sum", "9")]).ending())
            .expects(StreamError(1, PROTOCOL)),
        case("8.2.1", "LF in trailers")
            .sends(post(&[]))
            .sends(Frame::data(1, "test"))
            .sends(Frame::fields(1, &[("x-sum", "9\nx-b: 1")]).ending())
            .expects(StreamError(1, PROTOCOL)),
        case("8.2.2", "a field of connections in trailers")
            .sends(post(&[]))
            .sends(Frame::data(1, "test"))
            .sends(Frame::fields(1, &[("transfer-encoding", "chunked")]).ending())
            .expects(StreamError(1, PROTOCOL)),
        case("8.4", "PUSH_PROMISE of a client")
            .sends(Frame::get(1, "/silent"))
            .sends(Frame::push_promise(1, 2, &request("GET", "/")))
            .expects(ConnectionError(PROTOCOL)),
        case("8.1", "a request beside a malformed one")
            .sends(Frame::post(1, "/silent"))
            .sends(post(&[("X-Test", "1")]).on(3).ending())
            .expects(Either(3, PROTOCOL)),
    ]
}

/// A request with these fields: an error of its stream alone.
fn malformed(section: &'static str, what: &'static str, fields: &[Field<'_>]) -> Case {
    case(section, what)
        .sends(Frame::fields(1, fields).ending())
        .expects(StreamError(1, PROTOCOL))
}
