//! How much an upstream gets at once, and in a second.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ambassador_tests::server::text;
use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_both_backends, ports};

on_both_backends!(
    requests_in_flight_have_a_limit,
    a_rate_is_kept_by_refusals,
    a_rate_is_kept_by_waiting,
    a_route_has_its_own_rate,
);

fn requests_in_flight_have_a_limit(backend: Backend) {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let server = Server::http(move |_| {
        // Until the test lets go, or is gone.
        let _ = held.lock().expect("no panic").recv();
        text("ok")
    });
    let more = "pool: { max_requests: 2 }";
    let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), more);
    let mut waiting: Vec<Client> = (0..2).map(|_| Client::connect(listen)).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n");
    }
    let open = [("upstream", "web"), ("state", "open")];
    eventually("both are in flight", Duration::from_secs(10), || {
        proxy.metric("ambassador_pool_connections", &open) == 2.0
    });
    let answer = Client::connect(listen).get("/");
    assert_eq!((answer.status, answer.reason()), (503, "overloaded"));
    drop(release);
    for client in &mut waiting {
        assert_eq!(client.response("GET").status, 200);
    }
    assert_eq!(Client::connect(listen).get("/").status, 200);
}

fn a_rate_is_kept_by_refusals(backend: Backend) {
    let server = Server::ok();
    let more = "rate_limit: { requests_per_second: 1, burst: 3 }";
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), more);
    // Over connections of every shard.
    let started = Instant::now();
    let answers: Vec<_> = (0..20).map(|_| Client::connect(listen).get("/")).collect();
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    let due = 3 + started.elapsed().as_secs() as usize;
    assert!((3..=due + 1).contains(&passed), "{passed} of {due}");
    let refused = answers.iter().find(|answer| answer.status != 200);
    let refused = refused.expect("not all pass");
    assert_eq!((refused.status, refused.reason()), (429, "rate-limited"));
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(server.requests().len(), passed);
}

fn a_rate_is_kept_by_waiting(backend: Backend) {
    let server = Server::ok();
    let more = "rate_limit: { requests_per_second: 20, burst: 1, on_limit: wait }";
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), more);
    let started = Instant::now();
    let mut client = Client::connect(listen);
    for _ in 0..11 {
        assert_eq!(client.get("/").status, 200);
    }
    // Ten intervals of 50 ms.
    assert!(started.elapsed() >= Duration::from_millis(490));
}

fn a_route_has_its_own_rate(backend: Backend) {
    let server = Server::ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "listeners:\n  - {{ name: egress, bind: \"{listen}\" }}\n\
         upstreams:\n  web:\n    hosts: [web.test]\n    endpoints: [\"{}\"]\n\
         routes:\n- match: {{ host: web.test, path_prefix: /rare }}\n  upstream: web\n  \
         rate_limit: {{ requests_per_second: 0.01, burst: 1 }}\n",
        server.address()
    );
    let _proxy = Proxy::start(backend, &config);
    let mut client = Client::connect(listen);
    let mut get = |path: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: web.test\r\n\r\n"));
        client.response("GET")
    };
    assert_eq!(get("/rare").status, 200);
    assert_eq!(get("/rare/or/below").reason(), "rate-limited");
    for _ in 0..20 {
        assert_eq!(get("/often").status, 200);
    }
}
