//! One endpoint that fails is not the whole upstream: with all defaults every
//! caller is served while another one is well, and the circuit stays closed.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ambassador_tests::proxy::{Launch, Scratch};
use ambassador_tests::{
    Answer, Backend, Call, Column, Exchange, Protocol, Proxy, Server, eventually, matrix,
    on_both_backends, os, ports,
};

use crate::access_log::{LOGGED, lines};

matrix!(
    one_that_refuses_is_not_noticed,
    one_that_resets_is_not_noticed,
    a_burst_at_the_start_is_served,
    two_of_three_that_refuse_are_not_noticed,
    all_that_fail_open_the_circuit,
    one_that_fails_is_not_noticed,
    what_may_not_be_sent_twice_sees_the_failure,
    one_that_hangs_is_not_noticed,
    one_that_is_slow_is_waited_for,
    one_that_hangs_is_taken_out,
    the_next_endpoint_is_asked_without_a_wait,
    a_probe_is_tried_at_other_endpoints,
    host_names_the_endpoint_of_the_try,
    a_callers_own_limit_speaks_against_nobody,
    the_address_family_that_works_is_used,
    one_that_answers_nonsense_is_not_noticed,
);

on_both_backends!(a_tunnel_goes_to_the_next_endpoint,);

const SOON: Duration = Duration::from_secs(10);

fn refused() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

/// A listener before an upstream `web` of these endpoints, by its Host alone.
fn start(column: impl Into<Column>, endpoints: &[SocketAddr], more: &str) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let list: Vec<_> = endpoints.iter().map(|at| format!("\"{at}\"")).collect();
    let config = format!(
        "drain_timeout: 2s\n{LOGGED}listeners: [{{ name: egress, bind: \"{listen}\" }}]\n\
         upstreams: {{ web: {{ endpoints: [{}], {more} }} }}\n\
         routes: [{{ match: {{ host: web.test }}, upstream: web }}]\n",
        list.join(", ")
    );
    (Proxy::start(column, &config), listen)
}

#[track_caller]
fn is_closed(proxy: &Proxy) {
    let opened = [("to", "open")];
    assert_eq!(
        proxy.metric("ambassador_breaker_transitions_total", &opened),
        0.0
    );
}

#[track_caller]
fn serves_everybody(column: Column, proxy: &Proxy, listen: SocketAddr) {
    for round in 0..100 {
        let answer = column.connect(listen).get("/");
        assert_eq!(answer.status, 200, "{round}: {}", answer.reason());
    }
    is_closed(proxy);
}

fn one_that_refuses_is_not_noticed(column: Column) {
    let (one, two) = (column.ok(), column.ok());
    let (proxy, listen) = start(column, &[refused(), one.address(), two.address()], "");
    serves_everybody(column, &proxy, listen);
}

/// Half of these meet the dead one before anybody can know, which is more than
/// a retry budget allows.
fn a_burst_at_the_start_is_served(column: Column) {
    let one = column.ok();
    let (proxy, listen) = start(column, &[refused(), one.address()], "");
    let mut clients: Vec<_> = (0..80).map(|_| column.connect(listen)).collect();
    for client in &mut clients {
        client.send(&Call::get("/"));
    }
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!(answer.status, 200, "{}", answer.reason());
    }
    is_closed(&proxy);
}

fn one_that_resets_is_not_noticed(column: Column) {
    let bad = column.script(|exchange| exchange.reset());
    let (one, two) = (column.ok(), column.ok());
    let (proxy, listen) = start(column, &[bad.address(), one.address(), two.address()], "");
    serves_everybody(column, &proxy, listen);
}

fn two_of_three_that_refuse_are_not_noticed(column: Column) {
    let one = column.ok();
    let (proxy, listen) = start(column, &[refused(), refused(), one.address()], "");
    serves_everybody(column, &proxy, listen);
}

