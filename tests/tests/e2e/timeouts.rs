//! How long a request, a try and a silence may last.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ambassador_tests::server::Request;
use ambassador_tests::{Answer, Call, Column, Proxy, Server, matrix};

matrix!(
    a_request_that_is_not_answered_in_time,
    a_try_that_takes_too_long_is_followed_by_another,
    the_last_try_says_that_it_took_too_long,
    an_upload_uses_up_no_time,
    a_stream_is_not_cut_once_it_has_begun,
    what_the_caller_says_bounds_its_request,
    what_the_caller_says_is_passed_on_reduced,
    a_second_try_is_told_of_less,
    tries_end_within_what_the_caller_says,
    a_time_that_is_over_is_not_tried,
    header_rules_decide_what_goes_on_of_it,
    what_the_caller_says_bounds_an_upload,
    what_the_caller_says_badly_is_passed_on,
    what_the_caller_says_does_not_cut_an_answer_beside_an_upload,
    a_first_byte_has_a_limit_of_its_own,
);

fn start(column: Column, server: &Server, more: &str) -> (Proxy, SocketAddr) {
    let more = format!("circuit_breaker: {{ failures: off }}\n{more}");
    Proxy::in_front_of_with(column, server.address(), &more)
}

fn a_request_that_is_not_answered_in_time(column: Column) {
    let server = column.silent();
    let (_proxy, listen) = start(column, &server, "timeouts: { request: 300ms }");
    let mut client = column.connect(listen);
    let started = Instant::now();
    let answer = client.get("/");
    assert_eq!((answer.status, answer.reason()), (504, "request-timeout"));
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!(server.requests().len(), 1);
    // The client's connection is none the worse for it.
    assert_eq!(client.get("/").status, 504);
}

fn a_try_that_takes_too_long_is_followed_by_another(column: Column) {
    let asked = AtomicUsize::new(0);
    let server = column.script(move |exchange| {
        exchange.request()?;
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(()),
            _ => exchange.send(&Answer::ok("at last")),
        }
    });
    let more = "timeouts: { per_try: 200ms }\nretry: { base: 1ms }";
    let (proxy, listen) = start(column, &server, more);
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, answer.text()), (200, "at last".to_owned()));
    let cause = [("cause", "try-timeout")];
    proxy.expect_metric("ambassador_retries_total", &cause, 1.0);
}

fn the_last_try_says_that_it_took_too_long(column: Column) {
    let server = column.silent();
    let more = "timeouts: { per_try: 100ms }\nretry: { base: 1ms, attempts: 2 }";
    let (proxy, listen) = start(column, &server, more);
    let mut client = column.connect(listen);
    let answer = client.get("/");
    assert_eq!((answer.status, answer.reason()), (504, "try-timeout"));
    let tries = [("outcome", "try-timeout")];
    proxy.expect_metric("ambassador_upstream_attempts_total", &tries, 2.0);
    let answer = client.call(&Call::new("POST", "/").body(""));
    assert_eq!((answer.status, answer.reason()), (504, "try-timeout"));
    assert_eq!(server.requests().len(), 3, "the POST was sent once");
}

fn a_first_byte_has_a_limit_of_its_own(column: Column) {
    // Begins at once, and takes its time.
    let server = column.script(|exchange| {
        exchange.request()?;
        let answer = Answer::ok("slow");
        exchange.send_part(&answer, 0..10)?;
        std::thread::sleep(Duration::from_millis(400));
        exchange.send_part(&answer, 10..usize::MAX).map(drop)
    });
    let (_proxy, listen) = start(column, &server, "timeouts: { first_byte: 200ms }");
    assert_eq!(column.connect(listen).get("/").status, 200);

    let server = column.silent();
    let more = "timeouts: { first_byte: 100ms }\nretry: { attempts: 1 }";
    let (_proxy, listen) = start(column, &server, more);
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, answer.reason()), (504, "try-timeout"));
}

