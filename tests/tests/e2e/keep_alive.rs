//! TCP keep-alive: NATs do not forget connections, and peers that vanish are
//! found out.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, SocketAddrV4};
use std::process::Command;
use std::time::Duration;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{
    Backend, Cgroup, Client, Connection, Netns, Proxy, Server, eventually, on_both_backends, ports,
    program,
};

use crate::capture_scope::inside;

on_both_backends!(
    sockets_to_servers_and_from_clients_are_kept_alive,
    it_can_be_off,
    a_reload_changes_it,
    sockets_of_other_namespaces_are_kept_alive,
    a_server_that_has_vanished_is_found_out,
    a_server_that_vanishes_amid_talk_is_found_out,
    a_server_that_pauses_has_not_vanished,
);

/// Kinds of timers in /proc/net/tcp.
const NONE: u8 = 0;
const KEEP_ALIVE: u8 = 2;

/// The timers of established sockets with this end, the local one (column 1) or
/// the other (2).
fn timers(table: &str, column: usize, end: SocketAddr) -> BTreeSet<u8> {
    const ESTABLISHED: &str = "01";
    let SocketAddr::V4(end) = end else {
        panic!("{end} is not of this table")
    };
    let wanted = hex(end);
    let rows = table.lines().map(|row| row.split_whitespace().collect());
    rows.filter(|row: &Vec<&str>| row[column] == wanted && row[3] == ESTABLISHED)
        .map(|row| row[5][..2].parse().expect("a kind of timer"))
        .collect()
}

fn hex(end: SocketAddrV4) -> String {
    let address = u32::from_ne_bytes(end.ip().octets());
    format!("{address:08X}:{:04X}", end.port())
}

fn table() -> String {
    std::fs::read_to_string("/proc/net/tcp").expect("/proc is mounted")
}

/// Answers requests, and sends anything else back.
fn patient(connection: &mut Connection) -> std::io::Result<()> {
    connection.serve_http(|_| ambassador_tests::server::text("ok"))
}

/// A request and a relay through a proxy of `defaults`, left open.
fn world(backend: Backend, defaults: &str) -> (Proxy, [Server; 2], [Client; 2], [SocketAddr; 2]) {
    let servers = [Server::start(patient), Server::echo()];
    let listen = [0; 2].map(|_| SocketAddr::from(([127, 0, 0, 1], ports::free())));
    let config = config(&servers, listen, defaults);
    let proxy = Proxy::start(backend, &config);
    let clients = talk(listen);
    (proxy, servers, clients, listen)
}

fn config(servers: &[Server; 2], listen: [SocketAddr; 2], defaults: &str) -> String {
    let [http, tcp] = listen;
    let (web, db) = (servers[0].address(), servers[1].address());
    let relay = format!("  - {{ name: db, bind: \"{tcp}\", protocol: tcp, upstream: db }}\n");
    let config = one_upstream(http, web, "");
    let (listeners, upstreams) = config.split_once("upstreams:\n").expect("it has them");
    format!(
        "{listeners}{relay}defaults: {{ {defaults} }}\n\
         upstreams:\n  db: {{ endpoints: [\"{db}\"] }}\n{upstreams}"
    )
}

fn talk(listen: [SocketAddr; 2]) -> [Client; 2] {
    let mut clients = listen.map(Client::connect);
    assert_eq!(clients[0].get("/").text(), "ok");
    clients[1].send("hello");
    assert_eq!(clients[1].exactly(5), b"hello");
    clients
}

/// What is seen of all ends of the proxy, once nothing else is on its way.
fn expect(servers: &[Server; 2], listen: [SocketAddr; 2], timer: u8) {
    let expected = BTreeSet::from([timer]);
    for (server, listen) in servers.iter().zip(listen) {
        for (column, end) in [(2, server.address()), (1, listen)] {
            eventually("its timer is that", Duration::from_secs(5), || {
                timers(&table(), column, end) == expected
            });
        }
    }
}

fn sockets_to_servers_and_from_clients_are_kept_alive(backend: Backend) {
    let (_proxy, servers, _clients, listen) = world(backend, "");
    expect(&servers, listen, KEEP_ALIVE);
}

fn it_can_be_off(backend: Backend) {
    let (_proxy, servers, _clients, listen) = world(backend, "tcp_keepalive: off");
    expect(&servers, listen, NONE);
}

