//! Messages that are odd and mislead nobody pass; those that could mislead do
//! not, and the log says what was wrong with them.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Client, Connection, Proxy, Server, eventually, on_http1, ports};
use serde_json::Value;

on_http1!(
    odd_requests_pass,
    odd_targets_are_routed_and_logged,
    heads_of_64_kib_pass_both_ways,
    a_query_is_tried_again,
    codings_of_a_request_are_not_implemented,
    odd_responses_pass,
    an_empty_line_behind_an_interim_response_passes,
    codings_of_a_response_pass,
    responses_that_could_mislead_are_named,
    a_body_that_could_mislead_is_named,
);

const LOGGED: &str = "telemetry: { access_log: { path: stdout, format: json, sample: 100% } }\n";

/// A logging proxy in front of `server`; `more` is further configuration.
fn start(backend: Backend, server: &Server, more: &str) -> (Proxy, Client) {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let breaker = "circuit_breaker: { failures: off }";
    let config = one_upstream(listen, server.address(), breaker);
    let proxy = Proxy::start(backend, &format!("{config}{more}{LOGGED}"));
    (proxy, Client::connect(listen))
}

/// The newest line of the access log, once there are as many as this.
fn line(proxy: &Proxy, count: usize) -> Value {
    let mut lines = Vec::new();
    eventually("it is in the log", Duration::from_secs(5), || {
        let log = proxy.log();
        let parsed = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines = parsed
            .filter(|line: &Value| line.get("duration_ms").is_some())
            .collect();
        lines.len() == count
    });
    lines.pop().expect("there is one")
}

/// The bytes of a head.
fn head(connection: &mut Connection) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if connection.read(&mut byte)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    Ok(head)
}

/// Answers with the head that came.
fn mirror() -> Server {
    Server::start(|connection| {
        loop {
            let head = head(connection)?;
            let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
            connection.write([length.as_bytes(), &head].concat())?;
        }
    })
}

/// Answers every request with these bytes, and ends.
fn saying(response: Vec<u8>) -> Server {
    Server::start(move |connection| {
        head(connection)?;
        connection.write(&response)
    })
}

fn odd_requests_pass(backend: Backend) {
    let server = mirror();
    let (_proxy, mut client) = start(backend, &server, "");
    for line in [
        &b"GET /caf\xc3\xa9?q=\xe6\xb8\xac HTTP/1.1"[..],
        b"GET /caf\xe9?q=\xff HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"QUERY /a HTTP/1.1",
        b"m!#$%&'*+-.^_`|~9 /a HTTP/1.1",
        b"get /a HTTP/1.1",
        b"GET /a\"b<c>d\\e^f`g{h|i} HTTP/1.1",
    ] {
        let fields = b"\r\nHost: web.test\r\nX-Empty:\r\nX-Blank: \r\nX-High: \xfc\r\n\r\n";
        client.send([line, &fields[..]].concat());
        let got = client.response("GET");
        assert_eq!(got.status, 200, "{}", line.escape_ascii());
        let sent_on = b"\r\nHost: web.test\r\nX-Empty:\r\nX-Blank:\r\nX-High: \xfc\r\n";
        let start = [line, &sent_on[..]].concat();
        let got = got.body.escape_ascii();
        assert!(
            got.to_string()
                .starts_with(&start.escape_ascii().to_string()),
            "{got}"
        );
    }
}

fn odd_targets_are_routed_and_logged(backend: Backend) {
    let server = mirror();
    let routes = "routes: [{ match: { path_prefix: \"/caf\u{e9}\" }, upstream: web, \
                  headers: { set: { x-routed: yes } } }]\n";
    let (proxy, mut client) = start(backend, &server, routes);
    for (number, (target, routed, logged)) in [
        (&b"/caf\xc3\xa9/a"[..], true, "/caf\u{e9}/a"),
        (b"/caf\xe9/a", false, "/caf\u{fffd}/a"),
        (b"/caf", false, "/caf"),
        (b"/\"\\", false, "/\"\\"),
    ]
    .into_iter()
    .enumerate()
    {
        client.send([b"GET ", target, b" HTTP/1.1\r\nHost: web.test\r\n\r\n"].concat());
        let got = client.response("GET").text();
        assert_eq!(got.contains("x-routed: yes"), routed, "{got}");
        assert_eq!(line(&proxy, number + 1)["path"], logged);
    }
}