fn an_upload_uses_up_no_time(column: Column) {
    let server = column.ok();
    let more = "timeouts: { request: 300ms, per_try: 300ms }";
    let (_proxy, listen) = start(column, &server, more);
    let mut client = column.connect(listen);
    client.send(&Call::new("POST", "/").announces(4));
    let started = Instant::now();
    for byte in ["s", "l", "o", "w"] {
        std::thread::sleep(Duration::from_millis(150));
        client.piece(byte);
    }
    assert_eq!(client.answer().status, 200);
    assert!(started.elapsed() >= Duration::from_millis(600));
    assert_eq!(server.last_request().body, b"slow");

    // Once it is up, the time runs.
    let server = column.silent();
    let (_proxy, listen) = start(column, &server, more);
    let mut client = column.connect(listen);
    client.send(&Call::new("POST", "/").announces(2));
    client.piece("x");
    std::thread::sleep(Duration::from_millis(400));
    client.piece("y");
    let answer = client.answer();
    assert_eq!(answer.status, 504);
}

fn a_stream_is_not_cut_once_it_has_begun(column: Column) {
    let server = column.script(|exchange| {
        exchange.request()?;
        let stream = Answer::status(200).field("Content-Type", "text/event-stream");
        exchange.send(&stream.in_pieces())?;
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(100));
            exchange.piece("data: x\n")?;
        }
        exchange.end(&[])
    });
    let more = "timeouts: { request: 200ms, per_try: 200ms, first_byte: 200ms }";
    let (_proxy, listen) = start(column, &server, more);
    let answer = column.connect(listen).get("/");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "data: x\n".repeat(6));
}

const GRPC: &str = "grpc-timeout";
const ENVOY: &str = "x-envoy-expected-rq-timeout-ms";

/// A GET with these lines of fields.
fn get(lines: &str) -> Call {
    Call::get("/").lines(lines)
}

/// How long the caller of `request` waits, by its `grpc-timeout`.
fn told(request: &Request) -> Duration {
    let value = request.field(GRPC).expect("it is passed on");
    let (count, unit) = value.split_at(value.len() - 1);
    let count: u64 = count.parse().expect("digits");
    match unit {
        "n" => Duration::from_nanos(count),
        "u" => Duration::from_micros(count),
        "m" => Duration::from_millis(count),
        _ => panic!("not below 100,000 s: {value}"),
    }
}

