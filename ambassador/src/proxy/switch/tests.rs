mod http2;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::policy::breaker::{State, Trip};
use crate::policy::fault as injected;
use crate::proxy::scripted::{Caller, Connect, Plan, World, client_hello, play_in};
use crate::ring::timer;
use crate::route::settings::{Claim, Endpoints, Policies, Upstream};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const CONNECT: &str = "CONNECT up.test:443 HTTP/1.1\r\nHost: up.test:443\r\n\r\n";
const ESTABLISHED: &str = "HTTP/1.1 200 Connection Established\r\n\r\n";
const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: up.test\r\nConnection: upgrade\r\n\
                       Upgrade: websocket\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                        Upgrade: websocket\r\n\r\n";

fn plan(protocol: Protocol) -> Plan {
    Plan {
        endpoints: 1,
        policies: Policies::default(),
        protocol,
        ..Plan::default()
    }
}

/// A caller to whom the tunnel has been promised.
async fn established(world: &World) -> Caller {
    let mut caller = world.caller();
    caller.send(CONNECT).await;
    assert_eq!(caller.wire.text(ESTABLISHED.len()).await, ESTABLISHED);
    caller
}

#[test]
fn requests_through_a_tunnel_are_served_over_what_was_dialled() {
    for protocol in [Protocol::Http1, Protocol::Auto] {
        play_in(1, plan(protocol), async |world| {
            let mut caller = established(&world).await;
            for _ in 0..2 {
                assert_eq!(caller.get().await.expect("an answer").status, 200);
            }
            assert_eq!(world.connected(), 1);
            drop(caller);
            world.until_all_have_left().await;
            let counted = world.counted();
            assert_eq!(counted.requests, [(200, 1), (200, 2)]);
            assert_eq!(counted.attempts, [("response", 3)]);
            assert_eq!(counted.relays, []);
            let lines = world.log();
            assert_eq!(
                (&lines[0]["method"], &lines[0]["attempts"]),
                (&"CONNECT".into(), &1.into())
            );
            assert_eq!(lines[0]["bytes_out"], ESTABLISHED.len());
            assert_eq!(lines[0]["endpoint"], "10.0.0.1:80");
            world
        });
    }
}

#[test]
fn opaque_bytes_through_a_tunnel_are_relayed() {
    for protocol in [Protocol::Tcp, Protocol::Auto] {
        play_in(1, plan(protocol), async |world| {
            world.endpoints[0].meets([Connect::Hand]);
            let mut caller = established(&world).await;
            let mut server = world.endpoints[0].handed().await;
            caller.send("\0ping").await;
            assert_eq!(server.text(5).await, "\0ping");
            server.send("pong").await;
            assert_eq!(caller.wire.text(4).await, "pong");
            drop((caller, server));
            world.until_all_have_left().await;
            let line = &world.log()[0];
            assert_eq!(
                (&line["status"], &line["outcome"]),
                (&200.into(), &"closed".into())
            );
            assert_eq!(line["bytes_in"], CONNECT.len() + 5);
            assert_eq!(line["bytes_out"], ESTABLISHED.len() + 4);
            world
        });
    }
}

#[test]
fn a_server_may_speak_first_through_a_tunnel() {
    play_in(1, plan(Protocol::Auto), async |world| {
        world.endpoints[0].meets([Connect::Hand]);
        let mut caller = established(&world).await;
        let server = world.endpoints[0].handed().await;
        server.send("220 ready").await;
        assert_eq!(caller.wire.text(9).await, "220 ready");
        drop((caller, server));
        world.until_all_have_left().await;
        assert_eq!(world.counted().relays, [("closed", 1)]);
        world
    });
}

#[test]
fn nobody_speaks_through_a_tunnel_for_ever() {
    let mut plan = plan(Protocol::Auto);
    plan.policies.timeouts.tunnel = 60 * SECOND;
    play_in(1, plan, async |world| {
        let before = ring::now();
        let mut caller = established(&world).await;
        assert_eq!(caller.wire.rest().await, "");
        assert_eq!(ring::now() - before, 60 * SECOND);
        world.until_all_have_left().await;
        assert_eq!(world.counted().relays, [("idle-timeout", 1)]);
        world
    });
}

#[test]
fn who_leaves_a_tunnel_without_a_word_closes_it() {
    play_in(1, plan(Protocol::Auto), async |world| {
        world.endpoints[0].meets([Connect::Hand]);
        drop(established(&world).await);
        let mut server = world.endpoints[0].handed().await;
        assert_eq!(server.rest().await, "");
        drop(server);
        world.until_all_have_left().await;
        assert_eq!(world.counted().relays, [("closed", 1)]);
        world
    });
}

