//! Which header fields pass, in which form, and which are added.

use std::time::Duration;

use ambassador_tests::server::{Request, response, text};
use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Proxy, Server, eventually, matrix, on_http1,
};

matrix!(
    order_is_kept,
    fields_for_the_proxy_are_removed,
    a_request_id_is_given_or_kept,
    configured_fields_are_set_and_removed,
    the_id_of_a_request_is_under_the_header_rules,
    trailers_are_under_the_rules_of_the_head,
);

on_http1!(
    order_and_case_are_kept,
    hop_by_hop_fields_are_removed_from_requests,
    hop_by_hop_fields_are_removed_from_answers,
    what_connection_names_is_not_decided_on,
    trailers_that_connection_names_stay_here,
    a_trailer_section_in_pieces_is_one,
);

/// The fields of these names, which are in lower case, as they came.
fn kept(fields: &[(String, String)], names: &[&str]) -> Vec<String> {
    let fields = fields
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value));
    let wanted = fields.filter(|(name, _)| names.contains(&&**name));
    wanted
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn order_is_kept(column: Column) {
    let server = column.server(|_| {
        let answer = Answer::ok("").field("Zebra", "1").field("Set-Cookie", "a");
        answer.field("Alpha", "2").field("Set-Cookie", "b")
    });
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let call = Call::get("/").lines(
        "X-Zed: 1\r\nAccept: x, y\r\nX-Twice: a\r\nB: \r\nX-Twice: b\r\nX-Request-ID: mine\r\n",
    );
    let answer = column.connect(listen).call(&call);
    assert_eq!(
        kept(&answer.fields, &["zebra", "set-cookie", "alpha"]),
        ["zebra=1", "set-cookie=a", "alpha=2", "set-cookie=b"]
    );
    let names = ["x-zed", "accept", "x-twice", "b", "x-request-id"];
    assert_eq!(
        kept(&server.last_request().fields, &names),
        [
            "x-zed=1",
            "accept=x, y",
            "x-twice=a",
            "b=",
            "x-twice=b",
            "x-request-id=mine"
        ]
    );
}

/// Those that no protocol takes for its own.
fn fields_for_the_proxy_are_removed(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let call = Call::post("/", "hi").to("a").lines(
        "X-Upstream-Host: web\r\nProxy-Authorization: Basic eA==\r\nX-Stays: 1\r\n\
         Proxy-Own: 1\r\n",
    );
    assert_eq!(column.connect(listen).call(&call).status, 200);
    let request = server.last_request();
    for gone in ["proxy-authorization", "x-upstream-host", "via"] {
        assert_eq!(request.field(gone), None, "{}", request.head);
    }
    assert_eq!(request.field("x-stays"), Some("1"));
    assert_eq!(request.field("proxy-own"), Some("1"));
    assert_eq!(request.body, b"hi");
}

fn order_and_case_are_kept(backend: Backend) {
    let server = Server::http(|_| {
        response(
            "200 OK",
            "ZeBRA: 1\r\nset-COOKIE: a\r\nAlpha: 2\r\nset-COOKIE: b\r\n",
            "",
        )
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(
        "GET / HTTP/1.1\r\nX-zEd: 1\r\nHost: a\r\nX-Upstream-Host: web\r\nacCEPT: x, y\r\n\
         X-Twice: a\r\nB: \r\nX-Twice: b\r\nX-Request-ID: mine\r\n\r\n",
    );
    let answer = client.response("GET");
    let kept = |fields: &[(String, String)], names: &[&str]| -> Vec<String> {
        let wanted = fields
            .iter()
            .filter(|(name, _)| names.contains(&name.as_str()));
        wanted
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    };
    assert_eq!(
        kept(&answer.fields, &["ZeBRA", "set-COOKIE", "Alpha"]),
        ["ZeBRA=1", "set-COOKIE=a", "Alpha=2", "set-COOKIE=b"]
    );
    assert_eq!(
        kept(
            &server.last_request().fields,
            &["X-zEd", "acCEPT", "X-Twice", "B", "X-Request-ID"]
        ),
        [
            "X-zEd=1",
            "acCEPT=x, y",
            "X-Twice=a",
            "B=",
            "X-Twice=b",
            "X-Request-ID=mine"
        ]
    );
}

fn hop_by_hop_fields_are_removed_from_requests(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\nConnection: keep-alive, X-Gone\r\n\
         X-Gone: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
         Proxy-Authorization: Basic eA==\r\nTE: gzip\r\nContent-Length: 2\r\nX-Stays: 1\r\n\r\nhi",
    );
    assert_eq!(client.response("POST").status, 200);
    let request = server.last_request();
    for gone in [
        "x-gone",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "x-upstream-host",
    ] {
        assert_eq!(request.field(gone), None, "{}", request.head);
    }
    assert_eq!(request.field("x-stays"), Some("1"));
    assert_eq!(request.field("via"), None);

    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\nContent-Length: 2\r\n\
         Connection: content-length, host\r\n\r\nhi",
    );
    // Naming a framing field must not strip it: that would smuggle the body.
    if client.response("POST").status == 200 {
        let request = server.last_request();
        assert_eq!(
            (request.body.as_slice(), request.field("host").is_some()),
            (&b"hi"[..], true)
        );
    }
}

