//! Whose the time is that a TLS connection takes.

use std::time::Duration;

use ambassador_tests::proxy::Scratch;
use ambassador_tests::{Authority, Backend, Client, Proxy, Server, on_both_backends};

use crate::tls_upstream::{config, free, line};

on_both_backends!(a_slow_handshake_is_no_time_of_the_proxy);

/// How long the server thinks before it agrees upon a session.
const THINKS: Duration = Duration::from_millis(500);

fn a_slow_handshake_is_no_time_of_the_proxy(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let secured = std::sync::Arc::new(authority.issue(&["web.test"]).server());
    let server = Server::start(move |connection| {
        std::thread::sleep(THINKS);
        connection.secure(secured.clone())?;
        connection.serve_http(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    let listen = free();
    let tls = format!("tls: {{ ca: {} }}", ca.display());
    let proxy = Proxy::start(backend, &config(listen, server.address(), &tls));
    assert_eq!(Client::connect(listen).get("/slow").status, 200);
    let line = line(&proxy, "/slow");
    let of = |name: &str| Duration::from_secs_f64(line[name].as_f64().unwrap_or_default() / 1e3);
    assert!(of("duration_ms") >= THINKS, "{line}");
    assert!(
        of("overhead_ms") < of("duration_ms") - THINKS * 9 / 10,
        "{line}"
    );
}
