//! TLS on listeners: who is let in, what is told of them, and what hostile ones cost.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambassador_tests::hello;
use ambassador_tests::pki::ends_in;
use ambassador_tests::proxy::Scratch;
use ambassador_tests::server::text;
use ambassador_tests::{
    Authority, Backend, Client, Leaf, Proxy, Response, Server, eventually, on_both_backends,
    program,
};
use rcgen::SanType;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use crate::tls_upstream::{HANDSHAKES, config, free, line};

on_both_backends!(
    curl_and_openssl_are_served,
    who_must_show_a_certificate_and_has_a_bad_one_stays_out,
    a_certificate_is_optional_where_the_settings_say_so,
    a_session_taken_up_again_is_that_of_its_client,
    the_certificate_is_told_of_where_asked_for,
    two_proxies_speak_mutual_tls_between_programs_in_clear,
    a_hostile_hello_costs_its_own_connection,
    slow_and_silent_clients_have_the_time_of_a_head,
    requests_in_clear_get_nothing,
    open_connections_outlive_a_reload_and_drain,
);

/// A listener `in` with TLS in front of a server in clear.
pub(crate) struct World {
    pub(crate) proxy: Proxy,
    listen: SocketAddr,
    pub(crate) server: Server,
    /// Who has signed the certificate of the listener.
    authority: Authority,
    /// Who signs those of clients.
    pub(crate) clients: Authority,
    scratch: Scratch,
    text: String,
}

impl World {
    /// `more` is what `tls` says beside the certificate; `CLIENTS` in it is the file of
    /// those who sign clients, `LIST` that of which they have revoked number 7.
    pub(crate) fn start(backend: Backend, more: &str) -> World {
        World::start_with(backend, more, "")
    }

    fn start_with(backend: Backend, more: &str, top: &str) -> World {
        let scratch = Scratch::new();
        let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
        let ca = scratch
            .file("clients.pem", &clients.pem)
            .display()
            .to_string();
        let list = scratch.file("list.pem", &clients.revoking(&[7], false));
        let more = more.replace("CLIENTS", &ca);
        let more = more.replace("LIST", &list.display().to_string());
        let leaf = authority.issue_with(&["in.test"], |wanted| {
            let id = "spiffe://own.test/in".try_into().expect("it is a URI");
            wanted.subject_alt_names.push(SanType::URI(id));
        });
        let (cert, key) = leaf.write(&scratch, "server");
        let server = Server::http(|_| text("ok"));
        let listen = free();
        let text = format!(
            "{top}\ntelemetry: {{ access_log: {{ path: stdout }} }}\ndrain_timeout: 5s\n\
             listeners:\n  - {{ name: in, bind: \"{listen}\", tls: {{ cert: {}, key: {}{more} }} }}\n\
             upstreams:\n  web: {{ hosts: [web.test], endpoints: [\"{}\"] }}\n",
            cert.display(),
            key.display(),
            server.address()
        );
        World {
            proxy: Proxy::start(backend, &text),
            listen,
            server,
            authority,
            clients,
            scratch,
            text,
        }
    }

    /// A connection of who shows this certificate.
    pub(crate) fn connect(&self, shown: Option<&Leaf>) -> io::Result<Client> {
        let mut client = Client::connect(self.listen);
        let config = self.authority.client(shown);
        client.secure(Arc::new(config), "in.test")?;
        Ok(client)
    }

    /// What becomes of a request. With TLS 1.3 a client is refused behind its handshake.
    fn ask(&self, shown: Option<&Leaf>, request: &str) -> Option<Response> {
        let mut client = self.connect(shown).ok()?;
        client.try_send(request).ok()?;
        client.try_response("GET")
    }

