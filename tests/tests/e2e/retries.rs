//! Requests that are tried again, and those that must not be. What the upstream
//! has counted decides.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Proxy, Server, matrix, on_http1, ports,
};

matrix!(
    a_refusal_is_hidden_by_a_second_try,
    attempts_count_the_first_and_the_last_answer_is_returned,
    a_post_is_sent_once_whatever_the_answer,
    a_post_with_a_key_is_tried_again_with_its_body,
    a_cut_body_is_not_tried_again,
    a_connect_that_fails_is_tried_at_another_endpoint,
    a_post_that_reached_nobody_is_tried_again,
    retry_after_is_waited_for_in_seconds_and_dates,
    what_cannot_end_in_time_is_answered_at_once,
    a_large_body_is_streamed_and_sent_once,
    a_body_in_pieces_is_kept_up_to_the_limit,
    the_budget_bounds_what_is_tried_again,
    a_route_has_its_own_retries,
    a_client_that_goes_ends_the_tries,
    one_request_id_for_all_tries,
    nothing_is_tried_again_after_an_interim_response,
    what_fails_for_want_of_budget_says_so,
    it_says_when_the_circuit_opened_between_tries,
    a_get_is_tried_again_under_resets_at_every_byte_of_the_head,
    uploads_that_break_off_are_sent_once,
);

on_http1!(a_post_is_sent_once_under_resets_at_every_byte,);

/// What is said once more than once in these tests: no wait, no breaker.
const QUICK: &str = "base: 1ms, cap: 5s, budget: { ratio: 100%, min_per_second: 1000 }";

/// A proxy in front of `server`, which is never left alone; `retry` is more of
/// the upstream's `retry`.
fn start(column: impl Into<Column>, server: &Server, retry: &str) -> (Proxy, SocketAddr) {
    let more = format!("retry: {{ {QUICK}{retry} }}\ncircuit_breaker: {{ failures: off }}");
    Proxy::in_front_of_with(column, server.address(), &more)
}

/// Answers with the statuses in turn, then with 200.
fn in_turn(column: Column, statuses: &'static [u16]) -> Server {
    let asked = AtomicUsize::new(0);
    column.server(move |_| {
        let turn = asked.fetch_add(1, Ordering::SeqCst);
        match statuses.get(turn) {
            Some(status) => Answer::status(*status).body("not now"),
            None => Answer::ok("ok"),
        }
    })
}

/// The bytes of a POST.
fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /x HTTP/1.1\r\nHost: web.test\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn a_refusal_is_hidden_by_a_second_try(column: Column) {
    let server = in_turn(column, &[503, 429]);
    let (proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    let answer = client.get("/");
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    assert_eq!(server.requests().len(), 3);
    for cause in ["503", "429"] {
        let labels = [("upstream", "web"), ("cause", cause)];
        proxy.expect_metric("ambassador_retries_total", &labels, 1.0);
    }
    let responses = [("upstream", "web"), ("outcome", "response")];
    proxy.expect_metric("ambassador_upstream_attempts_total", &responses, 3.0);
    // What was answered and given up did not cost the connection.
    assert_eq!(server.connections(), 1);
    assert_eq!(client.get("/").status, 200);
}

fn attempts_count_the_first_and_the_last_answer_is_returned(column: Column) {
    let server = column.server(|_| {
        Answer::status(503)
            .field("X-Own", "yes")
            .body("my own words")
    });
    for (attempts, expected) in [(1, 1), (2, 2), (5, 5)] {
        let before = server.requests().len();
        let (_proxy, listen) = start(column, &server, &format!(", attempts: {attempts}"));
        let answer = column.connect(listen).get("/");
        assert_eq!((answer.status, answer.reason()), (503, ""));
        assert_eq!(answer.text(), "my own words");
        assert_eq!(answer.field("x-own"), Some("yes"));
        assert_eq!(server.requests().len() - before, expected);
    }
}

fn a_post_is_sent_once_whatever_the_answer(column: Column) {
    for status in [503, 429] {
        let server = column.server(move |_| Answer::status(status));
        let (_proxy, listen) = start(column, &server, "");
        let answer = column.connect(listen).call(&Call::post("/x", "pay"));
        assert_eq!(answer.status, status);
        assert_eq!(server.requests().len(), 1);
    }
}

fn a_post_with_a_key_is_tried_again_with_its_body(column: Column) {
    let server = in_turn(column, &[503]);
    let (_proxy, listen) = start(column, &server, "");
    let pay = Call::post("/x", "pay 7").field("Idempotency-Key", "1");
    assert_eq!(column.connect(listen).call(&pay).status, 200);
    let bodies: Vec<_> = server.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies, [b"pay 7", b"pay 7"]);
}

