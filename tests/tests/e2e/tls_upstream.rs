//! TLS towards upstreams: what a server has to prove, and what becomes of a request
//! where it does not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambassador_tests::proxy::{Launch, Scratch, one_upstream};
use ambassador_tests::{
    Authority, Backend, Client, Leaf, Proxy, Server, eventually, on_both_backends, ports,
};
use rustls::version::{TLS12, TLS13};
use serde_json::Value;

on_both_backends!(
    a_server_that_proves_who_it_is_is_spoken_to,
    a_certificate_fault_fails_once_with_its_cause,
    a_certificate_fault_is_not_tried_elsewhere,
    a_certificate_fault_opens_the_circuit,
    a_name_is_asked_for_as_the_settings_say,
    names_of_a_wildcard_share_no_connection,
    what_is_not_verified_is_as_the_settings_say,
    the_authorities_of_the_system_are_known,
    a_client_certificate_is_shown,
    sessions_are_resumed,
    settings_of_all_upstreams_hold_where_one_says_no_other,
);

/// How many handshakes ended how.
pub(crate) const HANDSHAKES: &str = "ambassador_tls_handshakes_total";

/// An upstream `web` with these settings, and an access log.
pub(crate) fn config(listen: SocketAddr, endpoint: SocketAddr, more: &str) -> String {
    format!(
        "telemetry: {{ access_log: {{ path: stdout }} }}\n{}",
        one_upstream(listen, endpoint, more)
    )
}

/// An address for a listener.
pub(crate) fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

/// The line of the request for this path, once it is there.
#[track_caller]
pub(crate) fn line(proxy: &Proxy, path: &str) -> Value {
    line_with(proxy, "path", path)
}

/// The first line with this value, once it is there.
#[track_caller]
pub(crate) fn line_with(proxy: &Proxy, key: &str, value: &str) -> Value {
    let mut found = None;
    eventually("it is logged", Duration::from_secs(5), || {
        let log = proxy.log();
        let lines = log.lines().filter(|line| line.starts_with('{'));
        let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        found = lines.find(|line| line[key] == value);
        found.is_some()
    });
    found.unwrap_or_default()
}

/// A proxy in front of a server with `tls` for the upstream `web`.
struct World {
    proxy: Proxy,
    listen: SocketAddr,
}

impl World {
    fn start(backend: Backend, endpoint: SocketAddr, more: &str) -> World {
        let listen = free();
        let proxy = Proxy::start(backend, &config(listen, endpoint, more));
        World { proxy, listen }
    }

    /// Asks for a path on a connection of its own, and gives the status.
    fn get(&self, path: &str) -> u16 {
        Client::connect(self.listen).get(path).status
    }

    /// It fails because of TLS, with this cause.
    #[track_caller]
    fn fails(&self, path: &str, cause: &str) {
        let answer = Client::connect(self.listen).get(path);
        let told = (answer.status, answer.reason());
        assert_eq!(told, (502, "tls-failed"), "{cause}");
        let line = line(&self.proxy, path);
        assert_eq!(line["detail"], cause, "{line}");
    }
}

/// Answers with the name that was asked for in the handshake.
fn telling_its_name(config: rustls::ServerConfig) -> Server {
    Server::secured(config, |connection| {
        let session = connection.session();
        let name = session.and_then(|(session, _)| session.server_name().map(str::to_owned));
        let name = name.unwrap_or_else(|| "none".to_owned());
        connection.serve_http(|_| ambassador_tests::server::text(&name))
    })
}

fn a_server_that_proves_who_it_is_is_spoken_to(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let between = authority.below("between");
    let ca = scratch.file("ca.pem", &authority.pem);
    let leaf = between.issue(&["web.test"]).behind(&between);
    for (versions, told) in [(&[&TLS12][..], "1.2"), (&[&TLS13], "1.3")] {
        let server = telling_its_name(leaf.server_of(versions, None));
        let tls = format!("tls: {{ ca: {} }}", ca.display());
        let world = World::start(backend, server.address(), &tls);
        let mut client = Client::connect(world.listen);
        for path in ["/first", "/second"] {
            assert_eq!(client.get(path).text(), "web.test");
        }
        let first = line(&world.proxy, "/first");
        assert_eq!(first["tls_version"], told);
        assert_eq!(first["tls_resumed"], false);
        let group = match told {
            "1.3" => "X25519MLKEM768",
            _ => "X25519",
        };
        assert_eq!(first["tls_group"], group);
        let cipher = first["tls_cipher"].as_str().unwrap_or_default();
        assert!(cipher.starts_with("TLS"), "{first}");
        assert_eq!(line(&world.proxy, "/second")["reused"], true);
        assert_eq!(server.connections(), 1);
        let labels = [
            ("upstream", "web"),
            ("outcome", "completed"),
            ("version", told),
            ("group", group),
            ("resumed", "false"),
        ];
        world.proxy.expect_metric(HANDSHAKES, &labels, 1.0);
    }
}

