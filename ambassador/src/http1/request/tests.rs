use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    head_bytes_max: 512,
    fields_max: 6,
};

/// What a head gives, whole and byte by byte.
fn parse(head: &[u8]) -> [Result<Option<usize>, BadMessage>; 2] {
    let mut request = RequestHead::default();
    let whole = parse_request(&mut request, head, &LIMITS);
    let bytewise = (0..=head.len())
        .map(|end| parse_request(&mut request, &head[..end], &LIMITS))
        .find(|outcome| *outcome != Ok(None))
        .unwrap_or(Ok(None));
    [whole, bytewise]
}

fn parsed(head: &[u8]) -> RequestHead {
    let mut request = RequestHead::default();
    let length = parse_request(&mut request, head, &Limits::default());
    assert!(
        matches!(length, Ok(Some(_))),
        "{length:?} {}",
        head.escape_ascii()
    );
    request
}

#[test]
fn fields_that_could_be_read_in_two_ways_are_refused() {
    for (rest, refusal) in [
        // Two lengths.
        (
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            BadMessage::LengthWithEncoding,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            BadMessage::LengthWithEncoding,
        ),
        (
            "Transfer-Encoding: x\r\nContent-Length: 0",
            BadMessage::LengthWithEncoding,
        ),
        (
            "Content-Length: 1\r\nContent-Length: 2",
            BadMessage::RepeatedLength,
        ),
        (
            "Content-Length: 1\r\ncontent-length: 1",
            BadMessage::RepeatedLength,
        ),
        // No length.
        ("Content-Length:", BadMessage::Length),
        ("Content-Length: +5", BadMessage::Length),
        ("Content-Length: -5", BadMessage::Length),
        ("Content-Length: 5, 5", BadMessage::Length),
        ("Content-Length: 5,", BadMessage::Length),
        ("Content-Length: 5 5", BadMessage::Length),
        ("Content-Length: 0x5", BadMessage::Length),
        ("Content-Length: 5.0", BadMessage::Length),
        ("Content-Length: 1e1", BadMessage::Length),
        ("Content-Length: \"5\"", BadMessage::Length),
        ("Content-Length: \u{665}", BadMessage::Length),
        ("Content-Length: 9223372036854775808", BadMessage::Length),
        ("Content-Length: 18446744073709551617", BadMessage::Length),
        ("Content-Length: 0000000000000000005", BadMessage::Length),
        // No encoding that ends where all agree.
        ("Transfer-Encoding:", BadMessage::TransferEncoding),
        ("Transfer-Encoding: identity", BadMessage::TransferEncoding),
        ("Transfer-Encoding: gzip", BadMessage::TransferEncoding),
        (
            "Transfer-Encoding: gzip, chunked",
            BadMessage::TransferCoding,
        ),
        (
            "Transfer-Encoding: chunked, gzip",
            BadMessage::TransferEncoding,
        ),
        (
            "Transfer-Encoding: chunked, chunked",
            BadMessage::TransferEncoding,
        ),
        ("Transfer-Encoding: chunked,", BadMessage::TransferEncoding),
        ("Transfer-Encoding: ,chunked", BadMessage::TransferEncoding),
        (
            "Transfer-Encoding: chunked;a=b",
            BadMessage::TransferEncoding,
        ),
        (
            "Transfer-Encoding: \"chunked\"",
            BadMessage::TransferEncoding,
        ),
        ("Transfer-Encoding: xchunked", BadMessage::TransferEncoding),
        (
            "Transfer-Encoding: \u{17f}chunked",
            BadMessage::TransferEncoding,
        ),
        ("Transfer-Encoding: chun ked", BadMessage::TransferEncoding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            BadMessage::TransferEncoding,
        ),
        (
            "Transfer-Encoding: identity\r\ntransfer-encoding: chunked",
            BadMessage::TransferEncoding,
        ),
        ("Transfer-Encoding: chunked\x0b", BadMessage::FieldValue),
        ("Transfer-Encoding: \x0cchunked", BadMessage::FieldValue),
        // Field names that others trim.
        ("Transfer-Encoding : chunked", BadMessage::FieldName),
        ("Content-Length\t: 5", BadMessage::FieldName),
        ("Content-Length", BadMessage::FieldName),
        (": x", BadMessage::FieldName),
        ("Content\0Length: 5", BadMessage::FieldName),
        ("(a): x", BadMessage::FieldName),
        ("\u{fc}: x", BadMessage::FieldName),
        // Line ends and control characters.
        ("A: b\r\n c", BadMessage::FoldedLine),
        (
            "A: b\r\n\tTransfer-Encoding: chunked",
            BadMessage::FoldedLine,
        ),
        ("A: b\r\n ", BadMessage::FoldedLine),
        ("A: b\rc", BadMessage::BareCr),
        ("A: b\r\r\nC: d", BadMessage::BareCr),
        ("A: b\r", BadMessage::BareCr),
        ("A\r: b", BadMessage::FieldName),
        ("A: b\nC: d", BadMessage::BareLf),
        ("A: b\n c", BadMessage::FoldedLine),
        ("A: b\0c", BadMessage::FieldValue),
        ("A: b\x01c", BadMessage::FieldValue),
        ("A: b\x7fc", BadMessage::FieldValue),
        // Whose request it is.
        ("Host: b", BadMessage::RepeatedHost),
        ("hOST: a", BadMessage::RepeatedHost),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}\r\n\r\n");
        assert_eq!(parse(head.as_bytes()), [Err(refusal); 2], "{rest:?}");
    }
}

