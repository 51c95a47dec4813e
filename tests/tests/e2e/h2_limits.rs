//! Field sections over HTTP/2 that are larger than the other end says it takes
//! (SETTINGS_MAX_HEADER_LIST_SIZE, RFC 9113 section 6.5.2): they are not sent, and whoever
//! waits for them is told.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use ambassador_tests::http2::{Frame, Peer, code, flag, kind, setting};
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::response;
use ambassador_tests::{Backend, Client, Connection, Proxy, Server, on_both_backends};

use crate::access_log::{LOGGED, lines};
use crate::tls_upstream::free;

on_both_backends!(
    a_request_larger_than_its_upstream_takes_is_not_sent,
    an_answer_larger_than_its_caller_takes_is_not_sent,
);

/// What an end takes in these tests.
const TAKEN: (u16, u32) = (setting::MAX_HEADER_LIST_SIZE, 600);

/// A value that is more than that.
fn long() -> String {
    "x".repeat(600)
}

/// A server that takes no more, and tells of each path and RST_STREAM.
fn serve(connection: &mut Connection, told: &Mutex<Sender<String>>) -> io::Result<()> {
    let tell = |what: String| {
        // Its test may have ended.
        let _ = told.lock().expect("no panic").send(what);
    };
    let mut peer = Peer::welcome(connection, &[TAKEN])?;
    while let Some(frame) = peer.receive()? {
        match frame.kind {
            kind::HEADERS if !peer.field(":path").is_empty() => {
                tell(peer.field(":path").to_owned());
                if frame.is_last() {
                    let answer = Frame::fields(frame.stream, &[(":status", "200")]).ending();
                    peer.send(&answer)?;
                }
            }
            kind::RST_STREAM => tell(format!("reset {:?}", frame.code())),
            kind::SETTINGS if !frame.has(flag::ACK) => {
                peer.send(&Frame::settings(&[]).ack())?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn a_request_larger_than_its_upstream_takes_is_not_sent(backend: Backend) {
    let (tell, told): (Sender<String>, Receiver<String>) = channel();
    let tell = Mutex::new(tell);
    let server = Server::start(move |connection| serve(connection, &tell));
    let listen = free();
    let more = "protocol: http2\ncircuit_breaker: { failures: 1 }\nretry: { attempts: 3 }";
    let config = one_upstream(listen, server.address(), more);
    let proxy = Proxy::start(backend, &format!("workers: 1\n{config}"));
    let mut caller = Client::connect(listen);
    assert_eq!(caller.get("/first").status, 200);

    caller.send(format!(
        "GET /head HTTP/1.1\r\nHost: web.test\r\nX: {}\r\n\r\n",
        long()
    ));
    let answer = caller.response("GET");
    assert_eq!((answer.status, answer.reason()), (431, "headers-too-large"));
    assert!(
        answer.text().contains("MAX_HEADER_LIST_SIZE"),
        "{}",
        answer.text()
    );
    // It is the caller's matter: nothing is held against the upstream.
    assert_eq!(caller.get("/second").status, 200);

    caller.send(format!(
        "POST /trailers HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nok\r\n0\r\nX-Sum: {}\r\n\r\n",
        long()
    ));
    let answer = caller.response("POST");
    assert_eq!((answer.status, answer.reason()), (431, "headers-too-large"));
    assert_eq!(caller.get("/third").status, 200);

    let told: Vec<String> = told.try_iter().collect();
    let reset = format!("reset {:?}", Some(code::INTERNAL_ERROR));
    assert_eq!(told, ["/first", "/second", "/trailers", &reset, "/third"]);
    let attempts = "ambassador_upstream_attempts_total";
    let labels = [("upstream", "web"), ("outcome", "headers-too-large")];
    proxy.expect_metric(attempts, &labels, 2.0);
}

fn an_answer_larger_than_its_caller_takes_is_not_sent(backend: Backend) {
    let server = Server::http(|request| match request.target.as_str() {
        "/head" => response("200 OK", &format!("X: {}\r\n", long()), "large"),
        "/trailers" => format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nok\r\n0\r\nX-Sum: {}\r\n\r\n",
            long()
        )
        .into_bytes(),
        _ => response("200 OK", "", "ok"),
    });
    let listen = free();
    let more = "circuit_breaker: { failures: 1 }";
    let config = one_upstream(listen, server.address(), more);
    let proxy = Proxy::start(backend, &format!("{LOGGED}{config}"));
    let mut peer = Peer::connect(listen);
    peer.greet(&[TAKEN]).expect("it is a server");

    peer.send(&Frame::get(1, "/head")).expect("it listens");
    peer.headers().expect("an answer");
    assert_eq!(peer.field(":status"), "502");
    assert_eq!(peer.field("x-ambassador-reason"), "protocol-error");

    peer.send(&Frame::get(3, "/trailers")).expect("it listens");
    let reset = loop {
        let frame = peer.frame().expect("the end of the stream");
        if frame.stream == 3 && frame.kind == kind::RST_STREAM {
            break frame;
        }
        assert!(frame.stream != 3 || !frame.is_last(), "{frame:?}");
    };
    assert_eq!(reset.code(), Some(code::INTERNAL_ERROR));

    peer.send(&Frame::get(5, "/fine")).expect("it listens");
    peer.headers().expect("an answer");
    assert_eq!(peer.field(":status"), "200");
    for line in &lines(&proxy, 3)[..2] {
        let detail = line["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("larger than the caller takes"), "{line}");
    }
}
