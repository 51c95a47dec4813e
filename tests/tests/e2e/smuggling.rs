//! Requests that two parsers could read differently are refused, however
//! they arrive: in one piece, byte by byte.

use std::sync::mpsc;
use std::time::Duration;

use ambassador_tests::{Backend, Client, Proxy, Server, on_http1};

on_http1!(
    refused_in_one_piece,
    refused_byte_by_byte,
    oversized_heads_are_431,
    nothing_after_a_refused_request_is_served,
    a_bad_chunk_ends_the_exchange,
    the_proxy_survives_noise,
);

/// What follows the fields that every request here has.
const BAD: &[(&str, &str)] = &[
    (
        "length and chunked",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked and length",
        "POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    ),
    (
        "two equal lengths",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "a list of lengths",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5, 5\r\n\r\nhello",
    ),
    (
        "a length with a sign",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: +5\r\n\r\nhello",
    ),
    (
        "a negative length",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: -1\r\n\r\n",
    ),
    (
        "a length in hex",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 0x5\r\n\r\nhello",
    ),
    (
        "an empty length",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length:\r\n\r\n",
    ),
    (
        "a length beyond 64 bits",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ),
    (
        "a length with a space",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 1 0\r\n\r\n",
    ),
    (
        "a coding before chunked",
        "POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked not last",
        "POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "an unknown coding",
        "POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked with a control byte",
        "POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a folded line",
        "GET / HTTP/1.1\r\nHost: web.test\r\nX-A: 1\r\n folded\r\n\r\n",
    ),
    (
        "a folded line by tab",
        "GET / HTTP/1.1\r\nHost: web.test\r\nX-A: 1\r\n\tfolded\r\n\r\n",
    ),
    (
        "a bare CR in a value",
        "GET / HTTP/1.1\r\nHost: web.test\r\nX-A: 1\rX-B: 2\r\n\r\n",
    ),
    (
        "a bare LF ends a line",
        "GET / HTTP/1.1\r\nHost: web.test\nX-A: 1\r\n\r\n",
    ),
    ("bare LFs everywhere", "GET / HTTP/1.1\nHost: web.test\n\n"),
    (
        "a bare LF ends the head",
        "GET / HTTP/1.1\r\nHost: web.test\r\n\n",
    ),
    (
        "a NUL in a value",
        "GET / HTTP/1.1\r\nHost: web.test\r\nX-A: a\0b\r\n\r\n",
    ),
    (
        "a NUL in the target",
        "GET /a\0b HTTP/1.1\r\nHost: web.test\r\n\r\n",
    ),
    (
        "a control byte in a name",
        "GET / HTTP/1.1\r\nHost: web.test\r\nX\x01A: 1\r\n\r\n",
    ),
    (
        "a space before the colon",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length : 5\r\n\r\nhello",
    ),
    (
        "a line without a colon",
        "GET / HTTP/1.1\r\nHost: web.test\r\nnonsense\r\n\r\n",
    ),
    (
        "an empty name",
        "GET / HTTP/1.1\r\nHost: web.test\r\n: 1\r\n\r\n",
    ),
    ("no host", "GET / HTTP/1.1\r\nX-Upstream-Host: web\r\n\r\n"),
    (
        "two hosts",
        "GET / HTTP/1.1\r\nHost: web.test\r\nHost: other.test\r\n\r\n",
    ),
    (
        "a host that is none",
        "GET / HTTP/1.1\r\nHost: web.test/x@y\r\n\r\n",
    ),
    (
        "a space in the target",
        "GET /a b HTTP/1.1\r\nHost: web.test\r\n\r\n",
    ),
    (
        "two spaces after the method",
        "GET  / HTTP/1.1\r\nHost: web.test\r\n\r\n",
    ),
    ("no version", "GET /\r\nHost: web.test\r\n\r\n"),
    (
        "a version of the future",
        "GET / HTTP/3.7\r\nHost: web.test\r\n\r\n",
    ),
    (
        "a method with a bad byte",
        "G@T( / HTTP/1.1\r\nHost: web.test\r\n\r\n",
    ),
    (
        "a leading space",
        " GET / HTTP/1.1\r\nHost: web.test\r\n\r\n",
    ),
];

/// Whether the proxy answered with a refusal of its own or ended the connection.
fn assert_refused(what: &str, client: &mut Client) {
    match client.try_response("GET") {
        Some(answer) => {
            assert!(
                matches!(answer.status, 400 | 413 | 431 | 501 | 505),
                "{what}: {}",
                answer.head
            );
            assert!(
                !answer.reason().is_empty(),
                "{what}: a reason word: {}",
                answer.head
            );
            assert!(
                client.is_ended(),
                "{what}: the connection is of no more use"
            );
        }
        None => assert!(client.is_ended(), "{what}: neither answered nor ended"),
    }
}

fn refused(backend: Backend, send: impl Fn(&mut Client, &[u8])) {
    let server = Server::ok();
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    for (what, bytes) in BAD {
        let mut client = Client::connect(listen);
        send(&mut client, bytes.as_bytes());
        assert_refused(what, &mut client);
        assert_eq!(server.requests().len(), 0, "{what} reached the upstream");
    }
    assert_eq!(
        Client::connect(listen).get("/").status,
        200,
        "the proxy lives"
    );
    let counted = proxy.metric("ambassador_requests_total", &[("reason", "bad-request")]);
    assert!(
        counted >= BAD.len() as f64 - 4.0,
        "{counted} of {} were counted",
        BAD.len()
    );
}

fn refused_in_one_piece(backend: Backend) {
    refused(backend, |client, bytes| client.send(bytes));
}

fn refused_byte_by_byte(backend: Backend) {
    refused(backend, |client, bytes| {
        for byte in bytes {
            // It may be refused before all of it was sent.
            if client.try_send([*byte]).is_err() {
                return;
            }
        }
    });
}

fn oversized_heads_are_431(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let long_value = format!("X-A: {}\r\n", "a".repeat(200_000));
    let many_fields: String = (0..500)
        .map(|number| format!("X-{number}: 1\r\n"))
        .collect();
    for fields in [long_value, many_fields] {
        let mut client = Client::connect(listen);
        let _ = client.try_send(format!("GET / HTTP/1.1\r\nHost: web.test\r\n{fields}\r\n"));
        if let Some(answer) = client.try_response("GET") {
            assert_eq!((answer.status, answer.reason()), (431, "headers-too-large"));
        }
        assert!(client.is_ended());
    }
    assert_eq!(server.requests().len(), 0);
}

fn nothing_after_a_refused_request_is_served(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    let bad = "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
    let _ = client.try_send(format!(
        "{bad}0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web.test\r\n\r\n"
    ));
    assert_refused("both framings", &mut client);
    assert!(server.requests().is_empty());
}

fn a_bad_chunk_ends_the_exchange(backend: Backend) {
    let head = "POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunk in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
    ] {
        let server = Server::ok();
        let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
        let mut client = Client::connect(listen);
        let _ = client.try_send(format!(
            "{head}{chunk}GET /smuggled HTTP/1.1\r\nHost: web.test\r\n\r\n"
        ));
        if let Some(answer) = client.try_response("POST") {
            assert_eq!(answer.status, 400, "{chunk:?}");
        }
        assert!(client.is_ended(), "{chunk:?}");
        let whole = server.requests();
        assert!(whole.is_empty(), "{chunk:?} made {whole:?}");
    }
}

fn the_proxy_survives_noise(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    // A fixed sequence: xorshift64.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let (done, finished) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        for _ in 0..200 {
            let noise: Vec<u8> = (0..300)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[0]
                })
                .collect();
            let mut client = Client::connect(listen);
            let _ = client.try_send(noise);
            client.finish();
            let _ = client.rest();
        }
        let _ = done.send(());
    });
    finished
        .recv_timeout(Duration::from_secs(30))
        .expect("every connection was ended");
    worker.join().expect("no assertion failed");
    assert_eq!(Client::connect(listen).get("/").status, 200);
}