#[test]
fn heads_that_could_be_read_in_two_ways_are_refused() {
    for (head, refusal) in [
        ("GET / HTTP/1.1\r\n\r\n", BadMessage::MissingHost),
        ("GET http://a/ HTTP/1.1\r\n\r\n", BadMessage::MissingHost),
        (
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            BadMessage::EncodingBeforeHttp11,
        ),
        // Line ends.
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", BadMessage::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", BadMessage::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", BadMessage::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\n\rX", BadMessage::BareCr),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", BadMessage::BareCr),
        (
            "GET /\ra HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::StartLine,
        ),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", BadMessage::FoldedLine),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::BareLf),
        (
            "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::LeadingLines,
        ),
        (
            "\r\n\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::BareLf,
        ),
        (
            "\r\n\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::BareCr,
        ),
        // The request line.
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::StartLine),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::StartLine),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::StartLine),
        ("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::StartLine),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::StartLine),
        ("GET /\r\n\r\n", BadMessage::StartLine),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BadMessage::StartLine),
        ("GET / HTTP/1.1a\r\nHost: a\r\n\r\n", BadMessage::StartLine),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::Version),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::Version),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", BadMessage::Version),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", BadMessage::Version),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", BadMessage::Version),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", BadMessage::Version),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadMessage::Version),
        // The target.
        ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::Target),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::Target),
        ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::Target),
        ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::Target),
        (
            "GET http://\u{fc}/ HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "GET http://?a HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "GET http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "GET http://b:c@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "GET http://a\\@b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "GET http://a/ HTTP/1.1\r\nHost: a@b\r\n\r\n",
            BadMessage::Host,
        ),
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::Target),
        ("CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::Target),
        (
            "CONNECT :80 HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", BadMessage::Target),
        (
            "CONNECT http://a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "CONNECT b@a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            BadMessage::Target,
        ),
        (
            "CONNECT a:80 HTTP/1.1\r\nHost: a b\r\n\r\n",
            BadMessage::Host,
        ),
        (
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\n\r\n",
            BadMessage::ConnectWithBody,
        ),
        (
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n",
            BadMessage::ConnectWithBody,
        ),
    ] {
        assert_eq!(parse(head.as_bytes()), [Err(refusal); 2], "{head:?}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let filler = "a".repeat(LIMITS.head_bytes_max);
    for head in [
        format!("GET /{filler} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nA: {filler}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{filler}: a\r\n\r\n"),
    ] {
        assert_eq!(parse(head.as_bytes()), [Err(BadMessage::HeadTooLarge); 2]);
    }
    let fields = |count| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "A: b\r\n".repeat(count)
        )
    };
    assert_eq!(
        parse(fields(6).as_bytes()),
        [Err(BadMessage::TooManyFields); 2]
    );
    let just_fits = fields(5);
    assert_eq!(parse(just_fits.as_bytes()), [Ok(Some(just_fits.len())); 2]);
}

