//! The same where either side speaks HTTP/2 (RFC 9113 section 8.5, RFC 8441).

use std::pin::pin;

use super::*;
use crate::combinators::both;
use crate::http2::ErrorCode;
use crate::message::FieldList;
use crate::proxy::scripted::http2::{Http2End, Http2Wire, field};
use crate::proxy::scripted::{Deed, End, Wire};

/// RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const EXTENDED: [(&str, &str); 6] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":authority", "up.test"),
    (":path", "/chat?a=b"),
    ("sec-websocket-version", "13"),
];

const PLAIN: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "up.test:443")];

fn upgrade_to(protocol: &str) -> String {
    format!(
        "GET /chat?a=b HTTP/1.1\r\nHost: up.test\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// One end of a tunnel, whatever it speaks.
enum Side {
    Http1(Wire),
    Http2(
        Http2Wire,
        #[expect(dead_code, reason = "the connection goes with it")] Http2End,
    ),
}

impl Side {
    async fn send(&self, bytes: impl Into<Vec<u8>>) -> bool {
        match self {
            Self::Http1(wire) => wire.send(bytes).await,
            Self::Http2(wire, _) => wire.send(bytes).await,
        }
    }

    async fn text(&mut self, length: usize) -> String {
        match self {
            Self::Http1(wire) => wire.text(length).await,
            Self::Http2(wire, _) => wire.text(length).await,
        }
    }

    async fn rest(&mut self) -> (String, Option<End>) {
        match self {
            Self::Http1(wire) => (wire.rest().await, wire.end),
            Self::Http2(wire, _) => (wire.rest().await, wire.end),
        }
    }

    async fn finish(&self) {
        match self {
            Self::Http1(wire) => wire.stream.shutdown_write(),
            Self::Http2(wire, _) => wire.finish().await,
        }
    }
}

/// What is spoken on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

use Speaks::{Http1, Http2};

const MATRIX: [[Speaks; 2]; 4] = [
    [Http1, Http1],
    [Http1, Http2],
    [Http2, Http1],
    [Http2, Http2],
];

fn to(upstream: Speaks) -> Plan {
    plan(match upstream {
        Http1 => Protocol::Http1,
        Http2 => Protocol::Http2,
    })
}

/// Whoever asks for the switch, before it is answered.
async fn asking(world: &World, speaks: Speaks) -> Side {
    ask(world.caller_over_tcp(), speaks).await
}

async fn ask(caller: Caller, speaks: Speaks) -> Side {
    match speaks {
        Http1 => {
            caller.send(upgrade_to("websocket")).await;
            Side::Http1(caller.wire)
        }
        Http2 => {
            let end = Http2End::client(caller.wire.stream);
            assert!(end.is_allowed_extended_connect().await);
            Side::Http2(end.open(&EXTENDED).await, end)
        }
    }
}

/// Whoever is asked, and answers that it switches.
async fn switching(world: &World, speaks: Speaks) -> Side {
    let mut wire = world.endpoints[0].handed().await;
    match speaks {
        Http1 => {
            let head = String::from_utf8(wire.head().await.expect("a head")).expect("text");
            let key = head.split("ec-websocket-key: ").nth(1);
            let key = key.or(head.split("ec-WebSocket-Key: ").nth(1));
            let key = key.and_then(|key| key.split("\r\n").next()).expect("a key");
            let accept = crate::proxy::websocket::accept(key.as_bytes());
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket";
            let answer = format!("{switch}\r\nSec-WebSocket-Accept: {accept}\r\nX-Own: 1\r\n\r\n");
            assert!(wire.send(answer).await);
            Side::Http1(wire)
        }
        Http2 => {
            let end = Http2End::server(wire.stream, true);
            let (wire, head) = end.accepted().await;
            for (name, value) in EXTENDED {
                assert_eq!(field(&head, name), Some(value), "{head:?}");
            }
            for name in ["sec-websocket-key", "upgrade", "connection", "host"] {
                assert_eq!(field(&head, name), None, "{head:?}");
            }
            wire.answer(&[(":status", "200"), ("x-own", "1")]).await;
            Side::Http2(wire, end)
        }
    }
}

/// Both ends of a tunnel, of which the caller knows.
async fn switched(world: &World, protocols: [Speaks; 2]) -> [Side; 2] {
    world.endpoints[0].meets([Connect::HandOverTcp]);
    switched_over(world, world.caller_over_tcp(), protocols).await
}

async fn switched_over(
    world: &World,
    caller: Caller,
    [speaks, upstream]: [Speaks; 2],
) -> [Side; 2] {
    let mut caller = ask(caller, speaks).await;
    let server = switching(world, upstream).await;
    match &mut caller {
        Side::Http1(wire) => {
            let head = String::from_utf8(wire.head().await.expect("a head")).expect("text");
            let head = head.to_ascii_lowercase();
            assert!(
                head.starts_with("http/1.1 101 switching protocols\r\n"),
                "{head}"
            );
            for line in ["connection: upgrade", "upgrade: websocket", "x-own: 1"] {
                assert_eq!(head.matches(line).count(), 1, "{head}");
            }
            let accept = format!("sec-websocket-accept: {}\r\n", ACCEPT.to_ascii_lowercase());
            assert!(head.contains(&accept), "{head}");
        }
        Side::Http2(wire, _) => {
            let head = wire.head().await;
            assert_eq!(field(&head, ":status"), Some("200"));
            assert_eq!(field(&head, "x-own"), Some("1"));
            assert_eq!(head.len(), 2, "{head:?}");
        }
    }
    [caller, server]
}

/// What the log says of the one tunnel that there was.
async fn ended(world: &World, caller: Speaks, outcome: &str) {
    world.until_all_have_left().await;
    let line = &world.log()[0];
    let (protocol, status) = match caller {
        Http1 => ("http1", 101),
        Http2 => ("http2", 200),
    };
    assert_eq!(line["outcome"], outcome, "{line:?}");
    assert_eq!(
        (&line["protocol"], &line["status"]),
        (&protocol.into(), &status.into())
    );
    assert_eq!(
        (&line["method"], &line["path"]),
        (&"GET".into(), &"/chat?a=b".into())
    );
    assert_eq!(world.counted().requests, [(status, 1)]);
    assert_eq!(world.counted().relays, [(outcome, 1)]);
}

/// Longer than any window.
fn long() -> String {
    "0123456789abcdef".repeat(20_000)
}

/// Sends a message from one side, and gets it at the other one.
async fn passes(from: &Side, to: &mut Side, message: &str) {
    let sent = async {
        from.send(message)
            .await
            .then_some(())
            .ok_or("it is not sent")
    };
    let received = async {
        let text = to.text(message.len()).await;
        (text == message).then_some(()).ok_or("it is another one")
    };
    assert_eq!(both(sent, received).await, Ok(()));
}

#[test]
fn both_sides_may_speak_and_end_one_after_the_other() {
    for protocols in MATRIX {
        play_in(1, to(protocols[1]), async move |world| {
            let [mut caller, mut server] = switched(&world, protocols).await;
            for message in ["hello", "\0\r\n\r\n", &long()] {
                passes(&caller, &mut server, message).await;
                passes(&server, &mut caller, message).await;
            }
            caller.send("last words").await;
            caller.finish().await;
            assert_eq!(
                server.rest().await,
                ("last words".to_owned(), Some(End::Fin))
            );
            server.send("the end").await;
            server.finish().await;
            assert_eq!(caller.rest().await, ("the end".to_owned(), Some(End::Fin)));
            drop((caller, server));
            ended(&world, protocols[0], "closed").await;
            world
        });
    }
}

#[test]
fn the_upstream_may_end_first() {
    for protocols in MATRIX {
        play_in(1, to(protocols[1]), async move |world| {
            let [mut caller, mut server] = switched(&world, protocols).await;
            server.finish().await;
            assert_eq!(caller.rest().await, (String::new(), Some(End::Fin)));
            passes(&caller, &mut server, "still there").await;
            caller.finish().await;
            assert_eq!(server.rest().await, (String::new(), Some(End::Fin)));
            drop((caller, server));
            ended(&world, protocols[0], "closed").await;
            world
        });
    }
}

/// A client may not wait for the answer.
#[test]
fn what_is_said_with_the_request_is_not_lost() {
    for protocols in MATRIX {
        play_in(1, to(protocols[1]), async move |world| {
            world.endpoints[0].meets([Connect::Hand]);
            let caller = asking(&world, protocols[0]).await;
            caller.send("early").await;
            let mut server = switching(&world, protocols[1]).await;
            assert_eq!(server.text(5).await, "early");
            drop((caller, server));
            world
        });
    }
}

#[test]
fn a_reset_of_one_side_is_one_of_the_other() {
    for protocols in MATRIX {
        for who in ["client-reset", "upstream-reset"] {
            play_in(1, to(protocols[1]), async move |world| {
                let [caller, server] = switched(&world, protocols).await;
                let (cut, mut other) = match who {
                    "client-reset" => (caller, server),
                    _ => (server, caller),
                };
                match &cut {
                    Side::Http1(wire) => wire.stream.reset_on_close(),
                    Side::Http2(wire, _) => wire.reset(),
                }
                let cut = match cut {
                    Side::Http1(wire) => {
                        drop(wire);
                        None
                    }
                    http2 => Some(http2),
                };
                assert_eq!(other.rest().await, (String::new(), Some(End::Reset)));
                if let Side::Http2(wire, _) = &other {
                    assert_eq!(wire.reset_code().await, Some(ErrorCode::CANCEL));
                }
                drop((cut, other));
                ended(&world, protocols[0], who).await;
                world
            });
        }
    }
}

#[test]
fn silence_ends_it_on_both_sides() {
    for protocols in MATRIX {
        let mut plan = to(protocols[1]);
        plan.policies.timeouts.tunnel = 60 * SECOND;
        play_in(1, plan, async move |world| {
            let [mut caller, mut server] = switched(&world, protocols).await;
            timer::sleep(30 * SECOND).await;
            passes(&caller, &mut server, "a sign of life").await;
            let spoke_at = ring::now();
            for side in [&mut caller, &mut server] {
                let (_, end) = side.rest().await;
                assert_eq!(ring::now() - spoke_at, 60 * SECOND);
                if let Side::Http2(wire, _) = side {
                    assert_eq!(end, Some(End::Reset));
                    assert_eq!(wire.reset_code().await, Some(ErrorCode::CANCEL));
                }
            }
            drop((caller, server));
            ended(&world, protocols[0], "idle-timeout").await;
            world
        });
    }
}

/// Nothing is read of one side that the other one does not take.
#[test]
fn who_does_not_read_stops_who_sends() {
    for protocols in MATRIX {
        for from_caller in [true, false] {
            play_in(1, to(protocols[1]), async move |world| {
                // The kernel holds less of what goes over these sockets than over TCP.
                world.endpoints[0].meets([Connect::Hand]);
                let [caller, server] = switched_over(&world, world.caller(), protocols).await;
                let (from, mut to) = match from_caller {
                    true => (caller, server),
                    false => (server, caller),
                };
                let much = long().repeat(20);
                {
                    let mut sending = pin!(from.send(much.clone()));
                    let soon = timer::timeout(60 * SECOND, sending.as_mut()).await;
                    assert!(soon.is_err(), "all of it is held somewhere");
                    let all = async {
                        let text = to.text(much.len()).await;
                        (text == much).then_some(()).ok_or("it is another one")
                    };
                    let sent = async { sending.await.then_some(()).ok_or("it is not sent") };
                    assert_eq!(both(all, sent).await, Ok(()));
                }
                drop((from, to));
                world
            });
        }
    }
}

#[test]
fn a_refusal_is_an_answer_and_the_connection_goes_on() {
    for protocols in MATRIX {
        play_in(1, to(protocols[1]), async move |world| {
            world.endpoints[0].meets([Connect::Hand]);
            let mut caller = asking(&world, protocols[0]).await;
            let mut wire = world.endpoints[0].handed().await;
            let upstream = match protocols[1] {
                Http1 => {
                    wire.head().await.expect("a head");
                    let refusal = "HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nno\r\n";
                    wire.send(refusal).await;
                    Side::Http1(wire)
                }
                Http2 => {
                    let end = Http2End::server(wire.stream, true);
                    let (wire, _) = end.accepted().await;
                    wire.answer(&[(":status", "403"), ("content-length", "4")])
                        .await;
                    wire.send("no\r\n").await;
                    wire.finish().await;
                    Side::Http2(wire, end)
                }
            };
            match &mut caller {
                Side::Http1(wire) => {
                    let head = String::from_utf8(wire.head().await.expect("a head"));
                    let head = head.expect("text").to_ascii_lowercase();
                    assert!(
                        head.starts_with("http/1.1 403 ") && !head.contains("close"),
                        "{head}"
                    );
                    assert_eq!(wire.text(4).await, "no\r\n");
                }
                Side::Http2(wire, _) => {
                    assert_eq!(field(&wire.head().await, ":status"), Some("403"));
                    assert_eq!(wire.rest().await, "no\r\n");
                }
            }
            drop((caller, upstream));
            world.until_all_have_left().await;
            assert_eq!(world.counted().requests, [(403, 1)]);
            assert_eq!(world.counted().relays, []);
            world
        });
    }
}

/// To a caller that speaks HTTP/2 any success is the switch.
#[test]
fn another_success_is_no_switch() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        // Nor is that of a server that has not understood.
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    ] {
        play_in(1, to(Http1), async move |world| {
            world.endpoints[0].meets([Connect::Hand]);
            let mut caller = asking(&world, Http2).await;
            let mut wire = world.endpoints[0].handed().await;
            wire.head().await.expect("a head");
            wire.send(answer).await;
            let Side::Http2(wire, _) = &mut caller else {
                unreachable!("it speaks HTTP/2")
            };
            let head = wire.head().await;
            assert_eq!(field(&head, ":status"), Some("502"));
            assert_eq!(field(&head, "x-ambassador-reason"), Some("protocol-error"));
            let why = "another answer than the switch of protocols that was asked for\n";
            assert_eq!(wire.rest().await, why);
            drop(caller);
            world
        });
    }
}

