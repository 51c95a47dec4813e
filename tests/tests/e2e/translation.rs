//! Between HTTP/1.1 and HTTP/2: what RFC 9113, section 8, says of each part of a message,
//! in both directions. What is alike in every column of the matrix is tested there:
//! `interim` for 1xx and `Expect`, `early_answers`, `bodies`.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ambassador_tests::http2::hpack::{Literal, block, literal, text};
use ambassador_tests::http2::{Field, Frame, Peer, flag, kind, setting};
use ambassador_tests::server::response;
use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Protocol, Proxy, Request, Server, on_both_backends,
};

on_both_backends!(
    cookies_to_http1,
    cookies_to_http2,
    connection_fields_of_a_request_to_http2,
    connection_fields_of_an_answer_to_http2,
    an_answer_that_is_upgraded_unasked_to_http2,
    host_to_http2,
    authority_to_http1,
    te_to_http1,
    te_to_http2,
    bodies_of_unknown_length_to_http1,
    bodies_of_unknown_length_to_http2,
    an_answer_that_ends_with_its_connection_to_http2,
    an_answer_that_is_cut_to_http2,
    an_answer_that_ends_with_its_head_to_http1,
    an_answer_that_is_reset_to_http1,
    trailers_pass_both_ways,
    a_refused_expectation_passes_both_ways,
    an_early_answer_ends_the_upload_both_ways,
    answers_without_content_pass_both_ways,
    an_early_answer_passes_a_closed_window,
    a_body_goes_on_behind_its_answer,
    a_secret_is_in_the_table_of_no_hop,
);

const SOON: Duration = Duration::from_secs(10);

/// From one protocol to the other.
fn between(client: Protocol, upstream: Protocol, backend: Backend) -> Column {
    Column {
        client,
        upstream,
        backend,
    }
}

fn to_http1(backend: Backend) -> Column {
    between(Protocol::Http2, Protocol::Http1, backend)
}

fn to_http2(backend: Backend) -> Column {
    between(Protocol::Http1, Protocol::Http2, backend)
}

/// A server that answers everything with `ok`, and the proxy before it.
fn start(column: Column) -> (Server, Proxy, SocketAddr) {
    let server = column.ok();
    let (proxy, listen) = Proxy::in_front_of(column, server.address());
    (server, proxy, listen)
}

/// All values of a field.
fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let of_name = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
    let found = fields.iter().filter(of_name);
    found.map(|(_, value)| &**value).collect()
}