fn heads_of_64_kib_pass_both_ways(backend: Backend) {
    const SIZE: usize = 64 * 1024;
    let fields: String = (0..200)
        .map(|number| format!("X-{number}: {}\r\n", "a".repeat(SIZE / 200 - 8)))
        .collect();
    let fields = format!("{fields}X-Large: {}\r\n", "b".repeat(SIZE - fields.len()));
    assert!(fields.len() >= SIZE);
    let response = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
    let server = Server::http(move |request| match request.head.len() >= SIZE {
        true => response.clone().into_bytes(),
        false => text("short"),
    });
    let (_proxy, mut client) = start(backend, &server, "");
    for _ in 0..2 {
        client.send(format!("GET / HTTP/1.1\r\nHost: web.test\r\n{fields}\r\n"));
        let got = client.response("GET");
        assert_eq!((got.status, got.text().as_str()), (200, "ok"));
        assert!(got.head.len() >= SIZE);
    }
    // A limit there is.
    let fields = fields.repeat(2);
    client.send(format!("GET / HTTP/1.1\r\nHost: web.test\r\n{fields}\r\n"));
    assert_eq!(client.response("GET").status, 431);
}

fn a_query_is_tried_again(backend: Backend) {
    let server = Server::start(|connection| match connection.number {
        1 => head(connection).and_then(|_| connection.reset()),
        _ => connection.serve_http(|request| text(&request.method)),
    });
    let (_proxy, mut client) = start(backend, &server, "");
    client.send("QUERY / HTTP/1.1\r\nHost: web.test\r\n\r\n");
    assert_eq!(client.response("QUERY").text(), "QUERY");
}

fn codings_of_a_request_are_not_implemented(backend: Backend) {
    let server = Server::ok();
    for (codings, status) in [
        ("gzip, chunked", 501),
        ("deflate,chunked", 501),
        ("gzip", 400),
        ("chunked, gzip", 400),
        ("xchunked", 400),
    ] {
        let (proxy, mut client) = start(backend, &server, "");
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: {codings}\r\n\r\n0\r\n\r\n"
        ));
        let got = client.response("POST");
        assert_eq!(
            (got.status, got.reason()),
            (status, "bad-request"),
            "{codings}"
        );
        assert!(client.is_ended());
        let line = line(&proxy, 1);
        let detail = line["detail"].as_str().expect("it says why");
        assert!(detail.contains("Transfer-Encoding"), "{detail}");
    }
    assert_eq!(server.requests().len(), 0);
}

fn odd_responses_pass(backend: Backend) {
    const START: &str = "HTTP/1.1 200 OK";
    for (sent, head, body) in [
        // Statuses that nobody has heard of.
        (
            "HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 600 Odd\r\nContent-Length: 2",
            "ok",
        ),
        (
            "HTTP/1.1 999\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 999 \r\nContent-Length: 2",
            "ok",
        ),
        // Blanks before a colon, folded lines, lone LFs, empty lines in front.
        (
            "HTTP/1.1 200 OK\r\nX-Frame : deny\r\nX-Tab\t:1\r\nX-Empty :\r\nContent-Length: 2\r\n\r\nok",
            "X-Frame: deny\r\nX-Tab: 1\r\nX-Empty: \r\nContent-Length: 2",
            "ok",
        ),
        (
            "HTTP/1.1 200 OK\r\nX-Long: a,\r\n\tb,\r\n  c\r\nContent-Length: 2\r\n\r\nok",
            "X-Long: a, b, c\r\nContent-Length: 2",
            "ok",
        ),
        (
            "HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 2\n\nok",
            "X-A: 1\r\nContent-Length: 2",
            "ok",
        ),
        (
            "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "Content-Length: 2",
            "ok",
        ),
        (
            "HTTP/1.1 200 OK\r\nX-Empty:\r\nContent-Length: 2\r\n\r\nok",
            "X-Empty: \r\nContent-Length: 2",
            "ok",
        ),
        // Sizes of chunks.
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0 \r\n\r\n",
            "Transfer-Encoding: chunked",
            "ok",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             00000000000000000002\r\nok\r\n00000000000000000000\r\n\r\n",
            "Transfer-Encoding: chunked",
            "ok",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             2 ; a=\"x; \\\"y\\\" \u{e9}\"\r\nok\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked",
            "ok",
        ),
    ] {
        let server = saying(sent.as_bytes().to_vec());
        let (proxy, mut client) = start(backend, &server, "");
        let got = client.get("/");
        let expected = match head.starts_with("HTTP/") {
            true => head.to_owned(),
            false => format!("{START}\r\n{head}"),
        };
        assert_eq!(got.head, expected, "{sent:?}");
        assert_eq!(got.text(), body, "{sent:?}");
        assert_eq!(line(&proxy, 1)["status"], got.status);
    }
}