fn what_the_caller_says_bounds_its_request(column: Column) {
    let server = column.silent();
    let (_proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    for fields in [
        "grpc-timeout: 200m\r\n",
        "x-envoy-expected-rq-timeout-ms: 200\r\n",
        "Grpc-Timeout: 5S\r\nX-Envoy-Expected-Rq-Timeout-Ms: 200\r\n",
    ] {
        let started = Instant::now();
        let answer = client.call(&get(fields));
        assert_eq!((answer.status, answer.reason()), (504, "request-timeout"));
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(200), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    assert_eq!(server.requests().len(), 3, "none was tried again");
}

fn what_the_caller_says_is_passed_on_reduced(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = start(column, &server, "timeouts: { request: 30s }");
    let mut client = column.connect(listen);
    let fields = "grpc-timeout: 20S\r\nX-Mid: 1\r\ngrpc-timeout: 1S\r\n\
                  x-envoy-expected-rq-timeout-ms: 15000\r\n";
    assert_eq!(client.call(&get(fields)).status, 200);
    let request = server.last_request();
    // The shortest of the three counts; most of it is left.
    let left = told(&request);
    assert!((1..15).contains(&left.as_secs()), "{left:?}");
    let milliseconds = request.field(ENVOY).and_then(|value| value.parse().ok());
    let milliseconds: u64 = milliseconds.expect("digits");
    assert!((1_000..=15_000).contains(&milliseconds), "{milliseconds}");
    let names = request.fields.iter().map(|(name, _)| name);
    let of_grpc = names.filter(|name| name.eq_ignore_ascii_case(GRPC));
    assert_eq!(of_grpc.count(), 1);
}

fn a_second_try_is_told_of_less(column: Column) {
    let pause = Duration::from_millis(150);
    let server = column.server(move |_| {
        std::thread::sleep(pause);
        Answer::status(503)
    });
    let (_proxy, listen) = start(column, &server, "retry: { base: 1ms, attempts: 3 }");
    let mut client = column.connect(listen);
    let fields = "Idempotency-Key: 1\r\ngrpc-timeout: 9S\r\n";
    let call = Call::post("/", "body").lines(fields);
    assert_eq!(client.call(&call).status, 503);
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert!(told(&requests[0]) <= Duration::from_secs(9));
    for pair in requests.windows(2) {
        assert!(told(&pair[1]) + pause <= told(&pair[0]));
        assert_eq!(pair[1].body, b"body");
    }
}

fn tries_end_within_what_the_caller_says(column: Column) {
    let server = column.server(|_| {
        std::thread::sleep(Duration::from_millis(100));
        Answer::status(503)
    });
    let more = "retry: { base: 1ms, attempts: 100 }\ntimeouts: { request: none }";
    let (_proxy, listen) = start(column, &server, more);
    let mut client = column.connect(listen);
    let started = Instant::now();
    let answer = client.call(&get("grpc-timeout: 1500m\r\n"));
    // Cut within a try, or no time for the wait before the next one.
    assert!(matches!(answer.status, 503 | 504), "{}", answer.status);
    assert!(started.elapsed() < Duration::from_secs(8));
    let tries = server.requests().len();
    assert!((2..=15).contains(&tries), "{tries}");
    // A wait that cannot end in time is not begun.
    let server = column.server(|_| Answer::status(503).field("Retry-After", "1"));
    let more = "retry: { base: 1ms, cap: 5s }\ntimeouts: { request: none }";
    let (_proxy, listen) = start(column, &server, more);
    let mut client = column.connect(listen);
    let answer = client.call(&get("x-envoy-expected-rq-timeout-ms: 900\r\n"));
    assert_eq!(answer.status, 503);
    assert_eq!(server.requests().len(), 1);
}

fn a_time_that_is_over_is_not_tried(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    let answer = client.call(&get("grpc-timeout: 0S\r\n"));
    assert_eq!((answer.status, answer.reason()), (504, "request-timeout"));
    assert_eq!(server.connections(), 0);
    assert_eq!(client.get("/").status, 200);
}

fn what_the_caller_says_badly_is_passed_on(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    let fields = "grpc-timeout: 0.1S\r\nx-envoy-expected-rq-timeout-ms: 0\r\n";
    assert_eq!(client.call(&get(fields)).status, 200);
    let head = server.last_request().head;
    assert!(head.contains(fields), "{head}");
}

fn header_rules_decide_what_goes_on_of_it(column: Column) {
    let server = column.silent();
    let more = "headers: { set: { Grpc-Timeout: 7H }, remove: [X-Envoy-Expected-Rq-Timeout-Ms] }";
    let (_proxy, listen) = start(column, &server, more);
    let mut client = column.connect(listen);
    let fields = "grpc-timeout: 9S\r\nx-envoy-expected-rq-timeout-ms: 200\r\n";
    assert_eq!(client.call(&get(fields)).reason(), "request-timeout");
    let request = server.last_request();
    assert_eq!(request.field(GRPC), Some("7H"));
    assert_eq!(request.field(ENVOY), None);
    let names = request.fields.iter().map(|(name, _)| name);
    let of_grpc = names.filter(|name| name.eq_ignore_ascii_case(GRPC));
    assert_eq!(of_grpc.count(), 1);
}

fn what_the_caller_says_bounds_an_upload(column: Column) {
    let server = column.ok();
    let more = "circuit_breaker: { failures: 1 }";
    let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    let mut client = column.connect(listen);
    let started = Instant::now();
    client.send(
        &Call::new("POST", "/")
            .field("grpc-timeout", "200m")
            .announces(4),
    );
    client.piece("x");
    let answer = client.answer();
    assert_eq!((answer.status, answer.reason()), (504, "request-timeout"));
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert!(server.requests().is_empty(), "it never came whole");
    // The upstream is not to blame for that.
    assert_eq!(column.connect(listen).get("/").status, 200);
}

fn what_the_caller_says_does_not_cut_an_answer_beside_an_upload(column: Column) {
    // Answers before the body has come.
    let server = column.script(|exchange| {
        exchange.send(&Answer::status(200).announces(4))?;
        let request = exchange.request()?;
        exchange.piece(request.body)
    });
    let (_proxy, listen) = start(column, &server, "");
    let mut client = column.connect(listen);
    let call = Call::new("POST", "/").announces(4);
    client.send(&call.field("grpc-timeout", "500m"));
    assert_eq!(client.head().status, 200);
    std::thread::sleep(Duration::from_millis(600));
    client.piece("body");
    assert_eq!(client.content(4), b"body");
}