#[test]
fn where_extended_connect_is_not_allowed_there_is_no_switch() {
    for caller in [Http1, Http2] {
        play_in(1, to(Http2), async move |world| {
            world.endpoints[0].meets([Connect::Hand]);
            let mut caller = asking(&world, caller).await;
            let wire = world.endpoints[0].handed().await;
            let end = Http2End::server(wire.stream, false);
            let why = "a switch of protocols, for which the upstream takes no extended CONNECT";
            match &mut caller {
                Side::Http1(wire) => {
                    let head = wire.head().await.expect("an answer");
                    assert!(head.starts_with(b"HTTP/1.1 502 "));
                    assert_eq!(wire.text(why.len() + 1).await, format!("{why}\n"));
                }
                Side::Http2(wire, _) => {
                    assert_eq!(field(&wire.head().await, ":status"), Some("502"));
                    assert_eq!(wire.rest().await, format!("{why}\n"));
                }
            }
            drop((caller, end));
            world.until_all_have_left().await;
            // It is not that it failed.
            let counted = world.counted();
            assert_eq!(counted.requests, [(502, 1)]);
            assert_eq!(world.shared.health.breaker.state(), State::Closed);
            world
        });
    }
}

/// Any other upgrade is an offer that may be passed over.
#[test]
fn another_upgrade_is_a_request_where_extended_connect_is_not_allowed() {
    play_in(1, to(Http2), async |world| {
        world.endpoints[0].meets([Connect::Hand]);
        let mut caller = world.caller();
        caller.send(upgrade_to("other/2")).await;
        let wire = world.endpoints[0].handed().await;
        let end = Http2End::server(wire.stream, false);
        let (wire, head) = end.accepted().await;
        assert_eq!(field(&head, ":method"), Some("GET"));
        assert_eq!(field(&head, ":protocol"), None);
        wire.answer(&[(":status", "200"), ("content-length", "0")])
            .await;
        wire.finish().await;
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        drop((caller, wire, end));
        world
    });
}

