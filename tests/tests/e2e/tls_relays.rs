//! Relays over TLS: what is told of them.

use std::sync::Arc;

use ambassador_tests::proxy::Scratch;
use ambassador_tests::{Authority, Backend, Client, Leaf, Proxy, Server, on_both_backends};
use rustls::version::{TLS12, TLS13};

use crate::tls_listener::named;
use crate::tls_upstream::{HANDSHAKES, free, line_with};

on_both_backends!(
    the_cause_of_a_failed_handshake_is_logged,
    the_certificate_of_the_client_is_logged,
);

/// Whether a connection is reset, which is told once.
fn is_reset(client: &mut Client) -> bool {
    client.try_send("bytes").is_err() || client.rest().is_err()
}

/// What a proxy logs that relays a connection to this server, and passes CONNECT on to it.
fn expect(backend: Backend, server: rustls::ServerConfig, ca: &str, cause: &str) {
    let server = Server::secured(server, |connection| connection.serve_http(|_| Vec::new()));
    let (relayed, asked) = (free(), free());
    let text = format!(
        "telemetry: {{ access_log: {{ path: stdout }} }}\n\
         listeners:\n  - {{ name: relayed, bind: \"{relayed}\", protocol: tcp, upstream: web }}\n\
         {space}- {{ name: asked, bind: \"{asked}\" }}\n\
         upstreams: {{ web: {{ hosts: [web.test], protocol: tcp, endpoints: [\"{}\"], \
         tls: {{ ca: {ca} }} }} }}\n",
        server.address(),
        space = "  ",
    );
    let proxy = Proxy::start(backend, &text);
    let mut client = Client::connect(relayed);
    assert!(is_reset(&mut client), "{cause}");
    let logged = line_with(&proxy, "listener", "relayed");
    assert_eq!(logged["detail"], cause, "{logged}");
    let labels = [("upstream", "web"), ("outcome", cause)];
    proxy.expect_metric(HANDSHAKES, &labels, 1.0);
    let mut client = Client::connect(asked);
    client.send("CONNECT web.test:80 HTTP/1.1\r\nHost: web.test:80\r\n\r\n");
    let answer = client.head();
    if answer.status == 200 {
        assert!(is_reset(&mut client), "{cause}");
    }
    let logged = line_with(&proxy, "listener", "asked");
    assert_eq!(logged["detail"], cause, "{logged}");
    proxy.expect_metric(HANDSHAKES, &labels, 2.0);
}

fn the_cause_of_a_failed_handshake_is_logged(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    let leaf = authority.issue(&["web.test"]);
    let other = Leaf::self_signed(&["web.test"]);
    expect(backend, other.server(), &ca, "unknown-ca");
    let other = authority.issue(&["other.test"]);
    expect(backend, other.server(), &ca, "wrong-name");
    for version in [&TLS12, &TLS13] {
        // Nobody shows it a certificate.
        let server = leaf.server_of(&[version], Some(&authority));
        expect(backend, server, &ca, "refused-by-peer");
    }
}

fn the_certificate_of_the_client_is_logged(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let (cert, key) = authority.issue(&["in.test"]).write(&scratch, "in");
    let (server, listen) = (Server::echo(), free());
    let text = format!(
        "telemetry: {{ access_log: {{ path: stdout }} }}\n\
         listeners: [{{ name: in, bind: \"{listen}\", protocol: tcp, upstream: web, \
         tls: {{ cert: {}, key: {}, client_ca: {} }} }}]\n\
         upstreams: {{ web: {{ endpoints: [\"{}\"] }} }}\n",
        cert.display(),
        key.display(),
        ca.display(),
        server.address()
    );
    let proxy = Proxy::start(backend, &text);
    let shown = named(&authority, "spiffe://peer.test/a");
    let mut client = Client::connect(listen);
    let config = Arc::new(authority.client(Some(&shown)));
    client.secure(config, "in.test").expect("it is let in");
    client.send("bytes");
    assert_eq!(client.exactly(5), b"bytes");
    client.close_write();
    assert_eq!(client.rest().expect("it ends in order"), b"");
    let logged = line_with(&proxy, "listener", "in");
    assert_eq!(logged["peer_id"], "spiffe://peer.test/a", "{logged}");
}