/// Reads requests whole, and resets each connection after so many bytes of its
/// answer, as many as the number says at that time.
fn cut_after(bytes: &Arc<AtomicUsize>) -> (Server, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let (bytes, count) = (Arc::clone(bytes), Arc::clone(&seen));
    let server = Server::start(move |connection| {
        if connection.request()?.is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            connection.write(&text("an answer")[..bytes.load(Ordering::SeqCst)])?;
        }
        connection.reset()
    });
    (server, seen)
}

fn a_post_is_sent_once_under_resets_at_every_byte(backend: Backend) {
    // At every byte of the request: it is read in part, then reset.
    let request = post("pay");
    let (cut, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (wanted, count) = (Arc::clone(&cut), Arc::clone(&seen));
    let server = Server::start(move |connection| {
        let mut left = wanted.load(Ordering::SeqCst);
        while left > 0 {
            match connection.read(&mut vec![0; left])? {
                0 => return Ok(()),
                read => left -= read,
            }
        }
        count.fetch_add(1, Ordering::SeqCst);
        connection.reset()
    });
    let (_proxy, listen) = start(backend, &server, "");
    for bytes in 1..=request.len() {
        cut.store(bytes, Ordering::SeqCst);
        let mut client = Client::connect(listen);
        client.send(&request);
        let answer = client.response("POST");
        assert_eq!(
            (answer.status, answer.reason()),
            (502, "upstream-reset"),
            "{bytes}"
        );
        let seen = seen.load(Ordering::SeqCst);
        assert_eq!(seen, bytes, "byte {bytes} of the request");
    }
    // At every byte of the answer, short of the last.
    let cut = Arc::new(AtomicUsize::new(0));
    let (server, seen) = cut_after(&cut);
    let (_proxy, listen) = start(backend, &server, "");
    for bytes in 0..text("an answer").len() {
        cut.store(bytes, Ordering::SeqCst);
        let mut client = Client::connect(listen);
        client.send(&request);
        client.finish();
        // Whole or not: what counts is what the upstream saw.
        let _ = client.rest();
        assert_eq!(
            seen.load(Ordering::SeqCst),
            bytes + 1,
            "byte {bytes} of the answer"
        );
    }
}

fn a_get_is_tried_again_under_resets_at_every_byte_of_the_head(column: Column) {
    let cut = Arc::new(AtomicUsize::new(0));
    let wholes = Arc::new(Mutex::new(Vec::new()));
    let (wanted, told) = (Arc::clone(&cut), Arc::clone(&wholes));
    let server = column.script(move |exchange| {
        exchange.request()?;
        let answer = Answer::ok("an answer");
        let is_whole = exchange.send_part(&answer, 0..wanted.load(Ordering::SeqCst))?;
        told.lock()
            .expect("no thread panics with it")
            .push(is_whole);
        exchange.break_off()
    });
    let (_proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    let seen = || std::mem::take(&mut *wholes.lock().expect("no thread panics with it"));
    for bytes in 0.. {
        cut.store(bytes, Ordering::SeqCst);
        client.send(&Call::get("/"));
        let Some(answer) = client.try_answer() else {
            break;
        };
        let said = (answer.status, answer.reason());
        assert_eq!(said, (502, "upstream-reset"), "{bytes}");
        assert_eq!(seen(), [false; 3], "cut after {bytes}");
    }
    // What has its head, and not the rest, goes on as it is.
    assert_eq!(seen(), [true]);
}

fn a_cut_body_is_not_tried_again(column: Column) {
    let server = column.script(|exchange| {
        exchange.request()?;
        exchange.send(&Answer::status(200).announces(9))?;
        exchange.piece("an ans")?;
        exchange.reset()
    });
    let (_proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    assert!(client.try_answer().is_none(), "it is not whole");
    assert_eq!(server.requests().len(), 1);
}

fn two_endpoints(listen: SocketAddr, endpoints: [SocketAddr; 2], more: &str) -> String {
    let [one, two] = endpoints;
    format!(
        "workers: 1\n\
         listeners:\n  - {{ name: egress, bind: \"{listen}\", protocol: http }}\n\
         upstreams:\n  web:\n    hosts: [web.test]\n    endpoints: [\"{one}\", \"{two}\"]\n{more}"
    )
}

/// An address that refuses connections.
fn refusing() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

fn a_connect_that_fails_is_tried_at_another_endpoint(column: Column) {
    let server = column.ok();
    let listen = refusing();
    let more = format!("    retry: {{ {QUICK} }}\n    circuit_breaker: {{ failures: off }}\n");
    let config = two_endpoints(listen, [refusing(), server.address()], &more);
    let proxy = Proxy::start(column, &config);
    for _ in 0..10 {
        assert_eq!(column.connect(listen).get("/").status, 200);
    }
    assert_eq!(server.requests().len(), 10);
    let failed = [("cause", "connect-failure")];
    assert!(proxy.metric("ambassador_retries_total", &failed) >= 1.0);
}

fn a_post_that_reached_nobody_is_tried_again(column: Column) {
    let server = column.ok();
    let listen = refusing();
    let more = format!("    retry: {{ {QUICK} }}\n    circuit_breaker: {{ failures: off }}\n");
    let config = two_endpoints(listen, [refusing(), server.address()], &more);
    let _proxy = Proxy::start(column, &config);
    for number in 1..=6 {
        let pay = Call::post("/x", format!("pay {number}"));
        assert_eq!(column.connect(listen).call(&pay).status, 200);
    }
    let bodies: Vec<_> = server.requests().into_iter().map(|r| r.body).collect();
    let expected: Vec<_> = (1..=6).map(|n| format!("pay {n}").into_bytes()).collect();
    assert_eq!(bodies, expected);
}

/// Answers 503 with `Retry-After` first, and notes when it was asked.
fn asks_to_wait(
    column: Column,
    value: impl Fn() -> String + Send + Sync + 'static,
) -> (Server, Arc<Mutex<Vec<Instant>>>) {
    let asked = Arc::<Mutex<Vec<Instant>>>::default();
    let note = Arc::clone(&asked);
    let server = column.server(move |_| {
        let mut asked = note.lock().expect("no panic");
        asked.push(Instant::now());
        match asked.len() {
            1 => Answer::status(503).field("Retry-After", &value()),
            _ => Answer::ok("ok"),
        }
    });
    (server, asked)
}

fn retry_after_is_waited_for_in_seconds_and_dates(column: Column) {
    let waited = |asked: &Mutex<Vec<Instant>>| {
        let asked = asked.lock().expect("no panic");
        asked[1].duration_since(asked[0])
    };
    let (server, asked) = asks_to_wait(column, || "1".to_owned());
    let (_proxy, listen) = start(column, &server, "");
    assert_eq!(column.connect(listen).get("/").status, 200);
    assert!(
        waited(&asked) >= Duration::from_secs(1),
        "{:?}",
        waited(&asked)
    );

    // Dates have whole seconds: this one is between 1 and 2 seconds away.
    let date = || httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
    let (server, asked) = asks_to_wait(column, date);
    let (_proxy, listen) = start(column, &server, "");
    assert_eq!(column.connect(listen).get("/").status, 200);
    assert!(
        waited(&asked) >= Duration::from_millis(900),
        "{:?}",
        waited(&asked)
    );

    let (server, asked) = asks_to_wait(column, || "60".to_owned());
    let (_proxy, listen) = start(column, &server, ", honor_retry_after: false");
    assert_eq!(column.connect(listen).get("/").status, 200);
    assert!(waited(&asked) < Duration::from_secs(30));
}

fn what_cannot_end_in_time_is_answered_at_once(column: Column) {
    let server = column.server(|_| Answer::status(503).field("Retry-After", "4").body("later"));
    let more = format!("retry: {{ {QUICK} }}\ntimeouts: {{ request: 3s }}");
    let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), &more);
    let started = Instant::now();
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, answer.text()), (503, "later".to_owned()));
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(server.requests().len(), 1);
}

