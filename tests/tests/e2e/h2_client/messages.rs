//! Answers of a server that are malformed (RFC 9113, section 8). Each is an error of
//! its stream, and the caller gets nothing of it.

use ambassador_tests::http2::hpack::Field;
use ambassador_tests::http2::{Frame, code};

use super::frames::{head, rest};
use super::script::{Answer, Case, Outcome, WRONG, case};

const MALFORMED: Outcome = Outcome::StreamError(&[code::PROTOCOL_ERROR]);

/// Answers whose fields are wrong.
pub fn fields() -> Vec<Case> {
    let status = (":status", "200");
    let wrong: [(_, _, &[Field<'_>]); 14] = [
        ("8.2.1", "a name with a space", &[status, ("x test", "1")]),
        ("8.2.1", "a name with a colon", &[status, ("x:test", "1")]),
        ("8.2.1", "a value with NUL", &[status, ("x-test", "a\0b")]),
        (
            "8.2.1",
            "a value with LF",
            &[status, ("x-test", "a\nset-cookie: b")],
        ),
        ("8.2.1", "a value with CR", &[status, ("x-test", "a\rb")]),
        (
            "8.2.1",
            "a value that begins with a space",
            &[status, ("x-test", " a")],
        ),
        (
            "8.2.2",
            "keep-alive",
            &[status, ("keep-alive", "timeout=9")],
        ),
        (
            "8.2.2",
            "transfer-encoding",
            &[status, ("transfer-encoding", "chunked")],
        ),
        ("8.2.2", "upgrade", &[status, ("upgrade", "h2c")]),
        ("8.3.2", "a status of four digits", &[(":status", "2000")]),
        ("8.3.2", "a status that is no number", &[(":status", "2x0")]),
        ("8.6", "101", &[(":status", "101")]),
        (
            "8.1.1",
            "a content-length that is no number",
            &[status, ("content-length", "-2")],
        ),
        (
            "8.1.1",
            "two different content-lengths",
            &[status, ("content-length", "2"), ("content-length", "3")],
        ),
    ];
    let wrong = wrong.into_iter();
    let cases = wrong.map(|(section, what, fields)| {
        let case = case(section, what).sends(Frame::fields(1, fields));
        case.expects(MALFORMED, WRONG)
    });
    cases.collect()
}

/// The stream is over where the server has ended it.
const MALFORMED_AT_ITS_END: Outcome = Outcome::StreamErrorOrNothing(&[code::PROTOCOL_ERROR]);

/// Answers whose frames are wrong together.
pub fn exchanges() -> Vec<Case> {
    let told = |length| Frame::fields(1, &[(":status", "200"), ("content-length", length)]);
    let trailers = |fields: &[Field<'_>]| Frame::fields(1, fields).ending();
    let interim = || Frame::fields(1, &[(":status", "103")]);
    // What an HTTP/1 caller would take for the next answer.
    let smuggled = || Frame::data(1, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ending();
    let bare = |status: &'static str| Frame::fields(1, &[(":status", status)]);
    vec![
        case("8.1", "trailers that were not announced")
            .sends(head())
            .sends(Frame::data(1, "ok"))
            .sends(trailers(&[("x-sum", "9")])),
        case("8.1", "an interim answer before")
            .sends(interim())
            .sends(head())
            .sends(rest())
            .expects(Outcome::Nothing, Answer::Interim),
        case("8.1", "DATA before HEADERS")
            .sends(Frame::data(1, "ok"))
            .sends(head().ending())
            .expects(MALFORMED, WRONG),
        case("8.1", "a pseudo field in trailers")
            .sends(head())
            .sends(Frame::data(1, "ok"))
            .sends(trailers(&[(":status", "200")]))
            .expects(MALFORMED_AT_ITS_END, Answer::Cut),
        case("8.2.1", "LF in trailers")
            .sends(head())
            .sends(Frame::data(1, "ok"))
            .sends(trailers(&[("x-sum", "9\nx-b: 1")]))
            .expects(MALFORMED_AT_ITS_END, Answer::Cut),
        case("8.1.1", "content shorter than was told")
            .sends(told("5"))
            .sends(rest())
            .expects(MALFORMED, Answer::Cut),
        case("6.4.1", "content behind 204")
            .of("RFC 9110")
            .sends(bare("204"))
            .sends(smuggled())
            .expects(MALFORMED, Answer::Bare(204)),
        case("6.4.1", "content behind 304")
            .of("RFC 9110")
            .sends(Frame::fields(
                1,
                &[(":status", "304"), ("content-length", "38")],
            ))
            .sends(smuggled())
            .expects(MALFORMED, Answer::Bare(304)),
        case("6.4.1", "content in answer to HEAD")
            .of("RFC 9110")
            .asks("HEAD")
            .sends(told("38"))
            .sends(smuggled())
            .expects(MALFORMED, Answer::Bare(200)),
        case("8.1.1", "an empty DATA in answer to HEAD, of a length")
            .asks("HEAD")
            .sends(told("38"))
            .sends(Frame::data(1, "").ending())
            .expects(Outcome::Nothing, Answer::Empty),
        case("8.1.1", "no content in place of what was told")
            .sends(told("2").ending())
            .expects(MALFORMED_AT_ITS_END, WRONG),
    ]
}