fn a_reload_changes_it(backend: Backend) {
    let (proxy, servers, clients, listen) = world(backend, "");
    drop(clients);
    proxy.rewrite_config(&config(&servers, listen, "tcp_keepalive: off"));
    proxy.expect_metric("ambassador_config_reloads_total", &[], 1.0);
    eventually(
        "new connections are without",
        Duration::from_secs(10),
        || {
            let clients = talk(listen);
            let ends = [(1, listen[0]), (1, listen[1]), (2, servers[1].address())];
            let without = ends
                .iter()
                .all(|(column, end)| timers(&table(), *column, *end) == BTreeSet::from([NONE]));
            drop(clients);
            without
        },
    );
}

/// Sends a byte and waits for it, then goes on so (`talks`) or waits, until the
/// end; prints how that came.
const CLIENT: &str = r#"
import socket, sys
connection = socket.create_connection(("10.2.0.1", 7000), 20)
connection.settimeout(20)
connection.sendall(b"\1")
assert connection.recv(1) == b"\1"
print("open", flush=True)
connection.settimeout(0.05 if sys.argv[1] == "talks" else 30)
try:
    while True:
        try:
            if not connection.recv(1):
                sys.exit("closed")
        except TimeoutError:
            connection.sendall(b"\1")
except ConnectionResetError:
    print("reset")
"#;

/// A workload in a namespace of its own, and its server in another.
fn apart(backend: Backend) -> (Netns, Netns, Server, Cgroup, Proxy) {
    let (near, far) = (Netns::new(), Netns::new());
    near.connect("10.2.0.2/24", &far, "10.2.0.1/24");
    let server = Server::over(far.listen("10.2.0.1:7000"), |connection| {
        let mut buffer = [0; 1024];
        loop {
            match connection.read(&mut buffer)? {
                0 => return Ok(()),
                count => connection.write(&buffer[..count])?,
            }
        }
    });
    let cgroup = Cgroup::new();
    let config = "defaults: { tcp_keepalive: 1s }\n";
    let proxy = inside(backend, &near, &cgroup, config);
    (near, far, server, cgroup, proxy)
}

fn client(near: &Netns, cgroup: &Cgroup, mode: &str) -> program::Running {
    let [nsenter, entered, python] = near.wrap(program::PYTHON);
    let mut command = cgroup.command(nsenter);
    command
        .args([entered, python, "-c".into(), CLIENT.into(), mode.into()])
        .stdout(std::process::Stdio::piped());
    program::Running::start(&mut command)
}

fn table_of(namespace: &Netns) -> String {
    let [nsenter, entered, cat] = namespace.wrap("cat");
    program::succeed(Command::new(nsenter).args([entered, cat, "/proc/net/tcp".into()]))
}

fn sockets_of_other_namespaces_are_kept_alive(backend: Backend) {
    let (near, _far, server, cgroup, _proxy) = apart(backend);
    let _client = client(&near, &cgroup, "waits");
    let expected = BTreeSet::from([KEEP_ALIVE]);
    eventually("the way on is kept alive", Duration::from_secs(10), || {
        timers(&table_of(&near), 2, server.address()) == expected
    });
}

fn a_server_that_has_vanished_is_found_out(backend: Backend) {
    vanish(backend, "waits");
}

fn a_server_that_vanishes_amid_talk_is_found_out(backend: Backend) {
    vanish(backend, "talks");
}

fn vanish(backend: Backend, mode: &str) {
    let (near, far, _server, cgroup, proxy) = apart(backend);
    let mut client = client(&near, &cgroup, mode);
    let mut lines = BufReader::new(client.stdout()).lines();
    let mut said = || lines.next().expect("a line").expect("readable");
    assert_eq!(said(), "open");
    far.ip(&["addr", "flush", "to", "10.2.0.1"]);
    // After five times the second.
    assert_eq!(said(), "reset");
    let labels = [("upstream", "unmatched"), ("outcome", "upstream-reset")];
    proxy.expect_metric("ambassador_tcp_connections_total", &labels, 1.0);
}

fn a_server_that_pauses_has_not_vanished(backend: Backend) {
    const BYTES: usize = 16 << 20;
    // Longer than one that answers nothing has got.
    const PAUSE: Duration = Duration::from_secs(9);
    let server = Server::start(|connection| {
        std::thread::sleep(PAUSE);
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            match connection.read(&mut buffer)? {
                0 => return connection.write(bytes.to_string()),
                count => bytes += count,
            }
        }
    });
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "listeners: [{{ name: db, bind: \"{listen}\", protocol: tcp, upstream: db }}]\n\
         upstreams: {{ db: {{ endpoints: [\"{}\"], tcp_keepalive: 1s }} }}\n",
        server.address()
    );
    let _proxy = Proxy::start(backend, &config);
    let mut client = Client::connect(listen);
    client.send(vec![7; BYTES]);
    client.finish();
    assert_eq!(client.rest().expect("a FIN"), BYTES.to_string().as_bytes());
}