fn a_large_body_is_streamed_and_sent_once(column: Column) {
    let server = column.server(|_| Answer::status(503));
    let (_proxy, listen) = start(column, &server, ", body_limit: 1KiB");
    let mut client = column.connect(listen);
    for (bytes, tries) in [(1024, 3), (1025, 1), (300_000, 1)] {
        let before = server.requests().len();
        let call = Call::post("/x", "x".repeat(bytes)).field("Idempotency-Key", "1");
        assert_eq!(client.call(&call).status, 503);
        assert_eq!(server.requests().len() - before, tries, "{bytes} bytes");
    }
}

/// The part of a body that no byte was taken of when the connection broke is not
/// the whole of the request.
fn uploads_that_break_off_are_sent_once(column: Column) {
    const CLIENTS: usize = 8;
    const UPLOADS: usize = 40;
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let server = column.script(move |exchange| {
        count.fetch_add(1, Ordering::SeqCst);
        exchange.some()?;
        exchange.reset()
    });
    let (_proxy, listen) = start(column, &server, "");
    let upload = Call::post("/x", "x".repeat(400_000));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..UPLOADS {
                    let mut client = column.connect(listen);
                    // The answer may come before the end, and so may a close.
                    let _ = client.try_send(&upload);
                    if let Some(answer) = client.try_answer() {
                        assert_eq!((answer.status, answer.reason()), (502, "upstream-reset"));
                    }
                }
            });
        }
    });
    assert_eq!(tries.load(Ordering::SeqCst), CLIENTS * UPLOADS);
}