fn an_empty_line_behind_an_interim_response_passes(backend: Backend) {
    for between in ["\r\n", "\n", "\r\n\r\n"] {
        let server = saying(
            format!("HTTP/1.1 100 Continue\r\n\r\n{between}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .into_bytes(),
        );
        let (_proxy, mut client) = start(backend, &server, "");
        client.send(ambassador_tests::client::get("/"));
        assert_eq!(client.response("GET").status, 100);
        assert_eq!(client.response("GET").text(), "ok", "{between:?}");
    }
}

fn codings_of_a_response_pass(backend: Backend) {
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n\x1f\x08\r\n0\r\n\r\n";
    let until_close = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n\x1f\x08";
    for (sent, more) in [(chunked, ""), (until_close, "Connection: close\r\n")] {
        let (_, sent_body) = sent.split_once("\r\n\r\n").expect("a head");
        let server = saying(sent.as_bytes().to_vec());
        let (_proxy, mut client) = start(backend, &server, "");
        client.send("GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n");
        let all = String::from_utf8(client.rest().expect("a FIN")).expect("text");
        let (head, body) = all.split_once("\r\n\r\n").expect("a head");
        let codings = head.lines().nth(1).expect("a field");
        assert!(codings.starts_with("Transfer-Encoding: gzip"), "{head}");
        assert!(head.contains(more.trim()), "{head}");
        assert_eq!(body, sent_body);

        // HTTP/1.0 has no field for it.
        let (proxy, mut client) = start(backend, &server, "");
        client.send("GET / HTTP/1.0\r\nHost: web.test\r\n\r\n");
        let got = client.response("GET");
        assert_eq!((got.status, got.reason()), (502, "protocol-error"));
        let line = line(&proxy, 1);
        assert!(line["detail"].as_str().expect("why").contains("HTTP/1.0"));
    }
}

fn responses_that_could_mislead_are_named(backend: Backend) {
    for (sent, detail) in [
        (
            "Content-Length : 2\r\n",
            "malformed field name: Content-Length",
        ),
        (
            "Transfer-Encoding\t: chunked\r\n",
            "malformed field name: Transfer-Encoding",
        ),
        (
            "Content-Length:\r\n 2\r\n",
            "a folded field line: Content-Length",
        ),
        (
            "X Y: 1\r\nContent-Length: 2\r\n",
            "malformed field name: X Y",
        ),
        (
            "X-A: 1\0\r\nContent-Length: 2\r\n",
            "malformed field value: X-A",
        ),
        ("X-A: 1\rX-B: 2\r\n", "a CR without LF: X-A"),
        ("X-\x1b: 1\r\n", "malformed field name: X-\\x1b"),
        (
            "Content-Length: 2\r\nContent-Length: 2\r\n",
            "more than one Content-Length",
        ),
        ("Content-Length: 5, 5\r\n", "malformed Content-Length"),
        (
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length beside Transfer-Encoding",
        ),
        (
            "Transfer-Encoding: chunked, gzip\r\n",
            "a Transfer-Encoding that does not tell where the body ends",
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\n2 2\r\n",
            "malformed chunk size",
        ),
    ] {
        let server = saying(format!("HTTP/1.1 200 OK\r\n{sent}\r\nok").into_bytes());
        let (proxy, mut client) = start(backend, &server, "");
        let got = client.get("/");
        assert_eq!(
            (got.status, got.reason()),
            (502, "protocol-error"),
            "{sent:?}"
        );
        let line = line(&proxy, 1);
        assert_eq!(line["detail"], detail, "{sent:?}");
        assert_eq!(line["reason"], "protocol-error");
    }
}

fn a_body_that_could_mislead_is_named(backend: Backend) {
    let begun = Arc::new(Barrier::new(2));
    let has_begun = Arc::clone(&begun);
    let server = Server::start(move |connection| {
        head(connection)?;
        connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")?;
        has_begun.wait();
        connection.write("2 2\r\n")
    });
    let (proxy, mut client) = start(backend, &server, "");
    client.send(ambassador_tests::client::get("/"));
    assert!(client.exactly(20).starts_with(b"HTTP/1.1 200 OK\r\n"));
    begun.wait();
    client.rest().expect_err("a reset");
    let line = line(&proxy, 1);
    assert_eq!(line["detail"], "malformed chunk size");
    assert_eq!(line["cancelled"], true);
}