#[test]
fn a_head_of_exactly_the_limit_passes_and_a_body_behind_it_does_not_count() {
    let around = "GET / HTTP/1.1\r\nHost: a\r\nA: \r\n\r\n".len();
    let head = |length: usize| {
        let filler = "a".repeat(length - around);
        format!("GET / HTTP/1.1\r\nHost: a\r\nA: {filler}\r\n\r\n")
    };
    let most = LIMITS.head_bytes_max;
    let with_body = head(most) + &"b".repeat(most);
    assert_eq!(parse(with_body.as_bytes()), [Ok(Some(most)); 2]);
    assert_eq!(
        parse(head(most + 1).as_bytes()),
        [Err(BadMessage::HeadTooLarge); 2]
    );
}

#[test]
fn too_much_is_431_and_everything_else_400() {
    assert_eq!(BadMessage::HeadTooLarge.status(), 431);
    assert_eq!(BadMessage::TooManyFields.status(), 431);
    assert_eq!(BadMessage::LengthWithEncoding.status(), 400);
}

#[test]
fn a_sound_head_is_read_with_order_and_case_kept() {
    let src = b"POST /p?q HTTP/1.1\r\nhOst: a\r\nX-B:1\r\nx-a: \t2 \t\r\nX-b:\r\n\
        Content-Length: 3\r\n\r\nabc";
    let mut request = RequestHead::default();
    let length = parse_request(&mut request, src, &LIMITS);
    assert_eq!(length, Ok(Some(src.len() - 3)));
    assert_eq!(request.method(), Method::Post);
    assert_eq!(request.length(), Length::Exact(3));
    assert_eq!(request.target(src), b"/p?q");
    assert_eq!(request.path(src), b"/p?q");
    assert_eq!(request.field(src, "x-b"), Some(&b"1"[..]));
    assert_eq!(request.field(src, "x-c"), None);
    let fields: Vec<_> = request
        .fields()
        .iter()
        .map(|field| (field.name(src), field.value(src)))
        .collect();
    let expected: [(&[u8], &[u8]); 5] = [
        (b"hOst", b"a"),
        (b"X-B", b"1"),
        (b"x-a", b"2"),
        (b"X-b", b""),
        (b"Content-Length", b"3"),
    ];
    assert_eq!(fields, expected);
}

#[test]
fn scratch_keeps_nothing_of_the_head_before() {
    let mut request = RequestHead::default();
    let first = b"POST http://a/x HTTP/1.0\r\nHost: a\r\nConnection: close, x, upgrade\r\n\
        Upgrade: y\r\nTE: trailers\r\nContent-Length: 3\r\n\r\n";
    parse_request(&mut request, first, &LIMITS)
        .unwrap()
        .unwrap();
    let second = b"GET / HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\n";
    parse_request(&mut request, second, &LIMITS)
        .unwrap()
        .unwrap();
    assert!(request.keep_alive());
    assert!(!request.is_upgrade() && !request.takes_trailers());
    assert!(!request.is_absolute() && !request.is_http10());
    assert_eq!(request.length(), Length::None);
    assert_eq!(request.fields().iter().count(), 2);
    let x = request.fields().iter().last().unwrap();
    assert_eq!(
        (x.kind, request.field(second, "x")),
        (Kind::EndToEnd, Some(&b"y"[..]))
    );
}

