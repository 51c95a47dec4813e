//! Connections that are passed through by the server name they ask for.

use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::proxy::scripted::client_hello;
use crate::route::settings::{Claim, Upstream};

/// A second upstream, by its name alone, at the endpoint of the first.
fn with_named(protocol: Protocol, named: Protocol) -> Plan {
    let mut plan = plan(protocol);
    plan.settings.upstreams.push(Arc::new(Upstream {
        tls: None,
        name: "named".into(),
        claims: vec![Claim::Name {
            host: "tls.test".into(),
            port: None,
        }],
        endpoints: Endpoints::Static(vec![SocketAddr::from(([10, 0, 0, 1], 80)).into()]),
        protocol: named,
        auth: None,
        placeholders: Vec::new(),
        on_failure: None,
        policies: plan.policies.clone(),
    }));
    plan
}

#[test]
fn tls_goes_by_the_name_that_it_asks_for() {
    for (name, upstream) in [("tls.test", "named"), ("other.test", "up")] {
        for silent_for in [Duration::ZERO, SECOND] {
            play_in(
                1,
                with_named(Protocol::Auto, Protocol::Auto),
                async move |world| {
                    hands(&world, 2);
                    let hello = client_hello(name);
                    let caller = world.captured(ADDRESS);
                    timer::sleep(silent_for).await;
                    caller.send(hello.clone()).await;
                    timer::sleep(10 * MS).await;
                    let mut server = world.endpoints[0].handed().await;
                    if silent_for > Duration::ZERO && upstream == "named" {
                        // What was dialled for the address is of no use.
                        assert!(!server.more().await);
                        server = world.endpoints[0].handed().await;
                    }
                    while server.received < hello.len() as u64 && server.more().await {}
                    assert_eq!(
                        server.received,
                        hello.len() as u64,
                        "{name}, {silent_for:?}"
                    );
                    drop((caller, server));
                    world.until_all_have_left().await;
                    let line = &world.log()[0];
                    assert_eq!(
                        (&line["protocol"], &line["upstream"]),
                        (&"tls".into(), &upstream.into())
                    );
                    assert_eq!(line["server_name"], name);
                    assert!(!world.endpoints[0].is_reached());
                    world
                },
            );
        }
    }
}

#[test]
fn tls_to_what_speaks_http_alone_is_a_bad_request() {
    play_in(
        1,
        with_named(Protocol::Auto, Protocol::Http1),
        async |world| {
            let mut caller = world.captured(ADDRESS);
            caller.send(client_hello("tls.test")).await;
            assert_eq!(caller.wire.text(12).await, "HTTP/1.1 400");
            world
        },
    );
}

/// A hello without an end is reset when its time is over, however busy it is.
#[test]
fn a_hello_has_the_time_of_a_head() {
    for pause in [60 * SECOND, SECOND] {
        let mut hasty = plan(Protocol::Auto);
        hasty.policies.timeouts.head = 5 * SECOND;
        play_in(1, hasty, async move |world| {
            let before = ring::now();
            let original = OriginalDst(ADDRESS.parse().expect("an address"));
            let entry = Entry::Captured;
            let mut caller = Caller::new(&world.context, Link::Tcp, entry, Some(original));
            let hello = client_hello("tls.test");
            caller.send(&hello[..20]).await;
            for byte in hello[20..].chunks(1) {
                timer::sleep(pause).await;
                if !caller.send(byte).await {
                    break;
                }
            }
            caller.wire.rest().await;
            assert_eq!(caller.wire.end, Some(End::Reset));
            assert!(ring::now() - before < 70 * SECOND);
            world.until_all_have_left().await;
            assert_eq!(world.counted().relays, [("bad-request", 1)]);
            let line = &world.log()[0];
            assert_eq!(
                (&line["protocol"], &line["upstream"]),
                (&"tls".into(), &"up".into())
            );
            assert_eq!(
                line["detail"],
                "the TLS hello did not end within timeouts.head"
            );
            let took = line["duration_ms"].as_f64().expect("a number");
            assert!((5_000.0..5_100.0).contains(&took), "{took}");
            assert_eq!(world.shared.permits.in_use(), 0);
            world
        });
    }
}

#[test]
fn a_hello_that_is_too_long_is_reset_and_one_that_breaks_off_is_counted() {
    let long = [&[22, 3, 1, 0x40, 0, 1, 1, 0, 1][..], &[0; 100]].concat();
    let broken = client_hello("tls.test")[..20].to_vec();
    let too_long = "the TLS hello is longer than 64 KiB";
    let left = "the client left amid its TLS hello";
    for (hello, leaves, outcome, detail) in [
        (long, false, "bad-request", too_long),
        (broken, true, "client-reset", left),
    ] {
        play_in(1, plan(Protocol::Auto), async move |world| {
            let original = OriginalDst(ADDRESS.parse().expect("an address"));
            let entry = Entry::Captured;
            let mut caller = Caller::new(&world.context, Link::Tcp, entry, Some(original));
            caller.send(hello).await;
            timer::sleep(10 * MS).await;
            if leaves {
                caller.wire.stream.reset();
            } else {
                caller.wire.rest().await;
                assert_eq!(caller.wire.end, Some(End::Reset));
            }
            world.until_all_have_left().await;
            assert_eq!(world.counted().relays, [(outcome, 1)]);
            assert_eq!(world.log()[0]["detail"], detail);
            assert!(!world.endpoints[0].is_reached());
            world
        });
    }
}

