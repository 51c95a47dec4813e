//! Faults injected on purpose: what the caller sees of them, what is told of
//! them, and that nobody else is blamed.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use ambassador_tests::proxy::{self, one_upstream};
use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Netns, Proxy, Server, eventually, matrix,
    on_both_backends, ports, program,
};

use crate::access_log::{LOGGED, lines};
use crate::capture_scope::world;

matrix!(
    an_abort_is_an_answer_that_blames_nobody,
    a_delay_is_waited_and_the_request_served,
    a_delay_takes_no_longer_than_the_request_may,
    a_delay_does_not_use_up_the_upstreams_time,
    a_delay_ends_when_its_caller_leaves,
    only_what_is_meant_gets_a_fault,
    a_reset_reaches_the_caller,
);

on_both_backends!(
    a_connection_without_requests_is_delayed_and_reset,
    exec_injects_faults_into_calls_to_one_host,
    a_wrong_fault_reads_well,
);

const SOON: Duration = Duration::from_secs(5);
const WEB: (&str, &str) = ("upstream", "web");

/// A logged proxy with these faults before `server`; `more` are further keys of
/// the upstream.
fn faulty(
    column: impl Into<Column>,
    server: &Server,
    fault: &str,
    more: &str,
) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let upstream = one_upstream(listen, server.address(), &format!("fault: {fault}\n{more}"));
    (Proxy::start(column, &format!("{LOGGED}{upstream}")), listen)
}

fn injected(proxy: &Proxy, kind: &str) -> f64 {
    proxy.metric("ambassador_faults_injected_total", &[WEB, ("kind", kind)])
}

fn an_abort_is_an_answer_that_blames_nobody(column: Column) {
    // More than open a circuit or eject an endpoint.
    const TIMES: usize = 12;
    let server = column.ok();
    let fault = "{ abort: { status: 503 } }";
    let (proxy, listen) = faulty(column, &server, fault, "retry: { attempts: 5, base: 1ms }");
    let mut client = column.connect(listen);
    for _ in 0..TIMES {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.reason()), (503, "fault-injected"));
    }
    assert_eq!(server.connections(), 0);
    for line in lines(&proxy, TIMES) {
        assert_eq!(
            (&line["fault"], &line["reason"]),
            (&"abort".into(), &"fault-injected".into())
        );
        assert_eq!(
            (&line["status"], &line["attempts"]),
            (&503.into(), &0.into())
        );
    }
    let told = [WEB, ("status", "503"), ("reason", "fault-injected")];
    proxy.expect_metric("ambassador_requests_total", &told, TIMES as f64);
    assert_eq!(injected(&proxy, "abort"), TIMES as f64);
    for blamed in [
        "ambassador_breaker_state",
        "ambassador_retries_total",
        "ambassador_upstream_attempts_total",
    ] {
        assert_eq!(proxy.metric(blamed, &[WEB]), 0.0, "{blamed}");
    }
}

fn a_delay_is_waited_and_the_request_served(column: Column) {
    const DELAY: Duration = Duration::from_millis(200);
    let server = column.ok();
    let (proxy, listen) = faulty(column, &server, "{ delay: { for: 200ms } }", "");
    let mut client = column.connect(listen);
    let began = Instant::now();
    let answer = client.call(&Call::new("POST", "/").body("hi"));
    assert_eq!((answer.status, answer.reason()), (200, ""));
    assert!(began.elapsed() >= DELAY, "{:?}", began.elapsed());
    assert_eq!(server.last_request().body, b"hi");
    let line = &lines(&proxy, 1)[0];
    assert_eq!(
        (&line["fault"], line.get("reason")),
        (&"delay".into(), None)
    );
    assert_eq!(injected(&proxy, "delay"), 1.0);
}

fn a_delay_takes_no_longer_than_the_request_may(column: Column) {
    let server = column.ok();
    let more = "timeouts: { request: 100ms }";
    let (proxy, listen) = faulty(column, &server, "{ delay: { for: 5m } }", more);
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, answer.reason()), (504, "fault-injected"));
    assert_eq!(lines(&proxy, 1)[0]["fault"], "delay");
    assert_eq!(server.connections(), 0);
}

