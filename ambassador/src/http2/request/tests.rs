use super::*;
use crate::http2::sample;

/// Whether the stream of a request ends with its head.
#[derive(Clone, Copy)]
enum Stream {
    Ends,
    GoesOn,
}

/// A request of these lines and the lines of its block.
fn read(lines: &str, stream: Stream) -> Result<(RequestHead, Vec<u8>), BadMessage> {
    let mut request = RequestHead::default();
    let mut block = sample::block(lines);
    let ends = matches!(stream, Stream::Ends);
    read_request(&mut request, &mut block, ends)?;
    Ok((request, block.bytes().to_vec()))
}

fn refusal(lines: &str) -> Option<BadMessage> {
    read(lines, Stream::GoesOn).err()
}

/// Each set of lines is refused for its reason.
fn refused<const COUNT: usize>(cases: [(&str, BadMessage); COUNT]) {
    for (lines, expected) in cases {
        assert_eq!(refusal(lines), Some(expected), "{lines}");
    }
}

/// The pseudo fields of a GET, and more lines.
fn get(lines: &str) -> String {
    format!(":method: GET\n:scheme: https\n:authority: a.example\n:path: /\n{lines}")
}

/// The same with `lines` behind, each of which is refused for its reason.
fn refused_in_get<const COUNT: usize>(cases: [(&str, BadMessage); COUNT]) {
    assert_eq!(refusal(&get("a: b")), None);
    for (lines, expected) in cases {
        assert_eq!(refusal(&get(lines)), Some(expected), "{lines}");
    }
}

/// Names and values of the fields.
fn fields(request: &RequestHead, head: &[u8]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = request.fields().iter();
    fields
        .map(|field| format!("{}: {}", text(field.name(head)), text(field.value(head))))
        .collect()
}

#[test]
fn a_request_is_read_with_its_parts() {
    let lines = ":scheme: https\n:path: /v1/a?b=c\n:method: POST\n:authority: a.example:8443\n\
                 accept: */*\nte: trailers\nx-a: \nx-a: 1\t2 \u{e9}";
    let (request, head) = read(lines, Stream::GoesOn).unwrap();
    assert_eq!(request.method(), Method::Post);
    assert_eq!(request.method_bytes(&head), b"POST");
    assert_eq!(request.target(&head), b"/v1/a?b=c");
    assert_eq!(request.path(&head), b"/v1/a?b=c");
    assert_eq!(
        request.target_authority(&head),
        Some(&b"a.example:8443"[..])
    );
    let authority = request.authority(&head, None).unwrap().unwrap();
    assert_eq!(
        (authority.host(), authority.port()),
        ("a.example", Some(8443))
    );
    assert!(request.keep_alive() && request.takes_trailers());
    assert!(!request.is_http10() && !request.is_connect() && !request.is_upgrade());
    assert_eq!(request.length(), Length::Unknown);
    let expected = ["accept: */*", "te: trailers", "x-a: ", "x-a: 1\t2 \u{e9}"];
    assert_eq!(fields(&request, &head), expected);
}

#[test]
fn nothing_is_left_of_the_request_before() {
    let mut request = RequestHead::default();
    for lines in [
        ":method: CONNECT\n:protocol: websocket\n:scheme: https\n:path: /\n:authority: a",
        ":method: GET\n:scheme: http\n:path: /\nhost: b",
    ] {
        read_request(&mut request, &mut sample::block(lines), true).unwrap();
    }
    assert_eq!((request.protocol, request.target_authority), (None, None));
    assert_eq!(request.fields().len(), 1);
}

/// RFC 9113 section 8.2.1.
#[test]
fn names_are_tokens_in_lower_case() {
    for name in [
        &b"Accept"[..],
        b"accepT",
        b"",
        b"a b",
        b"a ",
        b" a",
        b"a:b",
        b"a\0",
        b"a\x7f",
        b"\xe9",
        b"a\"",
        b"a\r\nb",
        b"a\tb",
    ] {
        let mut block = sample::block(&get(""));
        sample::push(&mut block, name, b"b");
        let mut request = RequestHead::default();
        let outcome = read_request(&mut request, &mut block, true);
        assert_eq!(
            outcome,
            Err(BadMessage::FieldName),
            "{}",
            name.escape_ascii()
        );
        assert_eq!(request.fields().blamed(), name);
    }
}

