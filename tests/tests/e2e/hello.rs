//! What programs encrypt themselves goes where its hello says, in whatever pieces
//! that comes; a hostile hello costs its own connection.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ambassador_tests::hello::{self, Hostile, Reading};
use ambassador_tests::proxy::Scratch;
use ambassador_tests::{Backend, Cgroup, Client, Proxy, Server, on_both_backends, ports, program};

on_both_backends!(
    a_hello_is_read_in_whatever_pieces_it_comes,
    a_hostile_hello_costs_its_own_connection,
    a_hostile_hello_in_a_tunnel_costs_the_tunnel,
    a_hello_without_an_end_has_the_time_of_a_head,
    the_limits_of_the_name_hold,
    the_circuit_of_the_name_holds,
    the_log_names_the_server,
    tls_where_requests_are_expected_is_a_bad_request,
    requests_where_tls_is_expected_are_requests,
    a_hostile_hello_costs_a_listener_its_own_connection,
);

/// Sends a file to 10.1.2.3:443 in pieces of this size with a pause after each, and
/// prints what becomes of it where everything is sent back.
const CLIENT: &str = r#"
import socket, sys, time
said, size, pause = open(sys.argv[1], "rb").read(), int(sys.argv[2]), float(sys.argv[3])
connection = socket.create_connection(("10.1.2.3", 443), 20)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
try:
    for at in range(0, len(said), size):
        connection.sendall(said[at:at + size])
        time.sleep(pause)
    got = b""
    while len(got) < len(said) and (more := connection.recv(65536)):
        got += more
    print("as it was" if got == said else "closed", end="")
except (ConnectionResetError, BrokenPipeError):
    print("reset", end="")
"#;

const RELAYED: &str = "ambassador_tcp_connections_total";

/// What connections to 10.1.2.3 go through: `api.test` means `named`, the address
/// `addressed`; both send back what they get.
struct World {
    listen: SocketAddr,
    cgroup: Cgroup,
    proxy: Proxy,
    scratch: Scratch,
    _servers: [Server; 2],
}

impl World {
    fn start(backend: Backend, defaults: &str, of_named: &str) -> World {
        let cgroup = Cgroup::new();
        let servers = [Server::echo(), Server::echo()];
        let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let [named, addressed] = servers.each_ref().map(Server::address);
        let config = format!(
            "telemetry: {{ access_log: {{ path: stdout }} }}\n\
             listeners: [{{ name: e, bind: \"{listen}\" }}]\n\
             defaults: {{ {defaults} }}\n\
             upstreams:\n  \
             named: {{ hosts: [\"api.test:443\"], endpoints: [\"{named}\"]{of_named} }}\n  \
             addressed: {{ hosts: [10.1.2.3], endpoints: [\"{addressed}\"] }}\n"
        );
        World {
            listen,
            proxy: Proxy::capturing(backend, &cgroup, &config),
            cgroup,
            scratch: Scratch::new(),
            _servers: servers,
        }
    }

    /// What becomes of these bytes, captured.
    fn say(&self, said: &[u8], size: usize, pause: f64) -> String {
        let file = self.scratch.path().join("said");
        std::fs::write(&file, said).expect("it is writable");
        let mut client = self.cgroup.command(program::PYTHON);
        client.args(["-c", CLIENT]).arg(file);
        program::succeed(client.args([size.to_string(), pause.to_string()]))
    }

    /// A tunnel to 10.1.2.3:443.
    fn tunnel(&self) -> Client {
        let mut client = Client::connect(self.listen);
        client.send("CONNECT 10.1.2.3:443 HTTP/1.1\r\nHost: 10.1.2.3:443\r\n\r\n");
        assert_eq!(client.response("CONNECT").status, 200);
        client
    }

    fn relayed(&self, upstream: &str) -> f64 {
        self.proxy.metric(RELAYED, &[("upstream", upstream)])
    }

