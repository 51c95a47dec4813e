//! A head has a time in which it must come.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ambassador_tests::http2::{Frame, Peer, code, kind};
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{
    Answer, Backend, Call, Caller, Cgroup, Column, Protocol, Proxy, Server, matrix,
    on_both_backends, on_http1, ports, program,
};

use crate::capture::claim;

matrix!(
    a_head_that_drips_is_given_up,
    a_later_head_has_the_same_time,
    silence_before_a_head_is_not_a_slow_head,
    the_upstream_of_an_address_has_a_time_of_its_own,
    a_head_in_a_tunnel_has_the_same_time,
    a_response_head_that_drips_is_given_up,
    a_response_head_in_pieces_is_whole_in_time,
);

on_http1!(a_head_that_drips_is_answered,);

on_both_backends!(
    a_hello_that_does_not_end_is_given_up,
    requests_beside_a_head_that_does_not_end_are_given_up,
);

const HEAD: Duration = Duration::from_millis(400);
const PAUSE: Duration = Duration::from_millis(20);

fn start(column: impl Into<Column>, server: &Server) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = one_upstream(listen, server.address(), "");
    let config = format!("defaults: {{ timeouts: {{ head: 400ms }} }}\n{config}");
    (Proxy::start(column, &config), listen)
}

/// A head that takes 20 s, a byte at a time.
fn long() -> Call {
    Call::get("/").field("X-Slow", &"a".repeat(1_000))
}

/// Sends a head a byte at a time until that is answered, and says how long it took. It
/// begins with a line: who sends less through a tunnel for long asks for nothing.
fn drip(
    client: &mut Caller,
    head: &[u8],
    mut send: impl FnMut(&mut Caller, &[u8]) -> io::Result<()>,
) {
    let started = Instant::now();
    let (line, rest) = head.split_at("GET / HTTP/1.1\r\n".len());
    send(client, line).expect("it is taken");
    for byte in rest.chunks(1) {
        if client.is_answered() || send(client, byte).is_err() {
            break;
        }
        thread::sleep(PAUSE);
    }
    let took = started.elapsed();
    assert!(took >= HEAD && took < 8 * HEAD, "{took:?}");
}

fn a_head_that_drips_is_given_up(column: Column) {
    let server = column.ok();
    let (proxy, listen) = start(column, &server);
    let mut client = column.connect(listen);
    let head = client.begin(&long());
    drip(&mut client, &head, Caller::put);
    let word = client.last_word();
    assert!(word.contains("timeouts.head"), "{word}");
    assert_eq!(server.requests().len(), 0);
    let labels = [("method", "OTHER"), ("reason", "bad-request")];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
}

fn a_head_that_drips_is_answered(backend: Backend) {
    let (_proxy, listen) = start(backend, &Server::ok());
    let mut client = Protocol::Http1.connect(listen);
    let head = client.begin(&long());
    drip(&mut client, &head, Caller::put);
    let answer = client.answer();
    assert_eq!((answer.status, answer.reason()), (408, "bad-request"));
    assert!(client.is_ended());
}

fn a_later_head_has_the_same_time(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = start(column, &server);
    let mut client = column.connect(listen);
    for _ in 0..2 {
        // Longer than one head may take, so that each is seen to have its own.
        thread::sleep(HEAD * 2 / 3);
        let head = client.begin(&Call::get("/"));
        let (first, rest) = head.split_at(head.len() - 2);
        client.put(first).expect("it is taken");
        thread::sleep(HEAD / 3);
        client.put(rest).expect("it is taken");
        assert_eq!(client.answer().status, 200);
    }
    let head = client.begin(&long());
    drip(&mut client, &head, Caller::put);
    client.last_word();
}

fn silence_before_a_head_is_not_a_slow_head(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = start(column, &server);
    let mut client = column.connect(listen);
    thread::sleep(HEAD * 2);
    assert_eq!(client.get("/").status, 200);
}

/// Begins with its argument, goes on with `a`, and says whether it was told why that
/// ended, and whether that took less than 8 s.
const BEGIN: &str = r#"
import socket, sys, time
connection = socket.create_connection(("10.1.2.3", 7000), 20)
started = time.monotonic()
connection.sendall(bytes.fromhex(sys.argv[1]))
got = b""
connection.settimeout(0.05)
while time.monotonic() - started < 8:
    try:
        more = connection.recv(65536)
        if not more:
            break
        got += more
    except TimeoutError:
        pass
    except OSError:
        break
    try:
        connection.sendall(b"a")
    except OSError:
        pass
took = time.monotonic() - started
sys.stdout.write(f"{b'timeouts.head' in got} {took < 8}")
"#;

fn begin(cgroup: &Cgroup, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = cgroup.command(program::PYTHON);
    program::succeed(command.args(["-c", BEGIN, &hex]))
}

