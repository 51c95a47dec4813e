//! Every forwarder passes requests on, one after another on one connection,
//! and bodies larger than its buffers.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use ambassador_tests::server::{Request, text};
use ambassador_tests::{Client, Server, os};

const BODY_BYTES: usize = 64 * 1024;

/// A forwarder as a process.
struct Forwarder {
    child: Child,
    address: SocketAddr,
}

impl Forwarder {
    fn start(mut command: Command, to: SocketAddr) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--cpu", "0", "--to"])
            .arg(to.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo has built it");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        let read = BufReader::new(stdout).read_line(&mut line);
        read.expect("it says a line");
        let address = line.trim().strip_prefix("ready ").expect("ready ADDRESS");
        Self {
            address: address.parse().expect("an address"),
            child,
        }
    }

    fn end(mut self) {
        os::kill(self.child.id(), libc::SIGTERM).expect("it runs");
        let status = self.child.wait().expect("it is ours");
        assert_eq!(status.signal(), Some(libc::SIGTERM));
    }
}

/// GET is answered with its target, all else with its own body.
fn answer(request: &Request) -> Vec<u8> {
    match request.method.as_str() {
        "GET" => text(&request.target),
        _ => text(str::from_utf8(&request.body).expect("letters")),
    }
}

fn forwards(command: Command) {
    let server = Server::http(answer);
    let forwarder = Forwarder::start(command, server.address());
    let mut client = Client::connect(forwarder.address);
    for path in ["/first", "/second"] {
        assert_eq!(client.get(path).text(), path);
    }
    let body: String = ('a'..='z').cycle().take(BODY_BYTES).collect();
    let head = format!("POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    client.send(head + &body);
    let response = client.response("POST");
    assert_eq!(response.status, 200);
    assert!(
        response.body == body.as_bytes(),
        "the body came back changed"
    );
    assert_eq!(client.get("/last").text(), "/last");
    assert_eq!(server.connections(), 1, "the upstream's is kept alive");
    forwarder.end();
}

#[test]
fn relay_on_the_ring() {
    forwards(Command::new(env!("CARGO_BIN_EXE_relay")));
}

#[test]
fn relay_on_epoll() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.env("AMBASSADOR_BACKEND", "epoll");
    forwards(command);
}

#[test]
fn tokio_and_hyper() {
    forwards(Command::new(env!("CARGO_BIN_EXE_tokio-hyper")));
}

#[test]
fn tokio_uring() {
    forwards(Command::new(env!("CARGO_BIN_EXE_tokio-uring")));
}
