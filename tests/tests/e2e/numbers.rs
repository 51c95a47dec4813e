//! Numbers that agree: what a client has sent and received, what the metrics
//! say, and what the log says.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use ambassador_tests::server::{response, text};
use ambassador_tests::{
    Backend, Column, Connection, Proxy, Server, eventually, matrix, on_http1, ports,
};
use serde_json::Value;

use crate::access_log::{LOGGED, lines};

matrix!(endpoints_stand_in_the_line_of_a_request_that_had_several,);

on_http1!(whatever_happens_all_count_the_same,);

const SOON: Duration = Duration::from_secs(5);

/// What a client has seen of its requests.
#[derive(Default)]
struct Wire {
    requests: usize,
    sent: u64,
    received: u64,
}

impl Wire {
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
}

/// What the upstream does for each path.
fn serve(connection: &mut Connection) -> io::Result<()> {
    let mut asked_before = false;
    while let Some(request) = connection.request()? {
        let answer = match request.target.as_str() {
            "/reset" => return connection.reset(),
            "/hangs" => {
                // Until it is given up.
                connection.read(&mut [0])?;
                return Ok(());
            }
            "/flaky" if !std::mem::replace(&mut asked_before, true) => {
                response("503 Service Unavailable", "", "not now")
            }
            "/hints" => {
                let mut bytes = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec();
                bytes.extend(text("then"));
                bytes
            }
            "/chunks" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                           3\r\nabc\r\n0\r\nX-End: 1\r\n\r\n"
                .to_vec(),
            "/echo" => {
                connection.write(response(
                    "101 Switching Protocols",
                    "Connection: Upgrade\r\nUpgrade: echo\r\n",
                    "",
                ))?;
                let mut buffer = [0; 1024];
                loop {
                    match connection.read(&mut buffer)? {
                        0 => return Ok(()),
                        count => connection.write(&buffer[..count])?,
                    }
                }
            }
            _ if request.method == "HEAD" => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec()
            }
            _ => text("hello"),
        };
        connection.write(answer)?;
    }
    Ok(())
}

fn sum(lines: &[Value], field: &str) -> u64 {
    lines.iter().filter_map(|line| line[field].as_u64()).sum()
}

fn whatever_happens_all_count_the_same(backend: Backend) {
    let server = Server::start(serve);
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let proxy = Proxy::start(
        backend,
        &format!(
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
        ),
    );
    let mut wire = Wire::default();
    let mut ask = |method: &str, path: &str, fields: &str, body: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n{fields}\r\n{body}"
        );
        let answer = wire.exchange(listen, 1, &request);
        let status = answer.split(' ').nth(1).unwrap_or("0");
        status.parse::<u16>().expect("a status")
    };
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (method, path, fields, body, status) in [
        ("GET", "/", "", "", 200),
        ("HEAD", "/", "", "", 200),
        ("POST", "/", length, "hello", 200),
        (
            "POST",
            "/",
            chunked,
            "3;x=y\r\nabc\r\n0\r\nX-End: 1\r\n\r\n",
            200,
        ),
        ("GET", "/chunks", "", "", 200),
        ("GET", "/hints", "", "", 103),
        // A body is sent twice, and came once.
        (
            "POST",
            "/flaky",
            "Idempotency-Key: 1\r\nContent-Length: 5\r\n",
            "hello",
            200,
        ),
        ("GET", "/reset", "", "", 502),
        ("POST", "/reset", length, "hello", 502),
        ("GET", "/aborted", "X-Long: header\r\n", "", 500),
        ("GET", "/cut", "", "", 0),
        // A body that nobody takes came all the same.
        ("POST", "/aborted", length, "hello", 500),
        ("GET", "/limited", "", "", 200),
        ("GET", "/limited", "", "", 429),
        ("POST", "/limited", chunked, "5\r\nhello\r\n0\r\n\r\n", 429),
        ("BREW", "/", "", "", 200),
    ] {
        assert_eq!(ask(method, path, fields, body), status, "{method} {path}");
    }
    wire.exchange(
        listen,
        1,
        "GET / HTTP/1.1\r\nHost: nobody.test\r\nConnection: close\r\n\r\n",
    );
    wire.exchange(
        listen,
        1,
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nand more",
    );
    wire.exchange(listen, 1, "GET /http10 HTTP/1.0\r\nHost: web.test\r\n\r\n");
    let two = "GET /1 HTTP/1.1\r\nHost: web.test\r\n\r\n\
               GET /2 HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
    wire.exchange(listen, 2, two);
    let upgrade =
        "GET /echo HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    wire.switch(listen, upgrade, "what is said");
    let connect = "CONNECT web.test:80 HTTP/1.1\r\nHost: web.test:80\r\n\r\n";
    wire.switch(
        listen,
        connect,
        "GET /inside HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n",
    );
    // The request inside is one of its own.
    wire.requests += 1;

    // A caller that leaves has been sent nothing.
    let gone = "GET /hangs HTTP/1.1\r\nHost: web.test\r\n\r\n";
    let mut stream = TcpStream::connect(listen).expect("it listens");
    stream.write_all(gone.as_bytes()).expect("it takes them");
    let asked = || {
        server
            .requests()
            .iter()
            .any(|request| request.target == "/hangs")
    };
    eventually("it hangs", SOON, asked);
    drop(stream);
    wire.requests += 1;
    wire.sent += gone.len() as u64;

    let lines_of_all = lines(&proxy, wire.requests);
    proxy.expect_metric("ambassador_requests_total", &[], wire.requests as f64);
    let told = |field: &str, direction: &str| {
        let metric = proxy.metric("ambassador_bytes_total", &[("direction", direction)]);
        (sum(&lines_of_all, field), metric)
    };
    assert_eq!(told("bytes_in", "sent"), (wire.sent, wire.sent as f64));
    assert_eq!(
        told("bytes_out", "received"),
        (wire.received, wire.received as f64)
    );
    let retried = proxy.metric("ambassador_retries_total", &[("cause", "503")]);
    assert_eq!(retried, 1.0, "a body went out twice");
    let reason = |reason: &str| {
        let of_log = lines_of_all.iter().filter(|line| line["reason"] == reason);
        let metric = proxy.metric("ambassador_requests_total", &[("reason", reason)]);
        (of_log.count(), metric)
    };
    for (word, count) in [
        ("no-route", 1),
        ("bad-request", 1),
        ("upstream-reset", 2),
        ("rate-limited", 2),
        ("fault-injected", 3),
        ("client-gone", 1),
    ] {
        assert_eq!(reason(word), (count, count as f64), "{word}");
    }

    // What the drain cuts is told of with all that came.
    let mut cut = TcpStream::connect(listen).expect("it listens");
    cut.write_all(gone.as_bytes()).expect("it takes them");
    let asked = || {
        server
            .requests()
            .iter()
            .filter(|request| request.target == "/hangs")
            .count()
            == 2
    };
    eventually("it hangs", SOON, asked);
    proxy.signal(libc::SIGTERM);
    let lines_of_all = lines(&proxy, wire.requests + 1);
    let last = &lines_of_all[wire.requests];
    assert_eq!(
        (&last["reason"], &last["bytes_in"]),
        (&"drained".into(), &gone.len().into())
    );
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
