//! Switches of protocols over HTTP/2, between clients and servers that are not the
//! proxy's: WebSocket over HTTP/1.1 and HTTP/2 on either side, with large messages, pings,
//! codes of who closes, and resets; CONNECT.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;

use ambassador_tests::program::{self, Running};
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Leaf, Proxy, Server, on_both_backends, ports};

use crate::tunnels::echo;

on_both_backends!(
    websockets_pass_between_every_pair_of_protocols,
    an_upstream_without_extended_connect_is_told_of,
    tls_and_requests_go_through_connect_over_http2,
);

const PACKAGES: &str = "h2==4.4.1 websockets==15.0.1 wsproto==1.2.0";

/// A server that does what its clients say.
struct Peer {
    address: SocketAddr,
    _running: Running,
}

impl Peer {
    fn serving(protocol: &str) -> Peer {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let mut server = program::script(PACKAGES, "websocket.py");
        server.args(["serve", protocol, &address.port().to_string()]);
        let mut running = Running::start(server.stdout(Stdio::piped()));
        let mut lines = BufReader::new(running.stdout()).lines();
        let line = lines.next().expect("a line").expect("readable");
        assert_eq!(line, "ready");
        Peer {
            address,
            _running: running,
        }
    }
}

fn talk(protocol: &str, listen: SocketAddr) -> std::process::Command {
    let mut client = program::script(PACKAGES, "websocket.py");
    client.args(["talk", protocol, &listen.port().to_string()]);
    client
}

fn websockets_pass_between_every_pair_of_protocols(backend: Backend) {
    for (upstream, seen) in [
        (
            "http1",
            "/chat?a=b sec-websocket-key sec-websocket-version upgrade x-own",
        ),
        ("http2", "/chat?a=b sec-websocket-version x-own"),
    ] {
        let peer = Peer::serving(upstream);
        let protocol = format!("protocol: {upstream}");
        let (proxy, listen) = Proxy::in_front_of_with(backend, peer.address, &protocol);
        for client in ["http1", "http2"] {
            let said = program::succeed(&mut talk(client, listen));
            assert_eq!(said.trim_end(), seen, "{client} to {upstream}");
        }
        // Of each client: two that end in order, and a reset of either side.
        let tunnels = |outcome| {
            let labels = [("upstream", "web"), ("outcome", outcome)];
            proxy.metric("ambassador_tcp_connections_total", &labels)
        };
        assert!(tunnels("upstream-reset") >= 2.0 && tunnels("client-reset") >= 2.0);
    }
}

fn an_upstream_without_extended_connect_is_told_of(backend: Backend) {
    let peer = Peer::serving("http2-plain");
    let (proxy, listen) = Proxy::in_front_of_with(backend, peer.address, "protocol: http2");
    for client in ["http1", "http2"] {
        let output = program::output(&mut talk(client, listen));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("502"), "{said}");
    }
    let labels = [("upstream", "web"), ("reason", "protocol-error")];
    proxy.expect_metric("ambassador_requests_total", &labels, 2.0);
}

fn tls_and_requests_go_through_connect_over_http2(backend: Backend) {
    let tunnel = |what: &str, listen: SocketAddr| {
        let mut client = program::script(PACKAGES, "tunnel_http2.py");
        program::succeed(client.args([what, &listen.port().to_string(), "web.test:443"]))
    };
    let server = Server::secured(Leaf::self_signed(&["web.test"]).server(), echo);
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    assert_eq!(tunnel("tls", listen), "TLSv1.3\n");
    let labels = [("method", "CONNECT"), ("status", "200")];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);

    let server = Server::http(|request| {
        let team = request.field("x-team").unwrap_or_default();
        text(&format!("{} {team}.", request.target))
    });
    let more = "headers: { set: { x-team: shop } }";
    let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), more);
    assert_eq!(tunnel("http", listen), "/a shop.\n/b shop.\n");
    for (method, requests) in [("CONNECT", 1.0), ("GET", 2.0)] {
        let labels = [("method", method), ("status", "200")];
        proxy.expect_metric("ambassador_requests_total", &labels, requests);
    }
    let relayed = proxy.metric("ambassador_tcp_connections_total", &[]);
    assert_eq!(relayed, 0.0, "nothing was relayed");
}