/// RFC 9113 section 8.2.1.
#[test]
fn values_have_neither_line_ends_nor_white_space_around() {
    for value in [
        &b" b"[..],
        b"b ",
        b"\tb",
        b"b\t",
        b" ",
        b"\t",
        b"b\r\nc: d",
        b"b\rc",
        b"b\nc",
        b"b\0c",
        b"b\x7f",
        b"b\x1bc",
    ] {
        for name in [&b"a"[..], b"content-length", b"cookie"] {
            let mut block = sample::block(&get("cookie: a=b"));
            sample::push(&mut block, name, value);
            let mut request = RequestHead::default();
            let outcome = read_request(&mut request, &mut block, true);
            assert_eq!(
                outcome,
                Err(BadMessage::FieldValue),
                "{}",
                value.escape_ascii()
            );
            assert_eq!(request.fields().blamed(), name);
        }
    }
}

/// RFC 9113 section 8.2.2.
#[test]
fn fields_of_a_connection_are_refused() {
    refused_in_get([
        ("connection: close", BadMessage::ConnectionField),
        ("connection: keep-alive", BadMessage::ConnectionField),
        ("keep-alive: timeout=5", BadMessage::ConnectionField),
        ("proxy-connection: keep-alive", BadMessage::ConnectionField),
        ("transfer-encoding: chunked", BadMessage::ConnectionField),
        ("transfer-encoding: gzip", BadMessage::ConnectionField),
        ("upgrade: websocket", BadMessage::ConnectionField),
    ]);
}

/// RFC 9113 section 8.2.2.
#[test]
fn te_says_trailers_or_nothing() {
    assert_eq!(refusal(&get("te: trailers")), None);
    assert_eq!(refusal(&get("te: Trailers")), None);
    refused_in_get([
        ("te: gzip", BadMessage::Te),
        ("te: trailers, deflate", BadMessage::Te),
        ("te: ", BadMessage::Te),
    ]);
}

/// RFC 9113 section 8.2.3.
#[test]
fn cookies_are_joined() {
    for (crumbs, expected) in [
        ("cookie: a=b", &["x: 1", "cookie: a=b", "y: 2"][..]),
        (
            "cookie: a=b\nz: 3\ncookie: c=d\ncookie: e=f",
            &["x: 1", "z: 3", "y: 2", "cookie: a=b; c=d; e=f"],
        ),
        (
            "cookie: \ncookie: a=b\ncookie: ",
            &["x: 1", "y: 2", "cookie: a=b"],
        ),
        ("cookie: \ncookie: ", &["x: 1", "y: 2", "cookie: "]),
    ] {
        let lines = get(&format!("x: 1\n{crumbs}\ny: 2"));
        let (request, head) = read(&lines, Stream::Ends).unwrap();
        assert_eq!(fields(&request, &head), expected);
        assert!(head.ends_with(b"\r\n"));
    }
}

/// RFC 9113 section 8.3.
#[test]
fn pseudo_fields_are_known_and_come_once_before_all_others() {
    refused_in_get([
        (":status: 200", BadMessage::PseudoField),
        (":unknown: 1", BadMessage::PseudoField),
        (": 1", BadMessage::FieldName),
        (":Method: GET", BadMessage::PseudoField),
        (":path: /", BadMessage::PseudoField),
        (":method: GET", BadMessage::PseudoField),
        (":scheme: https", BadMessage::PseudoField),
        (":authority: a.example", BadMessage::PseudoField),
    ]);
    for late in [":path: /", ":authority: a.example", ":unknown: 1"] {
        let lines = get(&format!("a: b\n{late}"));
        assert_eq!(refusal(&lines), Some(BadMessage::PseudoField), "{late}");
    }
    for late in ["path", "scheme", "method", "authority"] {
        let all = get("");
        let (line, rest): (Vec<&str>, Vec<&str>) = all
            .lines()
            .partition(|line| line.starts_with(&format!(":{late}")));
        let lines = format!("{}\nhost: a.example\n{}", rest.join("\n"), line.join("\n"));
        assert!(refusal(&lines).is_some(), "{late}");
    }
}

/// RFC 9113 section 8.3.1.
#[test]
fn method_scheme_and_path_have_to_be_there() {
    let all = get("");
    for name in [":method", ":scheme", ":path"] {
        let rest = all.lines().filter(|line| !line.starts_with(name));
        let lines = rest.collect::<Vec<_>>().join("\n");
        assert_eq!(
            refusal(&lines),
            Some(BadMessage::MissingPseudoField),
            "{name}"
        );
    }
    refused([
        ("", BadMessage::MissingPseudoField),
        ("host: a.example", BadMessage::MissingPseudoField),
    ]);
}

/// Which is not carried by HTTP/1, but has to be one.
#[test]
fn a_scheme_is_one() {
    for scheme in ["http", "https", "HTTPS", "coap+tcp"] {
        assert_eq!(refusal(&get("").replace("https", scheme)), None, "{scheme}");
    }
    for scheme in ["", "1http", "ht tp", "http:", "https://a"] {
        let outcome = refusal(&get("").replace("https", scheme));
        assert_eq!(outcome, Some(BadMessage::PseudoValue), "{scheme}");
    }
}