fn all_that_fail_open_the_circuit(column: Column) {
    let bad = || column.server(|_| Answer::status(500).body("no"));
    let servers = [bad(), bad(), bad()];
    let endpoints = servers.each_ref().map(Server::address);
    let (_proxy, listen) = start(column, &endpoints, "");
    let mut asked = 0;
    while column.connect(listen).get("/").status == 500 {
        asked += 1;
    }
    // As many as `failures` says, but for those of an endpoint that went out
    // before another one was known to be ill.
    assert!((5..=8).contains(&asked), "{asked}");
}

fn the_address_family_that_works_is_used(column: Column) {
    let four = column.ok();
    let port = four.address().port();
    // Takes no connection: its queue is full.
    let six = TcpListener::bind(("::1", port)).expect("the port is free");
    let full: Vec<_> = fill(&six);
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "drain_timeout: 2s\nlisteners: [{{ name: egress, bind: \"{listen}\" }}]\n\
         upstreams: {{ web: {{ hosts: [web.test], dns: \"both.test:{port}\", \
         timeouts: {{ connect: 1h }} }} }}\n"
    );
    let scratch = Scratch::new();
    let hosts = scratch.file("hosts", "127.0.0.1 both.test\n::1 both.test\n");
    let proxy = Proxy::launch(column, &config, with_hosts(&hosts));
    let count = || {
        proxy.upstream("web")["endpoints"]
            .as_array()
            .map_or(0, Vec::len)
    };
    eventually("both families are known", SOON, || count() == 2);
    for _ in 0..10 {
        let get = Call::get("/");
        assert_eq!(column.connect(listen).call(&get).status, 200);
    }
    drop(full);
    drop(six);
    // Nobody listens there now.
    for _ in 0..20 {
        assert_eq!(column.connect(listen).get("/").status, 200);
    }
    is_closed(&proxy);
}

/// A start with this file as /etc/hosts, in a mount namespace.
fn with_hosts(hosts: &Path) -> Launch {
    let bind = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    let wrapper = ["unshare", "--mount", "sh", "-c", &bind, "sh"];
    Launch {
        wrapper: wrapper.map(str::to_owned).into(),
        ..Launch::default()
    }
}

/// Connects until a listener that accepts nobody takes no more.
fn fill(listener: &TcpListener) -> Vec<TcpStream> {
    os::shorten_queue(listener).expect("it listens");
    let address = listener.local_addr().expect("it listens");
    let limit = Duration::from_millis(200);
    std::iter::from_fn(|| TcpStream::connect_timeout(&address, limit).ok()).collect()
}

#[track_caller]
fn is_ejected(proxy: &Proxy) {
    let ejected = proxy.upstream("web")["endpoints"][0]["ejected"].clone();
    assert_eq!(ejected, true);
}

fn fails(column: Column) -> Server {
    column.server(|_| Answer::status(500).body("no"))
}

fn one_that_fails_is_not_noticed(column: Column) {
    let (bad, one, two) = (fails(column), column.ok(), column.ok());
    let (proxy, listen) = start(column, &[bad.address(), one.address(), two.address()], "");
    serves_everybody(column, &proxy, listen);
    // Five show that the endpoint is ill.
    assert_eq!(bad.requests().len(), 5);
    is_ejected(&proxy);
    let cause = [("cause", "500")];
    proxy.expect_metric("ambassador_retries_total", &cause, 5.0);
}

fn one_that_answers_nonsense_is_not_noticed(column: Column) {
    let nonsense = Answer::status(200)
        .in_pieces()
        .field("Content-Length", "one");
    let bad = column.script(move |exchange| exchange.send(&nonsense));
    let (one, two) = (column.ok(), column.ok());
    let (proxy, listen) = start(column, &[bad.address(), one.address(), two.address()], "");
    serves_everybody(column, &proxy, listen);
    is_ejected(&proxy);
    let cause = [("cause", "protocol-error")];
    proxy.expect_metric("ambassador_retries_total", &cause, 5.0);
}

