//! Upstream connections: kept, limited, replaced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Backend, Call, Caller, Client, Column, Proxy, Server, eventually, matrix, on_http1,
    ports,
};

matrix!(
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
);

on_http1!(bytes_after_an_answer_end_the_connection);

const SOON: Duration = Duration::from_secs(5);

/// Where requests may share a connection, each has one of its own.
const APART: &str = "http2: { max_streams: 1 }";

/// One worker, so that there is one pool.
fn start(column: impl Into<Column>, server: &Server, more: &str) -> (Proxy, std::net::SocketAddr) {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "workers: 1\n{}",
        one_upstream(listen, server.address(), more)
    );
    (Proxy::start(column, &config), listen)
}

fn clients_share_upstream_connections(column: Column) {
    let server = column.ok();
    let (proxy, listen) = start(column, &server, "");
    for _ in 0..10 {
        assert_eq!(column.connect(listen).get("/").status, 200);
    }
    assert_eq!(server.connections(), 1);
    proxy.expect_metric("ambassador_pool_reuse_total", &[("upstream", "web")], 9.0);
    let idle = [("upstream", "web"), ("state", "idle")];
    proxy.expect_metric("ambassador_pool_connections", &idle, 1.0);
}

fn a_closed_idle_connection_is_not_reused(column: Column) {
    let server = column.script(|exchange| {
        exchange.request()?;
        exchange.send(&Answer::ok("ok"))?;
        exchange.close()
    });
    let (proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    for number in 1..=5 {
        let answer = client.call(&Call::post("/", "hi"));
        assert_eq!(answer.status, 200, "request {number}");
        let open = [("upstream", "web"), ("state", "open")];
        eventually("its close was seen", SOON, || {
            proxy.metric("ambassador_pool_connections", &open) == 0.0
        });
    }
    assert_eq!(server.connections(), 5);
}

/// Answers the first request of the first connection, then dies on the next.
fn dies_on_reuse(column: Column) -> Server {
    column.script(|exchange| {
        let target = exchange.request()?.target;
        if exchange.connection == 1 && target == "/2" {
            return exchange.break_off();
        }
        exchange.send(&Answer::ok("again"))
    })
}

fn a_get_on_a_dying_connection_is_replayed(column: Column) {
    let server = dies_on_reuse(column);
    let (_proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
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

fn a_post_on_a_dying_connection_is_not(column: Column) {
    let server = dies_on_reuse(column);
    let (_proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    assert_eq!(client.get("/1").status, 200);
    let answer = client.call(&Call::post("/2", "hi"));
    assert_eq!((answer.status, answer.reason()), (502, "upstream-reset"));
    assert_eq!(server.requests().len(), 2, "seen once");
}

fn idle_connections_are_given_up(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = start(column, &server, "pool: { idle_timeout: 200ms }");
    assert_eq!(column.connect(listen).get("/").status, 200);
    eventually("the pool let go", SOON, || server.open_connections() == 0);
}

/// A server whose answers wait until the gate opens.
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn server(column: Column) -> (Server, Gate) {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let inner = Arc::clone(&gate);
        let server = column.server(move |_| {
            let open = inner.0.lock().expect("no panic");
            let limit = Duration::from_secs(20);
            drop(
                inner
                    .1
                    .wait_timeout_while(open, limit, |open| !*open)
                    .expect("no panic"),
            );
            Answer::ok("ok")
        });
        (server, Gate(gate))
    }

    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }
}

fn max_connections_makes_requests_wait(column: Column) {
    let (server, gate) = Gate::server(column);
    let (proxy, listen) = start(
        column,
        &server,
        &format!("{APART}\npool: {{ max_connections: 2, max_pending: 50 }}"),
    );
    let mut clients: Vec<Caller> = (0..8).map(|_| column.connect(listen)).collect();
    for client in &mut clients {
        client.send(&Call::get("/"));
    }
    let pending = [("upstream", "web"), ("state", "pending")];
    eventually("six wait", SOON, || {
        proxy.metric("ambassador_pool_connections", &pending) == 6.0
    });
    assert_eq!(server.connections(), 2);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(server.connections(), 2);
}

fn a_connection_serves_a_queue_to_its_end(column: Column) {
    let server = column.ok();
    let (proxy, listen) = start(
        column,
        &server,
        &format!("{APART}\npool: {{ max_connections: 2 }}"),
    );
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut client = column.connect(listen);
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

fn max_pending_makes_requests_fail(column: Column) {
    let (server, gate) = Gate::server(column);
    let (_proxy, listen) = start(
        column,
        &server,
        &format!("{APART}\npool: {{ max_connections: 1, max_pending: 2 }}"),
    );
    let (answered, answers) = std::sync::mpsc::channel();
    for _ in 0..5 {
        let answered = answered.clone();
        std::thread::spawn(move || {
            let answer = column.connect(listen).get("/");
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

fn min_idle_is_kept_warm(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = start(column, &server, "pool: { min_idle: 3 }");
    eventually("three are dialled unasked", SOON, || {
        server.open_connections() == 3
    });
    assert_eq!(column.connect(listen).get("/").status, 200);
    assert!(server.open_connections() >= 3);
}

fn max_lifetime_ends_a_connection(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = start(column, &server, "pool: { max_lifetime: 300ms }");
    let mut client = column.connect(listen);
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
