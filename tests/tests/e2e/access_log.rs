//! The access log: a line per request and per relayed connection.

use std::net::SocketAddr;
use std::time::Duration;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{
    Answer, Backend, Call, Cgroup, Client, Column, Proxy, Server, eventually, matrix,
    on_both_backends, on_http1, ports, program,
};
use serde_json::Value;

matrix!(
    each_request_is_a_line,
    what_is_to_be_kept_is_a_line,
    a_tunnel_is_the_line_of_its_request,
    a_malformed_request_is_a_line_too,
);

on_http1!(what_is_no_request_is_a_line_too,);

on_both_backends!(
    a_line_is_written_as_it_is_asked_for,
    each_relayed_connection_is_a_line_at_its_end,
    a_connection_that_leads_nowhere_is_a_line,
    a_captured_connection_tells_where_it_was_going,
    a_captured_connection_without_a_word_is_a_line,
    what_the_drain_cuts_is_a_line,
);

const SOON: Duration = Duration::from_secs(5);
pub(crate) const LOGGED: &str =
    "telemetry: { access_log: { path: stdout, format: json, sample: 100% } }\n";

/// The lines of the access log, once there are as many as this.
#[track_caller]
pub(crate) fn lines(proxy: &Proxy, count: usize) -> Vec<Value> {
    let lines = || -> Vec<Value> {
        let log = proxy.log();
        let parsed = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let of_the_log = |line: &Value| line.get("duration_ms").is_some();
        parsed.filter(of_the_log).collect()
    };
    eventually("the lines are there", SOON, || lines().len() == count);
    lines()
}

/// A sample of nothing leaves out what went well, and nothing else.
fn what_is_to_be_kept_is_a_line(column: Column) {
    let server = column.server(|request| match request.target.as_str() {
        "/bad" => Answer::status(500),
        _ => Answer::ok("ok"),
    });
    let listen = free();
    let log = "telemetry: { access_log: { sample: 0%, keep: [failed, slow: 300ms] } }\n";
    let more = "retry: { attempts: 1 }\n\
                fault: { delay: { for: 300ms, share: 100% }, header: x-slow }\n";
    let config = one_upstream(listen, server.address(), more);
    let proxy = Proxy::start(column, &format!("{log}{config}"));
    let mut client = column.connect(listen);
    for (path, status) in [("/", 200), ("/bad", 500), ("/", 200)] {
        assert_eq!(client.get(path).status, status);
    }
    let slow = Call::get("/slow").to("web.test").field("x-slow", "1");
    assert_eq!(client.call(&slow).status, 200);
    assert_eq!(client.get("/").status, 200);
    let nowhere = Call::get("/nowhere").to("nobody.test");
    assert_eq!(client.call(&nowhere).status, 404);
    let lines = lines(&proxy, 3);
    let paths: Vec<_> = lines.iter().map(|line| line["path"].as_str()).collect();
    assert_eq!(paths, [Some("/bad"), Some("/slow"), Some("/nowhere")]);
}

fn a_line_is_written_as_it_is_asked_for(backend: Backend) {
    let server = Server::ok();
    for (format, line) in [
        (
            "logfmt",
            "method=GET authority=client.test path=\"/a?b=c\" request_id=",
        ),
        (
            "{ template: \"{method} \\\"{path}\\\" {status} {reason}\" }",
            "GET \"/a?b=c\" 200 -\n",
        ),
    ] {
        let listen = free();
        let config = one_upstream(listen, server.address(), "");
        let log = format!("telemetry: {{ access_log: {{ format: {format} }} }}\n");
        let proxy = Proxy::start(backend, &format!("{log}{config}"));
        assert_eq!(Client::connect(listen).get("/a?b=c").status, 200);
        eventually("the line is there", SOON, || proxy.log().contains(line));
    }
}

/// A proxy with a TCP listener `db` that leads to this endpoint.
fn relay(backend: Backend, listen: SocketAddr, endpoint: SocketAddr) -> Proxy {
    let config = format!(
        "drain_timeout: 1s\n{LOGGED}\
         listeners: [{{ name: db, bind: \"{listen}\", protocol: tcp, upstream: store }}]\n\
         upstreams: {{ store: {{ endpoints: [\"{endpoint}\"] }} }}\n"
    );
    Proxy::start(backend, &config)
}

fn free() -> SocketAddr {
    ([127, 0, 0, 1], ports::free()).into()
}