fn a_delay_does_not_use_up_the_upstreams_time(column: Column) {
    let server = column.server(|_| {
        std::thread::sleep(Duration::from_millis(600));
        Answer::ok("late")
    });
    let fault = "{ delay: { for: 800ms } }";
    let (_proxy, listen) = faulty(column, &server, fault, "timeouts: { request: 1s }");
    assert_eq!(column.connect(listen).get("/").text(), "late");
}

fn a_delay_ends_when_its_caller_leaves(column: Column) {
    let server = column.ok();
    let more = "timeouts: { request: none }";
    let (proxy, listen) = faulty(column, &server, "{ delay: { for: 5m } }", more);
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    eventually("it waits", SOON, || injected(&proxy, "delay") == 1.0);
    client.leave();
    let line = &lines(&proxy, 1)[0];
    assert_eq!(
        (&line["status"], &line["cancelled"]),
        (&0.into(), &true.into())
    );
    assert_eq!(line["reason"], "client-gone");
    assert_eq!(server.connections(), 0);
}

fn a_reset_reaches_the_caller(column: Column) {
    let server = column.ok();
    let (proxy, listen) = faulty(column, &server, "{ reset: 100% }", "");
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    assert!(client.is_reset(), "it is cut");
    let line = &lines(&proxy, 1)[0];
    assert_eq!(
        (&line["fault"], &line["status"]),
        (&"reset".into(), &0.into())
    );
    assert_eq!(line["reason"], "fault-injected");
    assert_eq!(injected(&proxy, "reset"), 1.0);
    assert_eq!(server.connections(), 0);
}

fn only_what_is_meant_gets_a_fault(column: Column) {
    let server = column.ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let all = "abort: { status: 418 }";
    let address = server.address();
    let proxy = Proxy::start(
        column,
        &format!(
            "listeners: [{{ name: egress, bind: \"{listen}\", protocol: http }}]\n\
             defaults: {{ fault: {{ {all}, header: x-fault }} }}\n\
             upstreams:\n\
             \x20 marked: {{ endpoints: [\"{address}\"] }}\n\
             \x20 over: {{ endpoints: [\"{address}\"], fault: {{ until: 2000-01-01T00:00:00Z }} }}\n\
             \x20 coming: {{ endpoints: [\"{address}\"], fault: {{ until: 2100-01-01T00:00:00Z }} }}\n\
             \x20 none: {{ endpoints: [\"{address}\"], fault: off }}\n\
             routes:\n\
             \x20 - {{ match: {{ path_prefix: /spared }}, upstream: marked, fault: off }}\n\
             \x20 - {{ match: {{ path_prefix: /broken }}, upstream: none, fault: {{ {all} }} }}\n"
        ),
    );
    let mut client = column.connect(listen);
    let mut status =
        |path: &str, fields: &str| client.call(&Call::get(path).to("a").lines(fields)).status;
    let marked = "X-Fault: 1\r\n";
    for (path, fields, expected) in [
        ("/marked/", marked, 418),
        ("/marked/", "X-Other: 1\r\n", 200),
        ("/over/", marked, 200),
        ("/coming/", marked, 418),
        ("/none/", marked, 200),
        ("/spared", marked, 200),
        ("/broken", "", 418),
    ] {
        assert_eq!(status(path, fields), expected, "{path} {fields}");
    }
    let injected = |upstream| {
        let labels = [("upstream", upstream)];
        proxy.metric("ambassador_faults_injected_total", &labels)
    };
    assert_eq!(
        ["marked", "over", "coming", "none"].map(injected),
        [1.0, 0.0, 1.0, 1.0]
    );
}