/// A second upstream that is claimed by a name alone.
fn with_named(protocol: Protocol) -> Plan {
    let mut plan = plan(Protocol::Auto);
    plan.settings.upstreams.push(Arc::new(Upstream {
        tls: None,
        name: "named".into(),
        claims: vec![Claim::Name {
            host: "tls.test".into(),
            port: None,
        }],
        endpoints: Endpoints::Static(vec![SocketAddr::from(([10, 0, 0, 1], 80)).into()]),
        protocol,
        auth: None,
        placeholders: Vec::new(),
        on_failure: None,
        policies: Policies::default(),
    }));
    plan
}

#[test]
fn tls_through_a_tunnel_goes_by_the_name_that_it_asks_for() {
    for (name, upstream, connects) in [("tls.test", "named", 2), ("up.test", "up", 1)] {
        play_in(1, with_named(Protocol::Auto), async move |world| {
            world.endpoints[0].meets(vec![Connect::Hand; 2]);
            let hello = client_hello(name);
            let caller = established(&world).await;
            let mut server = world.endpoints[0].handed().await;
            caller.send(hello.clone()).await;
            if connects == 2 {
                server = world.endpoints[0].handed().await;
            }
            while server.received < hello.len() as u64 && server.more().await {}
            assert_eq!(server.received, hello.len() as u64);
            drop((caller, server));
            world.until_all_have_left().await;
            assert_eq!(world.connected(), connects);
            let line = &world.log()[0];
            assert_eq!(
                (&line["upstream"], &line["outcome"]),
                (&upstream.into(), &"closed".into())
            );
            assert_eq!(line["server_name"], name);
            assert_eq!(line["authority"], "up.test:443");
            world
        });
    }
}

#[test]
fn tls_to_another_upstream_that_cannot_be_reached_ends_the_tunnel() {
    play_in(1, with_named(Protocol::Auto), async |world| {
        world.endpoints[0].meets([
            Connect::Hand,
            Connect::Refuse,
            Connect::Refuse,
            Connect::Refuse,
        ]);
        let mut caller = established(&world).await;
        caller.send(client_hello("tls.test")).await;
        assert_eq!(caller.wire.rest().await, "");
        world.until_all_have_left().await;
        let line = &world.log()[0];
        assert_eq!(
            (&line["upstream"], &line["outcome"]),
            (&"named".into(), &"connect-failed".into())
        );
        assert_eq!(line["endpoint"], "10.0.0.1:80");
        world
    });
}

#[test]
fn tls_through_a_tunnel_to_what_speaks_http_alone_is_a_bad_request() {
    play_in(1, with_named(Protocol::Http1), async |world| {
        let mut caller = established(&world).await;
        caller.send(client_hello("tls.test")).await;
        assert_eq!(caller.wire.text(12).await, "HTTP/1.1 400");
        world
    });
}

#[test]
fn a_hello_that_breaks_off_ends_the_tunnel() {
    let mut plan = plan(Protocol::Auto);
    plan.policies.timeouts.head = 5 * SECOND;
    play_in(1, plan, async |world| {
        let mut caller = established(&world).await;
        let before = ring::now();
        caller.send(&client_hello("tls.test")[..20]).await;
        assert_eq!(caller.wire.rest().await, "");
        assert_eq!(ring::now() - before, 5 * SECOND);
        world.until_all_have_left().await;
        assert_eq!(world.counted().relays, [("bad-request", 1)]);
        let detail = "the TLS hello did not end within timeouts.head";
        assert_eq!(world.log()[0]["detail"], detail);
        world
    });
}

#[test]
fn a_tunnel_that_cannot_be_is_answered() {
    play_in(1, plan(Protocol::Auto), async |world| {
        world.endpoints[0].meets(vec![Connect::Refuse; 3]);
        let mut caller = world.caller();
        caller.send(CONNECT).await;
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("connect-failed"))
        );
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(caller.wire.rest().await, "");
        world.until_all_have_left().await;
        assert_eq!(world.counted().attempts, [("connect-failed", 1)]);
        world
    });
}

#[test]
fn another_endpoint_is_tried_for_a_tunnel() {
    let two = Plan {
        endpoints: 2,
        ..plan(Protocol::Tcp)
    };
    for seed in 0..4 {
        play_in(seed, two.clone(), async |world| {
            world.endpoints[0].meets([Connect::Refuse]);
            world.endpoints[1].meets([Connect::Hand]);
            drop(established(&world).await);
            drop(world.endpoints[1].handed().await);
            world.until_all_have_left().await;
            let line = &world.log()[0];
            assert_eq!(line["endpoint"], "10.0.0.2:80");
            let tries = world.counted().attempts;
            let responses = tries.iter().filter(|tries| tries.0 == "response");
            assert_eq!(responses.map(|tries| tries.1).sum::<u64>(), 1);
            world
        });
    }
}

