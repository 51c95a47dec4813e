//! Callers that send floods.

use std::net::SocketAddr;

use ambassador_tests::http2::hpack::{self, Literal};
use ambassador_tests::http2::{Frame, Peer, block, code, frame, setting};
use ambassador_tests::server::text;
use ambassador_tests::{Backend, Client, Proxy, Server, ports};

use super::{Flood, beside, counted, expect_calm, expect_counted, of_both, stream, two_upstreams};

/// Floods that take streams, which clients alone open.
fn of_streams() -> Vec<Flood> {
    let get = |round, path| Frame::get(stream(round), path);
    let bomb = |_| -> Vec<Frame> {
        // A field of 4,000 octets, asked for by one octet each time.
        let mut fields = block(&frame::request("GET", "/flooded/silent"));
        fields.extend(hpack::literal(Literal::Indexed, b"x", &[b'y'; 4_000]));
        fields.extend(hpack::indexed(62).repeat(4_000));
        vec![Frame::headers(3, fields).ending()]
    };
    vec![
        Flood::of("rapid reset", "peer-resets", move |round| {
            let reset = Frame::reset(stream(round), code::CANCEL);
            vec![get(round, "/flooded/silent"), reset]
        }),
        Flood::of(
            "a window of nothing resets",
            "stream-errors",
            move |round| {
                vec![
                    get(round, "/flooded/silent"),
                    Frame::window_update(stream(round), 0),
                ]
            },
        ),
        Flood::of("a window too large resets", "stream-errors", move |round| {
            let update = Frame::window_update(stream(round), 0x7fff_ffff);
            vec![get(round, "/flooded/silent"), update.clone(), update]
        }),
        Flood::of("requests that are malformed", "stream-errors", |round| {
            let fields = [
                (":method", "GET"),
                (":path", "/"),
                (":scheme", "http"),
                ("X", "1"),
            ];
            vec![Frame::fields(stream(round), &fields).ending()]
        }),
        Flood::of("CONTINUATION without an end", "continuations", |_| {
            vec![Frame::continuation(1, "").unfinished()]
        })
        .after(Frame::post(1, "/flooded/silent").unfinished()),
        Flood::of("a head without an end", "continuations", |_| {
            let fields = block(&[("x-long", &*"y".repeat(12_000))]);
            vec![Frame::continuation(1, fields).unfinished()]
        })
        .after(Frame::post(1, "/flooded/silent").unfinished()),
        Flood::of("an HPACK bomb", "header-list", bomb),
        Flood::of(
            "streams without number that read nothing",
            "control-frames",
            move |round| vec![get(round, "/flooded/large")],
        ),
    ]
}

/// Sends one over a connection of its own that reads no response.
fn play(flood: &Flood, listen: SocketAddr) -> Option<u32> {
    let mut peer = Peer::connect(listen);
    peer.greet(&[(setting::INITIAL_WINDOW_SIZE, 0)])
        .expect("the proxy is there");
    let reads = peer.wire().stream().try_clone().expect("a descriptor");
    super::play(flood, reads, |bytes| peer.put(bytes))
}

pub fn hold(backend: Backend) {
    let server = Server::start(|connection| {
        while let Some(mut request) = connection.head()? {
            connection.body(&mut request)?;
            if request.target.ends_with("/silent") {
                // Until the proxy gives it up.
                connection.at_most(1)?;
                break;
            }
            connection.write(text(&"x".repeat(200_000)))?;
        }
        Ok(())
    });
    let other = Server::ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let proxy = Proxy::start(backend, &two_upstreams(listen, &server, "", &other));
    // What is allocated once is there.
    assert_eq!(Client::connect(listen).get("/").status, 200);
    let memory = proxy.anonymous_bytes();
    let both = of_both(1).into_iter();
    let both = both.map(|flood| flood.after(Frame::post(1, "/flooded/silent")));
    for flood in both.chain(of_streams()) {
        let before = counted(&proxy, &flood, "caller");
        let client = Client::connect(listen);
        let word = beside(flood.what, &proxy, client, || play(&flood, listen));
        expect_calm(&flood, word);
        expect_counted(&proxy, &flood, "caller", before);
    }
    let grown = proxy.anonymous_bytes().saturating_sub(memory);
    assert!(grown < super::MEMORY_MAX, "{grown} bytes");
    let log = proxy.log();
    assert!(
        log.contains("an HTTP/2 connection was ended for a flood"),
        "{log}"
    );
}