/// A captured caller speaks to whom it has called, who may yet switch by HTTP/1.1 alone.
#[test]
fn where_the_protocol_is_open_http1_is_the_way_out() {
    play_in(1, plan(Protocol::Auto), async |world| {
        world.endpoints[0].meets(vec![Connect::Hand; 2]);
        let caller = world.captured("10.1.0.1:80");
        let end = Http2End::client(caller.wire.stream);
        let mut caller = end.open(&EXTENDED).await;
        let wire = world.endpoints[0].handed().await;
        let first = Http2End::server(wire.stream, false);
        let mut server = switching(&world, Http1).await;
        assert_eq!(field(&caller.head().await, ":status"), Some("200"));
        server.send("hello").await;
        assert_eq!(caller.text(5).await, "hello");
        caller.finish().await;
        assert_eq!(server.rest().await, (String::new(), Some(End::Fin)));
        drop((caller, end, server, first));
        world
    });
}

/// RFC 9113 section 8.5.
#[test]
fn trailers_are_an_error_in_a_tunnel() {
    for (protocols, who) in [
        ([Http2, Http1], "client-reset"),
        ([Http2, Http2], "client-reset"),
        ([Http1, Http2], "upstream-reset"),
        ([Http2, Http2], "upstream-reset"),
    ] {
        play_in(1, to(protocols[1]), async move |world| {
            let [caller, server] = switched(&world, protocols).await;
            let (from, mut other) = match who {
                "client-reset" => (caller, server),
                _ => (server, caller),
            };
            let Side::Http2(wire, _) = &from else {
                unreachable!("it speaks HTTP/2")
            };
            let mut trailers = Vec::new();
            FieldList(&mut trailers).push(b"x-late", b"1");
            let end = crate::message::End::Whole(&trailers);
            let sent = wire.stream.send(None, ring::Gather::default(), end);
            sent.await.expect("the connection takes it");
            assert_eq!(wire.reset_code().await, Some(ErrorCode::PROTOCOL_ERROR));
            assert_eq!(other.rest().await, (String::new(), Some(End::Reset)));
            drop((from, other));
            ended(&world, protocols[0], who).await;
            world
        });
    }
}

