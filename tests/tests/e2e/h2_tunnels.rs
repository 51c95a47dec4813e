//! Requests that come through a CONNECT on a stream: their heads have the time of others,
//! and so has what is left of the last answer. The connection outlives the tunnel.

use std::time::{Duration, Instant};

use ambassador_tests::http2::{Frame, Peer, code, kind};
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::server::response;
use ambassador_tests::{Backend, Client, Proxy, Server, on_both_backends};

use crate::tls_upstream::free;

on_both_backends!(
    a_head_that_does_not_end_is_refused,
    silence_ends_the_tunnel,
    an_answer_that_is_not_taken_ends_the_tunnel,
    an_answer_that_is_taken_late_is_whole,
);

const HEAD: Duration = Duration::from_millis(400);
const IDLE: Duration = Duration::from_millis(800);
/// More than the window of a stream, and less than what the tunnel itself holds.
const LARGE: usize = 100_000;
const WINDOW: usize = 65_535;

/// A caller whose stream 1 is a tunnel to the proxy's own requests.
struct World {
    peer: Peer<Client>,
    began: Instant,
    _proxy: Proxy,
    _server: Server,
}

impl World {
    #[track_caller]
    fn start(backend: Backend) -> World {
        let server = Server::http(|request| match request.target.as_str() {
            "/large" => response("200 OK", "", &"x".repeat(LARGE)),
            _ => response("200 OK", "", "fine"),
        });
        let listen = free();
        let config = one_upstream(listen, server.address(), "");
        let times = "defaults: { timeouts: { head: 400ms, idle: 800ms } }\n";
        let proxy = Proxy::start(backend, &format!("{times}{config}"));
        let mut peer = Peer::connect(listen);
        peer.greet(&[]).expect("it is a server");
        let connect = [(":method", "CONNECT"), (":authority", "web.test:80")];
        peer.send(&Frame::fields(1, &connect)).expect("it listens");
        peer.headers().expect("an answer");
        assert_eq!(peer.field(":status"), "200");
        World {
            peer,
            began: Instant::now(),
            _proxy: proxy,
            _server: server,
        }
    }

    #[track_caller]
    fn send(&mut self, bytes: &str) {
        self.began = Instant::now();
        self.peer.send(&Frame::data(1, bytes)).expect("it listens");
    }

    /// What comes through the tunnel until so much has come, and its end where it comes.
    #[track_caller]
    fn receive(&mut self, bytes: usize) -> (Vec<u8>, Option<Frame>) {
        let mut content = Vec::new();
        while content.len() < bytes {
            let frame = self.peer.frame().expect("the connection goes on");
            match frame.kind {
                kind::DATA => content.extend(frame.content()),
                kind::RST_STREAM => return (content, Some(frame)),
                _ => {}
            }
            if frame.stream == 1 && frame.is_last() {
                return (content, Some(frame));
            }
        }
        (content, None)
    }

    /// Another request is answered on the same connection.
    #[track_caller]
    fn goes_on(&mut self) {
        self.peer.send(&Frame::get(3, "/")).expect("it listens");
        loop {
            let frame = self.peer.headers().expect("an answer");
            if frame.stream == 3 {
                break;
            }
        }
        assert_eq!(self.peer.field(":status"), "200");
    }
}

fn a_head_that_does_not_end_is_refused(backend: Backend) {
    let mut world = World::start(backend);
    world.send("GET / HTTP/1.1\r\nHost: web.t");
    let (answer, end) = world.receive(usize::MAX);
    let took = world.began.elapsed();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("timeouts.head"), "{answer}");
    assert!(end.is_some() && took >= HEAD, "{took:?}");
    world.goes_on();
}

fn silence_ends_the_tunnel(backend: Backend) {
    let mut world = World::start(backend);
    world.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n");
    let (answer, end) = world.receive(usize::MAX);
    let took = world.began.elapsed();
    assert!(answer.ends_with(b"fine") && end.is_some());
    assert!(took >= IDLE, "{took:?}");
    world.goes_on();
}

/// Asks for the last answer, and takes a window of it.
#[track_caller]
fn ask_for_much(world: &mut World) -> Vec<u8> {
    world.send("GET /large HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n");
    let (answer, end) = world.receive(WINDOW);
    assert!(answer.len() == WINDOW && end.is_none(), "{end:?}");
    answer
}

fn an_answer_that_is_not_taken_ends_the_tunnel(backend: Backend) {
    let mut world = World::start(backend);
    ask_for_much(&mut world);
    let (more, end) = world.receive(usize::MAX);
    let took = world.began.elapsed();
    let end = end.expect("it ends");
    assert_eq!(
        (end.kind, end.code()),
        (kind::RST_STREAM, Some(code::CONNECT_ERROR))
    );
    assert!(more.is_empty() && took >= IDLE, "{took:?}");
    // The window of the connection is used up, too.
    let widened = Frame::window_update(0, 1_000);
    world.peer.send(&widened).expect("it listens");
    world.goes_on();
}

fn an_answer_that_is_taken_late_is_whole(backend: Backend) {
    let mut world = World::start(backend);
    let mut answer = ask_for_much(&mut world);
    for stream in [0, 1] {
        let widened = Frame::window_update(stream, LARGE as u32);
        world.peer.send(&widened).expect("it listens");
    }
    let (more, end) = world.receive(usize::MAX);
    answer.extend(more);
    assert!(answer.ends_with(&[b'x'; LARGE]), "{} bytes", answer.len());
    assert_eq!(end.expect("it ends").kind, kind::DATA);
    world.goes_on();
}
