//! A reload changes the limits of connections that are open already.

use std::net::SocketAddr;
use std::time::Duration;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{Answer, Call, Caller, Column, Proxy, Server, eventually, matrix, ports};

matrix!(
    a_shorter_idle_timeout_ends_what_is_idle,
    a_lower_cap_closes_what_is_above_it,
    a_higher_cap_serves_who_waits,
    a_connection_in_use_above_a_lower_cap_is_not_kept,
    min_idle_is_taken_back,
    every_limit_holds_for_what_is_open_already,
);

const SOON: Duration = Duration::from_secs(5);

struct Scene {
    column: Column,
    server: Server,
    listen: SocketAddr,
    proxy: Proxy,
}

impl Scene {
    fn start(column: Column, server: Server, pool: &str) -> Scene {
        let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let proxy = Proxy::start(column, &config(listen, &server, pool));
        Scene {
            column,
            server,
            listen,
            proxy,
        }
    }

    fn reload(&self, pool: &str) {
        let config = config(self.listen, &self.server, pool);
        let reloads = || self.proxy.metric("ambassador_config_reloads_total", &[]);
        let before = reloads();
        self.proxy.rewrite_config(&config);
        eventually("it is reloaded", SOON, || reloads() > before);
    }

    fn connect(&self) -> Caller {
        self.column.connect(self.listen)
    }

    /// Requests in flight at once, which the server holds until it has all.
    fn at_once(&self, count: usize) -> Vec<Caller> {
        let known = self.server.requests().len();
        let mut clients: Vec<Caller> = (0..count).map(|_| self.connect()).collect();
        for client in &mut clients {
            client.send(&Call::get("/"));
        }
        eventually("all are in flight", SOON, || {
            self.server.requests().len() == known + count
        });
        clients
    }

    fn idle(&self) -> f64 {
        let idle = [("upstream", "web"), ("state", "idle")];
        self.proxy.metric("ambassador_pool_connections", &idle)
    }
}

/// One worker, so that there is one pool; and where requests may share a connection,
/// each has one of its own.
fn config(listen: SocketAddr, server: &Server, pool: &str) -> String {
    let more = format!("pool: {{ {pool} }}\nhttp2: {{ max_streams: 1 }}");
    let config = one_upstream(listen, server.address(), &more);
    format!("workers: 1\n{config}")
}

/// A server that answers when it is told to, once per request.
fn held(column: Column) -> (Server, impl Fn(usize)) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = column.server(move |_| {
        let wait = wait.lock().expect("no panic");
        let _ = wait.recv_timeout(Duration::from_secs(20));
        Answer::ok("ok")
    });
    let answer = move |count| {
        for _ in 0..count {
            go.send(()).expect("the server waits");
        }
    };
    (server, answer)
}

fn a_shorter_idle_timeout_ends_what_is_idle(column: Column) {
    let scene = Scene::start(column, column.ok(), "idle_timeout: 60s");
    assert_eq!(scene.connect().get("/").status, 200);
    assert_eq!(scene.server.open_connections(), 1);
    scene.reload("idle_timeout: 100ms");
    eventually("it was closed", SOON, || {
        scene.server.open_connections() == 0
    });
}

fn a_lower_cap_closes_what_is_above_it(column: Column) {
    for limit in ["max_connections: 1", "max_idle: 1"] {
        let (server, answer) = held(column);
        let scene = Scene::start(column, server, "max_connections: 4");
        let mut clients = scene.at_once(4);
        answer(4);
        for client in &mut clients {
            assert_eq!(client.answer().status, 200);
        }
        eventually("all are idle", SOON, || scene.idle() == 4.0);
        scene.reload(limit);
        eventually("one is left", SOON, || scene.server.open_connections() == 1);
        assert_eq!(scene.idle(), 1.0, "{limit}");
    }
}