fn what_may_not_be_sent_twice_sees_the_failure(column: Column) {
    let (bad, one) = (fails(column), column.ok());
    let endpoints = [bad.address(), one.address()];
    for (method, more) in [("POST", ""), ("GET", "retry: { elsewhere: off }")] {
        let (proxy, listen) = start(column, &endpoints, more);
        let before = bad.requests().len();
        let mut failed = 0;
        for _ in 0..100 {
            let mut client = column.connect(listen);
            client.send(&Call::new(method, "/").body(""));
            failed += usize::from(client.answer().status == 500);
        }
        // Until it is ejected.
        assert_eq!(failed, 5, "{method}");
        assert_eq!(bad.requests().len() - before, failed);
        is_closed(&proxy);
    }
}

fn one_that_hangs_is_not_noticed(column: Column) {
    let bad = hangs(column);
    let (one, two) = (column.ok(), column.ok());
    let endpoints = [bad.address(), one.address(), two.address()];
    let more = "timeouts: { request: 1s }, load_balancing: round_robin";
    let (proxy, listen) = start(column, &endpoints, more);
    serves_everybody(column, &proxy, listen);
    is_ejected(&proxy);
    let cause = [("cause", "silence")];
    proxy.expect_metric("ambassador_retries_total", &cause, 5.0);
    let outcome = [("outcome", "try-timeout")];
    proxy.expect_metric("ambassador_upstream_attempts_total", &outcome, 5.0);
}

/// A second endpoint is asked beside one that takes more than half of the time,
/// but its answer is not lost for that.
fn one_that_is_slow_is_waited_for(column: Column) {
    let asked = Arc::new(AtomicUsize::new(0));
    let slow = || {
        let asked = Arc::clone(&asked);
        column.script(move |exchange| {
            match asked.fetch_add(1, Ordering::SeqCst) {
                // Answers once another one was asked.
                0 => {
                    let both = || asked.load(Ordering::SeqCst) == 2;
                    eventually("another one is asked", SOON, both);
                    exchange.send(&Answer::ok("first"))
                }
                _ => exchange.until_left(),
            }
        })
    };
    let servers = [slow(), slow()];
    let endpoints = servers.each_ref().map(Server::address);
    let (proxy, listen) = start(column, &endpoints, "timeouts: { request: 2s }");
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, &*answer.text()), (200, "first"));
    let outcome = [("outcome", "cancelled")];
    proxy.expect_metric("ambassador_upstream_attempts_total", &outcome, 1.0);
    let outcome = [("outcome", "response")];
    proxy.expect_metric("ambassador_upstream_attempts_total", &outcome, 1.0);
    let line = &lines(&proxy, 1)[0];
    assert_eq!(line["attempts"], 2, "{line}");
    let tried = line["endpoints"].as_array().expect("there were two");
    let first = tried.last().expect("there were two");
    assert_eq!((tried.len(), first), (2, &line["endpoint"]), "{line}");
}

/// Never answers.
fn hangs(column: Column) -> Server {
    column.script(|exchange| exchange.until_left())
}

fn one_that_hangs_is_taken_out(column: Column) {
    let bad = hangs(column);
    let (one, two) = (column.ok(), column.ok());
    let more = "timeouts: { per_try: 50ms }, retry: { base: 1ms }";
    let (proxy, listen) = start(column, &[bad.address(), one.address(), two.address()], more);
    serves_everybody(column, &proxy, listen);
    is_ejected(&proxy);
}

