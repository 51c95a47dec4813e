//! Numbers that agree: what a client has sent and received, what the metrics
//! say, and what the log says.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ambassador_tests::server::{response, text};
use ambassador_tests::{
    Answer, Backend, Call, Caller, Column, Connection, Exchange, Proxy, Server, eventually, matrix,
    on_http1, ports,
};
use serde_json::Value;

use crate::access_log::{LOGGED, lines};

matrix!(
    whatever_happens_all_count_the_same,
    endpoints_stand_in_the_line_of_a_request_that_had_several,
);

on_http1!(what_only_http1_has_counts_the_same,);

const SOON: Duration = Duration::from_secs(5);

/// What clients have seen of their requests.
#[derive(Default)]
struct Wire {
    requests: usize,
    sent: u64,
    received: u64,
}

impl Wire {
    /// Makes a request over a connection of its own; gives the statuses of its answers,
    /// interim ones too.
    fn call(&mut self, mut caller: Caller, call: &Call) -> Vec<u16> {
        caller.send(call);
        let mut statuses = Vec::new();
        while statuses.last().is_none_or(|status| *status < 200)
            && let Some(answer) = caller.try_answer()
        {
            statuses.push(answer.status);
        }
        self.add(&caller);
        statuses
    }

    /// Opens a tunnel, says something through it, and reads what comes back to its end.
    fn tunnel(&mut self, mut caller: Caller, call: &Call) {
        caller.open(call);
        caller.piece("what is said");
        assert_eq!(caller.content(12), b"what is said");
        caller.end(&[]);
        assert!(caller.is_at_end());
        self.add(&caller);
    }

    /// Adds the one request of this caller.
    fn add(&mut self, caller: &Caller) {
        let carried = caller.carried();
        self.requests += 1;
        self.sent += carried.sent;
        self.received += carried.received;
    }

    /// Sends these bytes, which are so many requests, and reads to the end.
    fn exchange(&mut self, listen: SocketAddr, requests: usize, bytes: &str) -> String {
        let mut stream = TcpStream::connect(listen).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("valid");
        stream.write_all(bytes.as_bytes()).expect("it takes them");
        self.requests += requests;
        self.sent += bytes.len() as u64;
        let mut received = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut received);
        self.received += received.len() as u64;
        String::from_utf8_lossy(&received).into_owned()
    }

    /// Sends a request, has it switch, says something and reads to the end.
    fn switch(&mut self, listen: SocketAddr, bytes: &str, said: &str) {
        let mut stream = TcpStream::connect(listen).expect("it listens");
        stream.write_all(bytes.as_bytes()).expect("it takes them");
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            received.push(byte[0]);
        }
        stream.write_all(said.as_bytes()).expect("it takes them");
        stream.shutdown(Shutdown::Write).expect("it is open");
        stream.read_to_end(&mut received).expect("a FIN");
        self.requests += 1;
        self.sent += (bytes.len() + said.len()) as u64;
        self.received += received.len() as u64;
    }

    /// Log and metrics say the same of all requests, and of these reasons.
    fn agrees_with(&self, proxy: &Proxy, reasons: &[(&str, usize)]) {
        let lines = lines(proxy, self.requests);
        proxy.expect_metric("ambassador_requests_total", &[], self.requests as f64);
        let told = |field: &str, direction: &str| {
            let metric = proxy.metric("ambassador_bytes_total", &[("direction", direction)]);
            (sum(&lines, field), metric)
        };
        assert_eq!(told("bytes_in", "sent"), (self.sent, self.sent as f64));
        assert_eq!(
            told("bytes_out", "received"),
            (self.received, self.received as f64)
        );
        for (reason, count) in reasons {
            let of_log = lines.iter().filter(|line| line["reason"] == *reason);
            let metric = proxy.metric("ambassador_requests_total", &[("reason", reason)]);
            let found = (of_log.count(), metric);
            assert_eq!(found, (*count, *count as f64), "{reason}");
        }
    }
}

fn sum(lines: &[Value], field: &str) -> u64 {
    lines.iter().filter_map(|line| line[field].as_u64()).sum()
}

