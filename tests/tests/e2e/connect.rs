//! What comes through a tunnel that CONNECT has made: on an explicit listener it
//! is captured by request.

use std::net::SocketAddr;

use ambassador_tests::server::text;
use ambassador_tests::{
    Backend, Cgroup, Client, Connection, Proxy, Response, Server, on_both_backends, on_http1,
    ports, program,
};

use crate::tunnels::echo;

on_http1!(
    requests_in_a_tunnel_are_under_the_policies,
    the_first_request_in_a_tunnel_reuses_nothing,
    odd_and_slow_requests_in_a_tunnel_are_requests,
    a_request_in_a_tunnel_goes_where_a_captured_one_would,
    what_is_no_request_in_a_tunnel_is_relayed,
    the_protocol_of_an_upstream_holds_in_a_tunnel,
    a_tunnel_that_leads_nowhere_is_told_so,
);

on_both_backends!(a_captured_connect_is_a_request_with_a_tunnel,);

const CONNECT: &str = "CONNECT one.test:80 HTTP/1.1\r\nHost: one.test:80\r\n\r\n";

struct World {
    proxy: Proxy,
    listen: SocketAddr,
    servers: [Server; 2],
}

/// Two upstreams, which answer with their name and what they see of a request,
/// and send back what is none.
fn world(backend: Backend, more: &str) -> World {
    let servers = ["one", "two"].map(|name| {
        Server::start(move |connection| match peek(connection)? {
            true => connection.serve_http(|request| {
                let seen = ["x-team", "x-debug", "x-upstream-host", "x-request-id"];
                let seen = seen
                    .into_iter()
                    .filter(|name| request.field(name).is_some());
                let seen = seen.collect::<Vec<_>>().join(" ");
                text(&format!(
                    "{name} {} {} {seen}",
                    request.method, request.target
                ))
            }),
            false => echo(connection),
        })
    });
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let [one, two] = [&servers[0], &servers[1]].map(Server::address);
    let config = format!(
        "listeners: [{{ name: e, bind: \"{listen}\" }}]\n\
         upstreams:\n  one: {{ hosts: [one.test], endpoints: [\"{one}\"], \
         headers: {{ set: {{ x-team: shop }}, remove: [x-debug] }}{more} }}\n  \
         two: {{ hosts: [two.test], endpoints: [\"{two}\"] }}\n"
    );
    World {
        proxy: Proxy::start(backend, &config),
        listen,
        servers,
    }
}

impl World {
    fn tunnel(&self) -> Client {
        let mut client = Client::connect(self.listen);
        client.send(CONNECT);
        assert_eq!(client.response("CONNECT").status, 200);
        client
    }
}

/// Whether the client begins with a letter, as requests do here.
fn peek(connection: &mut Connection) -> std::io::Result<bool> {
    let mut byte = [0];
    connection.stream().peek(&mut byte)?;
    Ok(byte[0].is_ascii_uppercase())
}

fn reason(answer: &Response) -> (u16, Option<&str>) {
    (answer.status, answer.field("x-ambassador-reason"))
}

fn requests_in_a_tunnel_are_under_the_policies(backend: Backend) {
    let limit = ", rate_limit: { requests_per_second: 0.01, burst: 2 }";
    let world = world(backend, limit);
    // All of it at once: nothing may slip through behind the CONNECT.
    let request = "GET /a HTTP/1.1\r\nHost: one.test\r\nX-Debug: 1\r\n\r\n";
    let mut client = Client::connect(world.listen);
    client.send(format!("{CONNECT}{}", request.repeat(3)));
    assert_eq!(client.response("CONNECT").status, 200);
    for _ in 0..2 {
        let answer = client.response("GET");
        assert_eq!(answer.text(), "one GET /a x-team x-request-id");
    }
    assert_eq!(reason(&client.response("GET")), (429, Some("rate-limited")));
    for (labels, requests) in [
        (&[("method", "CONNECT"), ("status", "200")][..], 1.0),
        (&[("method", "GET"), ("status", "200")], 2.0),
        (&[("method", "GET"), ("reason", "rate-limited")], 1.0),
    ] {
        world
            .proxy
            .expect_metric("ambassador_requests_total", labels, requests);
    }
    let tunnels = world.proxy.metric("ambassador_tcp_connections_total", &[]);
    assert_eq!(tunnels, 0.0, "nothing was relayed");
}