fn the_next_endpoint_is_asked_without_a_wait(column: Column) {
    let one = column.ok();
    let more = "load_balancing: round_robin, retry: { base: 1h, cap: 1h }";
    let (proxy, listen) = start(column, &[refused(), one.address()], more);
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(column.connect(listen).get("/").status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    let cause = [("cause", "connect-failure")];
    assert!(proxy.metric("ambassador_retries_total", &cause) >= 1.0);
}

fn a_tunnel_goes_to_the_next_endpoint(backend: Backend) {
    let one = Server::echo();
    let (proxy, listen) = start(backend, &[refused(), one.address()], "");
    for protocol in Protocol::ALL.repeat(20) {
        let mut client = protocol.connect(listen);
        client.open(&Call::connect("web.test:80"));
        client.piece("ping");
        assert_eq!(client.content(4), b"ping");
    }
    is_closed(&proxy);
}

fn a_probe_is_tried_at_other_endpoints(column: Column) {
    let ill = Arc::new(AtomicBool::new(true));
    let flaky = |well: fn(&mut Exchange<'_>) -> io::Result<()>| {
        let ill = Arc::clone(&ill);
        column.script(move |exchange| {
            exchange.request()?;
            match ill.load(Ordering::SeqCst) {
                true => exchange.send(&Answer::status(500).body("ill")),
                false => well(exchange),
            }
        })
    };
    let bad = flaky(|exchange| exchange.reset());
    let good = flaky(|exchange| exchange.send(&Answer::ok("well")));
    let more = "load_balancing: round_robin, retry: { base: 1ms }, \
                circuit_breaker: { failures: 3, sleep: 100ms }, outlier: { consecutive: off }";
    let (proxy, listen) = start(column, &[bad.address(), good.address()], more);
    for round in 1..=4 {
        ill.store(true, Ordering::SeqCst);
        eventually("the circuit opens", SOON, || {
            column.connect(listen).get("/").reason() == "circuit-open"
        });
        ill.store(false, Ordering::SeqCst);
        // Whichever endpoint the probe meets first.
        let mut answer = column.connect(listen).get("/");
        eventually("the probe is let through", SOON, || {
            answer = column.connect(listen).get("/");
            answer.reason() != "circuit-open"
        });
        assert_eq!(answer.status, 200, "{round}: {}", answer.reason());
        let state = [("upstream", "web")];
        proxy.expect_metric("ambassador_breaker_state", &state, 0.0);
    }
}

fn host_names_the_endpoint_of_the_try(column: Column) {
    let failing = || column.server(|_| Answer::status(503).body("later"));
    let (one, two) = (failing(), failing());
    let more = "retry: { base: 1ms }, circuit_breaker: { failures: off }";
    let (_proxy, listen) = start(column, &[one.address(), two.address()], more);
    let mut client = column.connect(listen);
    let call = Call::get("/web/").to("by-path.test");
    assert_eq!(client.call(&call).status, 503);
    let asked = [&one, &two].map(|server| {
        let hosts = server.requests().into_iter().map(|request| {
            let host = request.authority().map(str::to_owned);
            assert_eq!(host, Some(server.address().to_string()));
        });
        hosts.count()
    });
    assert_eq!(asked.iter().sum::<usize>(), 3);
    assert!(asked.iter().all(|count| *count > 0), "{asked:?}");
}

fn a_callers_own_limit_speaks_against_nobody(column: Column) {
    let slow = column.server(|_| {
        std::thread::sleep(Duration::from_millis(100));
        Answer::ok("well")
    });
    let (one, two) = (slow.address(), column.ok());
    for endpoints in [&[one][..], &[one, two.address()]] {
        let (proxy, listen) = start(column, endpoints, "");
        for limit in ["grpc-timeout: 5m", "x-envoy-expected-rq-timeout-ms: 5"] {
            for _ in 0..10 {
                let hasty = Call::get("/").lines(limit);
                let status = column.connect(listen).call(&hasty).status;
                assert!(matches!(status, 200 | 504), "{status}");
            }
        }
        assert_eq!(column.connect(listen).get("/").status, 200);
        is_closed(&proxy);
        let endpoints = proxy.upstream("web")["endpoints"].clone();
        for endpoint in endpoints.as_array().expect("a list") {
            assert_ne!(endpoint["ejected"], true);
        }
    }
}
