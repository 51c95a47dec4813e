use proptest::prelude::*;

use super::*;
use crate::http1::cursor::{Cursor, Grammar};
use crate::http1::{fields, parse_request, parse_response};
use crate::message::trace::Formats;
use crate::message::{Framing, Length, Limits, Method, sample};

const PLAIN: RequestRewrite<'static> = RequestRewrite {
    strip_path: 0,
    host: None,
    keep_absolute: false,
    set: &[],
    remove: &[],
    trace: Formats::OFF,
    add: &[],
    credential: None,
    addressed_here: false,
    presented_here: false,
};

const PASS: ResponseRewrite = ResponseRewrite {
    close: false,
    http10: false,
    framing: Framing::Kept,
};

fn request(head: &str, rewrite: &RequestRewrite<'_>) -> String {
    let mut request = RequestHead::default();
    let length = parse_request(&mut request, head.as_bytes(), &Limits::default());
    assert_eq!(length, Ok(Some(head.len())), "{head}");
    let mut out = Vec::new();
    write_request(&mut out, head.as_bytes(), &request, rewrite);
    String::from_utf8(out).unwrap()
}

fn response(head: &str, method: Method, rewrite: &ResponseRewrite) -> String {
    let mut response = ResponseHead::default();
    let length = parse_response(&mut response, head.as_bytes(), method, &Limits::default());
    assert_eq!(length, Ok(Some(head.len())), "{head}");
    let mut out = Vec::new();
    write_response(&mut out, head.as_bytes(), &response, rewrite);
    String::from_utf8(out).unwrap()
}

/// The fields a request with these fields (and `Host: a` before them) is sent
/// on with.
fn passed(fields: &str, rewrite: &RequestRewrite<'_>) -> String {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let out = request(&head, rewrite);
    let rest = out.strip_prefix("POST / HTTP/1.1\r\nHost: a\r\n").unwrap();
    rest.strip_suffix("\r\n").unwrap().to_owned()
}

#[test]
fn order_case_and_spacing_are_kept() {
    let head = "pUt /p?q HTTP/1.1\r\nX-b: 1\r\nhOST:\ta:81\r\nx-A:2\r\nX-B:  3\r\nEmpty:\r\n\
        content-LENGTH: 3\r\n\r\n";
    assert_eq!(request(head, &PLAIN), head);
    let head = "HTTP/1.1 200 Fine  then\r\nX-b: 1\r\nx-A:2\r\nset-cookie: a\r\nSet-Cookie: b\r\n\
        Transfer-Encoding:chunked\r\n\r\n";
    assert_eq!(response(head, Method::Get, &PASS), head);
}