fn hop_by_hop_fields_are_removed_from_answers(backend: Backend) {
    let server = Server::http(|_| {
        response(
            "200 OK",
            "Connection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=9\r\n\
             Proxy-Connection: x\r\nX-Public: 1\r\n",
            "ok",
        )
    });
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let answer = Client::connect(listen).get("/");
    for gone in ["x-private", "keep-alive", "proxy-connection"] {
        assert_eq!(answer.field(gone), None, "{}", answer.head);
    }
    assert_eq!(answer.field("x-public"), Some("1"));
}

fn a_request_id_is_given_or_kept(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = Proxy::in_front_of(column, server.address());
    let mut client = column.connect(listen);
    client.get("/");
    client.get("/");
    let ids: Vec<String> = server
        .requests()
        .iter()
        .map(|request| {
            request
                .field("x-request-id")
                .expect("one is injected")
                .to_owned()
        })
        .collect();
    assert_ne!(ids[0], ids[1]);
    for id in &ids {
        let groups: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
        assert!(matches!(id.as_bytes()[14], b'4' | b'7'), "{id}");
    }
    client.call(&Call::get("/").field("X-Request-ID", "mine"));
    assert_eq!(self::ids(&server.last_request()), ["mine"]);
}

/// Its ids, of which there may be one.
fn ids(request: &Request) -> Vec<String> {
    let fields = request.fields.iter();
    let ids = fields.filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id"));
    ids.map(|(_, value)| value.clone()).collect()
}

fn configured_fields_are_set_and_removed(column: Column) {
    let server = column.server(|_| Answer::ok("ok"));
    let more = "headers: { set: { x-team: shop }, remove: [x-debug] }";
    let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), more);
    let mut client = column.connect(listen);
    let call = Call::get("/").field("X-Debug", "1");
    client.call(&call.field("X-Team", "other"));
    let request = server.last_request();
    assert_eq!(
        (request.field("x-team"), request.field("x-debug")),
        (Some("shop"), None)
    );
}

/// A field that stays here would be decided on by this hop alone: the next one
/// would see a request without an id, or repeat what has no key.
fn what_connection_names_is_not_decided_on(backend: Backend) {
    let server = Server::start(|connection| {
        while let Some(request) = connection.request()? {
            if request.target == "/fails" {
                return connection.reset();
            }
            connection.write(text("ok"))?;
        }
        Ok(())
    });
    let more = "retry: { attempts: 3, on: [reset], base: 1ms }";
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), more);
    let mut client = Client::connect(listen);
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\nX-Request-Id: mine\r\n\
         Connection: x-request-id\r\n\r\n",
    );
    assert_eq!(client.response("GET").status, 200);
    let request = server.last_request();
    let id = request.field("x-request-id").expect("it has an id");
    assert_eq!(id.len(), 36, "one of its own: {id}");

    for (connection, tries) in [("close", 3), ("close, Idempotency-Key", 1)] {
        let before = server.requests().len();
        let mut client = Client::connect(listen);
        client.send(format!(
            "POST /fails HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\nContent-Length: 0\r\n\
             Idempotency-Key: 1\r\nConnection: {connection}\r\n\r\n"
        ));
        assert_eq!(client.response("POST").status, 502);
        let sent = &server.requests()[before..];
        assert_eq!(sent.len(), tries, "{connection}");
        let has_key = |request: &Request| request.field("idempotency-key").is_some();
        assert_eq!(sent.iter().all(has_key), tries > 1);
    }
}