#[test]
fn what_connection_names_has_no_meaning() {
    let mut request = RequestHead::default();
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Id: 1\r\nTraceparent: t\r\n\
        Content-Length: 2\r\nX-Upstream-Host: b\r\ngrpc-timeout: 1S\r\nX-Stays: 2\r\n\
        Connection: x-ID, traceparent, content-length, host, x-upstream-host\r\n\
        connection: Grpc-Timeout\r\n\r\n";
    parse_request(&mut request, head, &Limits::default())
        .unwrap()
        .unwrap();
    for (name, expected) in [
        ("x-id", None),
        ("traceparent", None),
        ("grpc-timeout", None),
        ("x-stays", Some(&b"2"[..])),
        ("host", Some(b"a")),
        ("x-upstream-host", Some(b"b")),
    ] {
        assert_eq!(request.field(head, name), expected, "{name}");
    }
    assert_eq!(request.length(), Length::Exact(2));
    let has = |kind| request.fields().has(kind);
    assert!(!has(Kind::TraceContext) && !has(Kind::CallerTimeout) && has(Kind::ForProxy));
}

#[test]
fn up_to_two_empty_lines_come_first() {
    for lines in ["", "\r\n", "\r\n\r\n"] {
        let head = format!("{lines}GET /p HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(parse(head.as_bytes()), [Ok(Some(head.len())); 2]);
        let request = parsed(head.as_bytes());
        assert_eq!(request.method_bytes(head.as_bytes()), b"GET");
        assert_eq!(request.path(head.as_bytes()), b"/p");
    }
}

#[test]
fn targets_may_hold_bytes_above_ascii() {
    for target in [
        &b"/caf\xc3\xa9"[..],
        b"/caf\xe9?q=\xff",
        b"/?\x80",
        b"http://a/\xfc",
    ] {
        let head = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        assert_eq!(parsed(&head).target(&head), target);
    }
}

#[test]
fn field_values_may_hold_bytes_above_ascii_and_tabs() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nA: \xfc\t\xff\r\n\r\n";
    assert_eq!(parsed(head).field(head, "a"), Some(&b"\xfc\t\xff"[..]));
}

#[test]
fn every_byte_that_is_no_token_is_refused_in_a_name() {
    for byte in 0..=255_u8 {
        let head = [
            b"GET / HTTP/1.1\r\nHost: a\r\nA",
            &[byte][..],
            b"B: c\r\n\r\n",
        ]
        .concat();
        let is_token =
            byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte) || byte == b':';
        assert_eq!(
            parse(&head).map(|outcome| outcome.is_ok()),
            [is_token; 2],
            "{byte:#x}"
        );
    }
}

#[test]
fn only_tab_is_a_control_character_in_a_value() {
    for byte in 0..=255_u8 {
        let head = [
            b"GET / HTTP/1.1\r\nHost: a\r\nA: b",
            &[byte][..],
            b"c\r\n\r\n",
        ]
        .concat();
        let is_allowed = byte == b'\t' || !byte.is_ascii_control();
        assert_eq!(
            parse(&head).map(|outcome| outcome.is_ok()),
            [is_allowed; 2],
            "{byte:#x}"
        );
    }
}

#[test]
fn the_body_is_delimited_by_one_field() {
    for (fields, body) in [
        ("", Length::None),
        ("Content-Length: 0\r\n", Length::None),
        ("Content-Length: 007\r\n", Length::Exact(7)),
        ("Content-Length:\t7 \t\r\n", Length::Exact(7)),
        (
            "content-length: 999999999999999999\r\n",
            Length::Exact(999_999_999_999_999_999),
        ),
        ("Transfer-Encoding:\tcHUNKed \r\n", Length::Unknown),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(parsed(head.as_bytes()).length(), body, "{fields:?}");
    }
}