fn each_request_is_a_line(column: Column) {
    let server = column.ok();
    let listen = free();
    let config = one_upstream(listen, server.address(), "");
    let proxy = Proxy::start(column, &format!("{LOGGED}{config}"));
    let mut client = column.connect(listen);
    client.get("/logged?secret=1");
    let nowhere = Call::get("/nowhere").to("nobody.test");
    assert_eq!(client.call(&nowhere).status, 404);
    assert_eq!(client.call(&Call::post("/", "hello")).status, 200);

    let lines = lines(&proxy, 3);
    assert_eq!(told(&lines[0]), (Some(200), "GET", ""));
    assert_eq!(told(&lines[1]), (Some(404), "GET", "no-route"));
    assert_eq!(told(&lines[2]), (Some(200), "POST", ""));
    // What was refused is told of as much as what was not.
    assert_eq!(lines[1]["authority"], "nobody.test");
    assert_eq!(lines[1]["path"], "/nowhere");
    assert!(lines[1]["request_id"].is_string(), "{}", lines[1]);
    assert_eq!(lines[0]["upstream"], "web");
    for line in &lines {
        assert_eq!(line["protocol"], column.client.name());
        assert!(line["client"].is_string(), "{line}");
    }
}

/// Status, method and reason of a request.
fn told(line: &Value) -> (Option<u64>, &str, &str) {
    let word = |name: &str| line[name].as_str().unwrap_or_default();
    (line["status"].as_u64(), word("method"), word("reason"))
}

fn what_is_no_request_is_a_line_too(backend: Backend) {
    let server = Server::ok();
    let listen = free();
    let config = one_upstream(listen, server.address(), "");
    let proxy = Proxy::start(backend, &format!("{LOGGED}{config}"));
    let mut client = Client::connect(listen);
    let post = "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5\r\n\r\nhello";
    client.send(post);
    assert_eq!(client.response("POST").status, 200);
    client.send("NOT HTTP\r\n\r\n");
    assert_eq!(client.response("GET").status, 400);

    let lines = lines(&proxy, 2);
    assert_eq!(told(&lines[0]), (Some(200), "POST", ""));
    assert_eq!(lines[0]["bytes_in"], post.len());
    assert_eq!(told(&lines[1]), (Some(400), "OTHER", "bad-request"));
    for line in &lines {
        assert_eq!(line["protocol"], "http1");
        assert!(line["client"].is_string(), "{line}");
    }
}

/// Whether it is answered, or its stream is reset without a status.
fn a_malformed_request_is_a_line_too(column: Column) {
    let server = column.ok();
    let listen = free();
    let config = one_upstream(listen, server.address(), "");
    let proxy = Proxy::start(column, &format!("{LOGGED}{config}"));
    let mut client = column.connect(listen);
    client.send(&Call::get("/a").field("no name", "x"));
    let status = client.try_answer().map_or(0, |answer| answer.status);
    assert!(matches!(status, 0 | 400), "{status}");
    let line = lines(&proxy, 1).remove(0);
    let said = (Some(status.into()), "OTHER", "bad-request");
    assert_eq!(told(&line), said, "{line}");
    assert_eq!(line["detail"], "malformed field name: no name");
    assert_eq!(line["protocol"], column.client.name());
    assert!(line["client"].is_string(), "{line}");
    assert_eq!(server.connections(), 0);
}

fn each_relayed_connection_is_a_line_at_its_end(backend: Backend) {
    let server = Server::echo();
    let listen = free();
    let proxy = relay(backend, listen, server.address());
    let mut client = Client::connect(listen);
    client.send("hello");
    assert_eq!(client.exactly(5), b"hello");
    client.finish();
    assert_eq!(client.rest().expect("a FIN"), b"");

    let line = lines(&proxy, 1).remove(0);
    assert_eq!(line["listener"], "db");
    assert_eq!(line["upstream"], "store");
    assert_eq!(line["protocol"], "tcp");
    assert_eq!(line["outcome"], "closed");
    assert_eq!(line["endpoint"], server.address().to_string());
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&5.into(), &5.into())
    );
    assert!(line["duration_ms"].as_f64() > Some(0.0), "{line}");
    assert!(line["client"].is_string(), "{line}");
    assert_eq!(line.get("status"), None);
    let labels = [("upstream", "store"), ("outcome", "closed")];
    proxy.expect_metric("ambassador_tcp_connections_total", &labels, 1.0);
}

fn a_connection_that_leads_nowhere_is_a_line(backend: Backend) {
    let nobody = Server::echo().address();
    let listen = free();
    for (endpoint, outcome) in [(nobody, "connect-failed"), (listen, "loop")] {
        let proxy = relay(backend, listen, endpoint);
        let mut client = Client::connect(listen);
        client.rest().expect_err("a reset");
        let line = lines(&proxy, 1).remove(0);
        assert_eq!(line["upstream"], "store");
        assert_eq!(line["outcome"], outcome);
        assert_eq!(line["endpoint"], endpoint.to_string());
        let labels = [("upstream", "store"), ("outcome", outcome)];
        proxy.expect_metric("ambassador_tcp_connections_total", &labels, 1.0);
    }
}