/// RFC 9110 section 9.3.6: a length in a success is passed over.
#[test]
fn a_tunnel_has_no_length() {
    play_in(1, to(Http2), async move |world| {
        world.endpoints[0].meets([Connect::HandOverTcp]);
        let mut caller = asking(&world, Http2).await;
        let end = Http2End::server(world.endpoints[0].handed().await.stream, true);
        let (wire, _) = end.accepted().await;
        wire.answer(&[(":status", "200"), ("content-length", "1")])
            .await;
        let Side::Http2(asking, _) = &mut caller else {
            unreachable!("it speaks HTTP/2")
        };
        assert_eq!(field(&asking.head().await, "content-length"), None);
        let server = Side::Http2(wire, end);
        passes(&server, &mut caller, "more than that").await;
        drop((caller, server));
        world
    });
}

/// A caller of HTTP/2 to whom the tunnel has been promised.
async fn connected(world: &World) -> (Http2Wire, Http2End) {
    let end = Http2End::client(world.caller().wire.stream);
    let mut caller = end.open(&PLAIN).await;
    let head = caller.head().await;
    assert_eq!(head, [(":status".to_owned(), "200".to_owned())]);
    (caller, end)
}

#[test]
fn connect_makes_a_tunnel_of_a_stream() {
    for protocol in [Protocol::Tcp, Protocol::Auto] {
        play_in(1, plan(protocol), async |world| {
            world.endpoints[0].meets([Connect::Hand]);
            let (mut caller, end) = connected(&world).await;
            let mut server = world.endpoints[0].handed().await;
            caller.send("\0ping").await;
            assert_eq!(server.text(5).await, "\0ping");
            server.send("pong").await;
            assert_eq!(caller.text(4).await, "pong");
            caller.finish().await;
            assert_eq!(server.rest().await, "");
            drop(server);
            assert_eq!(caller.rest().await, "");
            assert_eq!(caller.end, Some(End::Fin));
            drop((caller, end));
            world.until_all_have_left().await;
            let line = &world.log()[0];
            assert_eq!(
                (&line["method"], &line["status"]),
                (&"CONNECT".into(), &200.into())
            );
            assert_eq!(
                (&line["protocol"], &line["outcome"]),
                (&"http2".into(), &"closed".into())
            );
            assert_eq!(line["authority"], "up.test:443");
            world
        });
    }
}

