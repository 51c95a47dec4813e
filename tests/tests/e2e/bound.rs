//! Connections that belong to one client: authenticated by NTLM or Negotiate.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ambassador_tests::client::get;
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::text;
use ambassador_tests::{
    Answer, Backend, Call, Cgroup, Client, Column, Connection, Protocol, Proxy, Server, eventually,
    matrix, on_both_backends, on_http1, ports,
};

matrix!(other_schemes_share_connections);

on_http1!(
    a_handshake_has_a_connection_of_its_own,
    an_upstream_that_asks_as_a_proxy_is_answered,
    every_step_goes_to_the_same_endpoint,
    it_closes_with_its_client,
    its_client_sees_its_end,
    a_step_never_goes_over_another_connection,
    a_request_that_authenticated_is_not_replayed_elsewhere,
);

on_both_backends!(
    a_captured_handshake_with_a_proxy_has_one_too,
    a_handshake_over_http2_authenticates_nobody,
);

const SOON: Duration = Duration::from_secs(5);

/// The fields of one of the two ways to ask for credentials.
#[derive(Clone, Copy)]
struct Way {
    status: &'static str,
    challenge: &'static str,
    credentials: &'static str,
}

const SERVER: Way = Way {
    status: "401 Unauthorized",
    challenge: "WWW-Authenticate",
    credentials: "Authorization",
};

const PROXY: Way = Way {
    status: "407 Proxy Authentication Required",
    challenge: "Proxy-Authenticate",
    credentials: "Proxy-Authorization",
};

