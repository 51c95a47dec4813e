//! What comes through a tunnel that CONNECT has made: on an explicit listener it
//! is captured by request.

use std::io;
use std::net::{SocketAddr, TcpStream};

use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Backend, Call, Caller, Cgroup, Client, Column, Connection, Protocol, Proxy, Request,
    Response, Server, matrix, on_both_backends, ports, program,
};

use crate::tunnels::echo;

matrix!(
    requests_in_a_tunnel_are_under_the_policies,
    the_first_request_in_a_tunnel_reuses_nothing,
    a_request_in_a_tunnel_goes_where_a_captured_one_would,
    a_tunnel_that_leads_nowhere_is_told_so,
);

on_both_backends!(
    requests_sent_with_a_connect_are_under_the_policies,
    odd_and_slow_requests_in_a_tunnel_are_requests,
    an_absolute_form_and_a_connect_go_where_captured_ones_would,
    what_is_no_request_in_a_tunnel_is_relayed,
    the_protocol_of_an_upstream_holds_in_a_tunnel,
    a_captured_connect_is_a_request_with_a_tunnel,
);

struct World {
    proxy: Proxy,
    listen: SocketAddr,
    servers: [Server; 2],
}

impl World {
    /// Two upstreams before these servers.
    fn start(column: impl Into<Column>, servers: [Server; 2], more: &str) -> World {
        let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let [one, two] = servers.each_ref().map(Server::address);
        let config = format!(
            "listeners: [{{ name: e, bind: \"{listen}\" }}]\n\
             upstreams:\n  one: {{ hosts: [one.test], endpoints: [\"{one}\"], \
             headers: {{ set: {{ x-team: shop }}, remove: [x-debug] }}{more} }}\n  \
             two: {{ hosts: [two.test], endpoints: [\"{two}\"] }}\n"
        );
        World {
            proxy: Proxy::start(column, &config),
            listen,
            servers,
        }
    }

    /// What goes through a tunnel to the first of them.
    fn tunnel(&self, protocol: Protocol) -> TcpStream {
        let mut client = protocol.connect(self.listen);
        client.open(&connect());
        client.into_stream()
    }

    /// Makes requests through such a tunnel.
    fn caller(&self, column: Column) -> Caller {
        column.over(self.tunnel(column.client))
    }
}

fn connect() -> Call {
    Call::connect("one.test:80")
}

/// A tunnel over either protocol to what speaks HTTP/1, or something else.
fn tunnels(world: &World) -> [Client; 2] {
    Protocol::ALL.map(|protocol| Client::over(world.tunnel(protocol)))
}

/// Upstreams that answer with their name and what they see of a request.
fn requests(column: Column, more: &str) -> World {
    let servers = ["one", "two"].map(|name| {
        column.script(move |exchange| {
            let answer = Answer::ok(seen(name, exchange.head()));
            exchange.send(&answer)
        })
    });
    World::start(column, servers, more)
}

/// The same, of requests of HTTP/1; they send back what is none.
fn anything(backend: Backend, more: &str) -> World {
    let servers = ["one", "two"].map(|name| {
        Server::start(move |connection| match peek(connection)? {
            true => connection.serve_http(|request| text(&seen(name, request))),
            false => echo(connection),
        })
    });
    World::start(backend, servers, more)
}

/// What the upstream of this name sees of a request.
fn seen(name: &str, request: &Request) -> String {
    let seen = ["x-team", "x-debug", "x-upstream-host", "x-request-id"];
    let seen = seen
        .into_iter()
        .filter(|name| request.field(name).is_some());
    let seen = seen.collect::<Vec<_>>().join(" ");
    format!("{name} {} {} {seen}", request.method, request.target)
}

/// Whether the client begins with a letter, as requests do here.
fn peek(connection: &mut Connection) -> io::Result<bool> {
    let mut byte = [0];
    connection.stream().peek(&mut byte)?;
    Ok(byte[0].is_ascii_uppercase())
}

fn reason(answer: &Response) -> (u16, Option<&str>) {
    (answer.status, answer.field("x-ambassador-reason"))
}

const LIMIT: &str = ", rate_limit: { requests_per_second: 0.01, burst: 2 }";

/// Each tunnel has had one request too many.
#[track_caller]
fn expect_limited(world: &World, tunnels: f64) {
    for (labels, requests) in [
        (&[("method", "CONNECT"), ("status", "200")][..], tunnels),
        (&[("method", "GET"), ("status", "200")], 2.0),
        (&[("method", "GET"), ("reason", "rate-limited")], 1.0),
    ] {
        let name = "ambassador_requests_total";
        world.proxy.expect_metric(name, labels, requests);
    }
    let relayed = world.proxy.metric("ambassador_tcp_connections_total", &[]);
    assert_eq!(relayed, 0.0, "nothing was relayed");
}

fn requests_in_a_tunnel_are_under_the_policies(column: Column) {
    let world = requests(column, LIMIT);
    let mut client = world.caller(column);
    let call = Call::get("/a").to("one.test").field("X-Debug", "1");
    for _ in 0..2 {
        let answer = client.call(&call);
        assert_eq!(answer.text(), "one GET /a x-team x-request-id");
    }
    assert_eq!(reason(&client.call(&call)), (429, Some("rate-limited")));
    expect_limited(&world, 1.0);
}