#[test]
fn a_cut_of_such_a_tunnel_is_a_connect_error() {
    play_in(1, plan(Protocol::Auto), async |world| {
        world.endpoints[0].meets([Connect::HandOverTcp]);
        let (caller, end) = connected(&world).await;
        let server = world.endpoints[0].handed().await;
        caller.send("\0unread").await;
        server.stream.reset();
        assert_eq!(caller.reset_code().await, Some(ErrorCode::CONNECT_ERROR));
        drop((caller, end));
        world.until_all_have_left().await;
        assert_eq!(world.counted().relays, [("upstream-reset", 1)]);
        world
    });
}

#[test]
fn tls_through_a_stream_goes_by_its_name() {
    play_in(1, with_named(Protocol::Auto), async |world| {
        world.endpoints[0].meets(vec![Connect::Hand; 2]);
        let hello = client_hello("tls.test");
        let (caller, end) = connected(&world).await;
        let guess = world.endpoints[0].handed().await;
        caller.send(&hello[..20]).await;
        timer::sleep(MS).await;
        caller.send(&hello[20..]).await;
        let mut server = world.endpoints[0].handed().await;
        while server.received < hello.len() as u64 && server.more().await {}
        assert_eq!(server.received, hello.len() as u64);
        drop((caller, end, server, guess));
        world.until_all_have_left().await;
        let line = &world.log()[0];
        assert_eq!(
            (&line["upstream"], &line["server_name"]),
            (&"named".into(), &"tls.test".into())
        );
        world
    });
}

