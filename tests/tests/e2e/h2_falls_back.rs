//! A server that chooses HTTP/2 and then requires HTTP/1.1 (HTTP_1_1_REQUIRED, RFC 9113
//! section 7).

use std::io;
use std::net::SocketAddr;

use ambassador_tests::http2::{Frame, Peer, code, flag, kind};
use ambassador_tests::proxy::{Scratch, one_upstream};
use ambassador_tests::server::text;
use ambassador_tests::{Authority, Backend, Client, Connection, Proxy, Server, on_both_backends};

use crate::access_log::{LOGGED, lines};
use crate::tls_upstream::free;

on_both_backends!(
    a_request_goes_over_http1_where_either_would_do,
    a_caller_is_told_where_nothing_else_would_do,
);

/// What it requires HTTP/1.1 with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Reset,
    GoAway,
}

const WORDS: [Word; 2] = [Word::Reset, Word::GoAway];

/// Answers over HTTP/1.1 alone.
fn serve(connection: &mut Connection, word: Word) -> io::Result<()> {
    let session = connection.session().expect("it is over TLS").0;
    if session.connection().alpn_protocol() != Some(b"h2") {
        return connection.serve_http(|request| text(&String::from_utf8_lossy(&request.body)));
    }
    let mut peer = Peer::welcome(connection, &[])?;
    while let Some(frame) = peer.receive()? {
        match frame.kind {
            kind::HEADERS => peer.send(&match word {
                Word::Reset => Frame::reset(frame.stream, code::HTTP_1_1_REQUIRED),
                Word::GoAway => Frame::go_away(0, code::HTTP_1_1_REQUIRED),
            })?,
            kind::SETTINGS if !frame.has(flag::ACK) => {
                peer.send(&Frame::settings(&[]).ack())?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A proxy in front of it.
fn start(backend: Backend, word: Word, protocol: &str) -> (Proxy, SocketAddr, Server) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let mut offer = authority.issue(&["web.test"]).server();
    offer.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = Server::secured(offer, move |connection| serve(connection, word));
    let ca = scratch.file("ca.pem", &authority.pem);
    let listen = free();
    let more = format!(
        "protocol: {protocol}\ncircuit_breaker: {{ failures: 1 }}\n\
         tls: {{ ca: {} }}",
        ca.display()
    );
    let config = one_upstream(listen, server.address(), &more);
    (
        Proxy::start(backend, &format!("{LOGGED}{config}")),
        listen,
        server,
    )
}

fn a_request_goes_over_http1_where_either_would_do(backend: Backend) {
    for word in WORDS {
        let (proxy, listen, server) = start(backend, word, "auto");
        let mut caller = Client::connect(listen);
        for body in ["one", "two"] {
            caller.send(format!(
                "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            let answer = caller.response("POST");
            assert_eq!((answer.status, &*answer.text()), (200, body), "{word:?}");
        }
        // Each of them once.
        assert_eq!(server.requests().len(), 2, "{word:?}");
        assert_eq!(lines(&proxy, 2)[1]["status"], 200);
    }
}

fn a_caller_is_told_where_nothing_else_would_do(backend: Backend) {
    for word in WORDS {
        let (proxy, listen, _server) = start(backend, word, "http2");
        let mut caller = Client::connect(listen);
        for _ in 0..2 {
            // It says nothing against the upstream.
            let answer = caller.get("/");
            assert_eq!((answer.status, answer.reason()), (502, "protocol-error"));
        }
        for line in lines(&proxy, 2) {
            let detail = line["detail"].as_str().unwrap_or_default();
            assert!(detail.contains("HTTP_1_1_REQUIRED"), "{line}");
        }
    }
}
