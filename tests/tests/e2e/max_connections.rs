//! How many connections applications may have.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ambassador_tests::{
    Backend, Cgroup, Client, Proxy, Server, eventually, on_both_backends, ports, program,
};

use crate::capture::claim;

on_both_backends!(
    a_listener_has_a_limit_of_its_own,
    all_listeners_have_a_limit_together,
    captured_connections_count_to_the_limit_of_all,
    a_reload_changes_both,
);

const LIMIT: Duration = Duration::from_secs(10);

fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

/// Two listeners, `one` and `two`, in front of `server`.
fn two_listeners(server: &Server, one: (SocketAddr, &str), two: SocketAddr, more: &str) -> String {
    let (address, limit) = one;
    format!(
        "{more}\nlisteners:\n  - {{ name: one, bind: \"{address}\", {limit} }}\n  \
         - {{ name: two, bind: \"{two}\" }}\n\
         upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\"] }} }}\n",
        server.address()
    )
}

fn dropped(proxy: &Proxy) -> f64 {
    let cause = [("cause", "max-connections")];
    proxy.metric("ambassador_dropped_accepts_total", &cause)
}

/// Connects without asking for anything, and waits for the reset.
#[track_caller]
fn is_turned_away(listen: SocketAddr) {
    let mut stream = TcpStream::connect(listen).expect("the kernel completes it");
    stream.set_read_timeout(Some(LIMIT)).expect("valid");
    let error = stream.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// So many connections that have been served.
fn served(listen: SocketAddr, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(listen)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    clients
}

fn a_listener_has_a_limit_of_its_own(backend: Backend) {
    let server = Server::ok();
    let (one, two) = (free(), free());
    let config = two_listeners(&server, (one, "max_connections: 3"), two, "");
    let proxy = Proxy::start(backend, &config);
    let mut clients = served(one, 3);
    is_turned_away(one);
    is_turned_away(one);
    assert_eq!(dropped(&proxy), 2.0);
    let log = proxy.log();
    assert!(log.contains("max_connections"), "{log}");
    // Others are none the worse for it, nor are those who are here.
    let _others = served(two, 4);
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    // Who leaves makes room.
    clients.pop();
    let open = [("listener", "one")];
    proxy.expect_metric("ambassador_connections", &open, 2.0);
    let _next = served(one, 1);
    is_turned_away(one);
}

fn all_listeners_have_a_limit_together(backend: Backend) {
    let server = Server::ok();
    let (one, two) = (free(), free());
    let more = "max_connections: 3";
    let config = two_listeners(&server, (one, "max_connections: none"), two, more);
    let proxy = Proxy::start(backend, &config);
    let _first = served(one, 2);
    let _second = served(two, 1);
    is_turned_away(one);
    is_turned_away(two);
    assert_eq!(dropped(&proxy), 2.0);
    // The admin side is not among them.
    assert_eq!(proxy.admin_status("/readyz"), Some(200));
}

fn captured_connections_count_to_the_limit_of_all(backend: Backend) {
    const TWO: &str = r#"
import socket, sys
first, second = (socket.create_connection(("10.1.2.3", 80), 20) for _ in range(2))
ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
first.sendall(ask)
assert first.recv(12) == b"HTTP/1.1 200", "the first is served"
try:
    second.sendall(ask)
    sys.stdout.write(repr(second.recv(12)))
except ConnectionResetError:
    sys.stdout.write("reset")
"#;
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let config = format!("max_connections: 1\n{}", claim("10.1.2.3", &server));
    let proxy = Proxy::capturing(backend, &cgroup, &config);
    let mut python = cgroup.command(program::PYTHON);
    assert_eq!(program::succeed(python.args(["-c", TWO])), "reset");
    assert_eq!(dropped(&proxy), 1.0);
}

fn a_reload_changes_both(backend: Backend) {
    let server = Server::ok();
    let (one, two) = (free(), free());
    let config = two_listeners(&server, (one, "max_connections: 1"), two, "");
    let proxy = Proxy::start(backend, &config);
    let _first = served(one, 1);
    is_turned_away(one);
    let wider = two_listeners(&server, (one, "max_connections: 2"), two, "");
    proxy.rewrite_config(&wider);
    let reloads = |count| proxy.expect_metric("ambassador_config_reloads_total", &[], count);
    reloads(1.0);
    // Each shard takes the change by itself.
    let mut second = None;
    eventually("there is room for another", LIMIT, || {
        let mut client = Client::connect(one);
        let is_served = client.try_send(ambassador_tests::client::get("/")).is_ok()
            && client.try_response("GET").is_some();
        second = Some(client);
        is_served
    });
    is_turned_away(one);
    let narrow = two_listeners(
        &server,
        (one, "max_connections: 2"),
        two,
        "max_connections: 1",
    );
    proxy.rewrite_config(&narrow);
    reloads(2.0);
    is_turned_away(two);
    let open = [("listener", "one")];
    assert_eq!(proxy.metric("ambassador_connections", &open), 2.0);
}
