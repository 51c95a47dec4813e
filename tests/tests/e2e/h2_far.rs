//! Flow control over a long line: 1 Gbit/s and 50 ms, where 6.25 MB are under way. Times
//! are compared with those of HTTP/1.1 over the same line, whose bodies have no windows.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ambassador_tests::client::get;
use ambassador_tests::line::Line;
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Backend, Call, Client, Protocol, Proxy, Server, on_both_backends, ports,
};

on_both_backends!(a_response_fills_a_long_line, an_upload_fills_a_long_line);

const LINE: Line = Line {
    round_trip: Duration::from_millis(50),
    rate: 125_000_000,
};

/// Windows that the line does not use up.
const WIDE: &str = "{ window: 8MiB, connection_window: 8MiB }";

/// A body of 0.54 s, in so many pieces of so many bytes.
const PIECES: usize = 256;
const PIECE: usize = 256 * 1024;
const SIZE: usize = PIECES * PIECE;

fn a_response_fills_a_long_line(backend: Backend) {
    fills("response", |protocol| {
        let server = protocol.script(|exchange| {
            if exchange.request()?.target == "/first" {
                return exchange.send(&Answer::ok("ok"));
            }
            exchange.send(&Answer::status(200).announces(SIZE))?;
            (0..PIECES).try_for_each(|_| exchange.piece([b'x'; PIECE]))
        });
        let (_proxy, listen) = proxy(backend, LINE.to(server.address()), protocol);
        let mut client = Client::connect(listen);
        assert_eq!(client.get("/first").status, 200);
        let begin = Instant::now();
        client.send(get("/"));
        let head = client.head();
        let begun = client.content(&head).expect("bytes come").len();
        count(SIZE - begun, |buffer| client.stream().read(buffer)).expect("the rest comes");
        begin.elapsed()
    });
}

fn an_upload_fills_a_long_line(backend: Backend) {
    fills("upload", |protocol| {
        let server = Server::start(|connection| {
            while let Some(request) = connection.head()? {
                let length = request.field("content-length").unwrap_or("0");
                let length = length.parse().map_err(io::Error::other)?;
                count(length, |buffer| connection.read(buffer))?;
                connection.write(text("ok"))?;
            }
            Ok(())
        });
        let (_proxy, listen) = proxy(backend, server.address(), Protocol::Http1);
        let mut caller = protocol.connect(LINE.to(listen));
        assert_eq!(caller.call(&Call::get("/first")).status, 200);
        let begin = Instant::now();
        caller.send(&Call::new("POST", "/").announces(SIZE));
        (0..PIECES).for_each(|_| caller.piece([b'x'; PIECE]));
        assert_eq!(caller.answer().status, 200);
        begin.elapsed()
    });
}

fn proxy(backend: Backend, endpoint: SocketAddr, upstream: Protocol) -> (Proxy, SocketAddr) {
    let listen: SocketAddr = ([127, 0, 0, 1], ports::free()).into();
    let more = format!("protocol: {}", upstream.name());
    let config = one_upstream(listen, endpoint, &more);
    let config = format!("defaults: {{ http2: {WIDE} }}\n{config}");
    (Proxy::start(backend, &config), listen)
}

/// Reads so many bytes.
fn count(bytes: usize, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        match read(&mut buffer[..left.min(PIECE)])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left -= count,
        }
    }
    Ok(())
}

/// Over HTTP/2 it takes about as long as over HTTP/1.1: the best of three each.
#[track_caller]
fn fills(what: &str, transfer: impl Fn(Protocol) -> Duration) {
    let mut best = [Duration::MAX; 2];
    for _ in 0..3 {
        for (best, protocol) in best.iter_mut().zip(Protocol::ALL) {
            *best = transfer(protocol).min(*best);
        }
    }
    let [http1, http2] = best;
    println!("{what} of {SIZE} bytes: HTTP/1.1 {http1:?}, HTTP/2 {http2:?}");
    assert!(http2 < http1.mul_f64(1.35), "{http1:?} and {http2:?}");
}
