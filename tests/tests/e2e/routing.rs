//! Which upstream a request of an explicit listener goes to.

use std::net::SocketAddr;

use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Proxy, Response, Server, matrix, on_http1, ports,
};

matrix!(
    x_upstream_host_names_an_upstream_or_an_authority,
    a_path_prefix_routes_at_a_segment_boundary,
    routes_match_in_order,
    names_win_over_wildcards_and_ports_matter,
    endpoints_take_turns,
    the_upstream_sees_its_own_authority,
    an_upstream_by_dns_name_is_reached,
    a_request_for_a_tcp_upstream_is_told_so,
    an_authority_has_no_case_and_may_be_an_address,
    what_nothing_claims_is_no_route,
);

on_http1!(absolute_form_and_host_route_by_authority,);

struct World {
    column: Column,
    proxy: Proxy,
    listen: SocketAddr,
    one: Server,
    two: Server,
}

/// Two upstreams; `more` is appended to the configuration.
fn world(column: impl Into<Column>, more: &str) -> World {
    let column = column.into();
    let one = column.server(|request| Answer::ok(format!("one {}", request.target)));
    let two = column.server(|request| Answer::ok(format!("two {}", request.target)));
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let proxy = Proxy::start(
        column,
        &format!(
            "listeners:\n  - {{ name: egress, bind: \"{listen}\", protocol: http }}\n\
             upstreams:\n\
             \x20 one: {{ hosts: [one.test, \"*.one.test\"], endpoints: [\"{}\"] }}\n\
             \x20 two: {{ hosts: [two.test, \"special.one.test\", \"one.test:8443\", 10.9.0.0/16], endpoints: [\"{}\"] }}\n\
             {more}",
            one.address(),
            two.address()
        ),
    );
    World {
        column,
        proxy,
        listen,
        one,
        two,
    }
}

impl World {
    /// A request of this method and path, to this `Host`, with more fields.
    fn ask(&self, line: &str, fields: &str) -> Response {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let (host, more) = fields.split_once("\r\n").expect("there is a host");
        let host = host.strip_prefix("Host: ").expect("it is the first");
        let call = Call::new(method, path).to(host).lines(more);
        let call = match method {
            "POST" => call.body(""),
            _ => call,
        };
        self.column.connect(self.listen).call(&call)
    }
}

fn x_upstream_host_names_an_upstream_or_an_authority(column: Column) {
    let world = world(column, "");
    assert_eq!(
        world
            .ask("GET /a", "Host: two.test\r\nX-Upstream-Host: one\r\n")
            .text(),
        "one /a"
    );
    assert_eq!(
        world
            .ask("GET /b", "Host: one.test\r\nX-Upstream-Host: two.test\r\n")
            .text(),
        "two /b"
    );
    assert_eq!(world.one.last_request().field("x-upstream-host"), None);
    let answer = world.ask(
        "GET /",
        "Host: one.test\r\nX-Upstream-Host: nobody.test\r\n",
    );
    assert_eq!((answer.status, answer.reason()), (404, "no-route"));
}

fn absolute_form_and_host_route_by_authority(backend: Backend) {
    let world = world(backend, "");
    assert_eq!(world.ask("GET /h", "Host: two.test\r\n").text(), "two /h");
    let mut client = Client::connect(world.listen);
    client.send("GET http://one.test/abs?q=1 HTTP/1.1\r\nHost: two.test\r\n\r\n");
    assert_eq!(
        client.response("GET").text(),
        "one /abs?q=1",
        "absolute-form wins, and is sent in origin-form"
    );
}

fn an_authority_has_no_case_and_may_be_an_address(column: Column) {
    let world = world(column, "");
    for host in ["two.test", "TWO.test", "10.9.1.2"] {
        let answer = world.ask("GET /h", &format!("Host: {host}\r\n"));
        assert_eq!(answer.text(), "two /h", "{host}");
    }
}

fn a_path_prefix_routes_at_a_segment_boundary(column: Column) {
    let world = world(column, "");
    assert_eq!(
        world.ask("GET /one/a/b?c", "Host: localhost\r\n").text(),
        "one /a/b?c"
    );
    assert_eq!(world.ask("GET /two", "Host: localhost\r\n").text(), "two /");
    assert_eq!(
        world.ask("GET /two/", "Host: localhost\r\n").text(),
        "two /"
    );
    assert_eq!(
        world.ask("GET /two?x=1", "Host: localhost\r\n").text(),
        "two /?x=1"
    );
    let answer = world.ask("GET /twofold", "Host: localhost\r\n");
    assert_eq!((answer.status, answer.reason()), (404, "no-route"));
}