#[test]
fn requests_through_a_stream_are_served() {
    for protocol in [Protocol::Http1, Protocol::Auto] {
        play_in(1, plan(protocol), async |world| {
            let (mut caller, end) = connected(&world).await;
            for _ in 0..2 {
                caller
                    .send("GET /a HTTP/1.1\r\nHost: up.test\r\n\r\n")
                    .await;
                let expected = "HTTP/1.1 200 Scripted\r\nContent-Length: 1\r\n\r\n0";
                assert_eq!(caller.text(expected.len()).await, expected);
            }
            assert_eq!(world.connected(), 1);
            caller.finish().await;
            assert_eq!(caller.rest().await, "");
            assert_eq!(caller.end, Some(End::Fin));
            drop((caller, end));
            world.until_all_have_left().await;
            let counted = world.counted();
            assert_eq!(counted.requests, [(200, 1), (200, 2)]);
            assert_eq!(counted.relays, []);
            world
        });
    }
}

/// A part is not taken for the whole.
#[test]
fn a_response_that_is_cut_in_a_stream_is_a_reset() {
    play_in(1, plan(Protocol::Http1), async |world| {
        world.endpoints[0].does([Deed::Cut]);
        let (mut caller, end) = connected(&world).await;
        caller
            .send("GET /a HTTP/1.1\r\nHost: up.test\r\n\r\n")
            .await;
        caller.rest().await;
        assert_eq!(caller.end, Some(End::Reset));
        drop((caller, end));
        world
    });
}