/// A proxy that logs everything, and whose routes injure and limit some requests.
fn start(column: Column, server: &Server) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "{LOGGED}drain_timeout: 1s\n\
         listeners: [{{ name: egress, bind: \"{listen}\", protocol: http }}]\n\
         upstreams:\n\
         \x20 web:\n\
         \x20   hosts: [web.test]\n\
         \x20   endpoints: [\"{}\"]\n\
         \x20   retry: {{ attempts: 2, base: 1ms }}\n\
         \x20   circuit_breaker: {{ failures: off }}\n\
         routes:\n\
         \x20 - {{ match: {{ path_prefix: /aborted }}, upstream: web, fault: {{ abort: {{ status: 500 }} }} }}\n\
         \x20 - {{ match: {{ path_prefix: /cut }}, upstream: web, fault: {{ reset: 100% }} }}\n\
         \x20 - {{ match: {{ path_prefix: /limited }}, upstream: web, rate_limit: {{ requests_per_second: 0.001, burst: 1 }} }}\n",
        server.address()
    );
    (Proxy::start(column, &config), listen)
}

/// What the upstream does for each path; `asked_before` is of the one that fails once.
fn serve(exchange: &mut Exchange<'_>, asked_before: &AtomicBool) -> io::Result<()> {
    if exchange.head().target == "/echo" {
        exchange.switch("")?;
        loop {
            match exchange.some()? {
                bytes if bytes.is_empty() => return exchange.end(&[]),
                bytes => exchange.piece(bytes)?,
            }
        }
    }
    let request = exchange.request()?;
    match request.target.as_str() {
        "/reset" => exchange.reset(),
        "/hangs" => exchange.until_left(),
        "/flaky" if !asked_before.swap(true, Ordering::SeqCst) => {
            exchange.send(&Answer::status(503).body("not now"))
        }
        "/hints" => {
            exchange.interim(103, &[("Link", "</a>")])?;
            exchange.send(&Answer::ok("then"))
        }
        "/pieces" => {
            exchange.send(&Answer::status(200).in_pieces())?;
            exchange.piece("abc")?;
            exchange.end(&[("X-End", "1")])
        }
        _ if request.method == "HEAD" => exchange.send(&Answer::status(200).announces(5)),
        _ => exchange.send(&Answer::ok("hello")),
    }
}

/// Requests, and the statuses of their answers.
fn calls() -> Vec<(Call, &'static [u16])> {
    let post = |path| Call::post(path, "hello");
    let trailed = |path, trailer| Call::new("POST", path).trailed("abc", trailer);
    let large = (0..300).fold(Call::get("/large"), |call, number| {
        call.field(&format!("X-{number}"), "1")
    });
    vec![
        (Call::get("/"), &[200]),
        (Call::new("HEAD", "/"), &[200]),
        (post("/"), &[200]),
        (trailed("/", ("X-End", "1")), &[200]),
        // What does not go on came all the same.
        (trailed("/", ("Proxy-Authorization", "1")), &[200]),
        (
            Call::get("/").lines("Cookie: a=1\r\nCookie: b=2\r\n"),
            &[200],
        ),
        (Call::get("/pieces"), &[200]),
        (Call::get("/hints"), &[103, 200]),
        // A body is sent twice, and came once.
        (post("/flaky").field("Idempotency-Key", "1"), &[200]),
        (Call::get("/reset"), &[502]),
        (post("/reset"), &[502]),
        (Call::get("/aborted").field("X-Long", "header"), &[500]),
        (Call::get("/cut"), &[]),
        // A body that nobody takes came all the same.
        (post("/aborted"), &[500]),
        (Call::get("/limited"), &[200]),
        (Call::get("/limited"), &[429]),
        (trailed("/limited", ("X-End", "1")), &[429]),
        (Call::new("BREW", "/"), &[200]),
        (Call::get("/").to("nobody.test"), &[404]),
        (large, &[431]),
    ]
}

/// How often it was asked for `/hangs`.
fn hanging(server: &Server) -> usize {
    let requests = server.requests().into_iter();
    requests
        .filter(|request| request.target == "/hangs")
        .count()
}