/// A head of HTTP/2 has its authority beside its target.
#[test]
fn an_absolute_form_is_made_of_parts() {
    let absolute = RequestRewrite {
        keep_absolute: true,
        ..PLAIN
    };
    for (target, rewrite, line) in [
        ("/p?q", &absolute, "http://a.example:81/p?q"),
        ("/p?q", &PLAIN, "/p?q"),
        ("*", &absolute, "http://a.example:81"),
        ("*", &PLAIN, "*"),
    ] {
        let head = format!("OPTIONS {target} HTTP/2\r\nX-A: a.example:81\r\n\r\n");
        let mut request = sample::request(&head);
        request.version = Version::Http2;
        request.target_authority = request.fields().iter().next().map(|field| field.value);
        let mut out = Vec::new();
        write_request(&mut out, head.as_bytes(), &request, rewrite);
        let expected =
            format!("OPTIONS {line} HTTP/1.1\r\nX-A: a.example:81\r\nHost: a.example:81\r\n\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn fields_for_one_hop_go() {
    for (fields, left) in [
        ("Connection: close\r\nA: b\r\n", "A: b\r\n"),
        (
            "Connection: x-a, X-b\r\nX-A: 1\r\nx-c: 2\r\nx-b: 3\r\n",
            "x-c: 2\r\n",
        ),
        (
            "X-A: 1\r\nConnection: x-b\r\nX-B: 1\r\nconnection:,x-a,\r\n",
            "",
        ),
        (
            "Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\nUpgrade: h\r\n",
            "",
        ),
        // These decide framing and routing: they cannot be named away.
        (
            "Connection: host, content-length\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\n",
        ),
        (
            "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\n",
        ),
        (
            "Connection: x-upstream-host\r\nX-Upstream-Host: a\r\n",
            "X-Upstream-Host: a\r\n",
        ),
        // For the origin, or for a proxy on the way that asks for it.
        (
            "Trailer: x\r\nProxy-Authorization: x\r\n",
            "Trailer: x\r\nProxy-Authorization: x\r\n",
        ),
    ] {
        assert_eq!(passed(fields, &PLAIN), left, "{fields}");
    }
}

#[test]
fn an_upgrade_is_passed_on_unless_it_is_to_h2c() {
    let websocket = "Connection: keep-alive, Upgrade, x\r\nX: y\r\nUpgrade: websocket\r\n";
    let expected = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(passed(websocket, &PLAIN), expected);
    let twice = "connection: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n";
    let expected = "connection: Upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(passed(twice, &PLAIN), expected);
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n";
    assert_eq!(passed(h2c, &PLAIN), "");
    assert_eq!(
        passed("HTTP2-Settings: AAMA\r\nUpgrade: websocket\r\n", &PLAIN),
        ""
    );
}

#[test]
fn trailers_are_still_accepted_behind_the_proxy() {
    assert_eq!(
        passed(
            "Connection: TE\r\nTE: gzip, trailers\r\nTE: trailers\r\n",
            &PLAIN
        ),
        "Connection: TE\r\nTE: trailers\r\n"
    );
    // A sender that forgot to name it in Connection.
    assert_eq!(
        passed("te: Trailers\r\n", &PLAIN),
        "te: trailers\r\nConnection: TE\r\n"
    );
    assert_eq!(
        passed(
            "TE: trailers\r\nConnection: upgrade\r\nUpgrade: a\r\n",
            &PLAIN
        ),
        "TE: trailers\r\nConnection: Upgrade, TE\r\nUpgrade: a\r\n"
    );
    // HTTP/1.0 has no trailers.
    assert_eq!(
        request("GET / HTTP/1.0\r\nHost: a\r\nTE: trailers\r\n\r\n", &PLAIN),
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    );
}

#[test]
fn the_target_takes_the_form_that_the_next_hop_needs() {
    for (start, strip_path, keep_absolute, line, host) in [
        ("GET /p", 0, false, "GET /p", "h"),
        ("GET /up/p", 3, false, "GET /p", "h"),
        ("GET /up", 3, false, "GET /", "h"),
        ("GET /up?q", 3, false, "GET /?q", "h"),
        ("GET http://a:81/p?q", 0, false, "GET /p?q", "a:81"),
        ("GET http://a/up/p", 3, false, "GET /p", "a"),
        ("GET http://a", 0, false, "GET /", "a"),
        ("GET http://a?q", 0, false, "GET /?q", "a"),
        ("GET http://a/p", 0, true, "GET http://a/p", "a"),
        ("GET /p", 0, true, "GET /p", "h"),
        ("OPTIONS *", 0, false, "OPTIONS *", "h"),
        ("OPTIONS http://a", 0, false, "OPTIONS *", "a"),
        ("OPTIONS http://a/", 0, false, "OPTIONS /", "a"),
        ("OPTIONS http://a?q", 0, false, "OPTIONS /?q", "a"),
        ("CONNECT a:443", 0, false, "CONNECT a:443", "a:443"),
    ] {
        let rewrite = RequestRewrite {
            strip_path,
            keep_absolute,
            ..PLAIN
        };
        let head = format!("{start} HTTP/1.1\r\nHost: h\r\n\r\n");
        let expected = format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(request(&head, &rewrite), expected, "{start}");
    }
}

#[test]
fn there_is_one_host() {
    let with = |host: &'static str| RequestRewrite {
        host: Some(host.as_bytes()),
        ..PLAIN
    };
    for (head, rewrite, expected) in [
        (
            "GET / HTTP/1.0\r\n\r\n",
            PLAIN,
            "GET / HTTP/1.1\r\nHost: \r\n\r\n",
        ),
        (
            "GET http://a/ HTTP/1.0\r\n\r\n",
            PLAIN,
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "GET / HTTP/1.0\r\nA: b\r\n\r\n",
            with("c"),
            "GET / HTTP/1.1\r\nA: b\r\nHost: c\r\n\r\n",
        ),
        (
            "GET http://a/ HTTP/1.1\r\nhost: b\r\nA: b\r\n\r\n",
            with("c"),
            "GET / HTTP/1.1\r\nhost: c\r\nA: b\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            PLAIN,
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        ),
    ] {
        assert_eq!(request(head, &rewrite), expected, "{head}");
    }
}

#[test]
fn what_is_set_added_and_removed() {
    let rewrite = RequestRewrite {
        set: &[("X-Team".into(), "shop".into())],
        remove: &["x-debug".into()],
        add: &[("traceparent", b"00-1")],
        addressed_here: true,
        presented_here: true,
        ..PLAIN
    };
    let fields = "x-team: a\r\nX-Debug: 1\r\nA: b\r\nTraceParent: x\r\nX-Team: b\r\n\
        X-Upstream-Host: c\r\nx-upstream-host: d\r\n";
    let expected = "A: b\r\nX-Team: shop\r\ntraceparent: 00-1\r\n";
    assert_eq!(passed(fields, &rewrite), expected);
}

#[test]
fn headers_of_a_trace_pass_unless_it_is_carried_on_in_them() {
    let fields = "TraceParent: 1\r\ntracestate: 2\r\nb3: 3\r\nX-B3-TraceId: 4\r\n\
        x-b3-spanid: 5\r\nx-b3-parentspanid: 6\r\nx-b3-sampled: 7\r\nx-b3-flags: 8\r\n\
        baggage: a=1\r\n";
    assert_eq!(passed(fields, &PLAIN), fields);
    let with = |trace| passed(fields, &RequestRewrite { trace, ..PLAIN });
    let start = fields.find("b3:").unwrap_or_default();
    let end = fields.find("baggage").unwrap_or_default();
    let tracecontext = Formats {
        tracecontext: true,
        ..Formats::OFF
    };
    assert_eq!(with(tracecontext), fields[start..]);
    let b3 = Formats {
        b3: true,
        ..Formats::OFF
    };
    let expected = [&fields[..start], &fields[end..]].concat();
    assert_eq!(with(b3), expected);
}

#[test]
fn baggage_passes_within_its_limits() {
    let baggage = Formats {
        baggage: true,
        ..Formats::OFF
    };
    let rewrite = RequestRewrite {
        trace: baggage,
        ..PLAIN
    };
    let large = "x".repeat(8_000);
    let fields = format!("Baggage: a=1,b={large},c={large}\r\nA: b\r\nbaggage: d=1\r\n");
    let expected = format!("Baggage: a=1,b={large}\r\nA: b\r\n");
    assert_eq!(passed(&fields, &rewrite), expected);
    assert_eq!(passed(&fields, &PLAIN), fields);
}

#[test]
fn an_empty_line_before_the_request_is_not_passed_on() {
    let head = "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(request(head, &PLAIN), head.trim_start());
}

#[test]
fn a_response_says_what_becomes_of_the_clients_connection() {
    let head = "HTTP/1.0 200 OK\r\nConnection: close, x\r\nX: 1\r\nKeep-Alive: 5\r\n\
        Upgrade: h\r\nContent-Length: 3\r\n\r\n";
    for (close, http10, connection) in [
        (false, false, ""),
        (true, false, "Connection: close\r\n"),
        (false, true, "Connection: keep-alive\r\n"),
        (true, true, "Connection: close\r\n"),
    ] {
        let rewrite = ResponseRewrite {
            close,
            http10,
            framing: Framing::Kept,
        };
        let expected = format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{connection}\r\n");
        assert_eq!(response(head, Method::Get, &rewrite), expected);
    }
}

#[test]
fn what_cannot_have_a_body_is_sent_on_without_framing() {
    let rewrite = ResponseRewrite {
        close: true,
        http10: true,
        framing: Framing::Kept,
    };
    for (head, expected) in [
        (
            "HTTP/1.1 103 X\r\nContent-Length: 0\r\nA: b\r\n\r\n",
            "HTTP/1.1 103 X\r\nA: b\r\n\r\n",
        ),
        (
            "HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 204 X\r\nConnection: close\r\n\r\n",
        ),
        (
            "HTTP/1.1 204 X\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 204 X\r\nConnection: close\r\n\r\n",
        ),
        (
            "HTTP/1.1 304 X\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 304 X\r\nContent-Length: 3\r\nConnection: close\r\n\r\n",
        ),
    ] {
        assert_eq!(response(head, Method::Get, &rewrite), expected);
    }
    let head = "HTTP/1.1 200 X\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(response(head, Method::Head, &PASS), head);
    assert_eq!(
        response(head, Method::Connect, &PASS),
        "HTTP/1.1 200 X\r\n\r\n"
    );
}

#[test]
fn a_switch_of_protocols_keeps_its_fields() {
    let head = "HTTP/1.1 101 Switching\r\nConnection: upgrade, x\r\nX: y\r\nUpgrade: a\r\n\r\n";
    let expected = "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n";
    let close = ResponseRewrite {
        close: true,
        ..PASS
    };
    assert_eq!(response(head, Method::Get, &close), expected);
}

#[test]
fn a_body_without_its_chunks_says_nothing_of_them() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n";
    let rewrite = ResponseRewrite {
        close: true,
        http10: true,
        framing: Framing::Removed,
    };
    let expected = "HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\n";
    assert_eq!(response(head, Method::Get, &rewrite), expected);
}