#[test]
fn the_authority_is_that_of_the_target_or_else_of_host() {
    for (start, host, authority, path) in [
        ("GET /p", "A.b:81", Some("a.b:81"), "/p"),
        ("GET /p", "[::1]", Some("[::1]"), "/p"),
        ("GET /p", "", None, "/p"),
        ("GET http://a/p?q", "b", Some("a"), "/p?q"),
        ("GET HTTP://a:81?q", "b", Some("a:81"), "?q"),
        ("GET http://[::1]:81/p", "", Some("[::1]:81"), "/p"),
        ("GET http://a", "b", Some("a"), "/"),
        ("OPTIONS http://a", "b", Some("a"), "*"),
        ("OPTIONS *", "b", Some("b"), "*"),
        ("OPTIONS /p", "b", Some("b"), "/p"),
        ("CONNECT a:443", "b", Some("a:443"), "a:443"),
        ("CONNECT [::1]:443", "b", Some("[::1]:443"), "[::1]:443"),
    ] {
        let head = format!("{start} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let request = parsed(head.as_bytes());
        let found = request.authority(head.as_bytes(), None).unwrap();
        let found = found.map(|authority| authority.to_string());
        assert_eq!(found.as_deref(), authority, "{start}");
        assert_eq!(request.path(head.as_bytes()), path.as_bytes(), "{start}");
        assert_eq!(request.is_connect(), start.starts_with("CONNECT"));
    }
}

#[test]
fn a_host_that_is_none_has_no_authority() {
    for host in [
        "a b", "a,b", "a/b", "u@a", "a:x", "a:0", "a:65536", "a\\b", "[::1", "\u{fc}",
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let request = parsed(head.as_bytes());
        let authority = request.authority(head.as_bytes(), None);
        assert_eq!(authority, Err(BadMessage::Host), "{host}");
    }
}

#[test]
fn a_request_without_host_is_fine_before_http11() {
    let head = b"GET / HTTP/1.0\r\n\r\n";
    let request = parsed(head);
    assert!(request.is_http10());
    assert_eq!(request.authority(head, None), Ok(None));
}

#[test]
fn what_connection_and_version_say_of_the_next_request() {
    for (version, connection, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "close", false),
        ("1.1", "x, Close", false),
        ("1.1", "closed", true),
        ("1.1", "keep-alive, close", false),
        ("1.0", "", false),
        ("1.0", "Keep-Alive", true),
        ("1.0", "keep-alive, close", false),
        ("1.1", "a\r\nConnection: close", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
        let request = parsed(head.as_bytes());
        assert_eq!(request.keep_alive(), keep_alive, "{version} {connection}");
    }
}

#[test]
fn an_upgrade_is_named_twice_and_is_not_to_h2c() {
    for (start, connection, upgrade, is_upgrade) in [
        ("GET / HTTP/1.1", "Upgrade", "websocket", true),
        ("GET / HTTP/1.1", "keep-alive, uPgrade", "a/1, b", true),
        ("GET / HTTP/1.1", "", "websocket", false),
        ("GET / HTTP/1.1", "Upgrade", "", false),
        ("GET / HTTP/1.1", "Upgrade, HTTP2-Settings", "h2c", false),
        ("GET / HTTP/1.1", "Upgrade", "websocket, H2C", false),
        (
            "GET / HTTP/1.1",
            "Upgrade",
            "websocket\r\nUpgrade: h2c",
            false,
        ),
        ("GET / HTTP/1.0", "Upgrade", "websocket", false),
        ("CONNECT a:80 HTTP/1.1", "Upgrade", "websocket", false),
    ] {
        let head =
            format!("{start}\r\nHost: a\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\n\r\n");
        let request = parsed(head.as_bytes());
        assert_eq!(
            request.is_upgrade(),
            is_upgrade,
            "{start} {connection} {upgrade}"
        );
    }
}

#[test]
fn other_methods_are_kept_as_they_were_sent() {
    let head = b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n";
    let request = parsed(head);
    assert_eq!(request.method(), Method::Other);
    assert_eq!(request.method_bytes(head), b"PROPFIND");
    let head = b"get / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(parsed(head).method(), Method::Other);
}

/// Heads that are sound or nearly so: text of the grammar with a byte put in
/// here and there.
fn near_heads() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        "GET",
        "POST",
        "CONNECT",
        " ",
        "/",
        "http://a",
        "a:80",
        "*",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\n",
        "\r",
        "Host: a\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close, x\r\n",
        "Upgrade: h2c\r\n",
        "x: y\r\n",
        ":",
        "\0",
        "\u{fc}",
        "\r\n\r\n",
    ]);
    prop_oneof![
        prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..300),
        (
            prop::collection::vec(("[A-Za-z-]{1,12}", "[ -~]{0,30}"), 0..8),
            any::<(prop::sample::Index, u8, bool)>(),
        )
            .prop_map(|(fields, (at, byte, spoil))| {
                let mut head = String::from("POST /p HTTP/1.1\r\nHost: a\r\n");
                for (name, value) in fields {
                    head += &format!("{name}: {value}\r\n");
                }
                let mut head = (head + "\r\n").into_bytes();
                if spoil {
                    let at = at.index(head.len());
                    head[at] = byte;
                }
                head
            }),
    ]
}

