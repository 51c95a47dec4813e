//! Which header fields pass, in which form, and which are added.

use ambassador_tests::server::{response, text};
use ambassador_tests::{Backend, Client, Proxy, Server, on_both_backends};

on_both_backends!(
    order_and_case_are_kept,
    hop_by_hop_fields_are_removed_from_requests,
    hop_by_hop_fields_are_removed_from_answers,
    a_request_id_is_given_or_kept,
    configured_fields_are_set_and_removed,
);

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
         X-Twice: a\r\nB: \r\nX-Twice: b\r\n\r\n",
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
            &["X-zEd", "acCEPT", "X-Twice", "B"]
        ),
        ["X-zEd=1", "acCEPT=x, y", "X-Twice=a", "B=", "X-Twice=b"]
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

fn a_request_id_is_given_or_kept(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
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
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\nX-Request-ID: mine\r\n\r\n");
    client.response("GET");
    let fields = server.last_request().fields;
    let all: Vec<_> = fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id"))
        .collect();
    assert_eq!(all, [&("X-Request-ID".to_owned(), "mine".to_owned())]);
}

fn configured_fields_are_set_and_removed(backend: Backend) {
    let server = Server::http(|_| text("ok"));
    let more = "headers: { set: { x-team: shop }, remove: [x-debug] }";
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), more);
    let mut client = Client::connect(listen);
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Upstream-Host: web\r\nX-Debug: 1\r\nX-Team: other\r\n\r\n",
    );
    client.response("GET");
    let request = server.last_request();
    assert_eq!(
        (request.field("x-team"), request.field("x-debug")),
        (Some("shop"), None)
    );
}