fn a_higher_cap_serves_who_waits(column: Column) {
    let (server, answer) = held(column);
    let scene = Scene::start(column, server, "max_connections: 1");
    let mut first = scene.at_once(1);
    let mut second = scene.connect();
    second.send(&Call::get("/"));
    let pending = [("upstream", "web"), ("state", "pending")];
    eventually("it waits", SOON, || {
        scene.proxy.metric("ambassador_pool_connections", &pending) == 1.0
    });
    scene.reload("max_connections: 2");
    eventually("both are in flight", SOON, || {
        scene.server.requests().len() == 2
    });
    answer(2);
    assert_eq!(first[0].answer().status, 200);
    assert_eq!(second.answer().status, 200);
}

fn a_connection_in_use_above_a_lower_cap_is_not_kept(column: Column) {
    let (server, answer) = held(column);
    let scene = Scene::start(column, server, "max_connections: 3");
    let mut clients = scene.at_once(3);
    scene.reload("max_connections: 1");
    assert_eq!(scene.server.open_connections(), 3, "they go on");
    answer(3);
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    eventually("one is left", SOON, || scene.server.open_connections() == 1);
    let mut again = scene.at_once(1);
    answer(1);
    assert_eq!(again[0].answer().status, 200);
    assert_eq!(scene.server.connections(), 3, "none was dialled since");
}

fn min_idle_is_taken_back(column: Column) {
    let pool = "min_idle: 2, idle_timeout: 100ms";
    let scene = Scene::start(column, column.ok(), pool);
    eventually("two are dialled unasked", SOON, || {
        scene.server.open_connections() == 2
    });
    scene.reload("idle_timeout: 100ms");
    eventually("both were closed", SOON, || {
        scene.server.open_connections() == 0
    });
}

/// Each key of `pool` on its own, for a request that began before the reload or for
/// the next one: which limits it began under is of no account.
fn every_limit_holds_for_what_is_open_already(column: Column) {
    higher_max_idle(column);
    lower_max_idle(column);
    higher_max_lifetime(column);
    lower_max_pending(column);
    higher_min_idle(column);
}

fn answer_all(clients: &mut [Caller], answer: impl Fn(usize)) {
    answer(clients.len());
    for client in clients {
        assert_eq!(client.answer().status, 200);
    }
}

fn higher_max_idle(column: Column) {
    let (server, answer) = held(column);
    let scene = Scene::start(column, server, "max_idle: 1");
    let mut clients = scene.at_once(3);
    scene.reload("max_idle: 3");
    answer_all(&mut clients, answer);
    eventually("all are kept", SOON, || scene.idle() == 3.0);
}

fn lower_max_idle(column: Column) {
    let (server, answer) = held(column);
    let scene = Scene::start(column, server, "max_idle: 3");
    let mut clients = scene.at_once(3);
    scene.reload("max_idle: 1");
    answer_all(&mut clients, answer);
    let open = || scene.server.open_connections();
    eventually("one is kept", SOON, || open() == 1);
    assert_eq!(scene.idle(), 1.0);
}

fn higher_max_lifetime(column: Column) {
    let (server, answer) = held(column);
    let scene = Scene::start(column, server, "max_lifetime: 1ms");
    let mut clients = scene.at_once(1);
    scene.reload("max_lifetime: 1h");
    answer_all(&mut clients, &answer);
    let mut again = scene.at_once(1);
    answer_all(&mut again, answer);
    assert_eq!(scene.server.connections(), 1, "it was kept");
}

fn lower_max_pending(column: Column) {
    let (server, answer) = held(column);
    let scene = Scene::start(column, server, "max_connections: 1, max_pending: 2");
    let mut first = scene.at_once(1);
    let mut waiting = scene.connect();
    waiting.send(&Call::get("/"));
    let pending = [("upstream", "web"), ("state", "pending")];
    let pending = || scene.proxy.metric("ambassador_pool_connections", &pending);
    eventually("it waits", SOON, || pending() == 1.0);
    scene.reload("max_connections: 1, max_pending: 1");
    assert_eq!(scene.connect().get("/").status, 503);
    answer_all(&mut first, &answer);
    answer(1);
    assert_eq!(waiting.answer().status, 200, "it goes on waiting");
}

fn higher_min_idle(column: Column) {
    let scene = Scene::start(column, column.ok(), "min_idle: 0");
    scene.reload("min_idle: 2");
    let open = || scene.server.open_connections();
    eventually("two are dialled unasked", SOON, || open() == 2);
}
