use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    head_bytes_max: 512,
    fields_max: 6,
};

/// What a head gives, whole and byte by byte.
fn parse(head: &[u8], method: Method) -> [Result<Option<usize>, BadMessage>; 2] {
    let mut response = ResponseHead::default();
    let whole = parse_response(&mut response, head, method, &LIMITS);
    let bytewise = (0..=head.len())
        .map(|end| parse_response(&mut response, &head[..end], method, &LIMITS))
        .find(|outcome| *outcome != Ok(None))
        .unwrap_or(Ok(None));
    [whole, bytewise]
}

fn parsed(head: &str, method: Method) -> ResponseHead {
    let mut response = ResponseHead::default();
    let length = parse_response(&mut response, head.as_bytes(), method, &Limits::default());
    assert_eq!(length, Ok(Some(head.len())), "{head}");
    response
}

/// A body that ends with the connection.
const UNTIL_CLOSE: (Length, bool) = (Length::Unknown, true);

/// A body that has its end in itself.
fn framed(length: Length) -> (Length, bool) {
    (length, false)
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for (head, refusal) in [
        ("\rHTTP/1.1 200 OK\r\n\r\n", BadMessage::StartLine),
        (
            "\r\n\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            BadMessage::LeadingLines,
        ),
        ("HTTP/1.1 099 No\r\n\r\n", BadMessage::StartLine),
        ("HTTP/1.1 2000 No\r\n\r\n", BadMessage::StartLine),
        ("HTTP/1.1 20 No\r\n\r\n", BadMessage::StartLine),
        ("HTTP/1.1  200 OK\r\n\r\n", BadMessage::StartLine),
        ("HTTP/1.1 200 O\0K\r\n\r\n", BadMessage::StartLine),
        ("HTTP/1.1 200 O\rK\r\n\r\n", BadMessage::StartLine),
        ("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", BadMessage::BareCr),
        ("HTTP/1.1 200 OK\r\n A: b\r\n\r\n", BadMessage::FoldedLine),
        (
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n 3\r\n\r\n",
            BadMessage::FoldedLine,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\t, gzip\r\n\r\n",
            BadMessage::FoldedLine,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\n",
            BadMessage::FieldName,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding\t: chunked\r\n\r\n",
            BadMessage::FieldName,
        ),
        ("HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", BadMessage::FieldName),
        ("HTTP/1.1 200 OK\r\nA\r\n\r\n", BadMessage::FieldName),
        ("HTTP/1.1 200 OK\r\n: a\r\n\r\n", BadMessage::FieldName),
        ("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", BadMessage::FieldValue),
        ("HTTP/2.0 200 OK\r\n\r\n", BadMessage::Version),
        ("HTTP/0.9 200 OK\r\n\r\n", BadMessage::Version),
        ("ICY 200 OK\r\n\r\n", BadMessage::Version),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            BadMessage::LengthWithEncoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            BadMessage::RepeatedLength,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            BadMessage::Length,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            BadMessage::Length,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            BadMessage::TransferEncoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            BadMessage::TransferEncoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
            BadMessage::TransferEncoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip;q=1, chunked\r\n\r\n",
            BadMessage::TransferEncoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip,, chunked\r\n\r\n",
            BadMessage::TransferEncoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
            BadMessage::TransferEncoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
            BadMessage::TransferEncoding,
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            BadMessage::EncodingBeforeHttp11,
        ),
        // Also where there is no body that they could delimit.
        (
            "HTTP/1.1 304 No\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            BadMessage::LengthWithEncoding,
        ),
        (
            "HTTP/1.1 100 Go\r\nTransfer-Encoding: chunked\r\n\r\n",
            BadMessage::InterimWithBody,
        ),
        (
            "HTTP/1.1 103 Go\r\nContent-Length: 5\r\n\r\n",
            BadMessage::InterimWithBody,
        ),
        (
            "HTTP/1.1 101 Go\r\nContent-Length: 5\r\n\r\n",
            BadMessage::InterimWithBody,
        ),
    ] {
        assert_eq!(
            parse(head.as_bytes(), Method::Get),
            [Err(refusal); 2],
            "{head:?}"
        );
    }
}

