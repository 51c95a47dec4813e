//! A request goes there and its answer comes back, bytes unchanged.

use std::process::Command;

use ambassador_tests::server::response;
use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Proxy, Server, matrix, on_http1, program,
};

matrix!(
    request_and_answer_are_unchanged,
    every_method_passes,
    every_status_passes,
    a_refused_dial_is_a_502,
    a_reset_before_the_answer_is_a_502,
    garbage_from_the_upstream_is_a_502,
);

on_http1!(
    a_phrase_is_unchanged,
    a_wrk_run_has_no_failed_request,
    heads_that_are_none_are_a_502,
);

fn request_and_answer_are_unchanged(column: Column) {
    let server = column.server(|request| {
        let body = format!("{} {}", request.method, request.target);
        Answer::ok(body).field("X-Answer", "42")
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let call = Call::post("/a/b?c=d%20e&f", "hello").to("client.test");
    let call = call.field("X-Upstream-Host", "web");
    let answer = column.connect(listen).call(&call);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("x-answer"), Some("42"));
    assert_eq!(answer.text(), "POST /a/b?c=d%20e&f");
    assert_eq!(answer.reason(), "");
    let request = server.last_request();
    assert_eq!(request.body, b"hello");
}

fn a_phrase_is_unchanged(backend: Backend) {
    let server = Server::http(|_| response("200 Fine", "", "ok"));
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let head = Client::connect(listen).get("/").head;
    assert!(head.starts_with("HTTP/1.1 200 Fine\r\n"), "{head}");
}

fn every_method_passes(column: Column) {
    let server = column.server(|request| Answer::ok(&request.method));
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    for method in [
        "GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "QUERY",
    ] {
        let call = Call::new(method, "/").body("");
        assert_eq!(client.call(&call).text(), method);
    }
}

fn every_status_passes(column: Column) {
    let server = column.server(|request| {
        let status = request.target[1..].parse().expect("a status");
        Answer::status(status).body("body")
    });
    // Failures are passed on however many there are.
    let more = "retry: { attempts: 1 }\ncircuit_breaker: { failures: off }";
    let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    let mut client = column.connect(listen);
    for status in [200, 201, 206, 301, 400, 404, 418, 429, 500, 502, 503, 599] {
        let answer = client.get(&format!("/{status}"));
        assert_eq!((answer.status, answer.text().as_str()), (status, "body"));
        assert_eq!(
            answer.reason(),
            "",
            "the upstream said {status}, not the proxy"
        );
    }
}

fn a_wrk_run_has_no_failed_request(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    let report = program::succeed(
        Command::new("wrk")
            .args(["-t1", "-c16", "-d1s", "-H", "X-Upstream-Host: web"])
            .arg(format!("http://{listen}/")),
    );
    assert!(!report.contains("Non-2xx"), "{report}");
    assert!(!report.contains("Socket errors"), "{report}");
    let answered = proxy.metric(
        "ambassador_requests_total",
        &[("upstream", "web"), ("status", "200")],
    );
    assert!(answered >= 100.0, "{answered} requests\n{report}");
}

fn a_refused_dial_is_a_502(column: Column) {
    let closed = column.ok().address();
    let (proxy, listen) = Proxy::in_front_of(column, closed);
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, answer.reason()), (502, "connect-failed"));
    let labels = [
        ("upstream", "web"),
        ("status", "502"),
        ("reason", "connect-failed"),
    ];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
}

fn a_reset_before_the_answer_is_a_502(column: Column) {
    let server = column.script(|exchange| {
        exchange.request()?;
        exchange.reset()
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    let answer = client.get("/");
    assert_eq!((answer.status, answer.reason()), (502, "upstream-reset"));
}

fn garbage_from_the_upstream_is_a_502(column: Column) {
    let server = column.script(|exchange| {
        exchange.request()?;
        exchange.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")?;
        exchange.until_left()
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let answer = column.connect(listen).get("/");
    assert_eq!((answer.status, answer.reason()), (502, "protocol-error"));
}

fn heads_that_are_none_are_a_502(backend: Backend) {
    for garbage in [
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    ] {
        let server = Server::start(move |connection| {
            connection.request()?;
            connection.write(garbage)?;
            connection.request().map(drop)
        });
        let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
        let answer = Client::connect(listen).get("/");
        assert_eq!(
            (answer.status, answer.reason()),
            (502, "protocol-error"),
            "{garbage:?}"
        );
    }
}
