//! Endpoints that send floods.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ambassador_tests::http2::hpack::{self, Literal};
use ambassador_tests::http2::{Frame, Peer, block};
use ambassador_tests::{Backend, Client, Connection, Proxy, Server, eventually, ports};

use super::{Flood, beside, counted, expect_calm, expect_counted, of_both, two_upstreams};

/// Floods that answers are made of.
fn of_answers() -> Vec<Flood> {
    let interim = || Frame::fields(1, &[(":status", "103")]);
    let bomb = |_| -> Vec<Frame> {
        let mut fields = block(&[(":status", "200")]);
        fields.extend(hpack::literal(Literal::Indexed, b"x", &[b'y'; 4_000]));
        fields.extend(hpack::indexed(62).repeat(4_000));
        vec![Frame::headers(1, fields).ending()]
    };
    vec![
        Flood::of("CONTINUATION without an end", "continuations", |_| {
            vec![Frame::continuation(1, "").unfinished()]
        })
        .after(interim().unfinished()),
        Flood::of("an HPACK bomb", "header-list", bomb),
    ]
}

/// What the endpoint sends to the next request, and what it was told then.
#[derive(Default)]
struct Script {
    flood: Mutex<Option<Arc<Flood>>>,
    word: Mutex<Option<Option<u32>>>,
}

impl Script {
    fn serve(&self, connection: &mut Connection) -> io::Result<()> {
        let reads = connection.stream().try_clone()?;
        let mut peer = Peer::welcome(connection, &[])?;
        peer.headers()?;
        if let Some(flood) = self.flood.lock().expect("no panic").take() {
            let word = super::play(&flood, reads, |bytes| peer.put(bytes));
            *self.word.lock().expect("no panic") = Some(word);
        }
        Ok(())
    }
}

pub fn hold(backend: Backend) {
    let script = Arc::new(Script::default());
    let played = Arc::clone(&script);
    let hostile = Server::start(move |connection| played.serve(connection));
    let good = Server::ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let more = ", protocol: http2, retry: { attempts: 1 }, circuit_breaker: { failures: 10000 }";
    let config = two_upstreams(listen, &hostile, more, &good);
    let proxy = Proxy::start(backend, &config);
    for flood in of_both(1).into_iter().chain(of_answers()) {
        let flood = Arc::new(flood);
        let before = counted(&proxy, &flood, "upstream");
        *script.flood.lock().expect("no panic") = Some(Arc::clone(&flood));
        let answer = beside(flood.what, &proxy, Client::connect(listen), || {
            Client::connect(listen).get("/flooded")
        });
        assert_eq!(answer.status, 502, "{}", flood.what);
        assert_eq!(answer.reason(), "protocol-error", "{}", flood.what);
        expect_counted(&proxy, &flood, "upstream", before);
        expect_word(&script, &flood);
    }
}

/// The endpoint was told, which it finds when it has read to the end.
#[track_caller]
fn expect_word(script: &Script, flood: &Flood) {
    let mut word = None;
    eventually("the endpoint is told", super::PATIENCE, || {
        word = script.word.lock().expect("no panic").take();
        word.is_some()
    });
    expect_calm(flood, word.flatten());
}