#[test]
fn a_phrase_that_is_missing_leaves_its_space() {
    let head = "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n";
    let expected = "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n";
    assert_eq!(response(head, Method::Get, &PASS), expected);
}

#[test]
fn what_is_loose_in_a_response_goes_on_as_it_should_be() {
    for (head, expected) in [
        (
            "HTTP/1.1 200 OK\r\nA: 1\r\nX-Frame : deny\r\nX-Tab\t :2\r\nB: 3\r\nC: 4\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: 1\r\nX-Frame: deny\r\nX-Tab: 2\r\nB: 3\r\nC: 4\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\nA: 1\nB: 2 \nC: 3\r\nD:\n\n",
            "HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\nC: 3\r\nD:\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nA: 1\r\n  2\r\n\t\r\n 3 \r\nB:\r\n 4\r\nC: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: 1 2 3\r\nB: 4\r\nC: 5\r\n\r\n",
        ),
        (
            "\r\n\nHTTP/1.1 200 OK\r\nA: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: 1\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection : x-a\r\nX-A : 1\r\nE :\r\n\r\n",
            "HTTP/1.1 200 OK\r\nE:\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ),
    ] {
        assert_eq!(response(head, Method::Get, &PASS), expected, "{head:?}");
    }
}

/// A line of a head as it may come: blanks before the colon, a fold in the
/// value, a line end.
fn loose_lines() -> impl Strategy<Value = Vec<[String; 5]>> {
    let line = (
        "x-[a-c]{1,3}|Set-Cookie|Server",
        "|| |\t ",
        "[!-~]{0,5}",
        prop_oneof![2 => Just(String::new()), 1 => "\r?\n[ \t]{1,2}[!-~]{0,5}"],
        "\r?\n| ?\r\n",
    );
    let line = line.prop_map(|(name, blanks, value, fold, end)| [name, blanks, value, fold, end]);
    prop::collection::vec(line, 0..8)
}

/// Field lines: names and values of all sorts, some with a meaning.
fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let known = |name: &'static str, value: &'static str| (Just(name.to_owned()), value);
    prop::collection::vec(
        prop_oneof![
            4 => ("x-[a-c]{1,2}|[A-Za-z0-9!#$%&'*+.^_`|~-]{1,9}", "([!-~]([ -~\t]{0,9}[!-~])?)?"),
            1 => known("Connection", "(close|keep-alive|upgrade|host|x-[a-c]|te|, ){0,4}x-a"),
            1 => known("Upgrade", "websocket|h2c"),
            1 => known("TE", "trailers|gzip"),
            1 => known("Keep-Alive", "timeout=[0-9]"),
        ],
        0..8,
    )
}