#[test]
fn the_circuit_counts_for_tunnels_and_one_may_be_its_probe() {
    for protocol in [Protocol::Auto, Protocol::Tcp] {
        let mut plan = plan(protocol);
        plan.policies.circuit_breaker.trip = Trip::Consecutive(1);
        play_in(1, plan, async |world| {
            world.endpoints[0].meets([Connect::Refuse, Connect::Hand]);
            for (status, reason) in [(502, "connect-failed"), (503, "circuit-open")] {
                let mut caller = world.caller();
                caller.send(CONNECT).await;
                let answer = caller.answer().await.expect("an answer");
                assert_eq!((answer.status, answer.reason()), (status, Some(reason)));
            }
            timer::sleep(60 * SECOND).await;
            let caller = established(&world).await;
            // It is not waited for what its client may say.
            assert_eq!(world.shared.health.breaker.state(), State::Closed);
            drop((caller, world.endpoints[0].handed().await));
            world
        });
    }
}

#[test]
fn a_tunnel_that_is_no_probe_tells_nothing_before_it_is_known_what_it_carries() {
    let mut plan = plan(Protocol::Auto);
    plan.policies.circuit_breaker.trip = Trip::Consecutive(2);
    play_in(1, plan, async |world| {
        let settings = world.context.generation().target(0);
        let failures = || {
            let settings = &settings.upstream.policies.circuit_breaker;
            world.shared.health.breaker.failures(settings, ring::now())
        };
        world.endpoints[0].meets([Connect::Refuse, Connect::Hand]);
        let mut caller = world.caller();
        caller.send(CONNECT).await;
        assert_eq!(caller.answer().await.expect("an answer").status, 502);
        assert_eq!(failures(), 1);
        let caller = established(&world).await;
        assert_eq!(failures(), 1);
        caller.send("\0opaque").await;
        timer::sleep(MS).await;
        assert_eq!(failures(), 0);
        drop(caller);
        drop(world.endpoints[0].handed().await);
        world
    });
}

#[test]
fn who_leaves_while_a_tunnel_is_dialled_is_gone() {
    play_in(1, plan(Protocol::Auto), async |world| {
        world.endpoints[0].meets([Connect::Hang]);
        let caller = world.caller();
        caller.send(CONNECT).await;
        timer::sleep(SECOND).await;
        drop(caller);
        world.until_all_have_left().await;
        let line = &world.log()[0];
        assert_eq!(
            (&line["status"], &line["reason"]),
            (&0.into(), &"client-gone".into())
        );
        assert_eq!(world.counted().attempts, [("cancelled", 1)]);
        world
    });
}

#[test]
fn faults_meet_tunnels() {
    let mut plan = plan(Protocol::Tcp);
    plan.policies.fault = Some(Box::new(injected::Settings {
        reset: 1.0,
        ..injected::Settings::default()
    }));
    play_in(1, plan, async |world| {
        let mut caller = established(&world).await;
        assert_eq!(caller.wire.rest().await, "");
        world.until_all_have_left().await;
        let line = &world.log()[0];
        assert_eq!(
            (&line["outcome"], &line["fault"]),
            (&"fault-injected".into(), &"reset".into())
        );
        world
    });
}

#[test]
fn a_protocol_is_switched_where_the_client_asks_for_it() {
    play_in(1, plan(Protocol::Http1), async |world| {
        world.endpoints[0].meets([Connect::Hand]);
        let mut caller = world.caller();
        caller.send(UPGRADE).await;
        let mut server = world.endpoints[0].handed().await;
        server.head().await;
        server.send([SWITCHED, "first"].concat()).await;
        assert_eq!(caller.answer().await.expect("an answer").status, 101);
        assert_eq!(caller.wire.text(5).await, "first");
        caller.send("frame").await;
        assert_eq!(server.text(5).await, "frame");
        assert_eq!(
            world.shared.requests.count(),
            1,
            "it is in flight to its end"
        );
        timer::sleep(60 * SECOND).await;
        drop(server);
        assert_eq!(caller.wire.rest().await, "");
        drop(caller);
        world.until_all_have_left().await;
        let counted = world.counted();
        assert_eq!(
            (counted.requests, counted.relays),
            (vec![(101, 1)], vec![("closed", 1)])
        );
        assert_eq!(counted.attempts, [("response", 1)]);
        world
    });
}

#[test]
fn a_switch_that_nobody_asked_for_is_no_answer() {
    play_in(1, plan(Protocol::Http1), async |world| {
        world.endpoints[0].meets([Connect::Hand]);
        let mut caller = world.caller();
        caller.post("", b"once").await;
        let mut server = world.endpoints[0].handed().await;
        server.head().await;
        server.send(SWITCHED).await;
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("protocol-error"))
        );
        world
    });
}

#[test]
fn a_switch_that_is_refused_is_an_answer_as_any_other() {
    play_in(1, plan(Protocol::Http1), async |world| {
        let mut caller = world.caller();
        for _ in 0..2 {
            caller.send(UPGRADE).await;
            assert_eq!(caller.answer().await.expect("an answer").status, 200);
        }
        assert_eq!((world.connected(), world.counted().relays), (1, vec![]));
        world
    });
}
