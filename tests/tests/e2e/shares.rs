//! Whoever holds what others wait for, and does not move, has to give it up.

use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use ambassador_tests::proxy::{Launch, one_upstream};
use ambassador_tests::{
    Answer, Backend, Call, Caller, Cgroup, Client, Column, Proxy, Server, eventually, matrix,
    on_both_backends, on_http1, os, ports, program,
};

matrix!(
    slow_uploads_give_way_to_who_waits,
    stalled_readers_give_way_to_who_waits,
    uploads_that_move_are_left_alone,
    who_waits_for_its_upstream_is_left_alone,
    a_peer_that_fills_the_queue_makes_room_for_others,
    peers_have_turns,
);

on_http1!(a_caller_that_has_ended_its_direction_gives_way_too);

on_both_backends!(
    a_peer_has_its_share_of_relays,
    one_peer_alone_may_have_all_relays,
    a_cgroup_that_fills_the_queue_makes_room_for_another,
);

const PLACES: usize = 4;

fn shed(proxy: &Proxy) -> f64 {
    let share = [("cause", "share")];
    proxy.metric("ambassador_shed_connections_total", &share)
}

/// Waits until every connection to the upstream is taken.
fn expect_full(proxy: &Proxy) {
    let open = [("upstream", "web"), ("state", "open")];
    proxy.expect_metric("ambassador_pool_connections", &open, PLACES as f64);
}

/// A proxy with places for so many requests in the upstream, over whatever protocol.
fn start(column: Column, server: &Server) -> (Proxy, SocketAddr) {
    let more = format!("pool: {{ max_connections: {PLACES} }}\nhttp2: {{ max_streams: 1 }}");
    Proxy::in_front_of_with(column, server.address(), &more)
}

const UPLOAD: usize = 100_000;

/// Begins uploads that take all places.
fn uploads(column: Column, listen: SocketAddr) -> Vec<Caller> {
    let upload = || {
        let mut client = column.connect(listen);
        client.send(&Call::new("POST", "/").announces(UPLOAD));
        client.piece("abc");
        client
    };
    (0..PLACES).map(|_| upload()).collect()
}

fn slow_uploads_give_way_to_who_waits(column: Column) {
    let server = column.ok();
    let (proxy, listen) = start(column, &server);
    let mut slow = uploads(column, listen);
    expect_full(&proxy);
    let answer = column.connect(listen).get("/live");
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    assert_eq!(shed(&proxy), 1.0);
    // It is told why, and nobody else is the worse for it.
    let overloaded = [("reason", "overloaded"), ("status", "503")];
    proxy.expect_metric("ambassador_requests_total", &overloaded, 1.0);
    let breaker = [("upstream", "web")];
    assert_eq!(proxy.metric("ambassador_breaker_state", &breaker), 0.0);
    let mut served = 0;
    for client in &mut slow {
        let _ = client.try_piece([b'x'; UPLOAD - 3]);
        let answer = client.try_answer();
        served += usize::from(answer.is_some_and(|answer| answer.status == 200));
    }
    assert_eq!(served, PLACES - 1);
}

fn stalled_readers_give_way_to_who_waits(column: Column) {
    let server = big(column);
    let (proxy, listen) = start(column, &server);
    let _stalled = [(); PLACES].map(|()| stalled_reader(column, listen));
    expect_full(&proxy);
    assert_eq!(column.connect(listen).get("/live").text(), "live");
    assert_eq!(shed(&proxy), 1.0);
}

fn a_caller_that_has_ended_its_direction_gives_way_too(backend: Backend) {
    let column = backend.into();
    let server = big(column);
    let (proxy, listen) = start(column, &server);
    let stalled = [(); PLACES].map(|()| stalled_reader(column, listen));
    for (_, stream) in &stalled {
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
    }
    expect_full(&proxy);
    assert_eq!(Client::connect(listen).get("/live").text(), "live");
}

/// Answers `/` with more than sockets take.
fn big(column: Column) -> Server {
    column.server(|request| match request.target.as_str() {
        "/" => Answer::ok("x".repeat(8 * 1024 * 1024)),
        _ => Answer::ok("live"),
    })
}

/// It has asked for `/`, and reads nothing. With its stream.
fn stalled_reader(column: Column, listen: SocketAddr) -> (Caller, TcpStream) {
    let stream = os::connect_with_small_buffers(listen).expect("it listens");
    let socket = stream.try_clone().expect("descriptors are left");
    let mut client = column.over(stream);
    client.send(&Call::get("/"));
    (client, socket)
}