    /// What became of a hostile one is what should, and is counted.
    fn check(&self, hostile: &Hostile, outcome: &str, before: [f64; 2]) {
        let (expected, upstream) = match hostile.reading {
            Reading::Named => ("as it was", 0),
            Reading::Nameless => ("as it was", 1),
            Reading::TooLong => ("reset", 1),
        };
        assert_eq!(outcome, expected, "{}", hostile.fault);
        for (at, name) in ["named", "addressed"].into_iter().enumerate() {
            let count = before[at] + f64::from(u8::from(at == upstream));
            let counted = || self.relayed(name) == count;
            ambassador_tests::eventually(hostile.fault, Duration::from_secs(5), counted);
        }
    }
}

fn a_hello_is_read_in_whatever_pieces_it_comes(backend: Backend) {
    let world = World::start(backend, "", "");
    let post_quantum = hello::post_quantum("api.test");
    assert!(post_quantum.len() > 1_400);
    let in_records = hello::in_records(&post_quantum[5..], 300);
    let mut expected = 0.0;
    for (said, size, pause) in [
        // Byte by byte, over segments, over records, behind a pause after any byte
        // of the first header.
        (&post_quantum, 1, 0.0),
        (&post_quantum, 1_000, 0.2),
        (&in_records, 1_000, 0.2),
        (&in_records, 7, 0.0),
        (&hello::sound("api.test"), 1, 0.005),
        (&hello::sound("API.test."), 100, 0.3),
    ] {
        assert_eq!(world.say(said, size, pause), "as it was", "{size} {pause}");
        expected += 1.0;
        world
            .proxy
            .expect_metric(RELAYED, &[("upstream", "named")], expected);
    }
    for at in [1, 2, 5, 6, 50, 1_300] {
        let mut tunnel = world.tunnel();
        tunnel.send(&post_quantum[..at]);
        // The pause is what is tested: longer than any for bytes that are no TLS.
        std::thread::sleep(Duration::from_millis(300));
        tunnel.send(&post_quantum[at..]);
        assert_eq!(tunnel.exactly(post_quantum.len()), post_quantum, "{at}");
        drop(tunnel);
        expected += 1.0;
        world
            .proxy
            .expect_metric(RELAYED, &[("upstream", "named")], expected);
    }
    assert_eq!(world.relayed("addressed"), 0.0);
}

fn a_hostile_hello_costs_its_own_connection(backend: Backend) {
    let world = World::start(backend, "", "");
    for hostile in hello::hostile("api.test") {
        let before = ["named", "addressed"].map(|name| world.relayed(name));
        let outcome = world.say(&hostile.bytes, usize::MAX, 0.0);
        world.check(&hostile, &outcome, before);
    }
    let labels = [("outcome", "bad-request")];
    let refused = hello::hostile("api.test");
    let refused = refused.iter().filter(|one| one.reading == Reading::TooLong);
    world
        .proxy
        .expect_metric(RELAYED, &labels, refused.count() as f64);
    assert_eq!(world.say(&hello::sound("api.test"), 100, 0.0), "as it was");
}

fn a_hostile_hello_in_a_tunnel_costs_the_tunnel(backend: Backend) {
    let world = World::start(backend, "", "");
    let mut bystander = world.tunnel();
    for hostile in hello::hostile("api.test") {
        let before = ["named", "addressed"].map(|name| world.relayed(name));
        let mut tunnel = world.tunnel();
        let sent = tunnel.try_send(&hostile.bytes);
        let outcome = match sent.and_then(|()| tunnel.at_most(hostile.bytes.len())) {
            Ok(back) if back == hostile.bytes => "as it was",
            Ok(_) => "closed",
            Err(_) => "reset",
        };
        drop(tunnel);
        world.check(&hostile, outcome, before);
    }
    let sound = hello::sound("api.test");
    bystander.send(&sound);
    assert_eq!(bystander.exactly(sound.len()), sound);
}

