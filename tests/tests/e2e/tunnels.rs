//! Upgrades and CONNECT.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Connection, Exchange, Protocol, Proxy, Server,
    eventually, matrix, on_both_backends, on_http1, ports,
};

matrix!(
    an_upgrade_becomes_a_tunnel,
    bytes_sent_with_the_upgrade_are_not_lost,
    a_refused_upgrade_is_an_answer,
    one_side_of_a_tunnel_can_end_first,
    silence_ends_a_tunnel_after_a_time_of_its_own,
);

on_http1!(an_upgrade_that_is_passed_over_is_an_answer,);

on_both_backends!(connect_becomes_a_tunnel,);

/// No WebSocket, which would have its handshake besides.
const CHAT: &str = "chat";

fn upgrade() -> Call {
    Call::upgrade("/chat", CHAT)
}

/// Switches protocols, then echoes.
pub(crate) fn chat(exchange: &mut Exchange<'_>) -> io::Result<()> {
    if exchange.head().field("upgrade") != Some(CHAT) {
        return exchange.send(&Answer::status(400));
    }
    exchange.switch("")?;
    echo_through(exchange)
}

/// Sends back what comes through a tunnel, until its end.
fn echo_through(exchange: &mut Exchange<'_>) -> io::Result<()> {
    loop {
        let said = exchange.some()?;
        if said.is_empty() {
            exchange.piece("the end")?;
            return exchange.end(&[]);
        }
        exchange.piece(said)?;
    }
}

/// The same of a connection.
pub(crate) fn echo(connection: &mut Connection) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            return connection.write("the end");
        }
        connection.write(&buffer[..count])?;
    }
}

fn an_upgrade_becomes_a_tunnel(column: Column) {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let server = column.script(move |exchange| {
        let said = chat(exchange);
        count.fetch_add(1, Ordering::SeqCst);
        said
    });
    let (_proxy, listen) = column.in_front_of(&server, "");
    let mut client = column.connect(listen);
    let answer = client.open(&upgrade());
    if answer.status == 101 {
        assert_eq!(answer.field("upgrade"), Some(CHAT));
    }
    for message in [&b"hello"[..], &[0, 255, 13, 10, 13, 10, 0], &[7; 3000]] {
        client.piece(message);
        assert_eq!(client.content(message.len()), message);
    }
    client.close();
    let upstream_ended = || ended.load(Ordering::SeqCst) == 1;
    eventually(
        "the upstream side ended",
        Duration::from_secs(5),
        upstream_ended,
    );
}

fn bytes_sent_with_the_upgrade_are_not_lost(column: Column) {
    let server = column.script(|exchange| {
        exchange.switch("early")?;
        echo_through(exchange)
    });
    let (_proxy, listen) = column.in_front_of(&server, "");
    let mut client = column.connect(listen);
    client.open(&upgrade().saying("first"));
    assert_eq!(client.content(10), b"earlyfirst");
}

fn a_refused_upgrade_is_an_answer(column: Column) {
    let server = column.script(|exchange| match exchange.head().field("upgrade") {
        Some(_) => exchange.send(&Answer::status(403).body("no")),
        None => exchange.send(&Answer::ok("ok")),
    });
    let (_proxy, listen) = column.in_front_of(&server, "");
    let mut client = column.connect(listen);
    let answer = client.call(&upgrade());
    assert_eq!((answer.status, &*answer.text()), (403, "no"));
    assert_eq!(client.get("/").text(), "ok", "and requests go on");
}

/// Over HTTP/2 a success is the tunnel.
fn an_upgrade_that_is_passed_over_is_an_answer(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(
        "GET /ws HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert_eq!(client.response("GET").text(), "ok");
    assert_eq!(client.get("/").text(), "ok", "and HTTP goes on");
}

fn connect_becomes_a_tunnel(backend: Backend) {
    let server = Server::echo();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    for protocol in Protocol::ALL {
        let mut client = protocol.connect(listen);
        client.open(&Call::connect("web.test:443"));
        client.piece("not HTTP at all\r\n");
        assert_eq!(client.content(17), b"not HTTP at all\r\n");
    }
}

fn one_side_of_a_tunnel_can_end_first(column: Column) {
    let server = column.script(chat);
    let (_proxy, listen) = column.in_front_of(&server, "");
    let mut client = column.connect(listen);
    client.open(&upgrade());
    client.piece("last words");
    client.end(&[]);
    assert_eq!(client.content(17), b"last wordsthe end");
    assert!(client.is_at_end(), "no reset");
}

fn silence_ends_a_tunnel_after_a_time_of_its_own(column: Column) {
    const TUNNEL: Duration = Duration::from_millis(600);
    for (timeouts, more) in [
        ("timeouts: { idle: 50ms, tunnel: 600ms }", ""),
        (
            "timeouts: { idle: 50ms, tunnel: 1h }",
            "routes: [{ upstream: web, timeouts: { tunnel: 600ms } }]\n",
        ),
    ] {
        for (server, asks, protocol) in [
            (column.script(chat), upgrade(), ""),
            // What is relayed is in no protocol.
            (
                Server::echo(),
                Call::connect("web.test:443"),
                "protocol: auto\n",
            ),
        ] {
            let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
            let of_upstream = format!("{protocol}{timeouts}");
            let config = one_upstream(listen, server.address(), &of_upstream);
            let _proxy = Proxy::start(column, &format!("{config}{more}"));
            let mut client = column.connect(listen);
            client.open(&asks);
            // No later than the last byte passes.
            let silent_since = Instant::now();
            client.piece("hello");
            assert_eq!(client.content(5), b"hello");
            assert!(client.is_reset(), "not the end of what was said");
            assert!(silent_since.elapsed() >= TUNNEL, "{asks:?} {timeouts}");
        }
    }
}