fn uploads_that_move_are_left_alone(column: Column) {
    let server = column.ok();
    let (proxy, listen) = start(column, &server);
    let mut moving = uploads(column, listen);
    expect_full(&proxy);
    let mut waiting = column.connect(listen);
    waiting.send(&Call::get("/live"));
    // Longer than it takes to be called slow.
    let started = Instant::now();
    let (mut sent, part) = (3, [b'x'; 2_000]);
    while started.elapsed() < Duration::from_secs(4) {
        for client in &mut moving {
            client.piece(part);
        }
        sent += part.len();
        thread::sleep(Duration::from_millis(200));
    }
    for client in &mut moving {
        client.piece(vec![b'x'; UPLOAD - sent]);
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(waiting.answer().status, 200);
    assert_eq!(shed(&proxy), 0.0);
}

/// Answers when the test lets it.
fn held(column: Column) -> (Server, std::sync::mpsc::Sender<()>) {
    let (release, held) = channel::<()>();
    let held: Mutex<Receiver<()>> = Mutex::new(held);
    let server = column.server(move |_| {
        let _ = held.lock().expect("no panic").recv();
        Answer::ok("ok")
    });
    (server, release)
}

fn who_waits_for_its_upstream_is_left_alone(column: Column) {
    let (server, release) = held(column);
    let (proxy, listen) = start(column, &server);
    // A whole body is no slow one.
    let calls = [Call::get("/"), Call::post("/", "ab")];
    let mut asking = [(); PLACES].map(|()| column.connect(listen));
    for (client, call) in asking.iter_mut().zip(calls.iter().cycle()) {
        client.send(call);
    }
    expect_full(&proxy);
    let answer = column.connect(listen).get("/live");
    assert_eq!((answer.status, answer.reason()), (504, "connect-timeout"));
    assert_eq!(shed(&proxy), 0.0);
    drop(release);
    for client in &mut asking {
        assert_eq!(client.answer().status, 200);
    }
}

/// A proxy with a tcp listener that many may use.
fn relaying(backend: Backend, server: &Server) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let more = format!("pool: {{ max_connections: {PLACES} }}");
    let config = one_upstream(listen, server.address(), &more)
        .replace("protocol: http }", "protocol: tcp, upstream: web }");
    let config = format!("workers: 1\n{config}");
    (Proxy::start(backend, &config), listen)
}

fn a_peer_has_its_share_of_relays(backend: Backend) {
    let server = Server::echo();
    let (proxy, listen) = relaying(backend, &server);
    let _silent: Vec<Client> = (0..PLACES).map(|_| Client::connect(listen)).collect();
    expect_full(&proxy);
    let other = os::connect_from([127, 0, 0, 2].into(), listen).expect("loopback is a /8");
    let mut other = Client::over(other);
    other.send("hi");
    assert_eq!(other.exactly(2), b"hi");
    assert_eq!(shed(&proxy), 1.0);
    let overloaded = [("outcome", "overloaded")];
    proxy.expect_metric("ambassador_tcp_connections_total", &overloaded, 1.0);
}

fn one_peer_alone_may_have_all_relays(backend: Backend) {
    let server = Server::echo();
    let (proxy, listen) = relaying(backend, &server);
    let silent: Vec<Client> = (0..PLACES).map(|_| Client::connect(listen)).collect();
    expect_full(&proxy);
    let mut late = Client::connect(listen);
    assert!(late.is_ended(), "there is no place for it");
    assert_eq!(shed(&proxy), 0.0);
    drop(silent);
    let open = [("upstream", "web"), ("state", "open")];
    proxy.expect_metric("ambassador_pool_connections", &open, 0.0);
    let mut next = Client::connect(listen);
    next.send("hi");
    assert_eq!(next.exactly(2), b"hi");
}

/// Who may wait for a connection at once.
const PENDING: usize = 6;

/// All connections are taken by requests of this machine's usual address, and all
/// places in the queue, of one shard.
fn crowded(column: Column, server: &Server) -> (Proxy, SocketAddr, Vec<Caller>) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let more = format!(
        "pool: {{ max_connections: {PLACES}, max_pending: {PENDING} }}\n\
         http2: {{ max_streams: 1 }}\n\
         timeouts: {{ connect: 20s, request: 20s }}"
    );
    let config = one_upstream(listen, server.address(), &more);
    let proxy = Proxy::start(column, &format!("workers: 1\n{config}"));
    let mut clients: Vec<Caller> = (0..PLACES + PENDING)
        .map(|_| column.connect(listen))
        .collect();
    let call = Call::get("/of-many");
    for client in &mut clients {
        client.send(&call);
    }
    expect_full(&proxy);
    expect_pending(&proxy);
    (proxy, listen, clients)
}