/// Its connection was dialled for the tunnel, and nobody has used it.
fn the_first_request_in_a_tunnel_reuses_nothing(backend: Backend) {
    let world = world(backend, "");
    let mut client = world.tunnel();
    for (requests, reuses) in [(1.0, 0.0), (2.0, 1.0)] {
        client.send("GET /a HTTP/1.1\r\nHost: one.test\r\n\r\n");
        assert_eq!(client.response("GET").status, 200);
        let of_one = |name, count| {
            let labels = [("upstream", "one")];
            world.proxy.expect_metric(name, &labels, count);
        };
        // With the CONNECT.
        of_one("ambassador_requests_total", requests + 1.0);
        of_one("ambassador_pool_reuse_total", reuses);
    }
    assert_eq!(world.servers[0].connections(), 1);
}

fn odd_and_slow_requests_in_a_tunnel_are_requests(backend: Backend) {
    let world = world(backend, "");
    let end = " HTTP/1.1\r\nHost: one.test\r\n\r\n";
    for start in [
        "BREW /a",
        "\r\nPROPFIND /a",
        "A-LONG-METHOD-OF-THIRTY-SIX-LETTERS-X /a",
    ] {
        let mut client = world.tunnel();
        client.send(format!("{start}{end}"));
        let answer = client.response("GET").text();
        assert!(
            answer.ends_with("/a x-team x-request-id"),
            "{start:?}: {answer}"
        );
    }
    // The answer to one more shows that the beginning was waited for.
    let mut client = world.tunnel();
    client.send("GET /a");
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(Client::connect(world.listen).get("/").status, 404));
    });
    client.send(end);
    assert_eq!(
        client.response("GET").text(),
        "one GET /a x-team x-request-id"
    );
}