fn a_body_in_pieces_is_kept_up_to_the_limit(column: Column) {
    let server = in_turn(column, &[503, 503]);
    let (_proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    client.send(
        &Call::new("PUT", "/x")
            .field("Idempotency-Key", "1")
            .in_pieces(),
    );
    for piece in ["one", "two", "six"] {
        client.piece(piece);
    }
    client.end(&[("X-Sum", "3")]);
    assert_eq!(client.answer().status, 200);
    for request in server.requests() {
        assert_eq!(request.body, b"onetwosix");
        assert_eq!(request.trailer("x-sum"), Some("3"));
        assert_eq!(request.trailers.len(), 1);
    }
    assert_eq!(server.requests().len(), 3);
    assert_eq!(client.get("/").status, 200, "the connection goes on");
}

fn the_budget_bounds_what_is_tried_again(column: Column) {
    let server = column.server(|_| Answer::status(503).body("no"));
    let more = "retry: { base: 1ms, cap: 2ms, budget: { ratio: 20%, min_per_second: 0 } }\n\
                circuit_breaker: { failures: off }";
    let (proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    let mut client = column.connect(listen);
    for _ in 0..100 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.reason()), (503, ""));
    }
    let tries = server.requests().len();
    assert!(
        (110..=120).contains(&tries),
        "{tries} tries of 100 requests"
    );
    let refused = [("upstream", "web"), ("reason", "retry-budget")];
    assert!(proxy.metric("ambassador_requests_total", &refused) >= 80.0);
}