fn routes_match_in_order(column: Column) {
    let world = world(
        column,
        "routes:\n\
         \x20 - match: { host: one.test, path_prefix: /v1/charges, methods: [POST] }\n    upstream: two\n\
         \x20 - match: { path_prefix: /moved }\n    upstream: one\n",
    );
    let host = "Host: one.test\r\n";
    assert_eq!(
        world.ask("POST /v1/charges/7", host).text(),
        "two /v1/charges/7"
    );
    assert_eq!(
        world.ask("GET /v1/charges/7", host).text(),
        "one /v1/charges/7"
    );
    assert_eq!(world.ask("POST /v1", host).text(), "one /v1");
    assert_eq!(
        world.ask("GET /moved/x", "Host: two.test\r\n").text(),
        "one /moved/x"
    );
}

fn names_win_over_wildcards_and_ports_matter(column: Column) {
    let world = world(column, "");
    assert_eq!(
        world.ask("GET /", "Host: deep.one.test\r\n").text(),
        "one /"
    );
    assert_eq!(
        world.ask("GET /", "Host: special.one.test\r\n").text(),
        "two /"
    );
    assert_eq!(
        world.ask("GET /", "Host: one.test:8443\r\n").text(),
        "two /"
    );
    assert_eq!(world.ask("GET /", "Host: one.test:80\r\n").text(), "one /");
}

fn what_nothing_claims_is_no_route(column: Column) {
    let world = world(column, "");
    let answer = world.ask("GET /x", "Host: nobody.test\r\n");
    assert_eq!((answer.status, answer.reason()), (404, "no-route"));
    let connect = Call::connect("nobody.test:443");
    let tunnel = column.connect(world.listen).call(&connect);
    assert_eq!((tunnel.status, tunnel.reason()), (404, "no-route"));
    let labels = [
        ("upstream", "unmatched"),
        ("reason", "no-route"),
        ("status", "404"),
    ];
    world
        .proxy
        .expect_metric("ambassador_requests_total", &labels, 2.0);
    assert_eq!(world.one.connections() + world.two.connections(), 0);
}

fn endpoints_take_turns(column: Column) {
    let servers: Vec<Server> = (0..3).map(|_| column.ok()).collect();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let list: Vec<String> = servers
        .iter()
        .map(|server| format!("\"{}\"", server.address()))
        .collect();
    let _proxy = Proxy::start(
        column,
        &format!(
            "workers: 1\nlisteners: [{{ name: egress, bind: \"{listen}\", protocol: http }}]\n\
             upstreams: {{ web: {{ load_balancing: round_robin, endpoints: [{}] }} }}\n",
            list.join(", ")
        ),
    );
    let mut client = column.connect(listen);
    for _ in 0..30 {
        assert_eq!(client.get("/").status, 200);
    }
    let counts: Vec<usize> = servers
        .iter()
        .map(|server| server.requests().len())
        .collect();
    assert_eq!(counts, [10, 10, 10]);
}

fn the_upstream_sees_its_own_authority(column: Column) {
    let world = world(column, "");
    world.ask("GET /", "Host: one.test\r\n");
    assert_eq!(
        world.one.last_request().authority(),
        Some("one.test"),
        "matched by its own"
    );
    world.ask("GET /one/", "Host: localhost:8081\r\n");
    assert_ne!(world.one.last_request().authority(), Some("localhost:8081"));
}

fn an_upstream_by_dns_name_is_reached(column: Column) {
    let server = column.ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let _proxy = Proxy::start(
        column,
        &format!(
            "listeners: [{{ name: egress, bind: \"{listen}\", protocol: http }}]\n\
             upstreams: {{ web: {{ dns: \"localhost:{}\" }} }}\n",
            server.address().port()
        ),
    );
    // The first answer of the resolver may still be on its way.
    ambassador_tests::eventually(
        "the name resolves",
        std::time::Duration::from_secs(10),
        || column.connect(listen).get("/").status == 200,
    );
}

fn a_request_for_a_tcp_upstream_is_told_so(column: Column) {
    let server = column.ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "telemetry: {{ access_log: {{ path: stdout, format: json, sample: 100% }} }}\n\
         listeners: [{{ name: egress, bind: \"{listen}\" }}]\n\
         upstreams: {{ orders: {{ protocol: tcp, endpoints: [\"{}\"] }} }}\n",
        server.address()
    );
    let proxy = Proxy::start(column, &config);
    let mut client = column.connect(listen);
    let response = client.call(&Call::get("/orders/1").to("any.test"));
    assert_eq!((response.status, response.reason()), (404, "no-route"));
    let told = "the upstream orders has protocol tcp";
    assert!(response.text().starts_with(told), "{}", response.text());
    ambassador_tests::eventually("it is logged", std::time::Duration::from_secs(5), || {
        let log = proxy.log();
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let is_told = |line: serde_json::Value| {
            let detail = line["detail"].as_str().unwrap_or_default();
            line["reason"] == "no-route" && detail.starts_with(told)
        };
        lines.any(is_told)
    });
    assert_eq!(server.connections(), 0);
}