fn a_request_in_a_tunnel_goes_where_a_captured_one_would(backend: Backend) {
    let world = world(backend, "");
    let mut client = world.tunnel();
    for (line, fields, expected) in [
        (
            "GET /a",
            "Host: one.test\r\n",
            "one GET /a x-team x-request-id",
        ),
        // What nobody claims goes where the tunnel leads.
        (
            "GET /a",
            "Host: nobody.test\r\n",
            "one GET /a x-team x-request-id",
        ),
        ("GET /a", "Host: two.test\r\n", "two GET /a x-request-id"),
        (
            "GET http://two.test/a",
            "Host: one.test\r\n",
            "two GET /a x-request-id",
        ),
        // It is addressed to the upstream, not to this proxy.
        (
            "GET /two/a",
            "Host: nobody.test\r\n",
            "one GET /two/a x-team x-request-id",
        ),
        (
            "GET /a",
            "Host: one.test\r\nX-Upstream-Host: two\r\n",
            "one GET /a x-team x-upstream-host x-request-id",
        ),
    ] {
        client.send(format!("{line} HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(client.response("GET").text(), expected, "{line} {fields:?}");
    }
    // Nor is a CONNECT: its upstream is asked.
    client.send("CONNECT two.test:80 HTTP/1.1\r\nHost: two.test:80\r\n\r\n");
    assert_eq!(client.response("CONNECT").status, 200);
    let nested = "one CONNECT two.test:80 x-team x-request-id";
    assert_eq!(client.exactly(nested.len()), nested.as_bytes());
}

fn what_is_no_request_in_a_tunnel_is_relayed(backend: Backend) {
    let world = world(backend, "");
    for said in [&b"\x00\x01\x02"[..], b"*1\r\n$4\r\nPING\r\n", b"<13>a\n"] {
        let mut client = world.tunnel();
        client.send(said);
        assert_eq!(client.exactly(said.len()), said);
        client.finish();
        assert_eq!(client.rest().expect("a FIN"), b"the end");
    }
    let labels = [("upstream", "one"), ("outcome", "closed")];
    world
        .proxy
        .expect_metric("ambassador_tcp_connections_total", &labels, 3.0);

    let greeter = Server::start(|connection| {
        connection.write("220 ready\r\n")?;
        echo(connection)
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, greeter.address());
    let mut client = Client::connect(listen);
    client.send("CONNECT web.test:25 HTTP/1.1\r\nHost: web.test:25\r\n\r\n");
    assert_eq!(client.response("CONNECT").status, 200);
    assert_eq!(client.exactly(11), b"220 ready\r\n");
    client.send("EHLO a\r\n");
    assert_eq!(client.exactly(8), b"EHLO a\r\n");
}

fn the_protocol_of_an_upstream_holds_in_a_tunnel(backend: Backend) {
    let request = "GET /a HTTP/1.1\r\nHost: one.test\r\n\r\n";
    let server = Server::http(|request| text(&request.head));
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), "protocol: tcp");
    let mut client = Client::connect(listen);
    client.send("CONNECT web.test:80 HTTP/1.1\r\nHost: web.test:80\r\n\r\n");
    assert_eq!(client.response("CONNECT").status, 200);
    client.send(request);
    assert_eq!(client.response("GET").text(), request, "as it was");

    let http = world(backend, ", protocol: http1");
    let mut client = http.tunnel();
    client.send("*1\r\n$4\r\nPING\r\n");
    assert_eq!(reason(&client.response("GET")), (400, Some("bad-request")));
}

fn a_tunnel_that_leads_nowhere_is_told_so(backend: Backend) {
    let nobody = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let more = "circuit_breaker: { failures: 2, sleep: 1h }\nretry: { attempts: 1 }";
    let (_proxy, listen) = Proxy::in_front_of_with(backend, nobody, more);
    for expected in [
        (502, Some("connect-failed")),
        (502, Some("connect-failed")),
        (503, Some("circuit-open")),
    ] {
        let mut client = Client::connect(listen);
        client.send("CONNECT web.test:80 HTTP/1.1\r\nHost: web.test:80\r\n\r\n");
        assert_eq!(reason(&client.response("GET")), expected);
    }
}

/// The upstream is a proxy, to which the caller speaks itself.
fn a_captured_connect_is_a_request_with_a_tunnel(backend: Backend) {
    const CALLER: &str = "import socket\n\
        proxy = socket.create_connection(('10.1.2.3', 7000), 20)\n\
        proxy.sendall(b'CONNECT two.test:80 HTTP/1.1\\r\\nHost: two.test:80\\r\\n\\r\\n')\n\
        assert b' 200 ' in proxy.recv(4096)\n\
        proxy.sendall(b'GET /a HTTP/1.1\\r\\nHost: two.test\\r\\n\\r\\n')\n\
        print(proxy.recv(4096).decode().splitlines()[-1])";
    let server = Server::start(|connection| {
        let connect = connection.request()?;
        assert_eq!(
            connect.map(|connect| connect.target).as_deref(),
            Some("two.test:80")
        );
        connection.write("HTTP/1.1 200 Connection Established\r\n\r\n")?;
        connection.serve_http(|request| {
            let is_proxied = request.field("x-request-id").is_some();
            text(if is_proxied { "proxied" } else { "relayed" })
        })
    });
    let cgroup = Cgroup::new();
    let config = format!(
        "upstreams:\n  web: {{ hosts: [10.1.2.3], endpoints: [\"{}\"] }}\n  \
         two: {{ hosts: [two.test], endpoints: [127.0.0.1:9] }}\n",
        server.address()
    );
    let _proxy = Proxy::capturing(backend, &cgroup, &config);
    let mut command = cgroup.command(program::PYTHON);
    assert_eq!(program::succeed(command.args(["-c", CALLER])), "relayed\n");
}