/// Knows the user by the connection: offers, then takes `one`, gives `two`, takes
/// `three` and lets every further request through.
fn authenticates(way: Way) -> impl Fn(&mut Connection) -> io::Result<()> + Send + Sync {
    move |connection| {
        let (mut begun, mut user) = (false, false);
        while let Some(request) = connection.request()? {
            let credentials = request.field(way.credentials).unwrap_or_default();
            let mut offer = "Basic realm=\"a, b\", nTLM";
            match credentials {
                "NTLM one" => (begun, offer) = (true, "NTLM two"),
                "NTLM three" => user = begun,
                _ => {}
            }
            if request.target == "/die" {
                return connection.reset();
            }
            connection.write(match user {
                true => text(&format!("alice on {}", connection.number)),
                false => format!(
                    "HTTP/1.1 {}\r\n{}: {offer}\r\nContent-Length: 0\r\n\r\n",
                    way.status, way.challenge
                )
                .into_bytes(),
            })?;
            if request.target == "/last" {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn request(path: &str, way: Way, step: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: client.test\r\nX-Upstream-Host: web\r\n{}: {step}\r\n\r\n",
        way.credentials
    )
}

#[track_caller]
fn step(client: &mut Client, way: Way, step: &str) -> (u16, String) {
    client.send(request("/", way, step));
    let answer = client.response("GET");
    (answer.status, answer.text())
}

/// One worker, so that clients would share connections.
fn start(column: impl Into<Column>, server: &Server, more: &str) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = one_upstream(listen, server.address(), more);
    (
        Proxy::start(column, &format!("workers: 1\n{config}")),
        listen,
    )
}

fn a_handshake_has_a_connection_of_its_own(backend: Backend) {
    let server = Server::start(authenticates(SERVER));
    let (proxy, listen) = start(backend, &server, "");
    let (mut alice, mut carol) = (Client::connect(listen), Client::connect(listen));
    assert_eq!(alice.get("/").status, 401, "she is offered it");
    assert_eq!(carol.get("/").status, 401, "and gets her own");
    assert_eq!(step(&mut alice, SERVER, "NTLM one").0, 401);
    assert_eq!(step(&mut carol, SERVER, "NTLM one").0, 401);
    assert_eq!(
        step(&mut alice, SERVER, "NTLM three"),
        (200, "alice on 1".into())
    );
    assert_eq!(
        step(&mut carol, SERVER, "NTLM three"),
        (200, "alice on 2".into())
    );
    assert_eq!(alice.get("/").text(), "alice on 1");
    let mut stranger = Client::connect(listen);
    assert_eq!(stranger.get("/").status, 401, "nobody else is alice");
    assert_eq!(alice.get("/").text(), "alice on 1");
    // Begun without an offer, and never idle for others.
    let mut eager = Client::connect(listen);
    assert_eq!(step(&mut eager, SERVER, "NTLM one").0, 401);
    assert_eq!(Client::connect(listen).get("/").status, 401);
    assert_eq!(
        step(&mut eager, SERVER, "NTLM three"),
        (200, "alice on 4".into())
    );
    let idle = [("upstream", "web"), ("state", "idle")];
    proxy.expect_metric("ambassador_pool_connections", &idle, 0.0);
    let open = [("upstream", "web"), ("state", "open")];
    eventually("only those of clients are open", SOON, || {
        proxy.metric("ambassador_pool_connections", &open) == 4.0
    });
}

fn a_captured_handshake_with_a_proxy_has_one_too(backend: Backend) {
    let server = Server::start(authenticates(PROXY));
    let cgroup = Cgroup::new();
    let claim = super::capture::claim("10.1.2.3", &server);
    let _proxy = Proxy::capturing(backend, &cgroup, &format!("workers: 1\n{claim}"));
    let script = "import http.client, sys\n\
        def ask(c, step=None):\n\
        \x20   c.request('GET', 'http://far.test/', headers={'Proxy-Authorization': step} if step else {})\n\
        \x20   r = c.getresponse()\n\
        \x20   return r.status, r.read().decode()\n\
        a, b = (http.client.HTTPConnection('10.1.2.3', 8080) for _ in 'ab')\n\
        print([ask(a), ask(b), ask(a, 'NTLM one'), ask(b, 'NTLM one'), ask(a, 'NTLM three'),\
        ask(b, 'NTLM three'), ask(http.client.HTTPConnection('10.1.2.3', 8080)), ask(a)])\n";
    let mut python = cgroup.command(ambassador_tests::program::PYTHON);
    let said = ambassador_tests::program::succeed(python.args(["-c", script]));
    assert_eq!(
        said.trim(),
        "[(407, ''), (407, ''), (407, ''), (407, ''), (200, 'alice on 1'), \
         (200, 'alice on 2'), (407, ''), (200, 'alice on 1')]"
    );
}

fn an_upstream_that_asks_as_a_proxy_is_answered(backend: Backend) {
    let server = Server::start(authenticates(PROXY));
    let (_proxy, listen) = start(backend, &server, "");
    let mut client = Client::connect(listen);
    // What nobody has asked for is for the proxy that is addressed.
    assert_eq!(step(&mut client, PROXY, "NTLM one").0, 407);
    assert_eq!(server.last_request().field("proxy-authorization"), None);
    assert_eq!(step(&mut client, PROXY, "NTLM one").0, 407);
    assert_eq!(
        step(&mut client, PROXY, "NTLM three"),
        (200, "alice on 1".into())
    );
    assert_eq!(Client::connect(listen).get("/").status, 407);
}

fn every_step_goes_to_the_same_endpoint(backend: Backend) {
    let servers = [(); 3].map(|()| Server::start(authenticates(SERVER)));
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let endpoints = servers
        .each_ref()
        .map(|server| format!("\"{}\"", server.address()));
    let config = format!(
        "workers: 1\n\
         listeners:\n  - {{ name: egress, bind: \"{listen}\", protocol: http }}\n\
         upstreams:\n  web: {{ hosts: [web.test], endpoints: [{}], load_balancing: round_robin }}\n",
        endpoints.join(", ")
    );
    let _proxy = Proxy::start(backend, &config);
    for _ in 0..3 {
        let mut client = Client::connect(listen);
        assert_eq!(client.get("/").status, 401);
        assert_eq!(step(&mut client, SERVER, "NTLM one").0, 401);
        assert_eq!(step(&mut client, SERVER, "NTLM three").0, 200);
        assert_eq!(client.get("/").status, 200);
    }
}

fn it_closes_with_its_client(backend: Backend) {
    let server = Server::start(authenticates(SERVER));
    let (proxy, listen) = start(backend, &server, "");
    let mut client = Client::connect(listen);
    assert_eq!(client.get("/").status, 401);
    assert_eq!(server.open_connections(), 1);
    drop(client);
    eventually("it is closed", SOON, || server.open_connections() == 0);
    let open = [("upstream", "web"), ("state", "open")];
    proxy.expect_metric("ambassador_pool_connections", &open, 0.0);
}

fn its_client_sees_its_end(backend: Backend) {
    let server = Server::start(authenticates(SERVER));
    let (_proxy, listen) = start(backend, &server, "");
    let mut client = Client::connect(listen);
    assert_eq!(step(&mut client, SERVER, "NTLM one").0, 401);
    client.send(request("/last", SERVER, "NTLM three"));
    assert_eq!(client.response("GET").status, 200);
    assert!(client.is_ended(), "as it would see without a proxy");
}

fn a_step_never_goes_over_another_connection(backend: Backend) {
    let server = Server::start(authenticates(SERVER));
    let (_proxy, listen) = start(backend, &server, "retry: { attempts: 3, base: 1ms }");
    let mut client = Client::connect(listen);
    assert_eq!(step(&mut client, SERVER, "NTLM one").0, 401);
    client.send(request("/die", SERVER, "NTLM three"));
    let answer = client.response("GET");
    assert_eq!((answer.status, answer.reason()), (502, "upstream-reset"));
    assert_eq!(server.connections(), 1);
    // From here on it is a client like any other.
    assert_eq!(client.get("/").status, 401);
    assert_eq!(server.connections(), 2);
}

fn a_request_that_authenticated_is_not_replayed_elsewhere(backend: Backend) {
    let server = Server::start(authenticates(SERVER));
    let (_proxy, listen) = start(backend, &server, "retry: { attempts: 3, base: 1ms }");
    let mut client = Client::connect(listen);
    assert_eq!(step(&mut client, SERVER, "NTLM one").0, 401);
    assert_eq!(step(&mut client, SERVER, "NTLM three").0, 200);
    client.send(get("/die"));
    let answer = client.response("GET");
    assert_eq!((answer.status, answer.reason()), (502, "upstream-reset"));
    assert_eq!(server.connections(), 1);
}

/// A connection of HTTP/2 is that of many: none to the upstream belongs to it.
fn a_handshake_over_http2_authenticates_nobody(backend: Backend) {
    let server = Server::start(authenticates(SERVER));
    let (proxy, listen) = start(backend, &server, "");
    let mut alice = Protocol::Http2.connect(listen);
    for step in ["NTLM one", "NTLM three", "NTLM one"] {
        let call = Call::get("/").field(SERVER.credentials, step);
        assert_eq!(alice.call(&call).status, 401, "{step}");
        assert_eq!(alice.get("/").status, 401);
        assert_eq!(Client::connect(listen).get("/").status, 401);
    }
    let open = [("upstream", "web"), ("state", "open")];
    proxy.expect_metric("ambassador_pool_connections", &open, 0.0);
}

fn other_schemes_share_connections(column: Column) {
    let server =
        column.server(|_| Answer::status(401).field("WWW-Authenticate", "Basic realm=\"NTLM, x\""));
    let (_proxy, listen) = start(column, &server, "");
    for _ in 0..3 {
        let mut client = column.connect(listen);
        for credentials in ["Basic TlRMTQ==", "Bearer Negotiate"] {
            let call = Call::get("/").field("Authorization", credentials);
            assert_eq!(client.call(&call).status, 401);
        }
    }
    assert_eq!(server.connections(), 1);
}