fn the_id_of_a_request_is_under_the_header_rules(column: Column) {
    for (rules, expected) in [
        ("{ set: { x-request-id: fixed } }", vec!["fixed"]),
        ("{ remove: [x-request-id] }", vec![]),
    ] {
        let server = column.ok();
        let more = format!("headers: {rules}");
        let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), &more);
        let mut client = column.connect(listen);
        for own in ["", "X-Request-ID: mine\r\n"] {
            assert_eq!(client.call(&Call::get("/").lines(own)).status, 200);
            assert_eq!(ids(&server.last_request()), expected, "{rules} {own:?}");
        }
    }
}

/// Trailers of which two pass, and rules that make a difference to some.
const TRAILERS: [(&str, &str); 11] = [
    ("X-Sum", "1"),
    ("X-Team", "evil"),
    ("x-DEBUG", "1"),
    ("Proxy-Authorization", "z"),
    ("X-Upstream-Host", "other"),
    ("X-Request-Id", "t"),
    ("Authorization", "Bearer t"),
    ("Traceparent", "t"),
    ("Idempotency-Key", "1"),
    ("grpc-timeout", "1S"),
    ("X-End", "2"),
];
const RULES: &str = "headers: { set: { x-team: shop }, remove: [x-debug] }";

fn trailers_are_under_the_rules_of_the_head(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), RULES);
    let mut client = column.connect(listen);
    // The second one shows that nothing is left of the first.
    for _ in 0..2 {
        client.send(&Call::new("POST", "/").in_pieces());
        client.piece("hi");
        client.end(&TRAILERS);
        assert_eq!(client.answer().status, 200);
        let request = server.last_request();
        assert_eq!(request.body, b"hi");
        assert_eq!(request.trailers.len(), 2, "{:?}", request.trailers);
        assert_eq!(request.trailer("x-sum"), Some("1"));
        assert_eq!(request.trailer("x-end"), Some("2"));
    }
}

/// A request with these trailers, and one more that `Connection` names.
fn trailed() -> String {
    let trailers = TRAILERS.iter();
    let trailers = trailers.map(|(name, value)| format!("{name}: {value}\r\n"));
    let trailers: String = trailers.collect();
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\n\
         Transfer-Encoding: chunked\r\nConnection: x-hop\r\n\r\n2\r\nhi\r\n0\r\n\
         X-Hop: 1\r\n{trailers}\r\n"
    )
}

fn trailers_that_connection_names_stay_here(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), RULES);
    let mut client = Client::connect(listen);
    client.send(trailed());
    assert_eq!(client.response("POST").status, 200);
    let passed = [("X-Sum", "1"), ("X-End", "2")].map(|(name, value)| (name.into(), value.into()));
    assert_eq!(server.last_request().trailers, passed);
}

fn a_trailer_section_in_pieces_is_one(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), RULES);
    let mut client = Client::connect(listen);
    let trailed = trailed();
    let section = trailed.find("\r\n0\r\n").expect("it ends") + 2;
    for cut in (section..trailed.len()).step_by(13) {
        client.send(&trailed[..cut]);
        // The proxy has read the first part before the second comes.
        let asked = server.requests().len();
        eventually("the head has come", Duration::from_secs(5), || {
            server.open_connections() == 1
        });
        client.send(&trailed[cut..]);
        assert_eq!(client.response("POST").status, 200, "{cut}");
        assert_eq!(server.requests().len(), asked + 1);
        assert_eq!(server.last_request().trailers.len(), 2, "{cut}");
    }
}
