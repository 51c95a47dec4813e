//! How long a request, a try and a silence may last.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ambassador_tests::server::text;
use ambassador_tests::{Backend, Client, Proxy, Server, on_both_backends};

on_both_backends!(
    a_request_that_is_not_answered_in_time,
    a_try_that_takes_too_long_is_followed_by_another,
    the_last_try_says_that_it_took_too_long,
    a_first_byte_has_a_limit_of_its_own,
    an_upload_uses_up_no_time,
    a_stream_is_not_cut_once_it_has_begun,
);

/// Reads requests and never answers.
fn silent() -> Server {
    Server::start(|connection| {
        while connection.request()?.is_some() {}
        Ok(())
    })
}

fn start(backend: Backend, server: &Server, more: &str) -> (Proxy, SocketAddr) {
    let more = format!("circuit_breaker: {{ failures: off }}\n{more}");
    Proxy::in_front_of_with(backend, server.address(), &more)
}

fn a_request_that_is_not_answered_in_time(backend: Backend) {
    let server = silent();
    let (_proxy, listen) = start(backend, &server, "timeouts: { request: 300ms }");
    let mut client = Client::connect(listen);
    let started = Instant::now();
    let answer = client.get("/");
    assert_eq!((answer.status, answer.reason()), (504, "request-timeout"));
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(server.requests().len(), 1);
    // The client's connection is none the worse for it.
    assert_eq!(client.get("/").status, 504);
}

fn a_try_that_takes_too_long_is_followed_by_another(backend: Backend) {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |connection| {
        while connection.request()?.is_some() {
            if asked.fetch_add(1, Ordering::SeqCst) > 0 {
                connection.write(text("at last"))?;
            }
        }
        Ok(())
    });
    let more = "timeouts: { per_try: 200ms }\nretry: { base: 1ms }";
    let (proxy, listen) = start(backend, &server, more);
    let answer = Client::connect(listen).get("/");
    assert_eq!((answer.status, answer.text()), (200, "at last".to_owned()));
    let cause = [("cause", "try-timeout")];
    proxy.expect_metric("ambassador_retries_total", &cause, 1.0);
}

fn the_last_try_says_that_it_took_too_long(backend: Backend) {
    let server = silent();
    let more = "timeouts: { per_try: 100ms }\nretry: { base: 1ms, attempts: 2 }";
    let (proxy, listen) = start(backend, &server, more);
    let mut client = Client::connect(listen);
    let answer = client.get("/");
    assert_eq!((answer.status, answer.reason()), (504, "try-timeout"));
    let tries = [("outcome", "try-timeout")];
    proxy.expect_metric("ambassador_upstream_attempts_total", &tries, 2.0);
    client.send("POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 0\r\n\r\n");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.reason()), (504, "try-timeout"));
    assert_eq!(server.requests().len(), 3, "the POST was sent once");
}

fn a_first_byte_has_a_limit_of_its_own(backend: Backend) {
    // Begins at once, and takes its time.
    let server = Server::start(|connection| {
        while connection.request()?.is_some() {
            let answer = text("slow");
            let (first, rest) = answer.split_at(10);
            connection.write(first)?;
            std::thread::sleep(Duration::from_millis(400));
            connection.write(rest)?;
        }
        Ok(())
    });
    let (_proxy, listen) = start(backend, &server, "timeouts: { first_byte: 200ms }");
    assert_eq!(Client::connect(listen).get("/").status, 200);

    let server = silent();
    let more = "timeouts: { first_byte: 100ms }\nretry: { attempts: 1 }";
    let (_proxy, listen) = start(backend, &server, more);
    let answer = Client::connect(listen).get("/");
    assert_eq!((answer.status, answer.reason()), (504, "try-timeout"));
}

fn an_upload_uses_up_no_time(backend: Backend) {
    let server = Server::ok();
    let more = "timeouts: { request: 300ms, per_try: 300ms }";
    let (_proxy, listen) = start(backend, &server, more);
    let mut client = Client::connect(listen);
    client.send("POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 4\r\n\r\n");
    let started = Instant::now();
    for byte in ["s", "l", "o", "w"] {
        std::thread::sleep(Duration::from_millis(150));
        client.send(byte);
    }
    assert_eq!(client.response("POST").status, 200);
    assert!(started.elapsed() >= Duration::from_millis(600));
    assert_eq!(server.last_request().body, b"slow");

    // Once it is up, the time runs.
    let server = silent();
    let (_proxy, listen) = start(backend, &server, more);
    let mut client = Client::connect(listen);
    client.send("POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 2\r\n\r\nx");
    std::thread::sleep(Duration::from_millis(400));
    client.send("y");
    let answer = client.response("POST");
    assert_eq!(answer.status, 504);
}

fn a_stream_is_not_cut_once_it_has_begun(backend: Backend) {
    let server = Server::start(|connection| {
        while connection.request()?.is_some() {
            connection.write(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                 Transfer-Encoding: chunked\r\n\r\n",
            )?;
            for _ in 0..6 {
                std::thread::sleep(Duration::from_millis(100));
                connection.write("8\r\ndata: x\n\r\n")?;
            }
            connection.write("0\r\n\r\n")?;
        }
        Ok(())
    });
    let more = "timeouts: { request: 200ms, per_try: 200ms, first_byte: 200ms }";
    let (_proxy, listen) = start(backend, &server, more);
    let answer = Client::connect(listen).get("/");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "data: x\n".repeat(6));
}