fn a_hello_without_an_end_has_the_time_of_a_head(backend: Backend) {
    let world = World::start(backend, "timeouts: { head: 1s }", "");
    let hello = hello::post_quantum("api.test");
    let begun = Instant::now();
    // It would take 9 s.
    assert_eq!(world.say(&hello, 1, 0.005), "reset");
    let mut silent: Vec<Client> = (0..50).map(|_| world.tunnel()).collect();
    for tunnel in &mut silent {
        tunnel.send(&hello[..700]);
    }
    // They are in nobody's way.
    assert_eq!(world.say(&hello, 100, 0.0), "as it was");
    for tunnel in &mut silent {
        assert!(tunnel.rest().is_err(), "it is reset");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
    let labels = [("upstream", "addressed"), ("outcome", "bad-request")];
    world.proxy.expect_metric(RELAYED, &labels, 51.0);
}

fn the_limits_of_the_name_hold(backend: Backend) {
    let limit = ", pool: { max_connections: 1, max_pending: 0 }";
    let world = World::start(backend, "", limit);
    let sound = hello::sound("api.test");
    let mut first = world.tunnel();
    first.send(&sound);
    assert_eq!(first.exactly(sound.len()), sound);
    assert_eq!(world.say(&sound, 100, 0.0), "reset");
    let mut second = world.tunnel();
    second.send(&sound);
    assert!(second.rest().is_err(), "it is reset");
    let labels = [("upstream", "named"), ("outcome", "overloaded")];
    world.proxy.expect_metric(RELAYED, &labels, 2.0);
    // Another name has limits of its own.
    assert_eq!(
        world.say(&hello::sound("other.test"), 100, 0.0),
        "as it was"
    );
    drop(first);
    world
        .proxy
        .expect_metric(RELAYED, &[("outcome", "closed")], 2.0);
    assert_eq!(world.say(&sound, 100, 0.0), "as it was");
}

fn the_circuit_of_the_name_holds(backend: Backend) {
    let cgroup = Cgroup::new();
    let server = Server::echo();
    let dead = ports::free();
    let config = format!(
        "upstreams:\n  \
         named: {{ hosts: [api.test], endpoints: [\"127.0.0.1:{dead}\"], \
         retry: {{ attempts: 1 }}, circuit_breaker: {{ consecutive: 1, sleep: 60s }} }}\n  \
         addressed: {{ hosts: [10.1.2.3], endpoints: [\"{}\"] }}\n",
        server.address()
    );
    let world = World {
        listen: SocketAddr::from(([127, 0, 0, 1], dead)),
        proxy: Proxy::capturing(backend, &cgroup, &config),
        cgroup,
        scratch: Scratch::new(),
        _servers: [server, Server::echo()],
    };
    for (outcome, pause) in [
        ("connect-failed", 0.0),
        ("circuit-open", 0.0),
        ("circuit-open", 0.1),
    ] {
        let before = world.proxy.metric(RELAYED, &[("outcome", outcome)]);
        assert_eq!(world.say(&hello::sound("api.test"), 100, pause), "reset");
        let labels = [("upstream", "named"), ("outcome", outcome)];
        world.proxy.expect_metric(RELAYED, &labels, before + 1.0);
    }
    assert_eq!(
        world.say(&hello::sound("other.test"), 100, 0.0),
        "as it was"
    );
}

fn the_log_names_the_server(backend: Backend) {
    let world = World::start(backend, "", "");
    let sound = hello::sound("API.test");
    assert_eq!(world.say(&sound, 100, 0.0), "as it was");
    let mut tunnel = world.tunnel();
    tunnel.send(&sound);
    assert_eq!(tunnel.exactly(sound.len()), sound);
    drop(tunnel);
    world
        .proxy
        .expect_metric(RELAYED, &[("upstream", "named")], 2.0);
    ambassador_tests::eventually("logged", Duration::from_secs(5), || {
        let log = world.proxy.log();
        let lines = log.lines().filter(|line| line.starts_with('{'));
        let lines = lines.filter(|line| line.contains("\"server_name\":\"api.test\""));
        let named = lines.filter(|line| line.contains("\"upstream\":\"named\""));
        named.count() == 2
    });
}

fn tls_where_requests_are_expected_is_a_bad_request(backend: Backend) {
    let world = World::start(backend, "", "");
    let mut refused = 0.0;
    let sound = ("sound", hello::sound("api.test"));
    let hostile = hello::hostile("api.test").into_iter();
    for (what, said) in std::iter::once(sound).chain(hostile.map(|one| (one.fault, one.bytes))) {
        let mut client = Client::connect(world.listen);
        // The proxy may have had enough before all of it is there.
        let _ = client.try_send(&said);
        client.finish();
        if let Some(answer) = client.try_response("GET") {
            assert_eq!(
                (answer.status, answer.reason()),
                (400, "bad-request"),
                "{what}"
            );
        }
        refused += 1.0;
        let labels = [("upstream", "unmatched"), ("reason", "bad-request")];
        world
            .proxy
            .expect_metric("ambassador_requests_total", &labels, refused);
    }
}

fn requests_where_tls_is_expected_are_requests(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let claim = crate::capture::claim("api.test, \"10.1.2.3:443\"", &server);
    let _proxy = Proxy::capturing(backend, &cgroup, &claim);
    let mut curl = cgroup.command("curl");
    curl.args(["-sS", "-m20", "-D-", "-o/dev/null", "http://10.1.2.3:443/"]);
    let head = program::succeed(&mut curl);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(server.last_request().field("x-request-id").is_some());
}

/// A listener that speaks TLS itself ends each of them, and serves all others.
fn a_hostile_hello_costs_a_listener_its_own_connection(backend: Backend) {
    let scratch = Scratch::new();
    let (certificate, key) = (scratch.path().join("c"), scratch.path().join("k"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2", "-batch",
    ]);
    openssl.args([
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-subj",
        "/CN=test",
    ]);
    program::succeed(
        openssl
            .arg("-out")
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key),
    );
    let server = Server::ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "defaults: {{ timeouts: {{ head: 1s }} }}\n\
         listeners: [{{ name: e, bind: \"{listen}\", tls: {{ cert: \"{}\", key: \"{}\" }} }}]\n\
         upstreams: {{ web: {{ hosts: [\"{listen}\"], endpoints: [\"{}\"] }} }}\n",
        certificate.display(),
        key.display(),
        server.address()
    );
    let proxy = Proxy::start(backend, &config);
    let get = || {
        let url = format!("https://{listen}/");
        let mut curl = Command::new("curl");
        program::succeed(curl.args(["-sSk", "-m20", &url]))
    };
    let (mut handshakes, mut completed) = (0.0, 0.0);
    let mut silent = Client::connect(listen);
    silent.send(&hello::post_quantum("api.test")[..700]);
    let http = Hostile {
        fault: "a request in clear",
        bytes: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        reading: Reading::Nameless,
    };
    let hostile = hello::hostile("api.test");
    for (number, hostile) in hostile.iter().chain([&http]).enumerate() {
        let mut client = Client::connect(listen);
        // The proxy may have had enough before all of it is there.
        let _ = client.try_send(&hostile.bytes);
        client.finish();
        let answer = client.rest().unwrap_or_default();
        assert!(
            answer.len() < 8 * 1024,
            "{}: {}",
            hostile.fault,
            answer.len()
        );
        assert!(!answer.starts_with(b"HTTP/"), "{}", hostile.fault);
        handshakes += 1.0;
        if number % 10 == 0 {
            assert_eq!(get(), "ok", "after {}", hostile.fault);
            completed += 1.0;
        }
    }
    assert!(
        silent.rest().is_err() || silent.is_ended(),
        "its time is over"
    );
    let labels = [("listener", "e")];
    let all = handshakes + completed + 1.0;
    proxy.expect_metric("ambassador_tls_handshakes_total", &labels, all);
    proxy.expect_metric("ambassador_connections", &labels, 0.0);
    let labels = [("listener", "e"), ("outcome", "completed")];
    proxy.expect_metric("ambassador_tls_handshakes_total", &labels, completed);
    assert_eq!(get(), "ok");
}