proptest! {
    /// Where more than one rule is broken, which one is named may differ.
    #[test]
    fn heads_in_pieces_are_read_as_the_whole(bytes in near_heads()) {
        let [whole, bytewise] = parse(&bytes);
        prop_assert_eq!(whole.ok(), bytewise.ok());
        if let Ok(Some(length)) = whole {
            let request = parsed(&bytes);
            let head = &bytes[..length];
            prop_assert!(head.ends_with(b"\r\n\r\n"));
            prop_assert!(!request.path(head).is_empty());
            // Must not panic, whatever it finds.
            let _ = request.authority(head, None);
        }
    }

    /// What httparse makes of the same bytes, with the rules it does not have.
    #[test]
    fn another_parser_reads_the_same(bytes in near_heads()) {
        let mut table = [httparse::EMPTY_HEADER; LIMITS.fields_max];
        let mut theirs = httparse::Request::new(&mut table);
        let status = theirs.parse(&bytes);
        let mut ours = RequestHead::default();
        match (parse_request(&mut ours, &bytes, &LIMITS), status) {
            (Ok(Some(length)), Ok(httparse::Status::Complete(their_length))) => {
                prop_assert_eq!(length, their_length);
                prop_assert_eq!(ours.method_bytes(&bytes), theirs.method.unwrap().as_bytes());
                prop_assert_eq!(ours.target(&bytes), theirs.path.unwrap().as_bytes());
                prop_assert_eq!(ours.is_http10(), theirs.version == Some(0));
                let fields = ours.fields().iter();
                let fields: Vec<_> = fields.map(|f| (f.name(&bytes), f.value(&bytes))).collect();
                let theirs = theirs.headers.iter();
                let theirs: Vec<_> = theirs.map(|f| (f.name.as_bytes(), f.value)).collect();
                prop_assert_eq!(fields, theirs);
            }
            // Theirs are UTF-8.
            (Ok(_), Err(httparse::Error::Token)) => {
                prop_assert!(str::from_utf8(&bytes).is_err());
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
    let lines_end_well =
        memchr::memchr_iter(b'\n', bytes).all(|at| at > 0 && bytes[at - 1] == b'\r');
    match bad {
        BadMessage::BareLf => !lines_end_well,
        BadMessage::LeadingLines => bytes.starts_with(b"\r\n\r\n\r"),
        BadMessage::HeadTooLarge => bytes.len() > LIMITS.head_bytes_max,
        BadMessage::StartLine
        | BadMessage::Version
        | BadMessage::FieldName
        | BadMessage::FieldValue
        | BadMessage::BareCr
        | BadMessage::FoldedLine
        | BadMessage::TooManyFields => false,
        // What a sound head means.
        _ => status.is_complete(),
    }
}