/// No pause gets around what holds for the name.
#[test]
fn a_pause_after_any_byte_changes_nothing() {
    for at in [1, 2, 4, 5, 6, 9, 43, 60] {
        let plan = with_named(Protocol::Auto, Protocol::Auto);
        play_in(1, plan, async move |world| {
            hands(&world, 1);
            let hello = client_hello("tls.test");
            let caller = world.captured(ADDRESS);
            caller.send(&hello[..at]).await;
            timer::sleep(900 * MS).await;
            caller.send(&hello[at..]).await;
            let mut server = world.endpoints[0].handed().await;
            while server.received < hello.len() as u64 && server.more().await {}
            drop((caller, server));
            world.until_all_have_left().await;
            assert_eq!(world.log()[0]["upstream"], "named", "{at}");
            world
        });
    }
}

/// An upstream that goes where its clients meant to go, with this beside it.
fn at_the_original(change: impl FnOnce(&mut Policies)) -> Plan {
    let mut plan = with_named(Protocol::Auto, Protocol::Auto);
    let named = Arc::make_mut(&mut plan.settings.upstreams[0]);
    named.endpoints = Endpoints::Original;
    change(&mut named.policies);
    plan
}

/// The limits of an upstream hold for those, too, for whom its server was dialled
/// before they named it.
#[test]
fn the_limits_of_the_name_hold_for_what_the_address_has_dialled() {
    for limit in [None, Some(1)] {
        let plan = at_the_original(|policies| {
            policies.pool.max_connections = limit;
            policies.pool.max_pending = 0;
        });
        play_in(1, plan, async move |world| {
            hands(&world, 9);
            let mut callers = Vec::new();
            for _ in 0..2 {
                let caller = world.captured("10.0.0.1:80");
                timer::sleep(SECOND).await;
                caller.send(client_hello("tls.test")).await;
                timer::sleep(10 * MS).await;
                callers.push(caller);
            }
            // For the address, and for the name where that has a limit.
            let dialled = limit.map_or(2, |_| 3);
            assert_eq!(world.connected(), dialled);
            drop(callers);
            for _ in 0..dialled {
                drop(world.endpoints[0].handed().await);
            }
            world.until_all_have_left().await;
            let mut ended = outcomes(&world);
            ended.sort_unstable();
            let second = limit.map_or("closed", |_| "overloaded");
            assert_eq!(ended, ["closed", second]);
            assert!(world.log().iter().all(|line| line["upstream"] == "named"));
            world
        });
    }
}

#[test]
fn the_circuit_of_the_name_holds_for_what_the_address_has_dialled() {
    let plan = at_the_original(|policies| {
        policies.circuit_breaker.trip = Trip::Consecutive(1);
        policies.retry.attempts = 1;
    });
    play_in(1, plan, async |world| {
        world.endpoints[0].meets([Connect::Refuse]);
        hands(&world, 9);
        for silent_for in [Duration::ZERO, SECOND] {
            let mut caller = world.captured("10.0.0.1:80");
            timer::sleep(silent_for).await;
            caller.send(client_hello("tls.test")).await;
            assert_eq!(caller.wire.rest().await, "");
        }
        world.until_all_have_left().await;
        assert_eq!(outcomes(&world), ["connect-failed", "circuit-open"]);
        world
    });
}

#[test]
fn a_name_may_be_claimed_for_a_port() {
    for (port, upstream) in [(443, "named"), (444, "up")] {
        let mut plan = with_named(Protocol::Auto, Protocol::Auto);
        let named = Arc::make_mut(&mut plan.settings.upstreams[0]);
        named.claims = vec![Claim::Name {
            host: "tls.test".into(),
            port: Some(443),
        }];
        play_in(1, plan, async move |world| {
            hands(&world, 1);
            let caller = world.captured(&format!("10.1.0.1:{port}"));
            caller.send(client_hello("TLS.test.")).await;
            let server = world.endpoints[0].handed().await;
            drop((caller, server));
            world.until_all_have_left().await;
            let line = &world.log()[0];
            assert_eq!(
                (&line["upstream"], &line["server_name"]),
                (&upstream.into(), &"tls.test".into())
            );
            world
        });
    }
}
