//! Idle connections that the upstream is about to give up, or has.

use std::net::SocketAddr;
use std::time::Duration;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::text;
use ambassador_tests::{
    Backend, Client, Column, Proxy, Server, eventually, matrix, on_http1, ports,
};

on_http1!(
    the_keep_alive_timeout_of_the_upstream_is_kept,
    an_upstream_that_takes_no_other_request_gets_none,
    a_408_before_the_request_went_out_is_a_dead_connection,
    a_408_as_a_get_goes_out_is_one_too,
    a_408_with_no_request_outstanding_answers_nothing,
    a_408_that_answers_is_passed_on,
);

matrix!(what_was_dialled_ahead_is_not_reused);

const SOON: Duration = Duration::from_secs(5);

const GIVEN_UP: &str =
    "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// One worker, so that there is one pool.
fn start(backend: Backend, server: &Server, more: &str) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "workers: 1\n{}",
        one_upstream(listen, server.address(), more)
    );
    (Proxy::start(backend, &config), listen)
}

fn keep_alive(terms: &'static str) -> Server {
    Server::http(move |_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive";
        format!("{head}\r\nKeep-Alive: {terms}\r\n\r\nok").into_bytes()
    })
}

fn the_keep_alive_timeout_of_the_upstream_is_kept(backend: Backend) {
    // Long before any limit of the proxy's own, and before the server would.
    let short = keep_alive("timeout=1, max=100");
    let (proxy, listen) = start(backend, &short, "");
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/").status, 200);
    eventually("the proxy closes it", SOON, || {
        short.open_connections() == 0
    });
    let idle = [("upstream", "web"), ("state", "idle")];
    proxy.expect_metric("ambassador_pool_connections", &idle, 0.0);

    let long = keep_alive("timeout=60");
    let (_proxy, listen) = start(backend, &long, "");
    for _ in 0..5 {
        assert_eq!(Client::connect(listen).get("/").status, 200);
    }
    assert_eq!(long.connections(), 1);
}

fn an_upstream_that_takes_no_other_request_gets_none(backend: Backend) {
    for terms in ["timeout=0", "timeout=5, max=0"] {
        let server = keep_alive(terms);
        let (_proxy, listen) = start(backend, &server, "");
        let mut client = Client::connect(listen);
        for _ in 0..3 {
            let answer = client.get("/");
            assert_eq!((answer.status, answer.field("keep-alive")), (200, None));
        }
        assert_eq!(server.connections(), 3, "{terms}");
    }
}

/// Answers the first request of the first connection, then gives that one up when
/// the head of the next is there.
fn gives_up() -> Server {
    Server::start(|connection| {
        if connection.number == 1 {
            connection.request()?;
            connection.write(text("ok"))?;
            connection.head()?;
            connection.write(GIVEN_UP)?;
            return connection.finish();
        }
        connection.serve_http(|request| text(&String::from_utf8_lossy(&request.body)))
    })
}

fn post(fields: &str) -> String {
    format!(
        "POST /2 HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\n{fields}Content-Length: 10\r\n\r\nhello"
    )
}

fn a_408_before_the_request_went_out_is_a_dead_connection(backend: Backend) {
    let server = gives_up();
    let (proxy, listen) = start(backend, &server, "retry: { attempts: 1 }");
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/1").status, 200);
    client.send(post("Idempotency-Key: 1\r\n"));
    eventually("another connection takes it", SOON, || {
        server.connections() == 2
    });
    client.send("world");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.text()), (200, "helloworld".into()));
    let retries = [("upstream", "web"), ("cause", "reset")];
    proxy.expect_metric("ambassador_retries_total", &retries, 1.0);

    // What may not be sent twice is answered with what there is.
    let server = gives_up();
    let (_proxy, listen) = start(backend, &server, "");
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/1").status, 200);
    client.send(post(""));
    assert_eq!(client.response("POST").status, 408);
    assert_eq!(server.connections(), 1);
}

fn a_408_as_a_get_goes_out_is_one_too(backend: Backend) {
    let server = gives_up();
    let (_proxy, listen) = start(backend, &server, "retry: { attempts: 1 }");
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/1").status, 200);
    assert_eq!(client.get("/2").status, 200);
    assert_eq!(server.connections(), 2);
}

fn a_408_with_no_request_outstanding_answers_nothing(backend: Backend) {
    let server = Server::start(|connection| {
        connection.request()?;
        connection.write(text("ok"))?;
        connection.write(GIVEN_UP)
    });
    let (proxy, listen) = start(backend, &server, "");
    let mut client = Client::connect(listen);
    for _ in 0..3 {
        client.send(post(""));
        client.send("world");
        assert_eq!(client.response("POST").status, 200);
        let idle = [("upstream", "web"), ("state", "idle")];
        proxy.expect_metric("ambassador_pool_connections", &idle, 0.0);
    }
}

fn a_408_that_answers_is_passed_on(backend: Backend) {
    // On a connection of its own, and where the upstream goes on with it.
    let fresh = Server::http(|_| GIVEN_UP.into());
    let kept = Server::http(|_| GIVEN_UP.replace("close", "keep-alive").into());
    for (server, connections) in [(fresh, 2), (kept, 1)] {
        let (_proxy, listen) = start(backend, &server, "");
        let mut client = Client::connect(listen);
        for _ in 0..2 {
            assert_eq!(client.get("/").status, 408);
        }
        assert_eq!(
            (server.connections(), server.requests().len()),
            (connections, 2)
        );
    }
}

fn what_was_dialled_ahead_is_not_reused(column: Column) {
    let server = column.ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = one_upstream(listen, server.address(), "pool: { min_idle: 1 }");
    let log = "telemetry: { access_log: { path: stdout, format: json, sample: 100% } }";
    let proxy = Proxy::start(column, &format!("workers: 1\n{log}\n{config}"));
    let idle = [("upstream", "web"), ("state", "idle")];
    proxy.expect_metric("ambassador_pool_connections", &idle, 1.0);
    let mut client = column.connect(listen);
    assert_eq!(client.get("/first").status, 200);
    proxy.expect_metric("ambassador_requests_total", &[("upstream", "web")], 1.0);
    let reuse = [("upstream", "web")];
    assert_eq!(proxy.metric("ambassador_pool_reuse_total", &reuse), 0.0);
    assert_eq!(client.get("/second").status, 200);
    proxy.expect_metric("ambassador_pool_reuse_total", &reuse, 1.0);
    let logged = |path: &str| {
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains(path));
        line.map(|line| line.contains("\"reused\":true"))
    };
    eventually("both are logged", SOON, || logged("/second").is_some());
    assert_eq!(
        (logged("/first"), logged("/second")),
        (Some(false), Some(true))
    );
}