fn the_upstream_of_an_address_has_a_time_of_its_own(column: Column) {
    let server = column.ok();
    let cgroup = Cgroup::new();
    let config = format!(
        "upstreams: {{ web: {{ hosts: [10.1.2.3], endpoints: [\"{}\"], \
         timeouts: {{ head: 400ms }} }} }}\n",
        server.address()
    );
    let _proxy = Proxy::capturing(column, &cgroup, &config);
    let head = column.client.beginning(&long());
    assert_eq!(begin(&cgroup, &head[..head.len() - 500]), "True True");
}

fn a_hello_that_does_not_end_is_given_up(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let claim = claim("10.1.2.3", &server);
    let config = format!("defaults: {{ timeouts: {{ head: 400ms }} }}\n{claim}");
    let _proxy = Proxy::capturing(backend, &cgroup, &config);
    // A record of 16,000 bytes with a hello that is as long.
    let hello = [0x16, 3, 1, 0x3e, 0x80, 1, 0, 0x3e, 0x7c, 3, 3];
    assert_eq!(begin(&cgroup, &hello), "False True");
}

/// What goes through it is HTTP/1.1, whatever it goes over.
fn a_head_in_a_tunnel_has_the_same_time(column: Column) {
    let server = column.ok();
    let (_proxy, listen) = start(column, &server);
    let mut client = column.connect(listen);
    client.open(&Call::connect("web.test:80"));
    let head = Protocol::Http1.beginning(&long());
    drip(&mut client, &head, |client, bytes| client.try_piece(bytes));
    let answer = client.rest();
    assert!(
        answer.contains(" 408 ") && answer.contains("timeouts.head"),
        "{answer}"
    );
    assert_eq!(server.requests().len(), 0);
}

/// An upstream without any other limit than that of heads.
const NO_LIMIT: &str = "timeouts: { request: none, head: 400ms }\nretry: { attempts: 2 }";

/// Sends the head of each response in parts of so many bytes, with pauses.
fn dripping(column: Column, answer: Answer, bytes: usize) -> Server {
    column.script(move |exchange| {
        exchange.request()?;
        let mut sent = 0;
        while !exchange.send_part(&answer, sent..sent + bytes)? {
            sent += bytes;
            thread::sleep(PAUSE);
        }
        exchange.send_part(&answer, sent + bytes..usize::MAX)?;
        Ok(())
    })
}

fn a_response_head_that_drips_is_given_up(column: Column) {
    let line = Answer::status(200).field("X-Slow", &"a".repeat(1_000));
    let lines = (0..100).fold(Answer::status(200), |answer, _| answer.field("X-Slow", "a"));
    for answer in [line, lines] {
        let server = dripping(column, answer, 1);
        let (proxy, listen) = Proxy::in_front_of_with(column, server.address(), NO_LIMIT);
        let started = Instant::now();
        let answer = column.connect(listen).get("/");
        let took = started.elapsed();
        assert_eq!((answer.status, answer.reason()), (504, "try-timeout"));
        assert!(took >= 2 * HEAD && took < 8 * HEAD, "{took:?}");
        let tries = [("upstream", "web"), ("outcome", "try-timeout")];
        proxy.expect_metric("ambassador_upstream_attempts_total", &tries, 2.0);
        assert_eq!(proxy.upstream("web")["circuit_breaker"]["failures"], 2);
    }
}

fn a_response_head_in_pieces_is_whole_in_time(column: Column) {
    let body = "ok".repeat(50);
    let answer = Answer::ok(&body).field("X-Slow", &"a".repeat(100));
    let server = dripping(column, answer, 30);
    let (_proxy, listen) = Proxy::in_front_of_with(column, server.address(), NO_LIMIT);
    assert_eq!(column.connect(listen).get("/").text(), body);
}

/// Over HTTP/2 nothing else can come amid a head, not even a sign that the caller has
/// gone.
fn requests_beside_a_head_that_does_not_end_are_given_up(backend: Backend) {
    let (asked, told) = mpsc::channel();
    let server = Column::from(backend).script(move |exchange| {
        exchange.request()?;
        let _ = asked.send(());
        exchange.until_left()?;
        let _ = asked.send(());
        Ok(())
    });
    let (_proxy, listen) = start(backend, &server);
    let mut peer = Peer::connect(listen);
    peer.greet(&[]).expect("it is a server");
    peer.send(&Frame::get(1, "/")).expect("it listens");
    let soon = Duration::from_secs(5);
    told.recv_timeout(soon).expect("it is asked");
    let head = Frame::get(3, "/").unfinished();
    peer.send(&head).expect("it listens");
    let end = loop {
        let frame = peer.frame().expect("it is told why");
        if frame.kind == kind::GOAWAY {
            break frame;
        }
    };
    assert_eq!(end.code(), Some(code::ENHANCE_YOUR_CALM));
    told.recv_timeout(soon).expect("the upstream is free again");
}
