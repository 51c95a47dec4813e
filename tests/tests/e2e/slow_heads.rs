//! A head has a time in which it must come.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use ambassador_tests::client::get;
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{
    Backend, Cgroup, Client, Proxy, Server, on_both_backends, on_http1, ports, program,
};

use crate::capture::claim;

on_http1!(
    a_head_that_drips_is_given_up,
    a_later_head_has_the_same_time,
    silence_before_a_head_is_not_a_slow_head,
    the_upstream_of_an_address_has_a_time_of_its_own,
    a_head_in_a_tunnel_has_the_same_time,
    a_response_head_that_drips_is_given_up,
    a_response_head_in_pieces_is_whole_in_time,
);

on_both_backends!(a_hello_that_does_not_end_is_given_up,);

const HEAD: Duration = Duration::from_millis(400);

fn start(backend: Backend, server: &Server) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = one_upstream(listen, server.address(), "");
    let config = format!("defaults: {{ timeouts: {{ head: 400ms }} }}\n{config}");
    (Proxy::start(backend, &config), listen)
}

/// Sends a head that never ends, a byte at a time, and says how long it took
/// until that was refused.
fn drip(client: &mut Client) -> Duration {
    let started = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: web.test\r\nX-Slow: ");
    let mut writer = Client::over(client.stream().try_clone().expect("descriptors are left"));
    let dripping = thread::spawn(move || {
        while started.elapsed() < 10 * HEAD && writer.try_send("a\r\nX-Slow: ").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let answer = client.response("GET");
    let took = started.elapsed();
    assert_eq!((answer.status, answer.reason()), (408, "bad-request"));
    assert!(answer.text().contains("timeouts.head"), "{}", answer.text());
    assert!(client.is_ended());
    dripping.join().expect("it writes or ends");
    took
}

fn a_head_that_drips_is_given_up(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = start(backend, &server);
    let took = drip(&mut Client::connect(listen));
    assert!(took >= HEAD && took < 8 * HEAD, "{took:?}");
    let labels = [("status", "408"), ("reason", "bad-request")];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
    assert_eq!(server.requests().len(), 0);
}

fn a_later_head_has_the_same_time(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = start(backend, &server);
    let mut client = Client::connect(listen);
    for _ in 0..2 {
        // Longer than one head may take, so that each is seen to have its own.
        thread::sleep(HEAD * 2 / 3);
        let head = get("/");
        let (first, rest) = head.split_at(head.len() - 2);
        client.send(first);
        thread::sleep(HEAD / 3);
        client.send(rest);
        assert_eq!(client.response("GET").status, 200);
    }
    drip(&mut client);
}

fn silence_before_a_head_is_not_a_slow_head(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = start(backend, &server);
    let mut client = Client::connect(listen);
    thread::sleep(HEAD * 2);
    assert_eq!(client.get("/").status, 200);
}

/// Begins with its argument, goes on with `a`, and says how it ended, and
/// whether that took less than 8 s.
const BEGIN: &str = r#"
import socket, sys, time
connection = socket.create_connection(("10.1.2.3", 7000), 20)
started = time.monotonic()
connection.sendall(bytes.fromhex(sys.argv[1]))
got = b""
connection.settimeout(0.05)
while time.monotonic() - started < 8:
    try:
        got += connection.recv(65536)
        break
    except TimeoutError:
        pass
    except OSError:
        break
    try:
        connection.sendall(b"a")
    except OSError:
        pass
took = time.monotonic() - started
sys.stdout.write(f"{got[9:12].decode()} {took < 8}")
"#;

fn begin(cgroup: &Cgroup, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = cgroup.command(program::PYTHON);
    program::succeed(command.args(["-c", BEGIN, &hex]))
}

fn the_upstream_of_an_address_has_a_time_of_its_own(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let config = format!(
        "upstreams: {{ web: {{ hosts: [10.1.2.3], endpoints: [\"{}\"], \
         timeouts: {{ head: 400ms }} }} }}\n",
        server.address()
    );
    let _proxy = Proxy::capturing(backend, &cgroup, &config);
    let head = b"GET / HTTP/1.1\r\nHost: web.test\r\nX-Slow: ";
    assert_eq!(begin(&cgroup, head), "408 True");
}

fn a_hello_that_does_not_end_is_given_up(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let claim = claim("10.1.2.3", &server);
    let config = format!("defaults: {{ timeouts: {{ head: 400ms }} }}\n{claim}");
    let _proxy = Proxy::capturing(backend, &cgroup, &config);
    // A record of 16,000 bytes with a hello that is as long.
    let hello = [0x16, 3, 1, 0x3e, 0x80, 1, 0, 0x3e, 0x7c, 3, 3];
    assert_eq!(begin(&cgroup, &hello), " True");
}

fn a_head_in_a_tunnel_has_the_same_time(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = start(backend, &server);
    let mut client = Client::connect(listen);
    client.send("CONNECT web.test:80 HTTP/1.1\r\nHost: web.test:80\r\n\r\n");
    assert_eq!(client.response("CONNECT").status, 200);
    drip(&mut client);
    assert_eq!(server.requests().len(), 0);
}

/// An upstream without any other limit than that of heads.
const NO_LIMIT: &str = "timeouts: { request: none, head: 400ms }\nretry: { attempts: 2 }";

/// Begins the head of each response, then sends `part` every now and then,
/// `parts` of them, and ends it.
fn dripping(part: &'static str, parts: usize) -> Server {
    Server::start(move |connection| {
        connection.head()?;
        connection.write("HTTP/1.1 200 OK\r\n")?;
        for _ in 0..parts {
            connection.write(part)?;
            thread::sleep(Duration::from_millis(20));
        }
        connection.write("Content-Length: 2\r\n\r\nok")
    })
}

fn a_response_head_that_drips_is_given_up(backend: Backend) {
    for part in ["X-Slow: a\r\n", "X-Slow:"] {
        let server = dripping(part, 500);
        let (proxy, listen) = Proxy::in_front_of_with(backend, server.address(), NO_LIMIT);
        let started = Instant::now();
        let answer = Client::connect(listen).get("/");
        let took = started.elapsed();
        assert_eq!((answer.status, answer.reason()), (504, "try-timeout"));
        assert!(took >= 2 * HEAD && took < 8 * HEAD, "{took:?}");
        let tries = [("upstream", "web"), ("outcome", "try-timeout")];
        proxy.expect_metric("ambassador_upstream_attempts_total", &tries, 2.0);
        assert_eq!(proxy.upstream("web")["circuit_breaker"]["failures"], 2);
    }
}

fn a_response_head_in_pieces_is_whole_in_time(backend: Backend) {
    let server = dripping("X-Slow: a\r\n", 5);
    let (_proxy, listen) = Proxy::in_front_of_with(backend, server.address(), NO_LIMIT);
    assert_eq!(Client::connect(listen).get("/").text(), "ok");
}
