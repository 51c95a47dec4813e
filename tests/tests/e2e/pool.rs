//! Upstream connections: kept, limited, replaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ambassador_tests::client::get;
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_http1, ports};

on_http1!(
    clients_share_upstream_connections,
    a_closed_idle_connection_is_not_reused,
    a_get_on_a_dying_connection_is_replayed,
    a_post_on_a_dying_connection_is_not,
    idle_connections_are_given_up,
    max_connections_makes_requests_wait,
    a_connection_serves_a_queue_to_its_end,
    max_pending_makes_requests_fail,
    min_idle_is_kept_warm,
    max_lifetime_ends_a_connection,
    bytes_after_an_answer_end_the_connection,
);

const SOON: Duration = Duration::from_secs(5);

/// One worker, so that there is one pool.
fn start(backend: Backend, server: &Server, more: &str) -> (Proxy, std::net::SocketAddr) {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "workers: 1\n{}",
        one_upstream(listen, server.address(), more)
    );
    (Proxy::start(backend, &config), listen)
}

fn clients_share_upstream_connections(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = start(backend, &server, "");
    for _ in 0..10 {
        assert_eq!(Client::connect(listen).get("/").status, 200);
    }
    assert_eq!(server.connections(), 1);
    proxy.expect_metric("ambassador_pool_reuse_total", &[("upstream", "web")], 9.0);
    let idle = [("upstream", "web"), ("state", "idle")];
    proxy.expect_metric("ambassador_pool_connections", &idle, 1.0);
}

fn a_closed_idle_connection_is_not_reused(backend: Backend) {
    let server = Server::start(|connection| {
        connection.request()?;
        connection.write(text("ok"))
    });
    let (proxy, listen) = start(backend, &server, "");
    let mut client = Client::connect(listen);
    for number in 1..=5 {
        let mut post = String::from("POST / HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\n");
        post.push_str("Content-Length: 2\r\n\r\nhi");
        client.send(post);
        assert_eq!(client.response("POST").status, 200, "request {number}");
        let idle = [("upstream", "web"), ("state", "idle")];
        eventually("its close was seen", SOON, || {
            proxy.metric("ambassador_pool_connections", &idle) == 0.0
        });
    }
    assert_eq!(server.connections(), 5);
}

/// Answers the first request of the first connection, then dies on the next.
fn dies_on_reuse() -> Server {
    Server::start(|connection| {
        connection.request()?;
        connection.write(text("ok"))?;
        if connection.number == 1 {
            connection.request()?;
            return connection.reset();
        }
        connection.serve_http(|_| text("again"))
    })
}

fn a_get_on_a_dying_connection_is_replayed(backend: Backend) {
    let server = dies_on_reuse();
    let (_proxy, listen) = start(backend, &server, "");
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/1").status, 200);
    let answer = client.get("/2");
    assert_eq!((answer.status, answer.reason()), (200, ""));
    let targets: Vec<String> = server
        .requests()
        .into_iter()
        .map(|request| request.target)
        .collect();
    assert_eq!(targets, ["/1", "/2", "/2"]);
}

fn a_post_on_a_dying_connection_is_not(backend: Backend) {
    let server = dies_on_reuse();
    let (_proxy, listen) = start(backend, &server, "");
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/1").status, 200);
    client
        .send("POST /2 HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\nContent-Length: 2\r\n\r\nhi");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.reason()), (502, "upstream-reset"));
    assert_eq!(server.requests().len(), 2, "seen once");
}

fn idle_connections_are_given_up(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = start(backend, &server, "pool: { idle_timeout: 200ms }");
    assert_eq!(Client::connect(listen).get("/").status, 200);
    eventually("the pool let go", SOON, || server.open_connections() == 0);
}

/// A server whose answers wait until the gate opens.
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn server() -> (Server, Gate) {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let inner = Arc::clone(&gate);
        let server = Server::http(move |_| {
            let open = inner.0.lock().expect("no panic");
            let limit = Duration::from_secs(20);
            drop(
                inner
                    .1
                    .wait_timeout_while(open, limit, |open| !*open)
                    .expect("no panic"),
            );
            text("ok")
        });
        (server, Gate(gate))
    }

    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }
}

fn max_connections_makes_requests_wait(backend: Backend) {
    let (server, gate) = Gate::server();
    let (proxy, listen) = start(
        backend,
        &server,
        "pool: { max_connections: 2, max_pending: 50 }",
    );
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(listen)).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    let pending = [("upstream", "web"), ("state", "pending")];
    eventually("six wait", SOON, || {
        proxy.metric("ambassador_pool_connections", &pending) == 6.0
    });
    assert_eq!(server.connections(), 2);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").status, 200);
    }
    assert_eq!(server.connections(), 2);
}

fn a_connection_serves_a_queue_to_its_end(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = start(backend, &server, "pool: { max_connections: 2 }");
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut client = Client::connect(listen);
                for _ in 0..20 {
                    assert_eq!(client.get("/").status, 200);
                }
            });
        }
    });
    assert_eq!(server.connections(), 2, "none was closed and dialled anew");
    proxy.expect_metric("ambassador_pool_reuse_total", &[("upstream", "web")], 398.0);
    let idle = [("upstream", "web"), ("state", "idle")];
    proxy.expect_metric("ambassador_pool_connections", &idle, 2.0);
}

fn max_pending_makes_requests_fail(backend: Backend) {
    let (server, gate) = Gate::server();
    let (_proxy, listen) = start(
        backend,
        &server,
        "pool: { max_connections: 1, max_pending: 2 }",
    );
    let (answered, answers) = std::sync::mpsc::channel();
    for _ in 0..5 {
        let answered = answered.clone();
        std::thread::spawn(move || {
            let answer = Client::connect(listen).get("/");
            let _ = answered.send((answer.status, answer.reason().to_owned()));
        });
    }
    let patience = Duration::from_secs(20);
    for _ in 0..2 {
        let answer = answers.recv_timeout(patience).expect("an answer at once");
        assert_eq!(answer, (503, "overloaded".to_owned()));
    }
    gate.open();
    for _ in 0..3 {
        let answer = answers.recv_timeout(patience).expect("the gate is open");
        assert_eq!(answer, (200, String::new()));
    }
}

fn min_idle_is_kept_warm(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = start(backend, &server, "pool: { min_idle: 3 }");
    eventually("three are dialled unasked", SOON, || {
        server.open_connections() == 3
    });
    assert_eq!(Client::connect(listen).get("/").status, 200);
    assert!(server.open_connections() >= 3);
}

fn max_lifetime_ends_a_connection(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = start(backend, &server, "pool: { max_lifetime: 300ms }");
    let mut client = Client::connect(listen);
    eventually("a second connection was needed", SOON, || {
        assert_eq!(client.get("/").status, 200);
        server.connections() >= 2
    });
}

fn bytes_after_an_answer_end_the_connection(backend: Backend) {
    // A second answer that nobody asked for must not answer the next request.
    let poisoned = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&poisoned);
    let server = Server::start(move |connection| {
        connection.serve_http(|_| {
            let mut bytes = text("good");
            if !once.swap(true, Ordering::SeqCst) {
                bytes.extend(text("evil"));
            }
            bytes
        })
    });
    let (_proxy, listen) = start(backend, &server, "");
    let mut client = Client::connect(listen);
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "good");
    }
    assert!(poisoned.load(Ordering::SeqCst));
    assert_eq!(server.connections(), 2);
}