fn a_connection_without_requests_is_delayed_and_reset(backend: Backend) {
    let server = Server::echo();
    let relay = |fault: &str| {
        let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let config = format!(
            "{LOGGED}listeners: [{{ name: db, bind: \"{listen}\", protocol: tcp, upstream: web }}]\n\
             defaults: {{ fault: {{ abort: {{ status: 500, share: 10% }} }} }}\n\
             upstreams: {{ web: {{ endpoints: [\"{}\"], protocol: tcp, fault: {fault} }} }}\n",
            server.address()
        );
        (Proxy::start(backend, &config), listen)
    };
    let (proxy, listen) = relay("{ delay: { for: 150ms } }");
    let began = Instant::now();
    let mut client = Client::connect(listen);
    client.send("hello");
    assert_eq!(client.exactly(5), b"hello");
    assert!(began.elapsed() >= Duration::from_millis(150));
    client.finish();
    assert_eq!(client.rest().expect("a FIN"), b"");
    let line = &lines(&proxy, 1)[0];
    assert_eq!(
        (&line["fault"], &line["outcome"]),
        (&"delay".into(), &"closed".into())
    );

    let (proxy, listen) = relay("{ reset: 90% }");
    let is_reset = || {
        let mut client = Client::connect(listen);
        // It may be cut before it has said a word.
        let sent = client.try_send("hello");
        client.finish();
        match sent.and_then(|()| client.rest()) {
            Ok(bytes) => {
                assert_eq!(bytes, b"hello");
                false
            }
            Err(_) => true,
        }
    };
    while !is_reset() {}
    let told = [WEB, ("outcome", "fault-injected")];
    proxy.expect_metric("ambassador_tcp_connections_total", &told, 1.0);
    assert_eq!(injected(&proxy, "reset"), 1.0);
}

/// `exec` with these options, which runs curl for this URL.
fn exec(backend: Backend, namespace: &Netns, options: &[&str], curl: &[&str]) -> Output {
    let [nsenter, entered, binary] = namespace.wrap(&proxy::binary().display().to_string());
    let mut command = Command::new(nsenter);
    command.args([&entered, &binary, "exec"]).args(options);
    command.args(["--", "curl", "-sS", "-m20", "-o/dev/null", "-w%{http_code}"]);
    program::output(command.args(curl).env("AMBASSADOR_BACKEND", backend.name()))
}

fn exec_injects_faults_into_calls_to_one_host(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|_| text("ok"))
    });
    let _tls = Server::over(namespace.listen("0.0.0.0:443"), |connection| {
        connection.read(&mut [0; 1024]).map(drop)
    });
    let status = |options: &[&str], host: &str| {
        let host = format!("Host: {host}");
        let output = exec(
            backend,
            &namespace,
            options,
            &["-H", &host, "http://10.1.2.3/"],
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(status(&["--fault", "abort=503"], "any.test"), "503");
    assert_eq!(server.requests().len(), 0);
    for (only, host, expected) in [
        ("shop.test", "shop.test", "504"),
        ("shop.test:80", "SHOP.test", "504"),
        ("shop.test", "other.test", "200"),
        ("shop.test:8080", "shop.test", "200"),
    ] {
        let options = ["--fault", "abort=504:100%,delay=1ms", "--fault-for", only];
        assert_eq!(status(&options, host), expected, "{only} {host}");
    }

    // TLS goes by the name that the client asks for.
    let options = ["--fault", "reset:100%", "--fault-for", "shop.test"];
    let hello = |name: &str| {
        let resolve = format!("{name}:443:10.1.2.3");
        let url = format!("https://{name}/");
        let output = exec(
            backend,
            &namespace,
            &options,
            &["-k", "--resolve", &resolve, &url],
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let (meant, other) = (hello("shop.test"), hello("other.test"));
    assert!(meant.contains("reset by peer"), "{meant}");
    assert!(!other.contains("reset by peer"), "{other}");
}

fn a_wrong_fault_reads_well(backend: Backend) {
    for (options, wanted) in [
        (
            &["--fault", "abort=503:10"][..],
            "--fault abort: must be a percentage from 0% to 100%, got abort=503:10",
        ),
        (
            &["--fault", "latency=1s"],
            "as abort=503:10%,delay=200ms:5%,reset:1%, got latency=1s",
        ),
        (
            &["--fault", "reset:1%", "--fault-for", "a/b"],
            "--fault-for must be a host, with or without a port, got a/b",
        ),
    ] {
        let mut command = proxy::ambassador(backend);
        let output = program::output(command.arg("exec").args(options).args(["--", "true"]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
}
