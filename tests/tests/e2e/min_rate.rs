//! Bodies have a speed that they must keep, both ways; who is slow answers for
//! it, and nobody else.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{Answer, Call, Caller, Column, Protocol, Proxy, Server, matrix, os, ports};

use crate::access_log::{LOGGED, lines};

matrix!(
    a_route_may_have_no_rate,
    who_keeps_the_rate_is_left_alone,
    an_upstream_that_waits_for_the_body_is_not_slow,
    an_endpoint_that_drips_is_ejected,
    a_client_that_waits_for_leave_is_not_slow,
    an_upload_that_drips_is_given_up,
    a_client_that_reads_slowly_is_reset,
    a_response_that_drips_is_the_upstreams_failure,
    an_upstream_that_takes_an_upload_slowly_has_failed,
    an_upload_in_a_tunnel_keeps_the_same_rate,
    what_is_relayed_has_no_rate,
);

/// Peers are looked at after a second: half of the silence.
const RATE: &str = "timeouts: { idle: 2s, min_rate: 1MiB/s }\nretry: { attempts: 1 }";
const WINDOW: Duration = Duration::from_secs(1);
/// Less than silence and busy machines would make of it.
const SOON: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

fn upload() -> Call {
    Call::new("POST", "/").announces(100_000_000)
}

fn start(column: impl Into<Column>, server: &Server, more: &str) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = one_upstream(listen, server.address(), more);
    (Proxy::start(column, &format!("{LOGGED}{config}")), listen)
}

fn failures(proxy: &Proxy) -> u64 {
    let breaker = &proxy.upstream("web")["circuit_breaker"];
    breaker["failures"].as_u64().expect("a number")
}

fn expect_tries(proxy: &Proxy, outcome: &str, count: f64) {
    let labels = [("upstream", "web"), ("outcome", outcome)];
    proxy.expect_metric("ambassador_upstream_attempts_total", &labels, count);
}

/// Reads each request, and tells of those that are given up before their end.
fn reading(column: Column) -> (Server, mpsc::Receiver<()>) {
    let (given_up, told) = mpsc::channel();
    let server = column.script(move |exchange| {
        let request = exchange.request();
        if request.is_err() {
            let _ = given_up.send(());
        }
        request.map(drop)
    });
    (server, told)
}

/// Sends a body drop by drop, until there is an answer.
fn drip(client: &mut Caller) {
    let started = Instant::now();
    while !client.is_answered() {
        assert!(started.elapsed() < SOON, "it goes on for ever");
        // The other end may have answered just now, and take no more.
        let _ = client.try_piece("a few bytes");
        thread::sleep(PAUSE);
    }
    let took = started.elapsed();
    assert!(took >= WINDOW, "{took:?}");
}

fn an_upload_that_drips_is_given_up(column: Column) {
    let (server, told) = reading(column);
    let (proxy, listen) = start(column, &server, RATE);
    let mut client = column.connect(listen);
    client.send(&upload());
    drip(&mut client);
    let answer = client.answer();
    assert_eq!((answer.status, answer.reason()), (408, "bad-request"));
    let said = answer.text();
    assert!(said.contains("timeouts.min_rate"), "{said}");
    told.recv_timeout(SOON).expect("the upstream is free again");
    let labels = [("status", "408"), ("reason", "bad-request")];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
    expect_tries(&proxy, "cancelled", 1.0);
    assert_eq!(failures(&proxy), 0, "the upstream is not at fault");
}

/// What goes through it is HTTP/1.1, whatever it goes over.
fn an_upload_in_a_tunnel_keeps_the_same_rate(column: Column) {
    let (server, told) = reading(column);
    let (_proxy, listen) = start(column, &server, RATE);
    let mut client = column.connect(listen);
    client.open(&Call::connect("web.test:80"));
    client.piece(Protocol::Http1.beginning(&upload()));
    drip(&mut client);
    let answer = client.rest();
    assert!(
        answer.contains(" 408 ") && answer.contains("timeouts.min_rate"),
        "{answer}"
    );
    told.recv_timeout(SOON).expect("the upstream is free again");
}