/// RFC 9113 section 8.3.1, and what a request line of HTTP/1 can carry.
#[test]
fn a_path_is_one_that_http_1_can_carry() {
    let with = |method: &str, path: &[u8]| {
        let mut block = FieldBlock::new(1 << 16, 128);
        for (name, value) in [
            (&b":method"[..], method.as_bytes()),
            (b":scheme", b"http"),
            (b":authority", b"a.example"),
            (b":path", path),
        ] {
            sample::push(&mut block, name, value);
        }
        let mut request = RequestHead::default();
        let outcome = read_request(&mut request, &mut block, true);
        assert!(outcome.is_ok() || request.fields().blamed() == b":path");
        outcome.err()
    };
    for path in [&b"/"[..], b"//a", b"/a?b=c%20d", b"/\xc3\xa9", b"/a:b@c"] {
        assert_eq!(with("GET", path), None, "{}", path.escape_ascii());
    }
    assert_eq!(with("OPTIONS", b"*"), None);
    for path in [
        &b""[..],
        b"*",
        b"a",
        b"?a",
        b"http://a.example/",
        b"/a b",
        b"/a\tb",
        b"/a#b",
        b"/a\x7f",
        b"/ HTTP/1.1\r\nhost: b",
        b"/\0",
        b"/a ",
        b" /a",
        b"/\r",
    ] {
        let outcome = with("GET", path);
        assert_eq!(
            outcome,
            Some(BadMessage::PseudoValue),
            "{}",
            path.escape_ascii()
        );
    }
}

#[test]
fn a_method_is_a_token() {
    for method in ["get", "M-SEARCH", "X"] {
        assert_eq!(refusal(&get("").replace("GET", method)), None, "{method}");
    }
    for method in ["", "GET /", "GE\tT", "G:T", "G\u{e9}T"] {
        let outcome = refusal(&get("").replace("GET", method));
        assert_eq!(outcome, Some(BadMessage::PseudoValue), "{method}");
    }
}

/// RFC 9113 section 8.3.1.
#[test]
fn an_authority_has_a_host_and_no_user() {
    for authority in ["a.example", "A.example:8080", "127.0.0.1", "[::1]:80"] {
        let lines = get("").replace("a.example", authority);
        assert_eq!(refusal(&lines), None, "{authority}");
    }
    for authority in [
        "",
        "user@a.example",
        "u:p@a.example",
        "a/b",
        "a b",
        "a,b",
        ":80",
        "a:99999",
    ] {
        let lines = get("").replace("a.example", authority);
        assert_eq!(
            refusal(&lines),
            Some(BadMessage::PseudoValue),
            "{authority}"
        );
    }
}

/// RFC 9113 section 8.3.1.
#[test]
fn an_authority_or_a_host_is_there_and_both_are_the_same() {
    let only_host = |host: &str| get(host).replace(":authority: a.example\n", "");
    let (request, head) = read(&only_host("host: b.example"), Stream::Ends).unwrap();
    assert_eq!(request.authority_bytes(&head), b"b.example");
    assert_eq!(
        refusal(&only_host("")),
        Some(BadMessage::MissingPseudoField)
    );
    assert_eq!(refusal(&only_host("host: ")), Some(BadMessage::Host));
    assert_eq!(refusal(&only_host("host: a@b")), Some(BadMessage::Host));
    let two = only_host("host: a.example\nhost: a.example");
    assert_eq!(refusal(&two), Some(BadMessage::RepeatedHost));

    for host in ["a.example", "A.EXAMPLE", "a.example:443", "a.example:"] {
        assert_eq!(refusal(&get(&format!("host: {host}"))), None, "{host}");
    }
    refused_in_get([
        ("host: b.example", BadMessage::OtherHost),
        ("host: a.example:80", BadMessage::OtherHost),
        ("host: a.example:8443", BadMessage::OtherHost),
        ("host: ", BadMessage::OtherHost),
        ("host: a.example\nhost: a.example", BadMessage::RepeatedHost),
    ]);
}

