//! Upgrades and CONNECT.

use std::time::{Duration, Instant};

use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_http1};

on_http1!(
    an_upgrade_becomes_a_tunnel,
    bytes_sent_with_the_upgrade_are_not_lost,
    a_refused_upgrade_is_an_answer,
    connect_becomes_a_tunnel,
    one_side_of_a_tunnel_can_end_first,
    silence_ends_a_tunnel_after_a_time_of_its_own,
);

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Switches protocols, then echoes.
fn websocket() -> Server {
    Server::start(|connection| {
        let request = connection
            .request()?
            .ok_or(std::io::ErrorKind::UnexpectedEof)?;
        if request.field("upgrade") != Some("websocket") {
            return connection.write("HTTP/1.1 400 No Upgrade\r\nContent-Length: 0\r\n\r\n");
        }
        connection.write(SWITCH)?;
        echo(connection)
    })
}

pub(crate) fn echo(connection: &mut ambassador_tests::Connection) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            return connection.write("the end");
        }
        connection.write(&buffer[..count])?;
    }
}

fn an_upgrade_becomes_a_tunnel(backend: Backend) {
    let server = websocket();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(UPGRADE);
    let answer = client.response("GET");
    assert_eq!(
        (answer.status, answer.field("upgrade")),
        (101, Some("websocket"))
    );
    for message in [&b"hello"[..], &[0, 255, 13, 10, 13, 10, 0], &[7; 3000]] {
        client.send(message);
        assert_eq!(client.exactly(message.len()), message);
    }
    drop(client);
    eventually("the upstream side ended", Duration::from_secs(5), || {
        server.open_connections() == 0
    });
}

fn bytes_sent_with_the_upgrade_are_not_lost(backend: Backend) {
    let server = Server::start(|connection| {
        connection.request()?;
        connection.write(format!("{SWITCH}early"))?;
        echo(connection)
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(format!("{UPGRADE}first"));
    assert_eq!(client.response("GET").status, 101);
    assert_eq!(client.exactly(10), b"earlyfirst");
}

fn a_refused_upgrade_is_an_answer(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(UPGRADE);
    assert_eq!(client.response("GET").text(), "ok");
    assert_eq!(client.get("/").text(), "ok", "and HTTP goes on");
}

fn connect_becomes_a_tunnel(backend: Backend) {
    let server = Server::echo();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send("CONNECT web.test:443 HTTP/1.1\r\nHost: web.test:443\r\n\r\n");
    assert_eq!(client.response("CONNECT").status, 200);
    client.send("not HTTP at all\r\n");
    assert_eq!(client.exactly(17), b"not HTTP at all\r\n");
}

fn one_side_of_a_tunnel_can_end_first(backend: Backend) {
    let server = websocket();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(UPGRADE);
    assert_eq!(client.response("GET").status, 101);
    client.send("last words");
    client.finish();
    assert_eq!(
        client.rest().expect("a FIN, not a reset"),
        b"last wordsthe end"
    );
}

fn silence_ends_a_tunnel_after_a_time_of_its_own(backend: Backend) {
    const TUNNEL: Duration = Duration::from_millis(600);
    let connect = "CONNECT web.test:443 HTTP/1.1\r\nHost: web.test:443\r\n\r\n";
    for (timeouts, more) in [
        ("timeouts: { idle: 50ms, tunnel: 600ms }", ""),
        (
            "timeouts: { idle: 50ms, tunnel: 1h }",
            "routes: [{ upstream: web, timeouts: { tunnel: 600ms } }]\n",
        ),
    ] {
        for (server, asks, method) in [
            (websocket(), UPGRADE, "GET"),
            (Server::echo(), connect, "CONNECT"),
        ] {
            let (_proxy, listen) = in_front_of(backend, server.address(), timeouts, more);
            let mut client = Client::connect(listen);
            client.send(asks);
            assert!(matches!(client.response(method).status, 101 | 200));
            // No later than the last byte passes.
            let silent_since = Instant::now();
            client.send("hello");
            assert_eq!(client.exactly(5), b"hello");
            client
                .rest()
                .expect_err("a reset, not the end of what was said");
            assert!(silent_since.elapsed() >= TUNNEL, "{asks:?} {timeouts}");
        }
    }
}

fn in_front_of(
    backend: Backend,
    endpoint: std::net::SocketAddr,
    timeouts: &str,
    more: &str,
) -> (Proxy, std::net::SocketAddr) {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], ambassador_tests::ports::free()));
    let config = ambassador_tests::proxy::one_upstream(listen, endpoint, timeouts);
    (Proxy::start(backend, &format!("{config}{more}")), listen)
}
