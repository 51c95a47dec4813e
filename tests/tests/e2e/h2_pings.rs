//! A server that takes PINGs for too many gets fewer (gRFC A8).

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use ambassador_tests::http2::{Frame, Peer, code, flag, kind};
use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{Backend, Client, Connection, Proxy, Server, on_both_backends};

use crate::tls_upstream::free;

on_both_backends!(a_server_that_takes_them_for_too_many_gets_fewer,);

const PING: Duration = Duration::from_secs(1);

/// Answers a request once it is sent a PING, and ends the connection for that. Tells how
/// long that took.
fn serve(connection: &mut Connection, told: &Mutex<Sender<Duration>>) -> io::Result<()> {
    let mut peer = Peer::welcome(connection, &[])?;
    let mut asked = None;
    while let Some(frame) = peer.receive()? {
        match (frame.kind, asked) {
            (kind::HEADERS, _) => asked = Some((frame.stream, Instant::now())),
            (kind::SETTINGS, _) if !frame.has(flag::ACK) => {
                peer.send(&Frame::settings(&[]).ack())?;
            }
            (kind::PING, Some((stream, since))) => {
                // Its test may have ended.
                let _ = told.lock().expect("no panic").send(since.elapsed());
                let mut calm = Frame::go_away(stream, code::ENHANCE_YOUR_CALM);
                calm.payload.extend(b"too_many_pings");
                peer.send(&calm)?;
                peer.send(&Frame::fields(stream, &[(":status", "200")]).ending())?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn a_server_that_takes_them_for_too_many_gets_fewer(backend: Backend) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let server = Server::start(move |connection| serve(connection, &tell));
    let listen = free();
    let more = "protocol: http2\nhttp2: { ping: 1s }";
    let _proxy = Proxy::start(backend, &one_upstream(listen, server.address(), more));
    let mut caller = Client::connect(listen);
    assert_eq!(caller.get("/").status, 200);
    assert_eq!(caller.get("/").status, 200);
    let waited: Vec<Duration> = told.try_iter().collect();
    assert_eq!(waited.len(), 2);
    // The time runs from what came last before, which is not the request.
    assert!(waited[1] > 2 * PING - PING / 4, "{waited:?}");
}