#[test]
fn a_refusal_names_the_field() {
    let long = format!("{} x: 1", "a".repeat(100));
    for (line, name) in [
        ("Content-Length : 3", "Content-Length"),
        ("A b: c", "A b"),
        ("no colon", "no colon"),
        (": a", ""),
        ("A: \0", "A"),
        ("A: b\rc", "A"),
        (&long, &long[..64]),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\nSound: 1\r\n{line}\r\n\r\n");
        let mut response = ResponseHead::default();
        parse_response(
            &mut response,
            head.as_bytes(),
            Method::Get,
            &Limits::default(),
        )
        .expect_err("a bad line");
        assert_eq!(response.fields().blamed(), name.as_bytes(), "{line:?}");
    }
    let bad = BadMessage::FieldName.about(b"A\x1b[1m");
    assert_eq!(bad, "malformed field name: A\\x1b[1m");
}

#[test]
fn statuses_that_nobody_knows_pass() {
    for status in [100, 199, 299, 599, 600, 700, 999] {
        let response = parsed(&format!("HTTP/1.1 {status} X\r\n\r\n"), Method::Get);
        assert_eq!(response.status(), status);
        assert_eq!(response.is_informational(), status < 200);
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let filler = "a".repeat(LIMITS.head_bytes_max);
    for head in [
        format!("HTTP/1.1 200 {filler}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nA: {filler}\r\n\r\n"),
    ] {
        let refusal = parse(head.as_bytes(), Method::Get);
        assert_eq!(refusal, [Err(BadMessage::HeadTooLarge); 2]);
    }
    let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(7));
    let refusal = parse(head.as_bytes(), Method::Get);
    assert_eq!(refusal, [Err(BadMessage::TooManyFields); 2]);
}

#[test]
fn status_and_phrase_are_kept_as_they_were_sent() {
    for (line, status) in [
        ("404 Not  Found", 404),
        ("200 ", 200),
        ("200", 200),
        ("299 a\tb", 299),
    ] {
        let head = format!("HTTP/1.1 {line}\r\nA: b\r\n\r\n");
        let response = parsed(&head, Method::Get);
        assert_eq!(response.status(), status);
        assert_eq!(response.status_and_phrase(head.as_bytes()), line.as_bytes());
    }
    let head = b"HTTP/1.1 200 \xfc\r\n\r\n";
    let mut response = ResponseHead::default();
    assert_eq!(
        parse_response(&mut response, head, Method::Get, &LIMITS),
        Ok(Some(head.len()))
    );
    assert_eq!(response.status_and_phrase(head), b"200 \xfc");
}

#[test]
fn where_the_body_ends() {
    use Method::{Connect, Get, Head};
    let chunked = "Transfer-Encoding: chunked";
    for (method, status, field, body) in [
        (Get, 200, "A: b", UNTIL_CLOSE),
        (Get, 200, "Content-Length: 0", framed(Length::None)),
        (Get, 200, "Content-Length: 3", framed(Length::Exact(3))),
        (Get, 200, chunked, framed(Length::Unknown)),
        (
            Get,
            200,
            "Transfer-Encoding: GZIP , chunked",
            framed(Length::Unknown),
        ),
        (Get, 200, "Transfer-Encoding: gzip", UNTIL_CLOSE),
        (Get, 200, "Transfer-Encoding: identity", UNTIL_CLOSE),
        (Get, 999, "Content-Length: 3", framed(Length::Exact(3))),
        (Get, 404, "A: b", UNTIL_CLOSE),
        (Get, 205, "Content-Length: 3", framed(Length::Exact(3))),
        (Get, 100, "A: b", framed(Length::None)),
        (Get, 101, "A: b", framed(Length::None)),
        (Get, 204, "A: b", framed(Length::None)),
        (Get, 204, "Content-Length: 3", framed(Length::None)),
        (Get, 204, chunked, framed(Length::None)),
        (Get, 304, "Content-Length: 3", framed(Length::None)),
        (Get, 304, chunked, framed(Length::None)),
        (Head, 200, "Content-Length: 3", framed(Length::None)),
        (Head, 200, chunked, framed(Length::None)),
        (Head, 500, "A: b", framed(Length::None)),
        (Connect, 200, "Content-Length: 3", framed(Length::None)),
        (Connect, 299, chunked, framed(Length::None)),
        (Connect, 300, "Content-Length: 3", framed(Length::Exact(3))),
        (Connect, 407, chunked, framed(Length::Unknown)),
    ] {
        let head = format!("HTTP/1.1 {status} X\r\n{field}\r\n\r\n");
        let response = parsed(&head, method);
        let said = (response.length(), response.ends_with_connection());
        assert_eq!(said, body, "{method:?} {status} {field}");
    }
}

#[test]
fn interim_responses_do_not_end_the_exchange() {
    for (status, interim) in [(100, true), (101, false), (103, true), (200, false)] {
        let response = parsed(&format!("HTTP/1.1 {status} X\r\n\r\n"), Method::Get);
        assert_eq!(response.is_informational(), interim);
    }
}

