//! Idle connections serve every shard, not only the one that opened them.

use std::net::SocketAddr;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Backend, Client, Column, Proxy, Server, eventually, matrix, on_http1, ports,
};

matrix!(
    each_endpoint_is_reached_by_its_own_connections,
    places_under_the_cap_move_along,
    a_connection_that_has_ended_is_not_handed_over,
);

on_http1!(
    an_upstream_that_serves_one_connection_at_a_time_serves_all_shards,
    an_upstream_that_serves_one_connection_at_a_time_serves_a_crowd,
    an_upstream_that_serves_few_connections_at_a_time_serves_a_crowd,
    few_connections_serve_many_shards_at_little_traffic,
);

const SOON: Duration = Duration::from_secs(5);

fn start(column: impl Into<Column>, workers: u16, upstream: &str) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "workers: {workers}\ndrain_timeout: 2s\n\
         listeners:\n  - {{ name: egress, bind: \"{listen}\", protocol: http }}\n\
         upstreams:\n  web: {{ hosts: [web.test], {upstream} }}\n"
    );
    (Proxy::start(column, &config), listen)
}

fn in_front_of(server: &Server) -> String {
    format!("endpoints: [\"{}\"]", server.address())
}

/// Serves so many connections to their ends before it looks at the next, as a
/// server with as many threads or processes does.
fn at_a_time(connections: usize) -> Server {
    let (free, freed) = (Mutex::new(connections), Condvar::new());
    Server::start(move |connection| {
        let waiting = free.lock().expect("no thread panics with it");
        let waited = freed.wait_while(waiting, |free| *free == 0);
        *waited.expect("no thread panics with it") -= 1;
        let served = connection.serve_http(|_| text("ok"));
        *free.lock().expect("no thread panics with it") += 1;
        freed.notify_one();
        served
    })
}

fn an_upstream_that_serves_one_connection_at_a_time_serves_all_shards(backend: Backend) {
    let server = at_a_time(1);
    let (_proxy, listen) = start(backend, 8, &in_front_of(&server));
    for number in 1..=24 {
        let begun = Instant::now();
        assert_eq!(
            Client::connect(listen).get("/").status,
            200,
            "client {number}"
        );
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "client {number}: {took:?}");
    }
}

/// Clients at once, on every shard: connections are dialled while others are in
/// use, and must not be kept waiting by them afterwards.
#[track_caller]
fn serves_a_crowd(backend: Backend, server: &Server, workers: u16) {
    let (_proxy, listen) = start(backend, workers, &in_front_of(server));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for number in 1..=10 {
                    let begun = Instant::now();
                    assert_eq!(Client::connect(listen).get("/").status, 200);
                    let took = begun.elapsed();
                    assert!(took < Duration::from_secs(4), "request {number}: {took:?}");
                }
            });
        }
    });
}

fn an_upstream_that_serves_one_connection_at_a_time_serves_a_crowd(backend: Backend) {
    for workers in [1, 8] {
        serves_a_crowd(backend, &at_a_time(1), workers);
    }
}

fn an_upstream_that_serves_few_connections_at_a_time_serves_a_crowd(backend: Backend) {
    for workers in [1, 8] {
        serves_a_crowd(backend, &at_a_time(3), workers);
    }
}

fn few_connections_serve_many_shards_at_little_traffic(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = start(backend, 16, &in_front_of(&server));
    for _ in 0..60 {
        assert_eq!(Client::connect(listen).get("/").status, 200);
        // An owner that the machine lets wait is not waited for: its connection
        // closes then, and another takes its place.
        assert!(server.open_connections() <= 4);
    }
    let reuse = proxy.metric("ambassador_pool_reuse_total", &[("upstream", "web")]);
    assert!(reuse >= 40.0, "{reuse} of 60");
    let idle = [("upstream", "web"), ("state", "idle")];
    let open = [("upstream", "web"), ("state", "open")];
    eventually("all are idle", SOON, || {
        let idle = proxy.metric("ambassador_pool_connections", &idle);
        idle >= 1.0 && idle == proxy.metric("ambassador_pool_connections", &open)
    });
}

fn each_endpoint_is_reached_by_its_own_connections(column: Column) {
    let servers = ["one", "two", "three"].map(|name| column.server(move |_| Answer::ok(name)));
    let endpoints: Vec<String> = servers
        .iter()
        .map(|server| format!("\"{}\"", server.address()))
        .collect();
    let upstream = format!(
        "endpoints: [{}], load_balancing: round_robin",
        endpoints.join(", ")
    );
    let (_proxy, listen) = start(column, 8, &upstream);
    let mut answers = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..60 {
        let answer = column.connect(listen).get("/");
        assert_eq!(answer.status, 200);
        *answers.entry(answer.text()).or_default() += 1;
    }
    for (server, name) in servers.iter().zip(["one", "two", "three"]) {
        let asked = server.requests().len();
        assert!(asked > 5 && answers[name] == asked, "{name}: {answers:?}");
        assert!(server.connections() < asked, "{name} is reused");
    }
}

fn places_under_the_cap_move_along(column: Column) {
    let server = column.ok();
    let pool = "pool: { max_connections: 2, max_pending: 50, idle_timeout: 500ms }";
    let upstream = format!("{}, {pool}", in_front_of(&server));
    let (proxy, listen) = start(column, 8, &upstream);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                for _ in 0..25 {
                    assert_eq!(column.connect(listen).get("/").status, 200);
                }
            });
        }
    });
    let open = [("upstream", "web"), ("state", "open")];
    assert!(proxy.metric("ambassador_pool_connections", &open) <= 2.0);
    eventually("every place is given back", SOON, || {
        proxy.metric("ambassador_pool_connections", &open) == 0.0 && server.open_connections() == 0
    });
    assert_eq!(column.connect(listen).get("/").status, 200);
}

fn a_connection_that_has_ended_is_not_handed_over(column: Column) {
    let server = column.script(|exchange| {
        exchange.request()?;
        exchange.send(&Answer::ok("ok"))?;
        exchange.close()
    });
    let (_proxy, listen) = start(column, 8, &in_front_of(&server));
    for _ in 0..40 {
        let answer = column.connect(listen).get("/");
        assert_eq!((answer.status, answer.text()), (200, "ok".into()));
    }
}