/// What a server of HTTP/1.1 gets of a request with these fields.
#[track_caller]
fn seen_by_http1(backend: Backend, fields: &[Field<'_>]) -> Request {
    let (server, _proxy, listen) = start(to_http1(backend));
    let mut peer = Peer::connect(listen);
    peer.greet(&[]).expect("a server");
    peer.send(&Frame::fields(1, fields).ending()).expect("open");
    peer.headers().expect("an answer");
    assert_eq!(peer.field(":status"), "200");
    server.last_request()
}

/// What a server of HTTP/2 gets of a request with this text.
#[track_caller]
fn seen_by_http2(backend: Backend, text: &str) -> Request {
    let (server, _proxy, listen) = start(to_http2(backend));
    let mut client = Client::connect(listen);
    client.send(text);
    assert_eq!(client.response("GET").status, 200);
    server.last_request()
}

const GET: [Field<'static>; 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "web.test"),
    (":path", "/"),
];

/// RFC 9113, section 8.2.3.
fn cookies_to_http1(backend: Backend) {
    let cookies = [
        ("cookie", "a=1"),
        ("x-between", "1"),
        ("cookie", "b=2; c=3"),
        ("cookie", "d=4"),
    ];
    let request = seen_by_http1(backend, &[&GET[..], &cookies[..]].concat());
    assert_eq!(values(&request.fields, "cookie"), ["a=1; b=2; c=3; d=4"]);
    assert_eq!(request.field("x-between"), Some("1"));
}

fn cookies_to_http2(backend: Backend) {
    let text = "GET / HTTP/1.1\r\nHost: web.test\r\nCookie: a=1; b=2\r\n\r\n";
    let request = seen_by_http2(backend, text);
    assert_eq!(values(&request.fields, "cookie").join("; "), "a=1; b=2");
}

/// RFC 9113, section 8.2.2: the server of the tests refuses what is left of them.
fn connection_fields_of_a_request_to_http2(backend: Backend) {
    let text = "GET / HTTP/1.1\r\nHost: web.test\r\nConnection: keep-alive, x-own\r\n\
                Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-Own: 1\r\n\
                X-Stays: 2\r\n\r\n";
    let request = seen_by_http2(backend, text);
    for gone in ["connection", "keep-alive", "proxy-connection", "x-own"] {
        assert_eq!(request.field(gone), None, "{gone}");
    }
    assert_eq!(request.field("x-stays"), Some("2"));
}

fn connection_fields_of_an_answer_to_http2(backend: Backend) {
    let server = Server::http(|_| {
        let fields = "Connection: x-own, keep-alive\r\nKeep-Alive: timeout=5\r\nX-Own: 1\r\n\
                      Proxy-Connection: keep-alive\r\nX-Stays: 2\r\n";
        response("200 OK", fields, "ok")
    });
    let column = to_http1(backend);
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let answer = column.connect(listen).call(&Call::get("/"));
    for gone in ["connection", "keep-alive", "proxy-connection", "x-own"] {
        assert_eq!(answer.field(gone), None, "{gone}");
    }
    assert_eq!(
        (answer.field("x-stays"), answer.text()),
        (Some("2"), "ok".to_owned())
    );
}

/// HTTP/2 has no 101 (RFC 9113, section 8.6).
fn an_answer_that_is_upgraded_unasked_to_http2(backend: Backend) {
    let server = Server::start(|connection| {
        connection.request()?;
        connection.write("HTTP/1.1 101 On\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n")
    });
    let column = to_http1(backend);
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let answer = column.connect(listen).call(&Call::get("/"));
    assert_eq!((answer.status, answer.reason()), (502, "protocol-error"));
}

/// RFC 9113, section 8.3.1: the server of the tests tells `:authority` as `host`, beside
/// a field of that name.
fn host_to_http2(backend: Backend) {
    let text = "GET /a?b HTTP/1.1\r\nHost: web.test:80\r\n\r\n";
    let request = seen_by_http2(backend, text);
    assert_eq!(values(&request.fields, "host"), ["web.test:80"]);
    assert_eq!(request.target, "/a?b");
    let text = "GET http://web.test/a?b HTTP/1.1\r\nHost: other.test\r\n\r\n";
    let request = seen_by_http2(backend, text);
    assert_eq!(values(&request.fields, "host"), ["web.test"]);
    assert_eq!(request.target, "/a?b");
}

fn authority_to_http1(backend: Backend) {
    let both = [&GET[..], &[("host", "web.test")]].concat();
    let [method, scheme, _, path] = GET;
    let host = [method, scheme, path, ("host", "web.test")];
    for fields in [&GET[..], &both, &host] {
        let request = seen_by_http1(backend, fields);
        assert_eq!(values(&request.fields, "host"), ["web.test"]);
        assert_eq!(request.target, "/");
    }
}

/// RFC 9113, section 8.2.2: nothing but `trailers`.
fn te_to_http2(backend: Backend) {
    for (te, expected) in [
        ("TE: trailers, gzip;q=0.5\r\n", &["trailers"][..]),
        ("TE: gzip\r\n", &[]),
        ("", &[]),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: web.test\r\nConnection: te\r\n{te}\r\n");
        let request = seen_by_http2(backend, &text);
        assert_eq!(values(&request.fields, "te"), expected, "{te}");
    }
}

/// RFC 9110, section 10.1.4: it is for this hop, and so `Connection` names it.
fn te_to_http1(backend: Backend) {
    let request = seen_by_http1(backend, &[&GET[..], &[("te", "trailers")]].concat());
    assert_eq!(values(&request.fields, "te"), ["trailers"]);
    let connection = request.field("connection").unwrap_or_default();
    assert!(connection.eq_ignore_ascii_case("te"), "{connection}");
    let request = seen_by_http1(backend, &GET);
    assert_eq!(
        (request.field("te"), request.field("connection")),
        (None, None)
    );
}

/// A request and its answer in pieces: what both sides get as fields.
#[track_caller]
fn in_pieces(column: Column) -> (Request, ambassador_tests::Response) {
    let server = column.script(|exchange| {
        exchange.request()?;
        exchange.send(&Answer::status(200).in_pieces())?;
        exchange.piece("some")?;
        exchange.piece("thing")?;
        exchange.end(&[])
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    client.send(&Call::new("POST", "/").in_pieces());
    client.piece("any");
    client.piece("thing");
    client.end(&[]);
    let answer = client.answer();
    assert_eq!(answer.text(), "something");
    let request = server.last_request();
    assert_eq!(request.body, b"anything");
    (request, answer)
}

/// RFC 9113, section 8.1: HTTP/2 has no transfer codings, and needs no length.
fn bodies_of_unknown_length_to_http2(backend: Backend) {
    let (request, answer) = in_pieces(to_http2(backend));
    assert_eq!(request.field("transfer-encoding"), None);
    assert_eq!(request.field("content-length"), None);
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.field("content-length"), None);
}

fn bodies_of_unknown_length_to_http1(backend: Backend) {
    let (request, answer) = in_pieces(to_http1(backend));
    assert_eq!(request.field("transfer-encoding"), Some("chunked"));
    assert_eq!(request.field("content-length"), None);
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(answer.field("content-length"), None);
}

/// A server of HTTP/1 that sends this to a request, and closes.
fn closing(text: &'static str) -> Server {
    Server::start(move |connection| {
        connection.request()?;
        connection.write(text)
    })
}

fn an_answer_that_ends_with_its_connection_to_http2(backend: Backend) {
    let server = closing("HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nto the end");
    let column = to_http1(backend);
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    for _ in 0..2 {
        assert_eq!(client.call(&Call::get("/")).text(), "to the end");
    }
}

fn an_answer_that_is_cut_to_http2(backend: Backend) {
    let server = closing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ncut");
    let column = to_http1(backend);
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    assert_eq!(client.head().status, 200);
    assert_eq!(client.content(3), b"cut");
    assert!(client.try_answer().is_none(), "it has no end");
}

/// Nothing but the end of its stream says that it has no content.
fn an_answer_that_ends_with_its_head_to_http1(backend: Backend) {
    let server = Server::start(|connection| {
        let mut peer = Peer::welcome(connection, &[])?;
        while let Some(frame) = peer.receive()? {
            if frame.kind == kind::HEADERS {
                let answer = Frame::fields(frame.stream, &[(":status", "202")]);
                peer.send(&answer.ending())?;
            }
        }
        Ok(())
    });
    let (_proxy, listen) = Proxy::in_front_of(to_http2(backend), server.address());
    let mut client = Client::connect(listen);
    for method in ["GET", "HEAD", "GET"] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: web.test\r\n\r\n"));
        let answer = client.response(method);
        let length = (method == "GET").then_some("0");
        assert_eq!(
            (answer.status, answer.field("content-length")),
            (202, length)
        );
    }
}

fn an_answer_that_is_reset_to_http1(backend: Backend) {
    let column = to_http2(backend);
    let server = column.script(|exchange| {
        exchange.request()?;
        exchange.send(&Answer::status(200).in_pieces())?;
        exchange.piece("cut")?;
        exchange.reset()
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    assert!(client.try_answer().is_none(), "it has no last chunk");
}

fn trailers_pass_both_ways(backend: Backend) {
    for column in [to_http1(backend), to_http2(backend)] {
        let server = column.script(|exchange| {
            exchange.request()?;
            exchange.send(&Answer::status(200).in_pieces())?;
            exchange.piece("content")?;
            exchange.end(&[("X-End", "yes"), ("X-More", "2")])
        });
        let (_proxy, listen) = Proxy::in_front_of(column, server.address());
        let call = Call::new("POST", "/").field("TE", "trailers");
        let answer = column
            .connect(listen)
            .call(&call.trailed("body", ("X-Sum", "9")));
        assert_eq!(answer.text(), "content", "{column:?}");
        assert_eq!(values(&answer.trailers, "x-end"), ["yes"], "{column:?}");
        assert_eq!(values(&answer.trailers, "x-more"), ["2"], "{column:?}");
        let request = server.last_request();
        assert_eq!(request.body, b"body", "{column:?}");
        assert_eq!(request.trailer("x-sum"), Some("9"), "{column:?}");
    }
}

/// RFC 9110, section 10.1.1: the body is never sent.
fn a_refused_expectation_passes_both_ways(backend: Backend) {
    for column in [to_http1(backend), to_http2(backend)] {
        let server = column.script(|exchange| {
            assert_eq!(exchange.head().field("expect"), Some("100-continue"));
            exchange.send(&Answer::status(417))
        });
        let (_proxy, listen) = Proxy::in_front_of(column, server.address());
        let call = Call::new("PUT", "/").field("Expect", "100-continue");
        let answer = column.connect(listen).call(&call.announces(4));
        assert_eq!((answer.status, answer.reason()), (417, ""), "{column:?}");
    }
}

/// RFC 9113, section 8.1: who has the whole answer need not send the rest.
fn an_early_answer_ends_the_upload_both_ways(backend: Backend) {
    for column in [to_http1(backend), to_http2(backend)] {
        let server = column.script(|exchange| {
            exchange.send(&Answer::status(413).body("too much"))?;
            exchange.reset()
        });
        let (_proxy, listen) = Proxy::in_front_of(column, server.address());
        let mut client = column.connect(listen);
        let answer = client.call(&Call::new("PUT", "/").announces(100_000_000));
        assert_eq!((answer.status, answer.text()), (413, "too much".to_owned()));
        // Another caller is served.
        let mut other = column.connect(listen);
        assert_eq!(other.call(&Call::get("/")).status, 413, "{column:?}");
    }
}

/// RFC 9110, sections 9.3.2 and 15.4.5.
fn answers_without_content_pass_both_ways(backend: Backend) {
    for column in [to_http1(backend), to_http2(backend)] {
        let server = column.server(|request| match &*request.target {
            "/none" => Answer::status(204),
            "/same" => Answer::status(304).field("ETag", "\"1\""),
            _ => Answer::ok("content"),
        });
        let (_proxy, listen) = Proxy::in_front_of(column, server.address());
        let mut client = column.connect(listen);
        let head = client.call(&Call::new("HEAD", "/"));
        assert_eq!(head.status, 200, "{column:?}");
        assert_eq!(
            (head.field("content-length"), head.text()),
            (Some("7"), String::new())
        );
        assert_eq!(client.call(&Call::get("/none")).status, 204, "{column:?}");
        let same = client.call(&Call::get("/same"));
        assert_eq!((same.status, same.field("etag")), (304, Some("\"1\"")));
        assert_eq!(client.call(&Call::get("/")).text(), "content", "{column:?}");
    }
}

/// A server whose windows are closed, and opens one when the test says so. It answers a
/// request by its head alone, and tells of each frame with content, and of resets.
struct Closed {
    server: Server,
    open: std::sync::mpsc::Sender<()>,
    frames: Receiver<Frame>,
}

impl Closed {
    fn start() -> Closed {
        let (open, opened) = channel();
        let (tell, frames) = channel();
        let state = std::sync::Mutex::new((opened, tell));
        let server = Server::start(move |connection| {
            let state = state.lock().expect("no panic");
            let (opened, tell) = &*state;
            let mut peer = Peer::welcome(connection, &[(setting::INITIAL_WINDOW_SIZE, 0)])?;
            while let Some(frame) = peer.receive()? {
                match frame.kind {
                    kind::SETTINGS if !frame.has(flag::ACK) => {
                        peer.send(&Frame::settings(&[]).ack())?;
                    }
                    kind::HEADERS => {
                        let answer = Frame::fields(
                            frame.stream,
                            &[(":status", "202"), ("content-length", "0")],
                        );
                        peer.send(&answer.ending())?;
                        if !frame.is_last() {
                            opened.recv().map_err(io::Error::other)?;
                            peer.send(&Frame::window_update(frame.stream, 100))?;
                        }
                    }
                    kind::DATA | kind::RST_STREAM => {
                        let _ = tell.send(frame);
                    }
                    _ => {}
                }
            }
            Ok(())
        });
        Closed {
            server,
            open,
            frames,
        }
    }
}

/// A proxy that knows of the closed windows, and a client of it.
fn before(closed: &Closed, backend: Backend) -> (Proxy, Client) {
    let column = to_http2(backend);
    let (proxy, listen) = Proxy::in_front_of(column, closed.server.address());
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/").status, 202);
    (proxy, client)
}

const PUT: &str =
    "PUT / HTTP/1.1\r\nHost: web.test\r\nX-Upstream-Host: web\r\nContent-Length: 4\r\n\r\nbody";

/// A server may refuse what it does not let in.
fn an_early_answer_passes_a_closed_window(backend: Backend) {
    let closed = Closed::start();
    let (_proxy, mut client) = before(&closed, backend);
    client.send(PUT);
    assert_eq!(client.response("PUT").status, 202);
}

/// RFC 9113, section 8.1: a whole answer does not say that the rest is of no use.
fn a_body_goes_on_behind_its_answer(backend: Backend) {
    let closed = Closed::start();
    let (_proxy, mut client) = before(&closed, backend);
    client.send(PUT);
    assert_eq!(client.response("PUT").status, 202);
    closed.open.send(()).expect("it waits");
    let frame = closed.frames.recv_timeout(SOON).expect("it goes on");
    assert_eq!((frame.kind, frame.content()), (kind::DATA, &b"body"[..]));
    assert!(frame.is_last());
    // The client was not kept waiting for that.
    assert_eq!(client.get("/").status, 202);
}

/// Fields, and behind them one that no hop may put into a table.
fn with_secret(fields: &[Field<'_>], name: &str) -> Vec<u8> {
    let secret = literal(Literal::Never, &text(name), &text("s3cr3t"));
    [block(fields), secret].concat()
}

/// RFC 7541, section 6.2.3: of requests, of answers and of trailers.
fn a_secret_is_in_the_table_of_no_hop(backend: Backend) {
    let (tell, told) = channel();
    let server = Server::start(move |connection| {
        let mut peer = Peer::welcome(connection, &[])?;
        while let Some(frame) = peer.receive()? {
            if frame.kind == kind::HEADERS {
                let _ = tell.send(peer.never().to_vec());
                let head = with_secret(&[(":status", "200"), ("x-plain", "1")], "x-answer");
                peer.send(&Frame::headers(frame.stream, head))?;
                let trailers = Frame::headers(frame.stream, with_secret(&[], "x-trailer"));
                peer.send(&trailers.ending())?;
            }
        }
        Ok(())
    });
    let column = between(Protocol::Http2, Protocol::Http2, backend);
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut peer = Peer::connect(listen);
    peer.greet(&[]).expect("a server");
    let head = with_secret(&[&GET[..], &[("x-plain", "1")]].concat(), "x-key");
    peer.send(&Frame::headers(1, head).ending()).expect("open");
    peer.headers().expect("an answer");
    assert_eq!(
        (peer.field("x-answer"), peer.field("x-plain")),
        ("s3cr3t", "1")
    );
    assert_eq!(peer.never(), ["x-answer"]);
    peer.headers().expect("trailers");
    assert_eq!(peer.never(), ["x-trailer"]);
    assert_eq!(
        told.recv_timeout(SOON).as_deref(),
        Ok(&["x-key".to_owned()][..])
    );
}