/// RFC 9113 section 8.1.1 and RFC 9110 section 8.6.
#[test]
fn a_length_is_said_once_and_fits_the_stream() {
    for (lines, stream, expected) in [
        ("", Stream::Ends, Length::None),
        ("", Stream::GoesOn, Length::Unknown),
        ("content-length: 0", Stream::Ends, Length::None),
        ("content-length: 0", Stream::GoesOn, Length::None),
        ("content-length: 12", Stream::GoesOn, Length::Exact(12)),
    ] {
        let (request, _) = read(&get(lines), stream).unwrap();
        assert_eq!(request.length(), expected, "{lines}");
    }
    refused_in_get([
        ("content-length: ", BadMessage::Length),
        ("content-length: +1", BadMessage::Length),
        ("content-length: 1, 1", BadMessage::Length),
        ("content-length: 1000000000000000000", BadMessage::Length),
        (
            "content-length: 1\ncontent-length: 1",
            BadMessage::RepeatedLength,
        ),
        (
            "content-length: 1\ncontent-length: 2",
            BadMessage::RepeatedLength,
        ),
    ]);
    let outcome = read(&get("content-length: 1"), Stream::Ends);
    assert_eq!(outcome.err(), Some(BadMessage::LengthWithoutBody));
}

/// RFC 9113 section 8.5.
#[test]
fn connect_has_an_authority_alone() {
    let lines = ":method: CONNECT\n:authority: a.example:443\nx: 1";
    for stream in [Stream::Ends, Stream::GoesOn] {
        let (request, head) = read(lines, stream).unwrap();
        assert!(request.is_connect());
        assert_eq!(request.target(&head), b"a.example:443");
        assert_eq!(request.authority_bytes(&head), b"a.example:443");
        assert_eq!(request.length(), Length::None);
        assert!(!request.is_absolute());
    }
    refused([
        (":method: CONNECT", BadMessage::MissingPseudoField),
        (
            ":method: CONNECT\nhost: a:1",
            BadMessage::MissingPseudoField,
        ),
        (
            ":method: CONNECT\n:authority: a:1\n:scheme: https",
            BadMessage::PseudoField,
        ),
        (
            ":method: CONNECT\n:authority: a:1\n:path: /",
            BadMessage::PseudoField,
        ),
        (
            ":method: CONNECT\n:authority: a:1\n:scheme: https\n:path: /",
            BadMessage::PseudoField,
        ),
        (
            ":method: CONNECT\n:authority: a.example",
            BadMessage::PseudoValue,
        ),
        (
            ":method: CONNECT\n:authority: u@a.example:1",
            BadMessage::PseudoValue,
        ),
        (
            ":method: CONNECT\n:authority: a:1\nhost: b:1",
            BadMessage::OtherHost,
        ),
        (
            ":method: CONNECT\n:authority: a:1\nhost: a",
            BadMessage::OtherHost,
        ),
        (
            ":method: CONNECT\n:authority: a:1\ncontent-length: 1",
            BadMessage::ConnectWithBody,
        ),
    ]);
    let lines = ":method: CONNECT\n:authority: a:1\nhost: A:1\ncontent-length: 0";
    assert_eq!(refusal(lines), None);
}

/// RFC 8441 section 4.
#[test]
fn an_extended_connect_has_a_target() {
    let lines = ":method: CONNECT\n:protocol: websocket\n:scheme: https\n:path: /chat\n\
                 :authority: a.example";
    let (request, head) = read(lines, Stream::GoesOn).unwrap();
    assert_eq!(request.protocol(&head), Some(&b"websocket"[..]));
    assert!(request.is_upgrade() && !request.is_connect());
    // As HTTP/1.1 asks for it.
    assert_eq!(request.method(), Method::Get);
    assert_eq!(request.method_bytes(&head), b"GET");
    assert_eq!(request.path(&head), b"/chat");
    assert_eq!(request.authority_bytes(&head), b"a.example");
    assert_eq!(request.length(), Length::None);
    for (from, to, expected) in [
        ("CONNECT", "GET", BadMessage::PseudoField),
        ("websocket", "", BadMessage::PseudoValue),
        ("websocket", "websocket, h2c", BadMessage::PseudoValue),
        ("websocket", "a/", BadMessage::PseudoValue),
        ("websocket", "H2C", BadMessage::PseudoValue),
        ("\n:scheme: https", "", BadMessage::MissingPseudoField),
        ("\n:path: /chat", "", BadMessage::MissingPseudoField),
        (
            "\n:authority: a.example",
            "",
            BadMessage::MissingPseudoField,
        ),
        ("/chat", "", BadMessage::PseudoValue),
    ] {
        assert_eq!(refusal(&lines.replace(from, to)), Some(expected), "{from}");
    }
}

#[test]
fn a_head_that_is_too_large_is_answered() {
    let mut block = FieldBlock::new(1 << 16, 4);
    for line in get("a: b").lines() {
        let (name, value) = line.split_once(": ").unwrap();
        sample::push(&mut block, name.as_bytes(), value.as_bytes());
    }
    let outcome = read_request(&mut RequestHead::default(), &mut block, true);
    assert_eq!(outcome, Err(BadMessage::HeadTooLarge));
    assert_eq!(BadMessage::HeadTooLarge.status(), 431);
}