fn hop_by_hop(name: &str, connection: &[String]) -> bool {
    let named = connection
        .iter()
        .any(|token| token.eq_ignore_ascii_case(name));
    let always = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
    ];
    named || always.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn end_to_end(fields: &[(String, String)]) -> Vec<(String, String)> {
    let connection: Vec<String> = fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
        .flat_map(|(_, value)| value.split(','))
        .map(|token| token.trim().to_owned())
        .collect();
    fields
        .iter()
        .filter(|(name, _)| !hop_by_hop(name, &connection))
        .cloned()
        .collect()
}

fn text(fields: &[(String, String)]) -> String {
    fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect()
}

fn read_back(head: &[u8], fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| str::from_utf8(bytes).unwrap().to_owned();
    fields
        .iter()
        .map(|field| (text(field.name(head)), text(field.value(head))))
        .collect()
}

proptest! {
    /// What is let through in a response means the same behind the proxy, to those
    /// too who keep to the letter.
    #[test]
    fn loose_responses_go_on_strict(lines in loose_lines(), end in "\r?\n") {
        let text: String = lines
            .iter()
            .map(|[name, blanks, value, fold, end]| format!("{name}{blanks}: {value}{fold}{end}"))
            .collect();
        let head = format!("HTTP/1.1 200 OK{end}{text}Content-Length: 3{end}{end}");
        let out = response(&head, Method::Get, &PASS);
        let (status_line, fields) = out.split_at("HTTP/1.1 200 OK\r\n".len());
        prop_assert_eq!(status_line, "HTTP/1.1 200 OK\r\n");
        let (mut strict, limits) = (Fields::default(), Limits::default());
        let mut cursor = Cursor::new(fields.as_bytes(), Grammar::Strict);
        let walk = fields::read(&mut strict, &mut cursor, limits.fields_max);
        prop_assert_eq!(cursor.length(walk, &limits), Ok(Some(fields.len())));
        let mut expected: Vec<_> = lines
            .iter()
            .map(|[name, _, value, fold, _]| {
                let parts = [value.trim(), fold.trim()];
                let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                (name.clone(), parts.join(" "))
            })
            .collect();
        expected.push(("Content-Length".to_owned(), "3".to_owned()));
        prop_assert_eq!(read_back(fields.as_bytes(), &strict), expected);
    }

    #[test]
    fn a_request_written_and_read_again_has_the_fields_that_are_not_for_one_hop(
        fields in fields(),
        length in prop::option::of(1..1000_u64),
    ) {
        let mut all = vec![("Host".to_owned(), "a".to_owned())];
        all.extend(fields);
        all.extend(length.map(|length| ("Content-Length".to_owned(), length.to_string())));
        let head = format!("POST /p HTTP/1.1\r\n{}\r\n", text(&all));
        let mut request = RequestHead::default();
        // Other names with a meaning may turn up and make it unsound.
        if parse_request(&mut request, head.as_bytes(), &Limits::default()).is_ok() {
            let (upgrade, trailers) = (request.is_upgrade(), request.takes_trailers());
            let mut out = Vec::new();
            write_request(&mut out, head.as_bytes(), &request, &PLAIN);
            let mut again = RequestHead::default();
            prop_assert_eq!(parse_request(&mut again, &out, &Limits::default()), Ok(Some(out.len())));
            prop_assert_eq!(again.length(), length.map_or(Length::None, Length::Exact));
            prop_assert_eq!(again.is_upgrade(), upgrade);
            prop_assert_eq!(again.takes_trailers(), trailers);
            prop_assert!(again.keep_alive());
            let written = read_back(&out, again.fields());
            let mut expected = all.clone();
            let host = expected.remove(0);
            let mut kept = vec![host];
            kept.extend(end_to_end(&expected).into_iter().filter(|(name, _)| {
                !name.eq_ignore_ascii_case("content-length")
            }));
            kept.extend(length.map(|length| ("Content-Length".to_owned(), length.to_string())));
            let one_hop = |name: &str| {
                ["connection", "te", "upgrade"].iter().any(|hop| hop.eq_ignore_ascii_case(name))
            };
            let written: Vec<_> = written.into_iter().filter(|(name, _)| !one_hop(name)).collect();
            prop_assert_eq!(written, kept);
        }
    }

    #[test]
    fn a_response_written_and_read_again_has_the_fields_that_are_not_for_one_hop(
        fields in fields(),
        status in 200..600_u16,
    ) {
        let mut all = fields;
        all.push(("Content-Length".to_owned(), "3".to_owned()));
        let head = format!("HTTP/1.1 {status} X\r\n{}\r\n", text(&all));
        let mut response = ResponseHead::default();
        if parse_response(&mut response, head.as_bytes(), Method::Get, &Limits::default()).is_ok() {
            let mut out = Vec::new();
            write_response(&mut out, head.as_bytes(), &response, &PASS);
            let mut again = ResponseHead::default();
            let length = parse_response(&mut again, &out, Method::Get, &Limits::default());
            prop_assert_eq!(length, Ok(Some(out.len())));
            prop_assert_eq!(again.status(), status);
            prop_assert_eq!(again.length(), response.length());
            let mut expected = end_to_end(&all[..all.len() - 1]);
            if response.length() != Length::None || status == 304 {
                expected.push(all[all.len() - 1].clone());
            }
            prop_assert_eq!(read_back(&out, again.fields()), expected);
        }
    }
}