fn whatever_happens_all_count_the_same(column: Column) {
    let asked_before = AtomicBool::new(false);
    let server = column.script(move |exchange| serve(exchange, &asked_before));
    let (proxy, listen) = start(column, &server);
    let mut wire = Wire::default();
    for (call, statuses) in calls() {
        let found = wire.call(column.connect(listen), &call);
        assert_eq!(found, statuses, "{call:?}");
    }

    wire.tunnel(column.connect(listen), &Call::upgrade("/echo", "echo"));

    // A caller that leaves has been sent nothing.
    let mut gone = column.connect(listen);
    gone.send(&Call::get("/hangs"));
    eventually("it hangs", SOON, || hanging(&server) == 1);
    wire.add(&gone);
    gone.close();

    wire.agrees_with(
        &proxy,
        &[
            ("no-route", 1),
            ("headers-too-large", 1),
            ("upstream-reset", 2),
            ("rate-limited", 2),
            ("fault-injected", 3),
            ("client-gone", 1),
        ],
    );
    let retried = proxy.metric("ambassador_retries_total", &[("cause", "503")]);
    assert_eq!(retried, 1.0, "a body went out twice");

    // What the drain cuts is told of with all that came.
    let mut cut = column.connect(listen);
    cut.send(&Call::get("/hangs"));
    eventually("it hangs", SOON, || hanging(&server) == 2);
    proxy.signal(libc::SIGTERM);
    let lines = lines(&proxy, wire.requests + 1);
    let last = &lines[wire.requests];
    assert_eq!(
        (&last["reason"], &last["bytes_in"]),
        (&"drained".into(), &cut.carried().sent.into())
    );
}

/// Answers everything, or echoes behind an upgrade.
fn serve_http1(connection: &mut Connection) -> io::Result<()> {
    while let Some(request) = connection.request()? {
        if request.target != "/echo" {
            connection.write(text("hello"))?;
            continue;
        }
        let fields = "Connection: Upgrade\r\nUpgrade: echo\r\n";
        connection.write(response("101 Switching Protocols", fields, ""))?;
        let mut buffer = [0; 1024];
        loop {
            match connection.read(&mut buffer)? {
                0 => return Ok(()),
                count => connection.write(&buffer[..count])?,
            }
        }
    }
    Ok(())
}

fn what_only_http1_has_counts_the_same(backend: Backend) {
    let server = Server::start(serve_http1);
    let (proxy, listen) = start(backend.into(), &server);
    let mut wire = Wire::default();
    let close = "Host: web.test\r\nConnection: close\r\n";
    for bytes in [
        &format!(
            "POST / HTTP/1.1\r\n{close}Transfer-Encoding: chunked\r\n\r\n\
             3;x=y\r\nabc\r\n0\r\nX-End: 1\r\n\r\n"
        ),
        &format!(
            "POST / HTTP/1.1\r\n{close}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno size\r\n"
        ),
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nand more",
        "GET /http10 HTTP/1.0\r\nHost: web.test\r\n\r\n",
    ] {
        wire.exchange(listen, 1, bytes);
    }
    let two = format!("GET /1 HTTP/1.1\r\nHost: web.test\r\n\r\nGET /2 HTTP/1.1\r\n{close}\r\n");
    wire.exchange(listen, 2, &two);
    let upgrade =
        "GET /echo HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    wire.switch(listen, upgrade, "what is said");
    let connect = "CONNECT web.test:80 HTTP/1.1\r\nHost: web.test:80\r\n\r\n";
    wire.switch(
        listen,
        connect,
        &format!("GET /inside HTTP/1.1\r\n{close}\r\n"),
    );
    // The request inside is one of its own.
    wire.requests += 1;
    wire.agrees_with(&proxy, &[("bad-request", 2)]);
}

fn endpoints_stand_in_the_line_of_a_request_that_had_several(column: Column) {
    let well = column.ok();
    let ill = column.script(|exchange| {
        exchange.request()?;
        exchange.reset()
    });
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let endpoints = [ill.address(), well.address()].map(|address| address.to_string());
    let proxy = Proxy::start(
        column,
        &format!(
            "{LOGGED}workers: 1\n\
             listeners: [{{ name: egress, bind: \"{listen}\", protocol: http }}]\n\
             upstreams: {{ web: {{ endpoints: {endpoints:?}, load_balancing: round_robin, \
             outlier: {{ consecutive: off }}, retry: {{ base: 1ms }} }} }}\n"
        ),
    );
    let mut client = column.connect(listen);
    for _ in 0..6 {
        assert_eq!(client.get("/").status, 200);
    }
    let lines = lines(&proxy, 6);
    let (several, single): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["attempts"] != 1);
    assert!(!several.is_empty() && !single.is_empty());
    for line in several {
        assert_eq!(line["endpoints"], serde_json::json!(endpoints));
        assert_eq!(line["endpoint"], endpoints[1]);
    }
    for line in single {
        assert_eq!(line.get("endpoints"), None);
    }
}