    #[track_caller]
    fn expect(&self, outcome: &str, count: f64) {
        let labels = [("listener", "in"), ("outcome", outcome)];
        self.proxy.expect_metric(HANDSHAKES, &labels, count);
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: web.test\r\n\r\n")
}

/// A client with this id.
pub(crate) fn named(clients: &Authority, id: &str) -> Leaf {
    clients.issue_with(&[], |wanted| {
        let id = id.try_into().expect("it is a URI");
        wanted.subject_alt_names.push(SanType::URI(id));
    })
}

fn curl_and_openssl_are_served(backend: Backend) {
    let world = World::start(backend, "");
    let ca = world.scratch.file("ca.pem", &world.authority.pem);
    let port = world.listen.port();
    for (version, http, protocol, handshakes) in [
        ("1.2", "--http2", "http2", 1.0),
        ("1.3", "--http2", "http2", 1.0),
        ("1.3", "--http1.1", "http1", 2.0),
    ] {
        let path = format!("/{protocol}-{version}");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-m20", http, "--tls-max", version, "--cacert"])
            .arg(&ca)
            .args(["--resolve", &format!("in.test:{port}:127.0.0.1")])
            .args(["-H", "Host: web.test"])
            .arg(format!("https://in.test:{port}{path}"));
        assert_eq!(program::succeed(&mut curl), "ok");
        let line = line(&world.proxy, &path);
        assert_eq!(
            [&line["listener"], &line["status"], &line["protocol"]],
            [
                &Value::from("in"),
                &Value::from(200),
                &Value::from(protocol)
            ]
        );
        let labels = [("listener", "in"), ("version", version)];
        world.proxy.expect_metric(HANDSHAKES, &labels, handshakes);
    }
    let s_client = |options: &[&str]| {
        let mut openssl = Command::new("sh");
        let words = options.join(" ");
        openssl
            .arg("-c")
            .arg(format!(
                "(printf 'GET / HTTP/1.1\\r\\nHost: web.test\\r\\nConnection: close\\r\\n\\r\\n'; \
                 sleep 1) | openssl s_client -connect {} -servername in.test -CAfile {} \
                 -verify_return_error -ign_eof {words} 2>&1",
                world.listen,
                ca.display()
            ))
            .stderr(Stdio::null());
        let output = program::output(&mut openssl);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (options, told) in [
        (&["-tls1_2"][..], "HTTP/1.1 200 OK"),
        (&["-tls1_3"], "HTTP/1.1 200 OK"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-alpn", "http/1.1,h2"], "ALPN protocol: h2"),
        (&["-alpn", "h3"], "no application protocol"),
        (
            &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
            "SSL alert number",
        ),
    ] {
        let said = s_client(options);
        assert!(said.contains(told), "{options:?}: {said}");
    }
    world.expect("no-common-protocol", 1.0);
    world.expect("no-common-version", 1.0);
}

fn who_must_show_a_certificate_and_has_a_bad_one_stays_out(backend: Backend) {
    let world = World::start(backend, ", client_ca: CLIENTS, crl: LIST");
    let good = named(&world.clients, "spiffe://peer.test/a");
    let answer = world.ask(Some(&good), &get("/good")).expect("it is let in");
    assert_eq!(answer.status, 200);
    let line = line(&world.proxy, "/good");
    assert_eq!(line["peer_id"], "spiffe://peer.test/a", "{line}");
    let bad = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        world
            .clients
            .issue_with(&["client.test"], |wanted| change(wanted))
    };
    let expired = bad(&|wanted| wanted.not_after = rcgen::date_time_ymd(2024, 1, 1));
    let early = bad(&|wanted| wanted.not_before = rcgen::date_time_ymd(4000, 1, 1));
    let revoked = bad(&|wanted| wanted.serial_number = Some(7_u64.into()));
    let of_a_server = bad(&|wanted| {
        wanted.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let unknown = world.authority.issue(&["client.test"]);
    for (shown, outcome) in [
        (None, "no-certificate"),
        (Some(&expired), "certificate-expired"),
        (Some(&early), "certificate-not-yet-valid"),
        (Some(&unknown), "unknown-ca"),
        (Some(&revoked), "revoked"),
        (Some(&of_a_server), "bad-certificate"),
    ] {
        assert!(world.ask(shown, &get("/bad")).is_none(), "{outcome}");
        world.expect(outcome, 1.0);
    }
    assert_eq!(world.server.requests().len(), 1);
    world.expect("completed", 1.0);
}

fn a_certificate_is_optional_where_the_settings_say_so(backend: Backend) {
    let more = ", client_ca: CLIENTS, client_auth: optional";
    let world = World::start(backend, more);
    let good = named(&world.clients, "spiffe://peer.test/a");
    let status = |shown: Option<&Leaf>, path: &str| {
        let answer = world.ask(shown, &get(path));
        answer.map(|answer| answer.status)
    };
    assert_eq!(status(None, "/none"), Some(200));
    assert_eq!(line(&world.proxy, "/none").get("peer_id"), None);
    assert_eq!(status(Some(&good), "/good"), Some(200));
    assert_eq!(
        line(&world.proxy, "/good")["peer_id"],
        "spiffe://peer.test/a"
    );
    let unknown = world.authority.issue(&["client.test"]);
    assert_eq!(status(Some(&unknown), "/bad"), None);
    world.expect("unknown-ca", 1.0);
}

fn a_session_taken_up_again_is_that_of_its_client(backend: Backend) {
    let world = World::start(backend, ", client_ca: CLIENTS");
    for version in [&TLS12, &TLS13] {
        let id = "spiffe://peer.test/short";
        let left = Duration::from_secs(6);
        let short = world.clients.issue_with(&[], |wanted| {
            let id = id.try_into().expect("it is a URI");
            wanted.subject_alt_names.push(SanType::URI(id));
            ends_in(wanted, left);
        });
        let config = world.authority.client_of(&[version], Some(&short));
        let config = Arc::new(config);
        let again = |path: &str| {
            let mut client = Client::connect(world.listen);
            client.secure(Arc::clone(&config), "in.test").ok()?;
            client.try_send(get(path)).ok()?;
            let answer = client.try_response("GET")?;
            Some((answer.status, client.session()?.is_resumed()))
        };
        let path = |name: &str| format!("/{name}{:?}", version.version);
        assert_eq!(again(&path("first")), Some((200, false)));
        eventually("its session is taken up", left, || {
            again(&path("second")) == Some((200, true))
        });
        assert_eq!(again(&path("third")), Some((200, true)));
        assert_eq!(line(&world.proxy, &path("third"))["peer_id"], id);
        let labels = [("listener", "in"), ("outcome", "certificate-expired")];
        let before = world.proxy.metric(HANDSHAKES, &labels);
        eventually("its certificate ends", 3 * left, || {
            again(&path("late")).is_none()
        });
        world.expect("certificate-expired", before + 1.0);
    }
}

fn the_certificate_is_told_of_where_asked_for(backend: Backend) {
    const OWN: &str = "GET / HTTP/1.1\r\nHost: web.test\r\n\
                       X-Forwarded-Client-Cert: Hash=1;URI=spiffe://forged\r\n\
                       x-forwarded-client-cert: URI=spiffe://again\r\n\r\n";
    let told = |world: &World, shown: Option<&Leaf>| {
        let answer = world.ask(shown, OWN).expect("it is let in");
        assert_eq!(answer.status, 200);
        let request = world.server.last_request();
        let fields = request.fields.into_iter();
        let fields =
            fields.filter(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-client-cert"));
        fields.map(|(_, value)| value).collect::<Vec<String>>()
    };
    let asked = ", client_ca: CLIENTS, client_auth: optional";
    let off = World::start(backend, &format!("{asked}, forward_client_cert: off"));
    let forged = ["Hash=1;URI=spiffe://forged", "URI=spiffe://again"];
    assert_eq!(told(&off, None), forged);
    let world = World::start(
        backend,
        &format!("{asked}, forward_client_cert: sanitize_set"),
    );
    assert_eq!(told(&world, None), Vec::<String>::new());
    let good = named(&world.clients, "spiffe://peer.test/a");
    let element = told(&world, Some(&good));
    assert_eq!(element.len(), 1, "{element:?}");
    let rest = element[0].strip_prefix("By=spiffe://own.test/in;Hash=");
    let rest = rest.unwrap_or_else(|| panic!("{element:?}"));
    let (hash, uri) = rest.split_at(64);
    assert!(hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    assert_eq!(uri, ";URI=spiffe://peer.test/a");
    // On one connection, each request.
    let mut client = world.connect(Some(&good)).expect("it is let in");
    for _ in 0..2 {
        client.send(OWN);
        assert_eq!(client.response("GET").status, 200);
        let last = world.server.last_request();
        assert_eq!(
            last.field("x-forwarded-client-cert"),
            Some(element[0].as_str())
        );
    }
}

fn two_proxies_speak_mutual_tls_between_programs_in_clear(backend: Backend) {
    let world = World::start(backend, ", client_ca: CLIENTS");
    let own = named(&world.clients, "spiffe://peer.test/orders");
    let (cert, key) = own.write(&world.scratch, "client");
    let ca = world.scratch.file("ca.pem", &world.authority.pem);
    let listen = free();
    let tls = format!(
        "tls: {{ ca: {}, cert: {}, key: {}, sni: in.test, min_version: \"1.3\" }}",
        ca.display(),
        cert.display(),
        key.display()
    );
    let before = Proxy::start(backend, &config(listen, world.listen, &tls));
    let mut client = Client::connect(listen);
    let body = vec![b'b'; 3_000_000];
    client.send(format!(
        "POST /both HTTP/1.1\r\nHost: web.test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    client.send(&body);
    assert_eq!(client.response("POST").text(), "ok");
    assert!(world.server.last_request().body == body);
    let sent = line(&before, "/both");
    assert_eq!(sent["tls_version"], "1.3", "{sent}");
    assert_eq!(sent["tls_group"], "X25519MLKEM768", "{sent}");
    let received = line(&world.proxy, "/both");
    assert_eq!(
        received["peer_id"], "spiffe://peer.test/orders",
        "{received}"
    );
}

fn a_hostile_hello_costs_its_own_connection(backend: Backend) {
    let world = World::start_with(backend, "", "defaults: { timeouts: { head: 1s } }");
    let mut bystander = world.connect(None).expect("it is let in");
    let mut all = hello::hostile("in.test");
    all.push(hello::Hostile {
        fault: "nothing but zeros",
        bytes: vec![0; 1 << 20],
        reading: hello::Reading::Nameless,
    });
    let count = all.len();
    for hostile in all {
        let begun = Instant::now();
        let mut client = Client::connect(world.listen);
        let _ = client.try_send(&hostile.bytes);
        // An alert, or a hello to one that is sound enough; then the end.
        let said = client.at_most(1 << 20).unwrap_or_default();
        assert!(
            said.len() < 8_192,
            "{}: {} bytes",
            hostile.fault,
            said.len()
        );
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{}",
            hostile.fault
        );
        bystander.send(get("/"));
        assert_eq!(bystander.response("GET").status, 200, "{}", hostile.fault);
    }
    let handshakes = world.proxy.metric(HANDSHAKES, &[("listener", "in")]);
    assert_eq!(handshakes, 1.0 + count as f64);
    world.expect("completed", 1.0);
    assert_eq!(
        world.ask(None, &get("/")).map(|answer| answer.status),
        Some(200)
    );
}

fn slow_and_silent_clients_have_the_time_of_a_head(backend: Backend) {
    let world = World::start_with(backend, "", "defaults: { timeouts: { head: 1s } }");
    let hello = hello::post_quantum("in.test");
    let begun = Instant::now();
    let mut silent: Vec<Client> = (0..300).map(|_| Client::connect(world.listen)).collect();
    // Half of them have begun.
    for client in silent.iter_mut().step_by(2) {
        client.send(&hello[..700]);
    }
    let asked = Instant::now();
    assert_eq!(
        world.ask(None, &get("/")).map(|answer| answer.status),
        Some(200)
    );
    assert!(
        asked.elapsed() < Duration::from_millis(900),
        "{:?}",
        asked.elapsed()
    );
    let mut slow = Client::connect(world.listen);
    let dripped = hello.iter().take_while(|byte| {
        std::thread::sleep(Duration::from_millis(20));
        slow.try_send([**byte]).is_ok()
    });
    // It would take half a minute.
    assert!(dripped.count() < 200);
    for client in &mut silent {
        assert!(client.is_ended());
    }
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    world.expect("timeout", 301.0);
}

fn requests_in_clear_get_nothing(backend: Backend) {
    let world = World::start(backend, "");
    let mut client = Client::connect(world.listen);
    client.send(get("/"));
    let said = client.rest().unwrap_or_default();
    // An alert at most.
    assert!(said.is_empty() || said[0] == 21, "{said:?}");
    world.expect("malformed", 1.0);
    assert_eq!(world.server.connections(), 0);
}

fn open_connections_outlive_a_reload_and_drain(backend: Backend) {
    let mut world = World::start(backend, "");
    let mut client = world.connect(None).expect("it is let in");
    client.send(get("/before"));
    assert_eq!(client.response("GET").status, 200);
    // Another certificate, and an authority for clients from now on.
    let other = world.authority.issue(&["in.test"]);
    let (cert, _) = other.write(&world.scratch, "other");
    let text = world
        .text
        .replace("server.pem", "other.pem")
        .replace("server.key", "other.key");
    let text = text.replace(
        "other.key }",
        &format!(
            "other.key, client_ca: {}/clients.pem }}",
            world.scratch.path().display()
        ),
    );
    assert!(text.contains(&cert.display().to_string()) && text.contains("client_ca"));
    world.proxy.rewrite_config(&text);
    world
        .proxy
        .expect_metric("ambassador_config_reloads_total", &[], 1.0);
    client.send(get("/after"));
    assert_eq!(client.response("GET").status, 200);
    // The one that was opened before goes on, a new one has to show a certificate.
    assert!(world.ask(None, &get("/none")).is_none());
    let good = world.clients.issue(&["client.test"]);
    assert_eq!(
        world
            .ask(Some(&good), &get("/"))
            .map(|answer| answer.status),
        Some(200)
    );
    client.send("POST /drained HTTP/1.1\r\nHost: web.test\r\nContent-Length: 2\r\n\r\n1");
    world.proxy.signal(libc::SIGTERM);
    let listen = world.listen;
    eventually("it drains", Duration::from_secs(5), || {
        Client::try_connect(listen).is_none()
    });
    client.send("2");
    let answer = client.response("POST");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert!(client.rest().is_ok(), "it ends in order");
    assert!(world.proxy.wait(Duration::from_secs(10)).success());
}