fn expect_pending(proxy: &Proxy) {
    let pending = [("upstream", "web"), ("state", "pending")];
    proxy.expect_metric("ambassador_pool_connections", &pending, PENDING as f64);
}

fn another_peer(column: Column, listen: SocketAddr) -> Caller {
    let other = os::connect_from([127, 0, 0, 2].into(), listen).expect("loopback is a /8");
    column.over(other)
}

fn count(clients: Vec<Caller>, status: u16) -> usize {
    let answers = clients.into_iter().map(|mut client| client.answer());
    answers.filter(|answer| answer.status == status).count()
}

fn a_peer_that_fills_the_queue_makes_room_for_others(column: Column) {
    let (server, release) = held(column);
    let (proxy, listen, clients) = crowded(column, &server);
    let mut other = another_peer(column, listen);
    other.send(&Call::get("/of-one"));
    // In its place the newest of the others has gone.
    let overloaded = [("reason", "overloaded"), ("status", "503")];
    proxy.expect_metric("ambassador_requests_total", &overloaded, 1.0);
    expect_pending(&proxy);
    // Of its own peer nobody goes for one more.
    let mut late = column.connect(listen);
    let answer = late.get("/of-many");
    assert_eq!((answer.status, answer.reason()), (503, "overloaded"));
    drop(release);
    assert_eq!(other.answer().status, 200);
    assert_eq!(count(clients, 503), 1);
    proxy.expect_metric("ambassador_requests_total", &overloaded, 2.0);
    assert_eq!(
        proxy.metric("ambassador_breaker_state", &[("upstream", "web")]),
        0.0
    );
}

fn peers_have_turns(column: Column) {
    let (server, release) = held(column);
    let (proxy, listen, clients) = crowded(column, &server);
    let mut other = another_peer(column, listen);
    other.send(&Call::get("/of-one"));
    // It has a place.
    let overloaded = [("reason", "overloaded"), ("status", "503")];
    proxy.expect_metric("ambassador_requests_total", &overloaded, 1.0);
    // Those who have connections, and who comes first in the queue; then it is
    // the other's turn, before the rest of the queue.
    let mut released = 0;
    while !server
        .requests()
        .iter()
        .any(|asked| asked.target == "/of-one")
    {
        let before = server.requests().len();
        release.send(()).expect("the server listens");
        released += 1;
        assert!(released <= PLACES, "others come first");
        eventually("the next is served", Duration::from_secs(10), || {
            server.requests().len() > before
        });
    }
    drop(release);
    assert_eq!(other.answer().status, 200);
    assert_eq!(count(clients, 200), PLACES + PENDING - 1);
}

/// Asks so many times at once, as its argument says, and prints the statuses.
const ASK: &str = r#"
import socket, sys
ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
asking = [socket.create_connection(("10.1.2.3", 80), 20) for _ in range(int(sys.argv[1]))]
for connection in asking:
    connection.sendall(ask)
sys.stdout.write(" ".join(sorted(connection.recv(12)[9:].decode() for connection in asking)))
"#;

fn a_cgroup_that_fills_the_queue_makes_room_for_another(backend: Backend) {
    let (server, release) = held(backend.into());
    let (many, one) = (Cgroup::new(), Cgroup::new());
    let config = format!(
        "workers: 1\nupstreams: {{ web: {{ hosts: [10.1.2.3], endpoints: [\"{}\"], \
         pool: {{ max_connections: {PLACES}, max_pending: {PENDING} }} }} }}\n",
        server.address()
    );
    let arguments = [&many, &one].map(|cgroup| cgroup.path().display().to_string());
    let arguments = arguments
        .into_iter()
        .flat_map(|path| ["--cgroup".to_owned(), path]);
    let launch = Launch {
        arguments: arguments.collect(),
        ..Launch::default()
    };
    let proxy = Proxy::launch(backend, &config, launch);
    let ask = |cgroup: &Cgroup, count: usize| {
        let mut python = cgroup.command(program::PYTHON);
        program::succeed(python.args(["-c", ASK, &count.to_string()]))
    };
    thread::scope(|scope| {
        let many = scope.spawn(|| ask(&many, PLACES + PENDING));
        expect_full(&proxy);
        expect_pending(&proxy);
        let one = scope.spawn(|| ask(&one, 1));
        let overloaded = [("reason", "overloaded"), ("status", "503")];
        proxy.expect_metric("ambassador_requests_total", &overloaded, 1.0);
        drop(release);
        assert_eq!(one.join().expect("it ends"), "200");
        let many = many.join().expect("it ends");
        let turned_away = many.split(' ').filter(|status| *status == "503");
        assert_eq!(turned_away.count(), 1, "{many}");
    });
}
