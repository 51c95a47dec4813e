//! Messages that are odd and mislead nobody pass; those that could mislead do
//! not, and the log says what was wrong with them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Connection, Proxy, Server, eventually, matrix, on_http1,
    ports,
};
use serde_json::Value;

matrix!(
    odd_requests_pass,
    odd_targets_are_routed_and_logged,
    heads_of_64_kib_pass_both_ways,
    a_query_is_tried_again,
    statuses_that_nobody_has_heard_of_pass,
);

on_http1!(
    odd_bytes_of_requests_pass,
    odd_bytes_of_targets_are_logged,
    codings_of_a_request_are_not_implemented,
    odd_responses_pass,
    an_empty_line_behind_an_interim_response_passes,
    codings_of_a_response_pass,
    responses_that_could_mislead_are_named,
    a_body_that_could_mislead_is_named,
);

const LOGGED: &str = "telemetry: { access_log: { path: stdout, format: json, sample: 100% } }\n";

/// A logging proxy in front of `server`; `more` is further configuration.
fn logging(column: impl Into<Column>, server: &Server, more: &str) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let breaker = "circuit_breaker: { failures: off }";
    let config = one_upstream(listen, server.address(), breaker);
    let proxy = Proxy::start(column, &format!("{config}{more}{LOGGED}"));
    (proxy, listen)
}

/// The same, and a client of HTTP/1.
fn start(backend: Backend, server: &Server, more: &str) -> (Proxy, Client) {
    let (proxy, listen) = logging(backend, server, more);
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

fn odd_requests_pass(column: Column) {
    let server = column.server(|request| {
        let body = format!("{} {}", request.method, request.target);
        let values = ["x-empty", "x-high"].map(|name| request.field(name));
        assert_eq!(values, [Some(""), Some("\u{fc}")], "{}", request.head);
        Answer::ok(body)
    });
    let (_proxy, listen) = logging(column, &server, "");
    let mut client = column.connect(listen);
    for (method, target) in [
        ("GET", "/caf\u{e9}?q=\u{6e2c}"),
        ("OPTIONS", "*"),
        ("QUERY", "/a"),
        ("m!#$%&'*+-.^_`|~9", "/a"),
        ("get", "/a"),
        ("GET", "/a\"b<c>d\\e^f`g{h|i}"),
    ] {
        let call = Call::new(method, target).field("X-Empty", "");
        let answer = client.call(&call.field("X-High", "\u{fc}"));
        assert_eq!(answer.status, 200, "{method} {target}");
        assert_eq!(answer.text(), format!("{method} {target}"));
    }
}

fn odd_bytes_of_requests_pass(backend: Backend) {
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

const ROUTES: &str = "routes: [{ match: { path_prefix: \"/caf\u{e9}\" }, upstream: web, \
                      headers: { set: { x-routed: yes } } }]\n";

fn odd_targets_are_routed_and_logged(column: Column) {
    let server = column.ok();
    let (proxy, listen) = logging(column, &server, ROUTES);
    let mut client = column.connect(listen);
    for (number, (target, routed)) in [("/caf\u{e9}/a", true), ("/caf", false), ("/\"\\", false)]
        .into_iter()
        .enumerate()
    {
        assert_eq!(client.call(&Call::get(target)).status, 200);
        let request = server.last_request();
        assert_eq!(request.target, target);
        assert_eq!(request.field("x-routed").is_some(), routed, "{target}");
        assert_eq!(line(&proxy, number + 1)["path"], target);
    }
}

/// Bytes that are no text.
fn odd_bytes_of_targets_are_logged(backend: Backend) {
    let server = mirror();
    let (proxy, mut client) = start(backend, &server, ROUTES);
    client.send(b"GET /caf\xe9/a HTTP/1.1\r\nHost: web.test\r\n\r\n");
    let got = client.response("GET").text();
    assert!(!got.contains("x-routed: yes"), "{got}");
    assert_eq!(line(&proxy, 1)["path"], "/caf\u{fffd}/a");
}

fn heads_of_64_kib_pass_both_ways(column: Column) {
    const SIZE: usize = 64 * 1024;
    let fields: String = (0..200)
        .map(|number| format!("X-{number}: {}\r\n", "a".repeat(SIZE / 200 - 8)))
        .collect();
    let fields = format!("{fields}X-Large: {}\r\n", "b".repeat(SIZE - fields.len()));
    assert!(fields.len() >= SIZE);
    let answer = fields
        .split_terminator("\r\n")
        .fold(Answer::ok("ok"), |answer, line| {
            let (name, value) = line.split_once(": ").expect("a field");
            answer.field(name, value)
        });
    let server = column.server(move |request| match request.head.len() >= SIZE {
        true => answer.clone(),
        false => Answer::ok("short"),
    });
    let (_proxy, listen) = logging(column, &server, "");
    let mut client = column.connect(listen);
    for _ in 0..2 {
        let got = client.call(&Call::get("/").lines(&fields));
        assert_eq!((got.status, got.text().as_str()), (200, "ok"));
        assert!(got.head.len() >= SIZE);
    }
    // A limit there is.
    let got = client.call(&Call::get("/").lines(&fields.repeat(2)));
    assert_eq!((got.status, got.reason()), (431, "headers-too-large"));
}

fn a_query_is_tried_again(column: Column) {
    let is_reset = AtomicBool::new(false);
    let server = column.script(move |exchange| {
        let request = exchange.request()?;
        if !is_reset.swap(true, Ordering::SeqCst) {
            return exchange.reset();
        }
        exchange.send(&Answer::ok(request.method))
    });
    let (_proxy, listen) = logging(column, &server, "");
    let answer = column.connect(listen).call(&Call::new("QUERY", "/"));
    assert_eq!(answer.text(), "QUERY");
    assert_eq!(server.requests().len(), 2);
}

fn statuses_that_nobody_has_heard_of_pass(column: Column) {
    let server = column.server(|request| {
        let status = request.target[1..].parse().expect("a status");
        Answer::status(status).body("ok")
    });
    let (proxy, listen) = logging(column, &server, "");
    let mut client = column.connect(listen);
    for (number, status) in [299, 499, 600, 999].into_iter().enumerate() {
        let got = client.get(&format!("/{status}"));
        assert_eq!((got.status, got.text()), (status, "ok".to_owned()));
        assert_eq!(line(&proxy, number + 1)["status"], status);
    }
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
