//! What log and metrics say of a request that was known only at its end.

use std::net::SocketAddr;

use ambassador_tests::{Backend, Call, Client, Column, Proxy, Server, matrix, on_http1, ports};
use serde_json::Value;

use crate::access_log::{LOGGED, lines};

matrix!(a_switched_connection_has_its_status_and_no_duration,);

on_http1!(the_authority_is_the_one_that_was_routed_by,);

fn of(line: &Value, name: &str) -> String {
    line[name].as_str().unwrap_or_default().to_owned()
}

fn the_authority_is_the_one_that_was_routed_by(backend: Backend) {
    let server = Server::ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let at = server.address();
    let config = format!(
        "{LOGGED}listeners: [{{ name: e, bind: \"{listen}\" }}]\n\
         upstreams:\n  a: {{ hosts: [a.test], endpoints: [\"{at}\"] }}\n  \
         b: {{ hosts: [b.test], endpoints: [\"{at}\"] }}\n"
    );
    let proxy = Proxy::start(backend, &config);
    let mut client = Client::connect(listen);
    client.send("GET http://b.test/1 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    client.send("GET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    client.send("CONNECT b.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(client.response("CONNECT").status, 200);
    drop(client);
    for line in lines(&proxy, 3) {
        assert_eq!(of(&line, "upstream"), "b", "{line}");
        let authority = of(&line, "authority");
        assert!(authority.starts_with("b.test"), "{line}");
    }
}

fn a_switched_connection_has_its_status_and_no_duration(column: Column) {
    let switching = column.script(crate::tunnels::chat);
    let echo = Server::echo();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    // What is relayed is in no protocol.
    let config = format!(
        "{LOGGED}listeners: [{{ name: e, bind: \"{listen}\" }}]\n\
         upstreams:\n  a: {{ hosts: [a.test], endpoints: [\"{}\"] }}\n  \
         b: {{ hosts: [b.test], endpoints: [\"{}\"], protocol: auto }}\n",
        switching.address(),
        echo.address()
    );
    let proxy = Proxy::start(column, &config);
    let tunnels = [
        ("GET", Call::upgrade("/", "chat").to("a.test")),
        ("CONNECT", Call::connect("b.test:80")),
    ];
    let statuses = tunnels.map(|(method, call)| {
        let mut client = column.connect(listen);
        let status = client.open(&call).status;
        client.close();
        let labels = [("method", method), ("status", &*status.to_string())];
        proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
        Some(u64::from(status))
    });
    let durations = "ambassador_request_duration_seconds_count";
    assert_eq!(proxy.metric(durations, &[]), 0.0);
    let lines = lines(&proxy, 2);
    let logged: Vec<_> = lines.iter().map(|line| line["status"].as_u64()).collect();
    assert_eq!(logged, statuses);
}