/// Servers with a fault each, the word for it, and what the settings say beside `ca`.
fn faulty(
    scratch: &Scratch,
    authority: &Authority,
) -> Vec<(&'static str, &'static str, rustls::ServerConfig, String)> {
    let name = &["web.test"][..];
    let soon = |leaf: Leaf| leaf.server();
    let list = |file: &str, serials: &[u64], is_old| {
        let list = scratch.file(file, &authority.revoking(serials, is_old));
        format!(", crl: {}", list.display())
    };
    let numbered = |number: u64| {
        authority.issue_with(name, |wanted| wanted.serial_number = Some(number.into()))
    };
    let other = Authority::new("other");
    let between = authority.below("between");
    let mut by_another_protocol = authority.issue(name).server();
    by_another_protocol.alpn_protocols = vec![b"h3".to_vec()];
    let past = rcgen::date_time_ymd(2024, 1, 1);
    let future = rcgen::date_time_ymd(4000, 1, 1);
    let expired = authority.issue_with(name, |wanted| wanted.not_after = past);
    let early = authority.issue_with(name, |wanted| wanted.not_before = future);
    let no_more = authority.issue_with(name, |wanted| {
        wanted.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let no_leaf = authority.issue_with(name, |wanted| {
        wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let none = String::new;
    vec![
        ("/expired", "certificate-expired", soon(expired), none()),
        ("/early", "certificate-not-yet-valid", soon(early), none()),
        (
            "/name",
            "wrong-name",
            soon(authority.issue(&["other.test"])),
            none(),
        ),
        ("/unknown", "unknown-ca", soon(other.issue(name)), none()),
        ("/missing", "unknown-ca", soon(between.issue(name)), none()),
        ("/self", "unknown-ca", soon(Leaf::self_signed(name)), none()),
        ("/ca", "bad-certificate", soon(no_leaf), none()),
        ("/client", "bad-certificate", soon(no_more), none()),
        (
            "/revoked",
            "revoked",
            soon(numbered(7)),
            list("revoked", &[7], false),
        ),
        (
            "/old-list",
            "unknown-revocation-status",
            soon(numbered(8)),
            list("old", &[7], true),
        ),
        (
            "/no-list",
            "unknown-revocation-status",
            soon(between.issue(name).behind(&between)),
            list("other", &[7], false),
        ),
        (
            "/protocol",
            "no-common-protocol",
            by_another_protocol,
            none(),
        ),
        (
            "/version",
            "no-common-version",
            authority.issue(name).server_of(&[&TLS12], None),
            ", min_version: \"1.3\"".to_owned(),
        ),
    ]
}

fn a_certificate_fault_fails_once_with_its_cause(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    for (path, cause, config, more) in faulty(&scratch, &authority) {
        let server = telling_its_name(config);
        let tls = format!("tls: {{ ca: {}{more} }}", ca.display());
        let world = World::start(backend, server.address(), &tls);
        world.fails(path, cause);
        let labels = [("upstream", "web"), ("outcome", cause)];
        world.proxy.expect_metric(HANDSHAKES, &labels, 1.0);
        let told = (server.connections(), server.requests().len());
        assert_eq!(told, (1, 0), "{cause}");
        let attempt = [("upstream", "web"), ("outcome", "tls-failed")];
        let attempts = "ambassador_upstream_attempts_total";
        world.proxy.expect_metric(attempts, &attempt, 1.0);
    }
    // What is in none of the lists is in order.
    let leaf = authority.issue_with(&["web.test"], |wanted| {
        wanted.serial_number = Some(9_u64.into());
    });
    let server = telling_its_name(leaf.server());
    let list = scratch.file("list", &authority.revoking(&[7, 8], false));
    let tls = format!("tls: {{ ca: {}, crl: {} }}", ca.display(), list.display());
    assert_eq!(World::start(backend, server.address(), &tls).get("/"), 200);
}

fn a_certificate_fault_is_not_tried_elsewhere(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let bad = || telling_its_name(Leaf::self_signed(&["web.test"]).server());
    let (one, two) = (bad(), bad());
    let listen = free();
    let text = format!(
        "telemetry: {{ access_log: {{ path: stdout }} }}\n\
         listeners: [{{ name: e, bind: \"{listen}\" }}]\n\
         upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\", \"{}\"], \
         retry: {{ attempts: 5, base: 1ms }}, tls: {{ ca: {} }} }} }}\n",
        one.address(),
        two.address(),
        ca.display()
    );
    let world = World {
        proxy: Proxy::start(backend, &text),
        listen,
    };
    world.fails("/first", "unknown-ca");
    assert_eq!(one.connections() + two.connections(), 1);
    world
        .proxy
        .expect_metric("ambassador_retries_total", &[], 0.0);
}

fn a_certificate_fault_opens_the_circuit(backend: Backend) {
    let server = telling_its_name(Leaf::self_signed(&["web.test"]).server());
    let scratch = Scratch::new();
    let ca = scratch.file("ca.pem", &Authority::new("root").pem);
    let more = format!(
        "tls: {{ ca: {} }}\ncircuit_breaker: {{ consecutive: 2, sleep: 60s }}",
        ca.display()
    );
    let world = World::start(backend, server.address(), &more);
    world.fails("/first", "unknown-ca");
    world.fails("/second", "unknown-ca");
    let answer = Client::connect(world.listen).get("/third");
    assert_eq!((answer.status, answer.reason()), (503, "circuit-open"));
    assert_eq!(server.connections(), 2);
}

fn a_name_is_asked_for_as_the_settings_say(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let leaf = authority.issue(&["web.test", "fixed.test", "127.0.0.1"]);
    let server = telling_its_name(leaf.server());
    for (more, told) in [
        ("", "web.test"),
        (", sni: auto", "web.test"),
        (", sni: fixed.test", "fixed.test"),
        // An address is verified, but not asked for (RFC 6066 section 3).
        (", sni: 127.0.0.1", "none"),
    ] {
        let tls = format!("tls: {{ ca: {}{more} }}", ca.display());
        let world = World::start(backend, server.address(), &tls);
        let answer = Client::connect(world.listen).get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, told));
    }
    let tls = format!("tls: {{ ca: {}, sni: 127.0.0.2 }}", ca.display());
    let world = World::start(backend, server.address(), &tls);
    world.fails("/", "wrong-name");
}

fn names_of_a_wildcard_share_no_connection(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let server = telling_its_name(authority.issue(&["a.wild.test", "b.wild.test"]).server());
    let listen = free();
    let text = format!(
        "telemetry: {{ access_log: {{ path: stdout }} }}\n\
         listeners: [{{ name: e, bind: \"{listen}\" }}]\n\
         upstreams: {{ web: {{ hosts: [\"*.wild.test\"], endpoints: [\"{}\"], \
         tls: {{ ca: {} }} }} }}\n",
        server.address(),
        ca.display()
    );
    let _proxy = Proxy::start(backend, &text);
    let mut client = Client::connect(listen);
    let mut ask = |host: &str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let answer = client.response("GET");
        (answer.status, answer.text())
    };
    for _ in 0..3 {
        for name in ["a.wild.test", "B.wild.test"] {
            assert_eq!(ask(name), (200, name.to_ascii_lowercase()));
        }
    }
    assert_eq!(server.connections(), 2);
    // The certificate is not for this one, whoever else has a connection.
    assert_eq!(ask("c.wild.test").0, 502);
}

fn what_is_not_verified_is_as_the_settings_say(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    let of_another_name = authority.issue(&["other.test"]).server();
    let of_another_name = telling_its_name(of_another_name);
    let by_itself = telling_its_name(Leaf::self_signed(&["other.test"]).server());
    let expired = authority.issue_with(&["other.test"], |wanted| {
        wanted.not_after = rcgen::date_time_ymd(2024, 1, 1);
    });
    let expired = telling_its_name(expired.server());
    for (verify, statuses) in [
        ("full", [502, 502, 502]),
        ("ca", [200, 502, 502]),
        ("off", [200, 200, 200]),
    ] {
        let servers = [&of_another_name, &by_itself, &expired];
        for (server, status) in servers.into_iter().zip(statuses) {
            let tls = format!("tls: {{ ca: {ca}, verify: {verify} }}");
            let world = World::start(backend, server.address(), &tls);
            assert_eq!(world.get("/"), status, "{verify}");
            let has_warned = || world.proxy.log().contains("verify");
            match verify {
                // It may come behind the first answer.
                "off" => eventually("a warning", Duration::from_secs(5), has_warned),
                _ => assert!(!has_warned(), "{}", world.proxy.log()),
            }
        }
    }
}

fn the_authorities_of_the_system_are_known(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let server = telling_its_name(authority.issue(&["web.test"]).server());
    let listen = free();
    let start = |file: String| {
        let launch = Launch {
            environment: vec![("SSL_CERT_FILE".into(), file)],
            ..Launch::default()
        };
        let text = config(listen, server.address(), "tls: on");
        let proxy = Proxy::launch(backend, &text, launch);
        World { proxy, listen }
    };
    assert_eq!(start(ca.display().to_string()).get("/"), 200);
    let other = scratch.file("other.pem", &Authority::new("other").pem);
    start(other.display().to_string()).fails("/", "unknown-ca");
}

fn a_client_certificate_is_shown(backend: Backend) {
    let scratch = Scratch::new();
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    let shown = |name: &str, leaf: Leaf| {
        let (cert, key) = leaf.write(&scratch, name);
        format!(", cert: {}, key: {}", cert.display(), key.display())
    };
    let good = shown("good", clients.issue(&["client.test"]));
    let wrong = shown("wrong", authority.issue(&["client.test"]));
    let leaf = authority.issue(&["web.test"]);
    for version in [&TLS12, &TLS13] {
        let server = telling_its_name(leaf.server_of(&[version], Some(&clients)));
        let world = |more: &str| {
            let tls = format!("tls: {{ ca: {ca}{more} }}\nretry: {{ attempts: 3, base: 1ms }}");
            World::start(backend, server.address(), &tls)
        };
        assert_eq!(world(&good).get("/good"), 200);
        assert_eq!(server.connections(), 1);
        // With TLS 1.3 the server says so when the request is under way already.
        world("").fails("/none", "refused-by-peer");
        world(&wrong).fails("/wrong", "refused-by-peer");
        assert_eq!((server.connections(), server.requests().len()), (3, 1));
    }
}

fn sessions_are_resumed(backend: Backend) {
    let scratch = Scratch::new();
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let ca = scratch.file("ca.pem", &authority.pem).display().to_string();
    let client = clients.issue(&["client.test"]);
    let (cert, key) = client.write(&scratch, "client");
    let leaf = authority.issue(&["web.test"]);
    for version in [&TLS12, &TLS13] {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&shown);
        let config = leaf.server_of(&[version], Some(&clients));
        let server = Server::secured(config, move |connection| {
            let session = connection.session();
            let shown = session.and_then(|(session, _)| {
                let chain = session.connection().peer_certificates()?;
                chain.first().map(|leaf| leaf.to_vec())
            });
            seen.lock().expect("no thread panics with it").extend(shown);
            let close = "Connection: close\r\n";
            connection.serve_http(|_| ambassador_tests::server::response("200 OK", close, ""))
        });
        client.write(&scratch, "client");
        let tls = format!(
            "tls: {{ ca: {ca}, cert: {}, key: {} }}",
            cert.display(),
            key.display()
        );
        let world = World::start(backend, server.address(), &tls);
        assert_eq!(world.get("/first"), 200);
        assert_eq!(line(&world.proxy, "/first")["tls_resumed"], false);
        let mut number = 0;
        eventually("a session is taken up", Duration::from_secs(5), || {
            number += 1;
            let path = format!("/second{number}");
            assert_eq!(world.get(&path), 200);
            line(&world.proxy, &path)["tls_resumed"] == true
        });
        let labels = [("upstream", "web"), ("resumed", "true")];
        assert!(world.proxy.metric(HANDSHAKES, &labels) >= 1.0);
        // A session with another certificate would be that of another client.
        clients.issue(&["other.test"]).write(&scratch, "client");
        let shown = || shown.lock().expect("no thread panics with it").clone();
        eventually("it is taken", Duration::from_secs(5), || {
            number += 1;
            assert_eq!(world.get(&format!("/again{number}")), 200);
            let shown = shown();
            shown.last() != shown.first()
        });
        let path = format!("/again{number}");
        assert_eq!(line(&world.proxy, &path)["tls_resumed"], false);
    }
}

fn settings_of_all_upstreams_hold_where_one_says_no_other(backend: Backend) {
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let ca = scratch.file("ca.pem", &authority.pem);
    let server = telling_its_name(authority.issue(&["web.test"]).server());
    let plain = Server::ok();
    let listen = free();
    let text = format!(
        "defaults: {{ tls: {{ ca: {} }} }}\n\
         listeners: [{{ name: e, bind: \"{listen}\" }}]\n\
         upstreams:\n  \
         web: {{ hosts: [web.test], endpoints: [\"{}\"] }}\n  \
         plain: {{ hosts: [plain.test], endpoints: [\"{}\"], tls: off }}\n",
        ca.display(),
        server.address(),
        plain.address()
    );
    let _proxy = Proxy::start(backend, &text);
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/").text(), "web.test");
    client.send("GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n");
    assert_eq!(client.response("GET").text(), "ok");
}