#[test]
fn whether_the_upstream_may_get_another_request() {
    for (start, field, keep_alive) in [
        ("HTTP/1.1 200", "A: b", true),
        ("HTTP/1.1 200", "Connection: close", false),
        (
            "HTTP/1.1 200",
            "Connection: x\r\nConnection: y, CLOSE",
            false,
        ),
        ("HTTP/1.0 200", "A: b", false),
        ("HTTP/1.0 200", "Connection: keep-alive", true),
        // The sender may think that it has sent a body.
        ("HTTP/1.1 204", "Content-Length: 3", false),
        ("HTTP/1.1 204", "Transfer-Encoding: chunked", false),
        ("HTTP/1.1 204", "Content-Length: 0", true),
        ("HTTP/1.1 304", "Content-Length: 3", true),
    ] {
        let response = parsed(&format!("{start} X\r\n{field}\r\n\r\n"), Method::Get);
        assert_eq!(response.keep_alive(), keep_alive, "{start} {field}");
    }
}

fn near_heads() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        "HTTP/1.1",
        "HTTP/1.0",
        " ",
        "200",
        "101",
        "204",
        " OK",
        "\r\n",
        "\n",
        "\r",
        ":",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close, x\r\n",
        "x: y\r\n",
        "\0",
        "\u{fc}",
        "\r\n\r\n",
    ]);
    prop_oneof![
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..300),
        "HTTP/1[.][01] [1-5][0-9][0-9]( [ -~]{0,8})?\r\n([A-Za-z-]{1,8}: [ -~]{0,8}\r\n){0,7}\r\n"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    /// Where more than one rule is broken, which one is named may differ.
    #[test]
    fn heads_in_pieces_are_read_as_the_whole(bytes in near_heads(), head_method: bool) {
        let method = if head_method { Method::Head } else { Method::Get };
        let [whole, bytewise] = parse(&bytes, method);
        prop_assert_eq!(whole.ok(), bytewise.ok());
        if let Ok(Some(length)) = whole {
            let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
            let ends = bytes[..length].iter().rev().take_while(|byte| is_end(byte));
            prop_assert!(ends.filter(|byte| **byte == b'\n').count() >= 2);
        }
    }

    /// What httparse makes of the same bytes, with the rules it does not have.
    #[test]
    fn another_parser_reads_the_same(bytes in near_heads()) {
        let mut table = [httparse::EMPTY_HEADER; LIMITS.fields_max];
        let mut theirs = httparse::Response::new(&mut table);
        let mut config = httparse::ParserConfig::default();
        config
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true);
        let status = config.parse_response(&mut theirs, &bytes);
        let mut ours = ResponseHead::default();
        match (parse_response(&mut ours, &bytes, Method::Get, &LIMITS), status) {
            (Ok(Some(length)), Ok(httparse::Status::Complete(their_length))) => {
                prop_assert_eq!(length, their_length);
                prop_assert_eq!(Some(ours.status()), theirs.code);
                let fields = ours.fields().iter();
                let fields: Vec<_> = fields.map(|f| (f.name(&bytes), f.value(&bytes))).collect();
                let theirs = theirs.headers.iter();
                let theirs: Vec<_> = theirs.map(|f| (f.name.as_bytes(), f.value)).collect();
                prop_assert_eq!(fields, theirs);
            }
            (Ok(None), status) => prop_assert_eq!(status, Ok(httparse::Status::Partial)),
            (Err(bad), Ok(status)) => prop_assert!(is_stricter(bad, &bytes, status), "{bad:?}"),
            (Err(_), Err(_)) => {}
            (Ok(Some(_)), status) => prop_assert!(false, "{status:?}"),
        }
    }
}

/// Whether httparse may have taken what we refuse.
fn is_stricter(bad: BadMessage, bytes: &[u8], status: httparse::Status<usize>) -> bool {
    match bad {
        BadMessage::HeadTooLarge => bytes.len() > LIMITS.head_bytes_max,
        // Statuses below 100.
        BadMessage::StartLine => bytes.contains(&b'0'),
        BadMessage::LeadingLines => matches!(bytes[0], b'\r' | b'\n'),
        BadMessage::Version
        | BadMessage::FieldName
        | BadMessage::FieldValue
        | BadMessage::BareCr
        | BadMessage::FoldedLine
        | BadMessage::TooManyFields => false,
        // What a sound head means.
        _ => status.is_complete(),
    }
}
