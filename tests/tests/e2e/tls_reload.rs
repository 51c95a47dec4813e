//! Settings of TLS and their files at the start and at a reload.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambassador_tests::program;
use ambassador_tests::proxy::{Scratch, ambassador};
use ambassador_tests::server::text;
use ambassador_tests::{Authority, Backend, Client, Proxy, Server, eventually, on_both_backends};

use crate::tls_upstream::{config, free};

on_both_backends!(
    new_settings_have_connections_of_their_own,
    what_has_not_changed_keeps_its_connections,
    a_reload_that_names_a_bad_file_changes_nothing,
    idle_connections_are_encrypted_before_they_are_needed,
    a_request_of_before_goes_to_no_endpoint_of_now,
);

const SOON: Duration = Duration::from_secs(10);
const RELOADS: &str = "ambassador_config_reloads_total";
const REFUSED: &str = "ambassador_config_reload_failures_total";

/// A server that speaks TLS or not, as each connection begins.
fn of_both_kinds(config: rustls::ServerConfig) -> Server {
    let config = Arc::new(config);
    Server::start(move |connection| {
        let mut first = [0];
        connection.stream().peek(&mut first)?;
        let kind = match first[0] {
            22 => {
                connection.secure(Arc::clone(&config))?;
                "tls"
            }
            _ => "clear",
        };
        connection.serve_http(|_| text(kind))
    })
}

fn new_settings_have_connections_of_their_own(backend: Backend) {
    let scratch = Scratch::new();
    let (authority, other) = (Authority::new("root"), Authority::new("other"));
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    let other = scratch.file("other.pem", &other.pem).display().to_string();
    let server = of_both_kinds(authority.issue(&["web.test"]).server());
    let listen = free();
    // No place is kept from the new ones by the old ones.
    let pool = "pool: { max_connections: 1, idle_timeout: 1s }";
    let text = |tls: &str| {
        let more = format!("tls: {tls}\n{pool}");
        config(listen, server.address(), &more)
    };
    let proxy = Proxy::start(backend, &text("off"));
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/").text(), "clear");
    let with = |ca: &str, more: &str| format!("{{ ca: {ca}{more} }}");
    for (number, (tls, told)) in [
        (with(&ca, ""), (200, "tls")),
        ("off".to_owned(), (200, "clear")),
        (with(&ca, ", min_version: \"1.3\""), (200, "tls")),
        // What was trusted before is not any more, however many connections there are.
        (with(&other, ""), (502, "")),
        (with(&other, ", verify: off"), (200, "tls")),
        (with(&ca, ", sni: other.test"), (502, "")),
        (with(&ca, ""), (200, "tls")),
    ]
    .into_iter()
    .enumerate()
    {
        proxy.rewrite_config(&text(&tls));
        proxy.expect_metric(RELOADS, &[], number as f64 + 1.0);
        for _ in 0..3 {
            let answer = client.get("/");
            let said = match answer.status {
                200 => answer.text(),
                _ => String::new(),
            };
            assert_eq!((answer.status, said.as_str()), told, "{tls}");
        }
    }
    eventually(
        "those of before are closed",
        Duration::from_secs(10),
        || server.open_connections() == 1,
    );
}

fn what_has_not_changed_keeps_its_connections(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    let server = of_both_kinds(authority.issue(&["web.test"]).server());
    let listen = free();
    let text = |more: &str| {
        let more = format!("tls: {{ ca: {ca} }}\n{more}");
        config(listen, server.address(), &more)
    };
    let proxy = Proxy::start(backend, &text(""));
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/").text(), "tls");
    for number in 1..=3 {
        proxy.rewrite_config(&text(&format!("timeouts: {{ request: {number}0s }}")));
        proxy.expect_metric(RELOADS, &[], f64::from(number));
        assert_eq!(client.get("/").text(), "tls");
    }
    assert_eq!(server.connections(), 1);
}

/// A request that waits for another try meanwhile: in clear to where TLS is spoken, or
/// with the credential of another server, it must not go.
fn a_request_of_before_goes_to_no_endpoint_of_now(backend: Backend) {
    const BUSY: &str = "HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n";
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let leaf = authority.issue(&["web.test"]);
    let tls = format!("tls: {{ ca: {} }}", ca.display());
    let token = |name: &str| {
        let file = scratch.file(name, name);
        format!("auth: {{ bearer: {{ file: {} }} }}", file.display())
    };
    let [one, another] = ["one", "another"].map(token);
    for (before, now) in [
        (format!("tls: off\n{one}"), format!("{tls}\n{one}")),
        (format!("{tls}\n{one}"), format!("tls: off\n{one}")),
        (format!("tls: off\n{one}"), format!("tls: off\n{another}")),
        (format!("{tls}\n{one}"), format!("{tls}\n{another}")),
    ] {
        let busy = Server::start({
            let (is_encrypted, config) = (before.starts_with(&tls), Arc::new(leaf.server()));
            move |connection| {
                if is_encrypted {
                    connection.secure(Arc::clone(&config))?;
                }
                connection.serve_http(|_| BUSY.into())
            }
        });
        let next = of_both_kinds(leaf.server());
        let listen = free();
        let retry = "\nretry: { budget: { ratio: 100% } }";
        let proxy = Proxy::start(backend, &config(listen, busy.address(), &(before + retry)));
        let mut waiting = Client::connect(listen);
        waiting.send("GET /before HTTP/1.1\r\nHost: web.test\r\n\r\n");
        eventually("it is tried", SOON, || !busy.requests().is_empty());
        proxy.rewrite_config(&config(listen, next.address(), &(now.clone() + retry)));
        proxy.expect_metric(RELOADS, &[], 1.0);
        assert_eq!(waiting.response("GET").status, 503, "{now}");
        assert_eq!(next.connections(), 0, "{now}");
        assert_eq!(Client::connect(listen).get("/now").status, 200, "{now}");
    }
}

