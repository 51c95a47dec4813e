//! What log and metrics say of a request that was known only at its end.

use std::net::SocketAddr;
use std::time::Duration;

use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_http1, ports};
use serde_json::Value;

use crate::access_log::{LOGGED, lines};

on_http1!(
    the_authority_is_the_one_that_was_routed_by,
    a_switched_connection_has_its_status_and_no_duration,
);

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

fn a_switched_connection_has_its_status_and_no_duration(backend: Backend) {
    let server = Server::start(|connection| {
        if let Some(request) = connection.request()?
            && request.field("upgrade").is_some()
        {
            connection.write(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            )?;
        }
        let mut rest = [0; 64];
        while connection.read(&mut rest)? > 0 {}
        Ok(())
    });
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = ambassador_tests::proxy::one_upstream(listen, server.address(), "");
    let proxy = Proxy::start(backend, &format!("{LOGGED}{config}"));
    let upgrade = "GET / HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let connect = "CONNECT web.test:80 HTTP/1.1\r\nHost: web.test:80\r\n\r\n";
    for (method, request, status) in [("GET", upgrade, 101), ("CONNECT", connect, 200)] {
        let mut client = Client::connect(listen);
        client.send(request);
        assert_eq!(client.response(method).status, status);
        drop(client);
        let status = status.to_string();
        let labels = [("method", method), ("status", status.as_str())];
        eventually("it is counted", Duration::from_secs(5), || {
            proxy.metric("ambassador_requests_total", &labels) == 1.0
        });
    }
    let durations = "ambassador_request_duration_seconds_count";
    assert_eq!(proxy.metric(durations, &[("upstream", "web")]), 0.0);
    let statuses: Vec<_> = lines(&proxy, 2)
        .iter()
        .map(|line| line["status"].as_u64())
        .collect();
    assert_eq!(statuses, [Some(101), Some(200)]);
}