fn a_client_that_waits_for_leave_is_not_slow(column: Column) {
    let server = column.script(|exchange| {
        thread::sleep(WINDOW * 3 / 2);
        exchange.interim(100, &[])?;
        exchange.request()?;
        exchange.send(&Answer::ok("taken"))
    });
    let (_proxy, listen) = start(column, &server, RATE);
    let mut client = column.connect(listen);
    let call = Call::new("POST", "/")
        .field("Expect", "100-continue")
        .announces(4);
    assert_eq!(client.call(&call).status, 100);
    client.piece("body");
    assert_eq!(client.answer().text(), "taken");
}

/// Answers with more than anybody reads here.
fn endless(column: Column) -> Server {
    column.script(|exchange| {
        exchange.request()?;
        exchange.send(&Answer::status(200).announces(1_000_000_000))?;
        loop {
            exchange.piece([b'x'; 65536])?;
        }
    })
}

fn a_client_that_reads_slowly_is_reset(column: Column) {
    let server = endless(column);
    let (proxy, listen) = start(column, &server, RATE);
    let stream = os::connect_with_small_buffers(listen).expect("it listens");
    let mut client = column.over(stream);
    client.send(&Call::get("/"));
    assert_eq!(client.head().status, 200);
    let started = Instant::now();
    while client.more().is_ok_and(|bytes| !bytes.is_empty()) {
        assert!(started.elapsed() < SOON, "it goes on for ever");
        thread::sleep(PAUSE);
    }
    let labels = [("status", "200"), ("reason", "client-gone")];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
    let line = &lines(&proxy, 1)[0];
    let detail = line["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("read more slowly"), "{line}");
    assert!(line["duration_ms"].as_f64() >= Some(1_000.0), "{line}");
    expect_tries(&proxy, "cancelled", 1.0);
    assert_eq!(failures(&proxy), 0, "the upstream is not at fault");
}

/// Begins each response at once, and goes on with it slowly.
fn dripping(column: Column) -> Server {
    column.script(|exchange| {
        exchange.request()?;
        exchange.send(&Answer::status(200).announces(1_000_000))?;
        loop {
            exchange.piece("a few bytes")?;
            thread::sleep(PAUSE);
        }
    })
}

fn an_endpoint_that_drips_is_ejected(column: Column) {
    let (slow, well) = (dripping(column), column.ok());
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    // Its heads alone would make it look as well as the other.
    let config = format!(
        "listeners: [{{ name: e, bind: \"{listen}\" }}]\n\
         upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\", \"{}\"], \
         load_balancing: round_robin, timeouts: {{ idle: 2s, min_rate: 1MiB }}, \
         outlier: {{ consecutive: 2, base_ejection: 5m, max_ejected: 50% }} }} }}\n",
        slow.address(),
        well.address()
    );
    let proxy = Proxy::start(column, &config);
    let ask = || {
        let mut client = column.connect(listen);
        client.send(&Call::get("/"));
        client.try_answer().is_some()
    };
    let cut = (0..12).filter(|_| !ask()).count();
    assert_eq!(cut, 2);
    let breaker = [("upstream", "web")];
    assert_eq!(proxy.metric("ambassador_breaker_state", &breaker), 0.0);
}

fn a_response_that_drips_is_the_upstreams_failure(column: Column) {
    let server = dripping(column);
    let (proxy, listen) = start(column, &server, RATE);
    let mut client = column.connect(listen);
    let started = Instant::now();
    client.send(&Call::get("/"));
    assert!(client.is_reset(), "a response that is cut is reset");
    let took = started.elapsed();
    assert!(took >= WINDOW && took < SOON, "{took:?}");
    let line = &lines(&proxy, 1)[0];
    assert_eq!(line["reason"], "upstream-reset", "{line}");
    let detail = line["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("came more slowly"), "{line}");
    expect_tries(&proxy, "too-slow", 1.0);
    assert_eq!(failures(&proxy), 1);
}

fn an_upstream_that_takes_an_upload_slowly_has_failed(column: Column) {
    let server = column.script(|exchange| {
        while !exchange.some()?.is_empty() {
            thread::sleep(PAUSE);
        }
        Ok(())
    });
    let (proxy, listen) = start(column, &server, RATE);
    let mut client = column.connect(listen);
    client.send(&upload());
    while !client.is_answered() && client.try_piece([b'x'; 65536]).is_ok() {}
    let answer = client.answer();
    assert_eq!((answer.status, answer.reason()), (504, "request-timeout"));
    expect_tries(&proxy, "too-slow", 1.0);
    assert_eq!(failures(&proxy), 1);
}

fn an_upstream_that_waits_for_the_body_is_not_slow(column: Column) {
    let server = column.script(|exchange| {
        exchange.send(&Answer::status(200).announces(4))?;
        exchange.piece("ab")?;
        exchange.request()?;
        exchange.piece("cd")
    });
    let more = "timeouts: { idle: 4s, min_rate: 1KiB/s }";
    let (proxy, listen) = start(column, &server, more);
    let mut client = column.connect(listen);
    // Ten times as fast as it must be, for longer than a window of two seconds.
    client.send(&Call::new("POST", "/").announces(30_720));
    for _ in 0..30 {
        client.piece([b'x'; 1_020]);
        thread::sleep(2 * PAUSE);
    }
    client.piece([b'x'; 30_720 - 30 * 1_020]);
    assert_eq!(client.answer().text(), "abcd");
    assert_eq!(failures(&proxy), 0);
}

fn who_keeps_the_rate_is_left_alone(column: Column) {
    const BODY: usize = 4 * 1024 * 1024;
    let server = column.server(|request| match request.method.as_str() {
        "POST" => Answer::ok(request.body.len().to_string()),
        _ => Answer::ok("x".repeat(BODY)),
    });
    let more = "timeouts: { idle: 2s, min_rate: 64KiB/s }";
    let (proxy, listen) = start(column, &server, more);
    let mut client = column.connect(listen);
    assert_eq!(client.get("/").body.len(), BODY);
    client.send(&Call::new("POST", "/").announces(BODY));
    // In bursts, and for longer than one is looked at.
    for part in vec![b'x'; BODY].chunks(BODY / 16) {
        client.piece(part);
        thread::sleep(2 * PAUSE);
    }
    assert_eq!(client.answer().text(), BODY.to_string());
    // A client reads in bursts as well.
    let mut reader = column.connect(listen);
    reader.send(&Call::get("/"));
    assert_eq!(reader.head().status, 200);
    for _ in 0..16 {
        reader.content(BODY / 16);
        thread::sleep(2 * PAUSE);
    }
    assert_eq!(failures(&proxy), 0);
}

fn a_route_may_have_no_rate(column: Column) {
    let server = column.script(|exchange| {
        exchange.request()?;
        exchange.send(&Answer::status(200).announces(4))?;
        exchange.piece("ab")?;
        thread::sleep(WINDOW * 3 / 2);
        exchange.piece("cd")
    });
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = one_upstream(listen, server.address(), RATE);
    let routes = "routes:\n  - match: { path_prefix: /events }\n    upstream: web\n    \
                  timeouts: { min_rate: off }\n";
    let _proxy = Proxy::start(column, &format!("{config}{routes}"));
    let ask = |path| {
        let mut client = column.connect(listen);
        client.send(&Call::get(path));
        client.try_answer()
    };
    assert_eq!(ask("/events").expect("it is whole").text(), "abcd");
    assert!(ask("/else").is_none(), "it has the rate of the upstream");
}

fn what_is_relayed_has_no_rate(column: Column) {
    let server = column.script(|exchange| {
        exchange.switch("")?;
        thread::sleep(WINDOW * 3 / 2);
        exchange.piece("late")
    });
    let (_proxy, listen) = start(column, &server, RATE);
    let mut client = column.connect(listen);
    client.open(&Call::upgrade("/", "chat"));
    assert_eq!(client.content(4), b"late");
}
