//! A second try beside a slow one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ambassador_tests::{Answer, Call, Column, Proxy, Server, eventually, matrix, ports};

matrix!(
    a_slow_answer_is_overtaken_by_another_endpoint,
    the_first_may_win_all_the_same,
    what_changes_something_is_never_in_two_places,
    second_tries_have_a_budget,
    a_percentile_takes_some_answers_to_be_known,
    a_second_try_hides_a_failure_of_the_first,
    a_second_try_has_body_and_trailers_too,
);

const SOON: Duration = Duration::from_secs(10);

/// A proxy in front of two endpoints, the first of which is always asked first.
fn start(column: Column, endpoints: [&Server; 2], hedge: &str) -> (Proxy, SocketAddr) {
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
    (Proxy::start(column, &config), listen)
}

/// Answers once it is let go; and how to do that.
fn stuck(column: Column) -> (Server, Sender<()>) {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let server = column.server(move |_| {
        let _ = held.lock().expect("no panic").recv();
        Answer::ok("late")
    });
    (server, release)
}

fn a_slow_answer_is_overtaken_by_another_endpoint(column: Column) {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let left = Arc::new(AtomicUsize::new(0));
    let leaves = Arc::clone(&left);
    let slow = column.script(move |exchange| {
        exchange.request()?;
        let _ = held.lock().expect("no panic").recv();
        exchange.until_left()?;
        leaves.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let quick = column.ok();
    let hedge = "after: 50ms, budget: 100%";
    let (proxy, listen) = start(column, [&slow, &quick], hedge);
    let mut client = column.connect(listen);
    let started = Instant::now();
    let answer = client.get("/");
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!((slow.requests().len(), quick.requests().len()), (1, 1));
    proxy.expect_metric("ambassador_retries_total", &[("cause", "hedge")], 1.0);
    for (outcome, count) in [("response", 1.0), ("cancelled", 1.0)] {
        let labels = [("outcome", outcome)];
        proxy.expect_metric("ambassador_upstream_attempts_total", &labels, count);
    }
    // The loser was hung up on.
    drop(release);
    eventually("it is given up", SOON, || left.load(Ordering::SeqCst) == 1);
    assert_eq!(
        client.get("/").status,
        200,
        "the client's connection goes on"
    );
}

fn a_second_try_has_body_and_trailers_too(column: Column) {
    let (slow, _release) = stuck(column);
    let quick = column.ok();
    let hedge = "after: 50ms, budget: 100%";
    let (_proxy, listen) = start(column, [&slow, &quick], hedge);
    let call = Call::new("OPTIONS", "/").trailed("something", ("X-Sum", "9"));
    let answer = column.connect(listen).call(&call);
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    let second = quick.last_request();
    assert_eq!(second.body, b"something");
    assert_eq!(second.trailer("x-sum"), Some("9"));
}

fn the_first_may_win_all_the_same(column: Column) {
    let first = column.server(|_| {
        std::thread::sleep(Duration::from_millis(150));
        Answer::ok("first")
    });
    let (slower, _release) = stuck(column);
    let hedge = "after: 20ms, budget: 100%";
    let (_proxy, listen) = start(column, [&first, &slower], hedge);
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, answer.text()), (200, "first".to_owned()));
    assert_eq!(slower.requests().len(), 1);
}

fn what_changes_something_is_never_in_two_places(column: Column) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let slow = column.server(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        Answer::ok("slow")
    });
    let other = column.ok();
    let hedge = "after: 1ms, budget: 100%";
    let (_proxy, listen) = start(column, [&slow, &other], hedge);
    let mut client = column.connect(listen);
    for method in ["POST", "DELETE", "PUT"] {
        let call = Call::new(method, "/")
            .field("Idempotency-Key", "1")
            .body("");
        assert_eq!(client.call(&call).text(), "slow");
    }
    assert_eq!(
        (asked.load(Ordering::SeqCst), other.requests().len()),
        (3, 0)
    );
}

fn second_tries_have_a_budget(column: Column) {
    let slow = column.server(|_| {
        std::thread::sleep(Duration::from_millis(20));
        Answer::ok("slow")
    });
    let quick = column.ok();
    let hedge = "after: 1ms, budget: 10%";
    let (_proxy, listen) = start(column, [&slow, &quick], hedge);
    let mut client = column.connect(listen);
    for _ in 0..60 {
        assert_eq!(client.get("/").status, 200);
    }
    let second = quick.requests().len();
    assert!((3..=6).contains(&second), "{second} of 60");
}

fn a_percentile_takes_some_answers_to_be_known(column: Column) {
    let asked = AtomicUsize::new(0);
    // Quick, but for every tenth answer after the first hundred.
    let server = column.server(move |_| {
        let turn = asked.fetch_add(1, Ordering::SeqCst);
        if turn > 100 && turn.is_multiple_of(10) {
            std::thread::sleep(Duration::from_millis(300));
        }
        Answer::ok("ok")
    });
    let other = column.ok();
    let hedge = "after: p95, budget: 100%";
    let (_proxy, listen) = start(column, [&server, &other], hedge);
    let mut client = column.connect(listen);
    for _ in 0..60 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(other.requests().len(), 0, "nothing is known yet");
    eventually("a slow one is overtaken", SOON, || {
        assert_eq!(client.get("/").status, 200);
        server.requests().len() > 120 && !other.requests().is_empty()
    });
}

fn a_second_try_hides_a_failure_of_the_first(column: Column) {
    let (begin, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    // Resets once the other one was asked.
    let breaks = column.script(move |exchange| {
        exchange.request()?;
        let _ = wait.lock().expect("no panic").recv();
        exchange.reset()
    });
    let begin = Mutex::new(begin);
    let other = column.server(move |_| {
        let _ = begin.lock().expect("no panic").send(());
        std::thread::sleep(Duration::from_millis(50));
        Answer::ok("ok")
    });
    let hedge = "after: 20ms, budget: 100%";
    let (_proxy, listen) = start(column, [&breaks, &other], hedge);
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
}