fn a_route_has_its_own_retries(column: Column) {
    let server = column.server(|_| Answer::status(503));
    let listen = refusing();
    let config = format!(
        "listeners:\n  - {{ name: egress, bind: \"{listen}\" }}\n\
         upstreams:\n  web:\n    hosts: [web.test]\n    endpoints: [\"{}\"]\n    \
         retry: {{ {QUICK} }}\n    circuit_breaker: {{ failures: off }}\n\
         routes:\n\
         - match: {{ host: web.test, path_prefix: /charges, methods: [POST] }}\n  \
           upstream: web\n  retry: {{ methods: [POST], attempts: 4 }}\n\
         - match: {{ host: web.test, path_prefix: /once }}\n  \
           upstream: web\n  retry: {{ attempts: 1 }}\n",
        server.address()
    );
    let _proxy = Proxy::start(column, &config);
    let mut client = column.connect(listen);
    for (method, path, tries) in [
        ("POST", "/charges", 4),
        ("POST", "/other", 1),
        ("GET", "/charges", 3),
        ("GET", "/once/more", 1),
    ] {
        let before = server.requests().len();
        assert_eq!(client.call(&Call::new(method, path).body("")).status, 503);
        assert_eq!(server.requests().len() - before, tries, "{method} {path}");
    }
}

fn a_client_that_goes_ends_the_tries(column: Column) {
    let server = column.server(|_| Answer::status(503).field("Retry-After", "2"));
    let (proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    let limit = Duration::from_secs(5);
    ambassador_tests::eventually("it was tried", limit, || server.requests().len() == 1);
    client.leave();
    ambassador_tests::eventually("the request is over", limit, || {
        proxy.metric("ambassador_requests_total", &[("upstream", "web")]) == 1.0
    });
    let kept = column.connect(listen).get("/");
    assert_eq!(kept.status, 503);
    assert_eq!(server.requests().len(), 1 + 3, "the first was tried once");
}

fn one_request_id_for_all_tries(column: Column) {
    let server = in_turn(column, &[503, 503]);
    let (_proxy, listen) = start(column, &server, "");
    assert_eq!(column.connect(listen).get("/").status, 200);
    let ids: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.field("x-request-id").map(str::to_owned))
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(
        ids[0].is_some() && ids.iter().all(|id| *id == ids[0]),
        "{ids:?}"
    );
}

fn nothing_is_tried_again_after_an_interim_response(column: Column) {
    let server = column.script(|exchange| {
        exchange.request()?;
        exchange.interim(103, &[("Link", "</a>")])?;
        exchange.send(&Answer::status(503).body("after the hint"))
    });
    let (_proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    assert_eq!(client.get("/").status, 103);
    let answer = client.answer();
    assert_eq!(
        (answer.status, answer.text()),
        (503, "after the hint".to_owned())
    );
    assert_eq!(server.requests().len(), 1);
}

fn what_fails_for_want_of_budget_says_so(column: Column) {
    let more = "retry: { base: 1ms, budget: { ratio: 0%, min_per_second: 0 } }\n\
                circuit_breaker: { failures: off }";
    let (_proxy, listen) = Proxy::in_front_of_with(column, refusing(), more);
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, answer.reason()), (502, "retry-budget"));
}

fn it_says_when_the_circuit_opened_between_tries(column: Column) {
    let more = "retry: { base: 1ms, attempts: 5 }\ncircuit_breaker: { failures: 2 }";
    let (proxy, listen) = Proxy::in_front_of_with(column, refusing(), more);
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, answer.reason()), (503, "circuit-open"));
    let failed = [("outcome", "connect-failed")];
    proxy.expect_metric("ambassador_upstream_attempts_total", &failed, 2.0);
}
