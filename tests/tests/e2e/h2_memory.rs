//! What connections and streams of HTTP/2 cost the proxy in memory.

use std::time::Duration;

use ambassador_tests::http2::{Frame, Peer};
use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_both_backends, os};

on_both_backends!(
    an_idle_connection_of_a_caller_is_small,
    a_stream_that_waits_is_small,
);

const KIB: u64 = 1024;

/// Connections of callers: small enough for the descriptors of the tests, large enough
/// for what is allocated once not to matter.
const CONNECTIONS: u64 = 1_500;

/// Streams that wait for their response, on each of as few connections as that takes.
const STREAMS: u64 = 90;
const STREAMED: u64 = 10;

/// A connection of a caller over which one request was answered.
fn used(listen: std::net::SocketAddr) -> Peer<Client> {
    let mut peer = Peer::connect(listen);
    peer.greet(&[]).expect("a server of HTTP/2");
    peer.send(&Frame::get(1, "/")).expect("it is taken");
    peer.headers().expect("an answer");
    assert_eq!(peer.field(":status"), "200");
    while !peer.frame().expect("the rest of it").is_last() {}
    peer
}

fn an_idle_connection_of_a_caller_is_small(backend: Backend) {
    os::raise_open_files().expect("a soft limit can be raised");
    let server = Server::ok();
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    // What is allocated once is there.
    let first: Vec<_> = (0..100).map(|_| used(listen)).collect();
    let before = proxy.anonymous_bytes();
    let idle: Vec<_> = (0..CONNECTIONS).map(|_| used(listen)).collect();
    let each = proxy.anonymous_bytes().saturating_sub(before) / CONNECTIONS;
    println!("an idle HTTP/2 connection on {backend:?}: {each} bytes");
    assert!(each <= 8 * KIB, "{each} bytes for each idle connection");
    drop((first, idle));
}

fn a_stream_that_waits_is_small(backend: Backend) {
    let server = Server::start(|connection| {
        while let Some(request) = connection.request()? {
            if request.target == "/silent" {
                // Until the proxy gives it up.
                connection.at_most(1)?;
                break;
            }
            connection.write(ambassador_tests::server::text("ok"))?;
        }
        Ok(())
    });
    let more = "pool: { max_connections: 2000, max_pending: 2000 }";
    let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), more);
    let mut peers: Vec<_> = (0..STREAMED).map(|_| used(listen)).collect();
    let connected = server.connections() as u64;
    let before = proxy.anonymous_bytes();
    for peer in &mut peers {
        for stream in 1..=STREAMS as u32 {
            let ask = Frame::get(2 * stream + 1, "/silent");
            peer.send(&ask).expect("it is taken");
        }
    }
    let asked = STREAMED * STREAMS;
    eventually("all are asked for", Duration::from_secs(20), || {
        server.connections() as u64 >= connected + asked - 64
            && server.requests().len() as u64 >= asked + STREAMED
    });
    let each = proxy.anonymous_bytes().saturating_sub(before) / asked;
    println!("a stream that waits on {backend:?}, and its upstream connection: {each} bytes");
    assert!(each <= 12 * KIB, "{each} bytes for each stream");
}