/// All of it at once: nothing may slip through behind the CONNECT.
fn requests_sent_with_a_connect_are_under_the_policies(backend: Backend) {
    let request = "GET /a HTTP/1.1\r\nHost: one.test\r\nX-Debug: 1\r\n\r\n";
    for protocol in Protocol::ALL {
        let world = anything(backend, LIMIT);
        let mut client = protocol.connect(world.listen);
        client.open(&connect().saying(request.repeat(3)));
        let mut client = Client::over(client.into_stream());
        for _ in 0..2 {
            let answer = client.response("GET");
            assert_eq!(answer.text(), "one GET /a x-team x-request-id");
        }
        assert_eq!(reason(&client.response("GET")), (429, Some("rate-limited")));
        expect_limited(&world, 1.0);
    }
}

/// Its connection was dialled for the tunnel, and nobody has used it.
fn the_first_request_in_a_tunnel_reuses_nothing(column: Column) {
    let world = requests(column, "");
    let mut client = world.caller(column);
    for (requests, reuses) in [(1.0, 0.0), (2.0, 1.0)] {
        assert_eq!(client.call(&Call::get("/a").to("one.test")).status, 200);
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
    let world = anything(backend, "");
    let end = " HTTP/1.1\r\nHost: one.test\r\n\r\n";
    for start in [
        "BREW /a",
        "\r\nPROPFIND /a",
        "A-LONG-METHOD-OF-THIRTY-SIX-LETTERS-X /a",
    ] {
        for mut client in tunnels(&world) {
            client.send(format!("{start}{end}"));
            let answer = client.response("GET").text();
            assert!(
                answer.ends_with("/a x-team x-request-id"),
                "{start:?}: {answer}"
            );
        }
    }
    // The answer to one more shows that the beginning was waited for.
    for mut client in tunnels(&world) {
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
}

fn a_request_in_a_tunnel_goes_where_a_captured_one_would(column: Column) {
    let world = requests(column, "");
    let mut client = world.caller(column);
    for (path, host, fields, expected) in [
        ("/a", "one.test", "", "one GET /a x-team x-request-id"),
        // What nobody claims goes where the tunnel leads.
        ("/a", "nobody.test", "", "one GET /a x-team x-request-id"),
        ("/a", "two.test", "", "two GET /a x-request-id"),
        // It is addressed to the upstream, not to this proxy.
        (
            "/two/a",
            "nobody.test",
            "",
            "one GET /two/a x-team x-request-id",
        ),
        (
            "/a",
            "one.test",
            "X-Upstream-Host: two\r\n",
            "one GET /a x-team x-upstream-host x-request-id",
        ),
    ] {
        let answer = client.call(&Call::get(path).to(host).lines(fields));
        assert_eq!(answer.text(), expected, "{path} {host} {fields:?}");
    }
}

fn an_absolute_form_and_a_connect_go_where_captured_ones_would(backend: Backend) {
    let world = anything(backend, "");
    for mut client in tunnels(&world) {
        client.send("GET http://two.test/a HTTP/1.1\r\nHost: one.test\r\n\r\n");
        assert_eq!(client.response("GET").text(), "two GET /a x-request-id");
        // A CONNECT is not addressed to this proxy: its upstream is asked.
        client.send("CONNECT two.test:80 HTTP/1.1\r\nHost: two.test:80\r\n\r\n");
        assert_eq!(client.response("CONNECT").status, 200);
        let nested = "one CONNECT two.test:80 x-team x-request-id";
        assert_eq!(client.exactly(nested.len()), nested.as_bytes());
    }
}

fn what_is_no_request_in_a_tunnel_is_relayed(backend: Backend) {
    let world = anything(backend, "");
    for said in [&b"\x00\x01\x02"[..], b"*1\r\n$4\r\nPING\r\n", b"<13>a\n"] {
        for mut client in tunnels(&world) {
            client.send(said);
            assert_eq!(client.exactly(said.len()), said);
            client.finish();
            assert_eq!(client.rest().expect("a FIN"), b"the end");
        }
    }
    let labels = [("upstream", "one"), ("outcome", "closed")];
    world
        .proxy
        .expect_metric("ambassador_tcp_connections_total", &labels, 6.0);

    let greeter = Server::start(|connection| {
        connection.write("220 ready\r\n")?;
        echo(connection)
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, greeter.address());
    for protocol in Protocol::ALL {
        let mut client = protocol.connect(listen);
        client.open(&Call::connect("web.test:25"));
        assert_eq!(client.content(11), b"220 ready\r\n");
        client.piece("EHLO a\r\n");
        assert_eq!(client.content(8), b"EHLO a\r\n");
    }
}

fn the_protocol_of_an_upstream_holds_in_a_tunnel(backend: Backend) {
    let request = "GET /a HTTP/1.1\r\nHost: one.test\r\n\r\n";
    let server = Server::http(|request| text(&request.head));
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), "protocol: tcp");
    for protocol in Protocol::ALL {
        let mut client = protocol.connect(listen);
        client.open(&Call::connect("web.test:80"));
        let mut client = Client::over(client.into_stream());
        client.send(request);
        assert_eq!(client.response("GET").text(), request, "as it was");
    }
    let http = anything(backend, ", protocol: http1");
    for mut client in tunnels(&http) {
        client.send("*1\r\n$4\r\nPING\r\n");
        assert_eq!(reason(&client.response("GET")), (400, Some("bad-request")));
    }
}

fn a_tunnel_that_leads_nowhere_is_told_so(column: Column) {
    let nobody = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let more = "circuit_breaker: { failures: 2, sleep: 1h }\nretry: { attempts: 1 }";
    let (_proxy, listen) = Proxy::in_front_of_with(column, nobody, more);
    for expected in [
        (502, Some("connect-failed")),
        (502, Some("connect-failed")),
        (503, Some("circuit-open")),
    ] {
        let connect = Call::connect("web.test:80");
        assert_eq!(reason(&column.connect(listen).call(&connect)), expected);
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
