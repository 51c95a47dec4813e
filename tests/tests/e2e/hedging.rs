//! A second try beside a slow one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ambassador_tests::server::text;
use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_both_backends, ports};

on_both_backends!(
    a_slow_answer_is_overtaken_by_another_endpoint,
    the_first_may_win_all_the_same,
    what_changes_something_is_never_in_two_places,
    second_tries_have_a_budget,
    a_percentile_takes_some_answers_to_be_known,
    a_second_try_hides_a_failure_of_the_first,
);

const SOON: Duration = Duration::from_secs(10);

/// A proxy in front of two endpoints, the first of which is always asked first.
fn start(backend: Backend, endpoints: [&Server; 2], hedge: &str) -> (Proxy, SocketAddr) {
    let [near, far] = endpoints.map(Server::address);
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "workers: 1\n\
         listeners: [{{ name: egress, bind: \"{listen}\" }}]\n\
         upstreams:\n  web:\n    hosts: [web.test]\n    zone: a\n    \
         endpoints: [{{ address: \"{near}\", zone: a }}, {{ address: \"{far}\", zone: b }}]\n    \
         hedge: {{ {hedge} }}\n    \
         retry: {{ attempts: 1, methods: [GET, HEAD, OPTIONS, TRACE, DELETE, POST] }}\n    \
         circuit_breaker: {{ failures: off }}\n    outlier: {{ consecutive: off }}\n"
    );
    (Proxy::start(backend, &config), listen)
}

/// Answers once it is let go; and how to do that.
fn stuck() -> (Server, Sender<()>) {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let server = Server::http(move |_| {
        let _ = held.lock().expect("no panic").recv();
        text("late")
    });
    (server, release)
}

fn a_slow_answer_is_overtaken_by_another_endpoint(backend: Backend) {
    let (slow, release) = stuck();
    let quick = Server::ok();
    let hedge = "after: 50ms, budget: 100%";
    let (proxy, listen) = start(backend, [&slow, &quick], hedge);
    let mut client = Client::connect(listen);
    let started = Instant::now();
    let answer = client.get("/");
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!((slow.connections(), quick.requests().len()), (1, 1));
    proxy.expect_metric("ambassador_retries_total", &[("cause", "hedge")], 1.0);
    for (outcome, count) in [("response", 1.0), ("cancelled", 1.0)] {
        let labels = [("outcome", outcome)];
        proxy.expect_metric("ambassador_upstream_attempts_total", &labels, count);
    }
    // The loser was hung up on.
    drop(release);
    eventually("its connection is closed", SOON, || {
        slow.open_connections() == 0
    });
    assert_eq!(
        client.get("/").status,
        200,
        "the client's connection goes on"
    );
}

fn the_first_may_win_all_the_same(backend: Backend) {
    let first = Server::start(|connection| {
        while connection.request()?.is_some() {
            std::thread::sleep(Duration::from_millis(150));
            connection.write(text("first"))?;
        }
        Ok(())
    });
    let (slower, _release) = stuck();
    let hedge = "after: 20ms, budget: 100%";
    let (_proxy, listen) = start(backend, [&first, &slower], hedge);
    let answer = Client::connect(listen).get("/");
    assert_eq!((answer.status, answer.text()), (200, "first".to_owned()));
    assert_eq!(slower.connections(), 1);
}

fn what_changes_something_is_never_in_two_places(backend: Backend) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let slow = Server::http(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        text("slow")
    });
    let other = Server::ok();
    let hedge = "after: 1ms, budget: 100%";
    let (_proxy, listen) = start(backend, [&slow, &other], hedge);
    let mut client = Client::connect(listen);
    for method in ["POST", "DELETE", "PUT"] {
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: web.test\r\nIdempotency-Key: 1\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(client.response(method).text(), "slow");
    }
    assert_eq!(
        (asked.load(Ordering::SeqCst), other.requests().len()),
        (3, 0)
    );
}

fn second_tries_have_a_budget(backend: Backend) {
    let slow = Server::http(|_| {
        std::thread::sleep(Duration::from_millis(20));
        text("slow")
    });
    let quick = Server::ok();
    let hedge = "after: 1ms, budget: 10%";
    let (_proxy, listen) = start(backend, [&slow, &quick], hedge);
    let mut client = Client::connect(listen);
    for _ in 0..60 {
        assert_eq!(client.get("/").status, 200);
    }
    let second = quick.requests().len();
    assert!((3..=6).contains(&second), "{second} of 60");
}

fn a_percentile_takes_some_answers_to_be_known(backend: Backend) {
    let asked = AtomicUsize::new(0);
    // Quick, but for every tenth answer after the first hundred.
    let server = Server::http(move |_| {
        let turn = asked.fetch_add(1, Ordering::SeqCst);
        if turn > 100 && turn.is_multiple_of(10) {
            std::thread::sleep(Duration::from_millis(300));
        }
        text("ok")
    });
    let other = Server::ok();
    let hedge = "after: p95, budget: 100%";
    let (_proxy, listen) = start(backend, [&server, &other], hedge);
    let mut client = Client::connect(listen);
    for _ in 0..60 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(other.requests().len(), 0, "nothing is known yet");
    eventually("a slow one is overtaken", SOON, || {
        assert_eq!(client.get("/").status, 200);
        server.requests().len() > 120 && !other.requests().is_empty()
    });
}

fn a_second_try_hides_a_failure_of_the_first(backend: Backend) {
    let (begin, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    // Resets once the other one was asked.
    let breaks = Server::start(move |connection| {
        connection.request()?;
        let _ = wait.lock().expect("no panic").recv();
        connection.reset()
    });
    let begin = Mutex::new(begin);
    let other = Server::http(move |_| {
        let _ = begin.lock().expect("no panic").send(());
        std::thread::sleep(Duration::from_millis(50));
        text("ok")
    });
    let hedge = "after: 20ms, budget: 100%";
    let (_proxy, listen) = start(backend, [&breaks, &other], hedge);
    let answer = Client::connect(listen).get("/");
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
}