fn a_reload_that_names_a_bad_file_changes_nothing(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    let garbage = scratch.file("garbage.pem", "garbage").display().to_string();
    let server = of_both_kinds(authority.issue(&["web.test"]).server());
    let listen = free();
    let text = |ca: &str| config(listen, server.address(), &format!("tls: {{ ca: {ca} }}"));
    let proxy = Proxy::start(backend, &text(&ca));
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/").text(), "tls");
    for (number, file) in ["/no/such.pem", &garbage].into_iter().enumerate() {
        proxy.rewrite_config(&text(file));
        proxy.expect_metric(REFUSED, &[], number as f64 + 1.0);
        assert!(
            proxy.log().contains("upstreams.web.tls.ca: "),
            "{}",
            proxy.log()
        );
        assert_eq!(client.get("/").text(), "tls");
    }
    assert_eq!(server.connections(), 1);
    // And a good one is taken after.
    let other = scratch.file("other.pem", &Authority::new("other").pem);
    proxy.rewrite_config(&text(&other.display().to_string()));
    proxy.expect_metric(RELOADS, &[], 1.0);
    assert_eq!(client.get("/").status, 502);
}

fn idle_connections_are_encrypted_before_they_are_needed(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    let server = of_both_kinds(authority.issue(&["web.test"]).server());
    let listen = free();
    let more = format!("tls: {{ ca: {ca} }}\npool: {{ min_idle: 3 }}");
    let proxy = Proxy::start(backend, &config(listen, server.address(), &more));
    let labels = [("upstream", "web"), ("outcome", "completed")];
    proxy.expect_metric(crate::tls_upstream::HANDSHAKES, &labels, 3.0);
    assert_eq!(Client::connect(listen).get("/").text(), "tls");
    // None of its own.
    assert_eq!(server.connections(), 3);
}

#[test]
fn files_that_cannot_be_used_are_told_at_the_start_with_their_line() {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    let (cert, key) = authority.issue(&["a.test"]).write(&scratch, "own");
    let (cert, key) = (cert.display(), key.display());
    let (_, other) = authority.issue(&["b.test"]).write(&scratch, "other");
    let other = other.display();
    let garbage = scratch.file("garbage.pem", "garbage");
    let garbage = garbage.display();
    let listen = SocketAddr::from(([127, 0, 0, 1], 9));
    for (tls, key_of, why) in [
        ("ca: /no/such.pem".to_owned(), "ca", "there is no such file"),
        (format!("ca: {garbage}"), "ca", "has no certificate in PEM"),
        (
            format!("ca: {ca}, cert: {cert}, key: /no/such.key"),
            "key",
            "there is no such file",
        ),
        (
            format!("ca: {ca}, cert: {garbage}, key: {key}"),
            "cert",
            "has no certificate in PEM",
        ),
        (format!("ca: {ca}, cert: {cert}, key: {garbage}"), "key", ""),
        (format!("ca: {ca}, cert: {cert}, key: {other}"), "cert", ""),
        (
            format!("ca: {ca}, crl: {garbage}"),
            "crl",
            "has no list in PEM",
        ),
        (format!("ca: {ca}, crl: {ca}"), "crl", "has no list in PEM"),
        (
            format!("ca: {ca}, cert: {cert}"),
            "",
            "must have cert and key, or neither",
        ),
    ] {
        let text = config(listen, listen, &format!("tls: {{ {tls} }}"));
        let line = text.lines().position(|line| line.contains("tls:"));
        let line = line.expect("it is there") + 1;
        let file = scratch.file("ambassador.yaml", &text);
        let place = match key_of {
            "" => format!("{}:{line}: upstreams.web.tls: ", file.display()),
            key => format!("{}:{line}: upstreams.web.tls.{key}: ", file.display()),
        };
        for words in [&["check"][..], &["run", "--config"]] {
            let output = program::output(ambassador(Backend::Ring).args(words).arg(&file));
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert_eq!(output.status.code(), Some(78), "{tls}: {said}");
            assert!(
                said.contains(&place) && said.contains(why),
                "{place}{why}\n{said}"
            );
            assert!(!said.contains("PRIVATE KEY"), "{said}");
        }
    }
    let tls = format!("tls: {{ ca: {ca}, cert: {cert}, key: {key} }}");
    let file = scratch.file("ambassador.yaml", &config(listen, listen, &tls));
    program::succeed(ambassador(Backend::Ring).arg("check").arg(&file));
}