#[test]
fn who_resets_a_stream_with_requests_has_left() {
    play_in(1, plan(Protocol::Http1), async |world| {
        world.endpoints[0].does([Deed::Silence]);
        let (caller, end) = connected(&world).await;
        caller
            .send("GET /a HTTP/1.1\r\nHost: up.test\r\n\r\n")
            .await;
        while world.heard() == 0 {
            timer::sleep(MS).await;
        }
        caller.reset();
        timer::sleep(SECOND).await;
        let line = &world.log()[1];
        assert_eq!(
            (&line["path"], &line["reason"]),
            (&"/a".into(), &"client-gone".into())
        );
        drop((caller, end));
        world
    });
}

#[test]
fn http2_may_come_through_a_tunnel() {
    play_in(1, plan(Protocol::Auto), async |world| {
        let caller = established(&world).await;
        let end = Http2End::client(caller.wire.stream);
        let mut inner = end
            .open(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "up.test"),
                (":path", "/a"),
            ])
            .await;
        inner.finish().await;
        assert_eq!(field(&inner.head().await, ":status"), Some("200"));
        assert_eq!(inner.rest().await, "0");
        drop((inner, end));
        world
    });
}

#[test]
fn a_stream_that_cannot_be_a_tunnel_is_answered_and_others_go_on() {
    play_in(1, plan(Protocol::Auto), async |world| {
        world.endpoints[0].meets(vec![Connect::Refuse; 3]);
        let end = Http2End::client(world.caller().wire.stream);
        for reason in ["connect-failed", "connect-failed"] {
            let mut caller = end.open(&PLAIN).await;
            let head = caller.head().await;
            assert_eq!(field(&head, ":status"), Some("502"));
            assert_eq!(field(&head, "x-ambassador-reason"), Some(reason));
            caller.rest().await;
            assert_eq!(caller.end, Some(End::Fin));
        }
        drop(end);
        world
    });
}

/// It is spoken to the upstream, as to a proxy.
#[test]
fn a_captured_connect_is_a_request() {
    for upstream in [Http1, Http2] {
        play_in(1, to(upstream), async move |world| {
            world.endpoints[0].meets([Connect::Hand]);
            let caller = world.captured("10.1.0.1:80");
            let end = Http2End::client(caller.wire.stream);
            let mut caller = end
                .open(&[(":method", "CONNECT"), (":authority", "far.test:443")])
                .await;
            let mut wire = world.endpoints[0].handed().await;
            let mut server = match upstream {
                Http1 => {
                    let head = String::from_utf8(wire.head().await.expect("a head"));
                    let head = head.expect("text");
                    let line = "CONNECT far.test:443 HTTP/1.1\r\n";
                    assert!(head.starts_with(line), "{head}");
                    assert!(
                        !head.to_ascii_lowercase().contains("transfer-encoding"),
                        "{head}"
                    );
                    wire.send("HTTP/1.1 200 OK\r\n\r\n").await;
                    Side::Http1(wire)
                }
                Http2 => {
                    let far = Http2End::server(wire.stream, false);
                    let (wire, head) = far.accepted().await;
                    assert_eq!(field(&head, ":method"), Some("CONNECT"));
                    assert_eq!(field(&head, ":authority"), Some("far.test:443"));
                    assert_eq!(
                        (field(&head, ":path"), field(&head, ":scheme")),
                        (None, None)
                    );
                    wire.answer(&[(":status", "200")]).await;
                    Side::Http2(wire, far)
                }
            };
            assert_eq!(field(&caller.head().await, ":status"), Some("200"));
            caller.send("hello").await;
            assert_eq!(server.text(5).await, "hello");
            server.send("there").await;
            server.finish().await;
            assert_eq!(caller.rest().await, "there");
            caller.finish().await;
            assert_eq!(server.rest().await, (String::new(), Some(End::Fin)));
            drop((caller, end, server));
            world.until_all_have_left().await;
            assert_eq!(world.counted().relays, [("closed", 1)]);
            world
        });
    }
}