fn a_tunnel_is_the_line_of_its_request(column: Column) {
    let chat = column.script(crate::tunnels::chat);
    // What is relayed is in no protocol.
    let echo = Server::echo();
    let connect = Call::connect("web.test:443");
    for (call, server, more, end) in [
        (Call::upgrade("/", "chat"), &chat, "", "the end"),
        (connect, &echo, "protocol: auto", ""),
    ] {
        let listen = free();
        let config = one_upstream(listen, server.address(), more);
        let proxy = Proxy::start(column, &format!("{LOGGED}{config}"));
        let mut client = column.connect(listen);
        let status = client.open(&call).status;
        client.piece("twelve bytes");
        client.end(&[]);
        let all = format!("twelve bytes{end}");
        assert_eq!(client.content(all.len()), all.as_bytes());
        assert!(client.is_at_end(), "no reset");

        let line = lines(&proxy, 1).remove(0);
        assert_eq!(
            (&line["status"], &line["outcome"]),
            (&status.into(), &"closed".into())
        );
        let carried = client.carried();
        assert_eq!(line["bytes_in"], carried.sent, "{line}");
        assert!(line["bytes_out"].as_u64() > Some(12), "{line}");
        proxy.expect_metric("ambassador_tcp_connections_total", &[], 1.0);
    }
}

fn a_captured_connection_tells_where_it_was_going(backend: Backend) {
    let server = Server::echo();
    let cgroup = Cgroup::new();
    let config = format!(
        "{LOGGED}capture: {{ unmatched: refuse }}\n\
         upstreams: {{ named: {{ hosts: [api.test], endpoints: [\"{}\"] }} }}\n",
        server.address()
    );
    let proxy = Proxy::capturing(backend, &cgroup, &config);
    for name in ["api.test", "other.test"] {
        let mut curl = cgroup.command("curl");
        curl.args(["-sSk", "-m20", "--resolve"])
            .arg(format!("{name}:443:10.9.9.9"))
            .arg(format!("https://{name}/"));
        let output = program::output(&mut curl);
        assert!(!output.status.success(), "an echo is no handshake");
    }

    let lines = lines(&proxy, 2);
    for (line, name) in lines.iter().zip(["api.test", "other.test"]) {
        assert_eq!(line["protocol"], "tls");
        assert_eq!(line["server_name"], name);
        assert_eq!(line["listener"], "capture");
        assert_eq!(line["original_destination"], "10.9.9.9:443");
    }
    assert_eq!(lines[0]["upstream"], "named");
    assert_eq!(lines[0]["endpoint"], server.address().to_string());
    assert_eq!(lines[1]["upstream"], "unmatched");
    assert_eq!(lines[1]["outcome"], "no-route");
    assert_eq!(lines[1].get("endpoint"), None);
}

fn a_captured_connection_without_a_word_is_a_line(backend: Backend) {
    let server = Server::echo();
    let cgroup = Cgroup::new();
    let config = format!(
        "{LOGGED}defaults: {{ timeouts: {{ tunnel: 200ms }} }}\n\
         upstreams: {{ store: {{ hosts: [10.1.2.3], endpoints: [\"{}\"] }} }}\n",
        server.address()
    );
    let proxy = Proxy::capturing(backend, &cgroup, &config);
    let script = "import socket\n\
        s=socket.create_connection(('10.1.2.3',7),20)\n\
        try: s.recv(1); assert False, 'a polite end'\n\
        except ConnectionResetError: pass\n";
    program::succeed(cgroup.command(program::PYTHON).args(["-c", script]));
    let line = lines(&proxy, 1).remove(0);
    assert_eq!(line["upstream"], "store");
    assert_eq!(line["outcome"], "idle-timeout");
    assert_eq!(line["endpoint"], server.address().to_string());
    let labels = [("upstream", "store"), ("outcome", "idle-timeout")];
    proxy.expect_metric("ambassador_tcp_connections_total", &labels, 1.0);
}

fn what_the_drain_cuts_is_a_line(backend: Backend) {
    let server = Server::echo();
    let listen = free();
    let mut proxy = relay(backend, listen, server.address());
    let mut client = Client::connect(listen);
    client.send("hello");
    assert_eq!(client.exactly(5), b"hello");
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait(SOON).code(), Some(0));
    client.rest().expect_err("a cut is no polite end");
    let line = lines(&proxy, 1).remove(0);
    assert_eq!(line["outcome"], "drained");
    assert_eq!(line["bytes_in"], 5);
}
