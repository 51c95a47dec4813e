//! Connections of HTTP/2 to an upstream: how many there are, and how they end.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ambassador_tests::client::get;
use ambassador_tests::http2::{Frame, Peer, code, flag, kind, setting};
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{Backend, Client, Connection, Proxy, Server, eventually, on_both_backends};

use crate::tls_upstream::free;

on_both_backends!(
    a_second_connection_is_for_when_streams_run_out,
    a_burst_at_the_start_goes_over_one_connection,
    a_goaway_lets_requests_end_or_go_elsewhere,
    max_lifetime_lets_a_request_end,
    a_server_that_vanishes_is_found_by_a_ping,
);

const SOON: Duration = Duration::from_secs(10);

/// A connection as the server has it.
type Talk<'a> = Peer<&'a mut Connection>;

/// What a server has received: the number of the connection, and a path or `end`.
type Told = Receiver<(usize, String)>;

/// A server with these settings that does with each request what `act` does, with the
/// number of the connection and the stream.
fn server(
    settings: &'static [(u16, u32)],
    act: impl Fn(&mut Talk<'_>, usize, u32, &str) -> io::Result<()> + Send + Sync + 'static,
) -> (Server, Told) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let server = Server::start(move |connection| {
        let number = connection.number;
        let tell = |what: &str| {
            // Its test may have ended.
            let _ = tell
                .lock()
                .expect("no panic")
                .send((number, what.to_owned()));
        };
        let mut peer = Peer::welcome(connection, settings)?;
        while let Some(frame) = peer.receive()? {
            match frame.kind {
                kind::HEADERS => {
                    let path = peer.field(":path").to_owned();
                    tell(&path);
                    act(&mut peer, number, frame.stream, &path)?;
                }
                kind::SETTINGS if !frame.has(flag::ACK) => {
                    peer.send(&Frame::settings(&[]).ack())?;
                }
                kind::PING if !frame.has(flag::ACK) => peer.send(&frame.ack())?,
                _ => {}
            }
        }
        tell("end");
        Ok(())
    });
    (server, told)
}

fn answer(stream: u32) -> Frame {
    Frame::fields(stream, &[(":status", "200")]).ending()
}

/// A proxy with one shard in front of it.
fn proxy(backend: Backend, server: &Server, more: &str) -> (Proxy, SocketAddr) {
    let listen = free();
    let config = one_upstream(
        listen,
        server.address(),
        &format!("protocol: http2\n{more}"),
    );
    (
        Proxy::start(backend, &format!("workers: 1\n{config}")),
        listen,
    )
}

/// A caller that has asked, and has no answer yet.
fn asking(listen: SocketAddr, path: &str) -> Client {
    let mut client = Client::connect(listen);
    client.send(get(path));
    client
}

fn next(told: &Told) -> (usize, String) {
    told.recv_timeout(SOON)
        .expect("the server receives something")
}

fn a_second_connection_is_for_when_streams_run_out(backend: Backend) {
    const TWO: &[(u16, u32)] = &[(setting::MAX_CONCURRENT_STREAMS, 2)];
    for (settings, more) in [(TWO, ""), (&[], "http2: { max_streams: 2 }")] {
        let (server, told) = server(settings, |peer, _, stream, path| match path {
            "/held" => Ok(()),
            _ => peer.send(&answer(stream)),
        });
        let (_proxy, listen) = proxy(backend, &server, more);
        // What the server allows is known then.
        assert_eq!(asking(listen, "/").response("GET").status, 200);
        assert_eq!(next(&told).0, 1);
        let mut held = Vec::new();
        for number in [1, 1, 2, 2, 3] {
            held.push(asking(listen, "/held"));
            assert_eq!(next(&told), (number, "/held".to_owned()), "{more}");
        }
    }
}

fn a_burst_at_the_start_goes_over_one_connection(backend: Backend) {
    let (server, _told) = server(&[], |peer, _, stream, _| peer.send(&answer(stream)));
    let (_proxy, listen) = proxy(backend, &server, "");
    let mut callers: Vec<Client> = (0..50).map(|_| Client::connect(listen)).collect();
    callers.iter_mut().for_each(|caller| caller.send(get("/")));
    for caller in &mut callers {
        assert_eq!(caller.response("GET").status, 200);
    }
    assert_eq!(server.connections(), 1);
}

fn a_goaway_lets_requests_end_or_go_elsewhere(backend: Backend) {
    let (server, told) = server(&[], |peer, number, stream, path| match (number, path) {
        (1, "/kept") => Ok(()),
        (1, _) => {
            peer.send(&Frame::go_away(stream - 2, code::NO_ERROR))?;
            peer.send(&answer(stream - 2))
        }
        _ => peer.send(&answer(stream)),
    });
    let (_proxy, listen) = proxy(backend, &server, "retry: { attempts: 1 }");
    let mut kept = asking(listen, "/kept");
    assert_eq!(next(&told), (1, "/kept".to_owned()));
    // It was not processed, so it may go elsewhere whatever its method.
    let mut left = Client::connect(listen);
    left.send("POST /left HTTP/1.1\r\nHost: web.test\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(next(&told), (1, "/left".to_owned()));
    assert_eq!(left.response("POST").status, 200);
    assert_eq!(kept.response("GET").status, 200);
    let rest = [next(&told), next(&told)];
    assert!(rest.contains(&(1, "end".to_owned())), "{rest:?}");
    assert!(rest.contains(&(2, "/left".to_owned())), "{rest:?}");
}

fn max_lifetime_lets_a_request_end(backend: Backend) {
    let held = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&held);
    let (server, told) = server(&[], move |peer, _, stream, path| match path {
        "/held" => {
            let clone = peer.wire().stream().try_clone()?;
            *kept.lock().expect("no panic") = Some((clone, answer(stream)));
            Ok(())
        }
        _ => peer.send(&answer(stream)),
    });
    let (_proxy, listen) = proxy(backend, &server, "pool: { max_lifetime: 300ms }");
    let mut patient = asking(listen, "/held");
    assert_eq!(next(&told), (1, "/held".to_owned()));
    let mut others = Client::connect(listen);
    eventually("a second connection is opened", SOON, || {
        assert_eq!(others.get("/").status, 200);
        next(&told).0 == 2
    });
    let held = held.lock().expect("no panic").take();
    let (mut connection, answer) = held.expect("the server has it");
    let sent = connection.write_all(&answer.bytes());
    sent.expect("the connection is open");
    assert_eq!(patient.response("GET").status, 200);
    eventually("the first connection ends", SOON, || {
        next(&told) == (1, "end".to_owned())
    });
}

fn a_server_that_vanishes_is_found_by_a_ping(backend: Backend) {
    let (server, told) = server(&[], |peer, number, stream, _| match number {
        1 => {
            // It says nothing more, and the connection stays.
            while peer.wire().read(&mut [0; 4096])? > 0 {}
            Ok(())
        }
        _ => peer.send(&answer(stream)),
    });
    let more = "http2: { ping: 1s }\nretry: { attempts: 2, base: 1ms }\ntimeouts: { request: 30s }";
    let (_proxy, listen) = proxy(backend, &server, more);
    assert_eq!(asking(listen, "/").response("GET").status, 200);
    assert_eq!(next(&told), (1, "/".to_owned()));
    let rest = [next(&told), next(&told)];
    assert!(rest.contains(&(1, "end".to_owned())), "{rest:?}");
    assert!(rest.contains(&(2, "/".to_owned())), "{rest:?}");
}
