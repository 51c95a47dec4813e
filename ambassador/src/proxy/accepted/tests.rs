mod tls;

use super::*;
use crate::policy::breaker::Trip;
use crate::policy::fault;
use crate::proxy::scripted::{
    ADDRESS, Caller, Connect, Deed, End, HOST, Link, Plan, World, play_in,
};
use crate::route::settings::{Policies, Unmatched};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// One endpoint of an upstream that speaks this.
fn plan(protocol: Protocol) -> Plan {
    let policies = Policies {
        timeouts: crate::policy::limits::Timeouts {
            tunnel: 60 * SECOND,
            ..Default::default()
        },
        ..Policies::default()
    };
    Plan {
        endpoints: 1,
        policies,
        protocol,
        ..Plan::default()
    }
}

/// Hands so many connects to the scenario.
fn hands(world: &World, connects: usize) {
    world.endpoints[0].meets(vec![Connect::Hand; connects]);
}

/// The outcomes in the access log, in their order.
fn outcomes(world: &World) -> Vec<String> {
    let lines = world.log();
    let outcomes = lines.iter().filter_map(|line| line["outcome"].as_str());
    outcomes.map(str::to_owned).collect()
}

#[test]
fn a_relay_passes_both_directions_on_and_each_end() {
    play_in(1, plan(Protocol::Tcp), async |world| {
        hands(&world, 1);
        let mut caller = world.relayed();
        let mut server = world.endpoints[0].handed().await;
        assert_eq!(world.context.connections.get(), 1);
        caller.send("ping").await;
        assert_eq!(server.text(4).await, "ping");
        server.send("pong!").await;
        assert_eq!(caller.wire.text(5).await, "pong!");
        // A half-close of one side leaves the other.
        caller.wire.stream.shutdown_write();
        assert_eq!(server.rest().await, "");
        server.send("more").await;
        drop(server);
        assert_eq!(caller.wire.rest().await, "more");
        assert_eq!(caller.wire.end, Some(End::Fin));
        world.until_all_have_left().await;
        let counted = world.counted();
        assert_eq!(counted.relays, [("closed", 1)]);
        assert_eq!((counted.bytes, counted.requests), ([4, 9], vec![]));
        let line = &world.log()[0];
        assert_eq!(
            (&line["protocol"], &line["upstream"]),
            (&"tcp".into(), &"up".into())
        );
        assert_eq!(line["endpoint"], "10.0.0.1:80");
        world
    });
}

#[test]
fn silence_ends_a_relay_and_whatever_moves_puts_that_off() {
    play_in(1, plan(Protocol::Tcp), async |world| {
        hands(&world, 1);
        let mut caller = world.relayed();
        let mut server = world.endpoints[0].handed().await;
        for _ in 0..3 {
            timer::sleep(45 * SECOND).await;
            caller.send("x").await;
            assert_eq!(server.text(1).await, "x");
            timer::sleep(45 * SECOND).await;
            server.send("y").await;
            assert_eq!(caller.wire.text(1).await, "y");
        }
        let before = ring::now();
        assert_eq!(caller.wire.rest().await, "");
        assert_eq!(ring::now() - before, 60 * SECOND);
        assert_eq!(server.rest().await, "");
        world.until_all_have_left().await;
        assert_eq!(outcomes(&world), ["idle-timeout"]);
        world
    });
}

#[test]
fn a_relay_that_cannot_be_has_its_outcome_and_where_it_was_to_go() {
    for (connects, outcome, endpoint) in [
        (vec![Connect::Refuse; 3], "connect-failed", "10.0.0.1:80"),
        (vec![Connect::Hang; 3], "connect-timeout", "10.0.0.1:80"),
    ] {
        play_in(1, plan(Protocol::Tcp), async move |world| {
            world.endpoints[0].meets(connects);
            let mut caller = world.captured(ADDRESS);
            assert_eq!(caller.wire.rest().await, "");
            world.until_all_have_left().await;
            assert_eq!(outcomes(&world), [outcome]);
            assert_eq!(world.log()[0]["endpoint"], endpoint);
            world
        });
    }
}

#[test]
fn a_relay_tries_another_endpoint_where_one_cannot_be_reached() {
    let two = Plan {
        endpoints: 2,
        ..plan(Protocol::Tcp)
    };
    for seed in 0..4 {
        play_in(seed, two.clone(), async |world| {
            world.endpoints[0].meets([Connect::Refuse]);
            world.endpoints[1].meets([Connect::Hand]);
            let caller = world.relayed();
            let mut server = world.endpoints[1].handed().await;
            caller.send("here").await;
            assert_eq!(server.text(4).await, "here");
            drop(caller);
            assert_eq!(server.rest().await, "");
            drop(server);
            world.until_all_have_left().await;
            assert_eq!(outcomes(&world), ["closed"]);
            world
        });
    }
}

#[test]
fn a_circuit_that_is_open_refuses_relays_and_a_relay_may_be_the_probe() {
    let mut plan = plan(Protocol::Tcp);
    plan.policies.circuit_breaker.trip = Trip::Consecutive(1);
    play_in(1, plan, async |world| {
        world.endpoints[0].meets([Connect::Refuse, Connect::Hand]);
        for _ in 0..2 {
            let mut caller = world.relayed();
            assert_eq!(caller.wire.rest().await, "");
        }
        world.until_all_have_left().await;
        assert_eq!(outcomes(&world), ["connect-failed", "circuit-open"]);
        timer::sleep(60 * SECOND).await;
        let caller = world.relayed();
        drop(world.endpoints[0].handed().await);
        timer::sleep(MS).await;
        assert_eq!(world.shared.health.breaker.state(), State::Closed);
        drop(caller);
        world
    });
}

#[test]
fn a_captured_connection_is_what_its_upstream_speaks() {
    // HTTP is not looked for where the upstream speaks nothing else.
    for (protocol, sent, answer) in [
        (
            Protocol::Http1,
            "GET / HTTP/1.1\r\nHost: up.test\r\n\r\n",
            "HTTP/1.1 200",
        ),
        (Protocol::Http1, "\0no request\n", "HTTP/1.1 400"),
        (Protocol::Http2, "\0no request\n", "HTTP/1.1 400"),
        (Protocol::Grpc, "\0no request\n", "HTTP/1.1 400"),
        (
            Protocol::Auto,
            "GET / HTTP/1.1\r\nHost: up.test\r\n\r\n",
            "HTTP/1.1 200",
        ),
    ] {
        play_in(1, plan(protocol), async move |world| {
            let mut caller = world.captured(ADDRESS);
            caller.send(sent).await;
            assert_eq!(caller.wire.text(12).await, answer, "{protocol:?}: {sent}");
            world
        });
    }
}

#[test]
fn opaque_bytes_of_a_captured_connection_are_relayed() {
    for (protocol, said) in [
        (Protocol::Tcp, "GET / HTTP/1.1\r\n\r\n"),
        (Protocol::Auto, "\0\x01\x02 opaque"),
        // Too little to tell, and no more comes.
        (Protocol::Auto, "HE"),
    ] {
        play_in(1, plan(protocol), async move |world| {
            hands(&world, 1);
            let mut caller = world.captured(ADDRESS);
            caller.send(said).await;
            let mut server = world.endpoints[0].handed().await;
            assert_eq!(server.text(said.len()).await, said);
            server.send("hello").await;
            assert_eq!(caller.wire.text(5).await, "hello");
            drop((caller, server));
            world.until_all_have_left().await;
            let line = &world.log()[0];
            assert_eq!(
                (&line["protocol"], &line["outcome"]),
                (&"tcp".into(), &"closed".into())
            );
            assert_eq!(line["original_destination"], ADDRESS);
            world
        });
    }
}

#[test]
fn a_head_in_two_pieces_is_told_by_both() {
    for wait in [50 * MS, 150 * MS] {
        play_in(1, plan(Protocol::Auto), async move |world| {
            hands(&world, 1);
            let mut caller = world.captured(ADDRESS);
            caller.send("GE").await;
            timer::sleep(wait).await;
            caller.send("T / HTTP/1.1\r\nHost: up.test\r\n\r\n").await;
            let mut server = world.endpoints[0].handed().await;
            let head = server.text(14).await;
            assert_eq!(head, "GET / HTTP/1.1");
            server.send("HTTP/1.1 204 No\r\n\r\n").await;
            assert_eq!(caller.wire.text(12).await, "HTTP/1.1 204");
            drop((caller, server));
            world.until_all_have_left().await;
            // 100 ms are given to tell.
            let protocol = if wait < 100 * MS { "http1" } else { "tcp" };
            assert_eq!(world.log()[0]["protocol"], protocol, "{wait:?}");
            world
        });
    }
}

#[test]
fn a_server_that_speaks_first_is_waited_for_once() {
    play_in(1, plan(Protocol::Auto), async |world| {
        hands(&world, 2);
        for (round, wait) in [5 * MS, Duration::ZERO].into_iter().enumerate() {
            let before = ring::now();
            let mut caller = world.captured(ADDRESS);
            let mut server = world.endpoints[0].handed().await;
            let within = ring::now() - before;
            assert!(
                within >= wait && within < wait + 3 * MS,
                "{round}: {within:?}"
            );
            server.send("220 ready\r\n").await;
            assert_eq!(caller.wire.text(11).await, "220 ready\r\n");
            caller.send("QUIT\r\n").await;
            assert_eq!(server.text(6).await, "QUIT\r\n");
            drop((caller, server));
            world.until_all_have_left().await;
        }
        assert_eq!(outcomes(&world), ["closed", "closed"]);
        assert_eq!(world.counted().bytes, [12, 22]);
        world
    });
}

#[test]
fn a_complaint_is_no_greeting() {
    play_in(1, plan(Protocol::Auto), async |world| {
        hands(&world, 2);
        for _ in 0..2 {
            let before = ring::now();
            let mut caller = world.captured(ADDRESS);
            let server = world.endpoints[0].handed().await;
            assert!(ring::now() - before >= 5 * MS);
            server.send("HTTP/1.1 408 Too late\r\n\r\n").await;
            assert_eq!(caller.wire.text(12).await, "HTTP/1.1 408");
        }
        world
    });
}

#[test]
fn a_silent_client_that_asks_after_all_is_served_over_what_was_dialled() {
    play_in(1, plan(Protocol::Auto), async |world| {
        let mut caller = world.captured(ADDRESS);
        timer::sleep(SECOND).await;
        assert_eq!(world.shared.permits.in_use(), 1);
        assert_eq!(caller.get().await.expect("an answer").status, 200);
        assert_eq!(world.shared.permits.in_use(), 1);
        drop(caller);
        world.until_all_have_left().await;
        let line = &world.log()[0];
        assert_eq!(
            (&line["protocol"], &line["status"]),
            (&"http1".into(), &200.into())
        );
        assert_eq!(
            (&line["attempts"], &line["reused"]),
            (&1.into(), &false.into())
        );
        world
    });
}

#[test]
fn a_silent_client_whose_bytes_are_opaque_keeps_what_was_dialled() {
    play_in(1, plan(Protocol::Auto), async |world| {
        hands(&world, 1);
        let caller = world.captured(ADDRESS);
        let mut server = world.endpoints[0].handed().await;
        caller.send("\0binary").await;
        assert_eq!(server.text(7).await, "\0binary");
        drop(caller);
        assert_eq!(server.rest().await, "");
        drop(server);
        world.until_all_have_left().await;
        assert_eq!(outcomes(&world), ["closed"]);
        world
    });
}

#[test]
fn where_neither_side_speaks_the_silence_of_tunnels_ends_it() {
    play_in(1, plan(Protocol::Auto), async |world| {
        hands(&world, 1);
        let before = ring::now();
        let mut caller = world.captured(ADDRESS);
        let server = world.endpoints[0].handed().await;
        assert_eq!(caller.wire.rest().await, "");
        assert_eq!(ring::now() - before, 60 * SECOND + 5 * MS);
        drop(server);
        world.until_all_have_left().await;
        assert_eq!(outcomes(&world), ["idle-timeout"]);
        assert_eq!(world.log()[0]["endpoint"], "10.0.0.1:80");
        assert_eq!(world.log()[0]["upstream"], "up");
        world
    });
}

#[test]
fn nothing_is_dialled_for_a_guess_while_the_circuit_is_open() {
    let mut plan = plan(Protocol::Auto);
    plan.policies.circuit_breaker.trip = Trip::Consecutive(1);
    plan.policies.retry.attempts = 1;
    play_in(1, plan, async |world| {
        world.endpoints[0].does([Deed::Close]);
        assert_eq!(world.get().await.status, 502);
        // Silent, so that it gets as much time as a connect would have.
        let before = ring::now();
        let mut silent = world.captured(ADDRESS);
        assert_eq!(silent.wire.rest().await, "");
        assert_eq!(ring::now() - before, 5 * SECOND + 5 * MS);
        world.until_all_have_left().await;
        assert_eq!(outcomes(&world), ["circuit-open"]);
        // Who asks is answered.
        let mut asks = world.captured(ADDRESS);
        timer::sleep(SECOND).await;
        assert_eq!(asks.get().await.expect("an answer").status, 503);
        world
    });
}

#[test]
fn a_silent_client_whose_upstream_cannot_be_reached_is_given_up() {
    play_in(1, plan(Protocol::Auto), async |world| {
        world.endpoints[0].meets(vec![Connect::Refuse; 9]);
        let mut caller = world.captured(ADDRESS);
        assert_eq!(caller.wire.rest().await, "");
        world.until_all_have_left().await;
        let line = &world.log()[0];
        assert_eq!(
            (&line["outcome"], &line["upstream"]),
            (&"connect-failed".into(), &"up".into())
        );
        world
    });
}

#[test]
fn who_leaves_before_a_word_is_no_connection() {
    play_in(1, plan(Protocol::Auto), async |world| {
        drop(world.captured(ADDRESS));
        world.until_all_have_left().await;
        assert_eq!(world.log(), [] as [serde_json::Value; 0]);
        world
    });
}

#[test]
fn what_nobody_may_take_is_refused() {
    let mut plan = plan(Protocol::Auto);
    plan.settings.unmatched = Unmatched::Refuse;
    play_in(1, plan, async |world| {
        let mut caller = world.captured("10.2.0.1:80");
        caller.send("\0opaque").await;
        assert_eq!(caller.wire.rest().await, "");
        world.until_all_have_left().await;
        let line = &world.log()[0];
        assert_eq!(
            (&line["outcome"], &line["upstream"]),
            (&"no-route".into(), &"unmatched".into())
        );
        world
    });
}

#[test]
fn faults_meet_relays() {
    let mut plan = plan(Protocol::Tcp);
    plan.policies.fault = Some(Box::new(fault::Settings {
        delay: Some(fault::Delay {
            wait: SECOND,
            share: 1.0,
        }),
        reset: 1.0,
        ..fault::Settings::default()
    }));
    play_in(1, plan, async |world| {
        let before = ring::now();
        let mut caller = world.captured(ADDRESS);
        assert_eq!(caller.wire.rest().await, "");
        assert_eq!(ring::now() - before, SECOND);
        world.until_all_have_left().await;
        let line = &world.log()[0];
        assert_eq!(
            (&line["outcome"], &line["fault"]),
            (&"fault-injected".into(), &"delay,reset".into())
        );
        assert_eq!(line["upstream"], "up");
        world
    });
}

#[test]
fn a_relay_has_as_many_tries_as_a_request_and_for_connects_alone() {
    for (on_connect_failure, expected) in [(true, 3), (false, 1)] {
        let mut two = Plan {
            endpoints: 2,
            ..plan(Protocol::Tcp)
        };
        two.policies.retry.on_connect_failure = on_connect_failure;
        play_in(1, two, async move |world| {
            for endpoint in &world.endpoints {
                endpoint.meets(vec![Connect::Refuse; 20]);
            }
            let mut caller = world.relayed();
            assert_eq!(caller.wire.rest().await, "");
            let left = world
                .endpoints
                .iter()
                .map(|one| one.connects.borrow().len());
            assert_eq!(40 - left.sum::<usize>(), expected);
            world
        });
    }
}

#[test]
fn a_relay_without_a_place_in_the_pool_is_refused() {
    let mut full = plan(Protocol::Tcp);
    full.policies.pool.max_connections = Some(1);
    full.policies.pool.max_pending = 0;
    play_in(1, full, async |world| {
        hands(&world, 2);
        let first = world.relayed();
        let server = world.endpoints[0].handed().await;
        let mut second = world.relayed();
        assert_eq!(second.wire.rest().await, "");
        drop((first, server, second));
        world.until_all_have_left().await;
        let mut ended = outcomes(&world);
        ended.sort_unstable();
        assert_eq!(ended, ["closed", "overloaded"]);
        world
    });
}

#[test]
fn a_captured_head_has_the_time_of_its_upstream() {
    let mut hasty = plan(Protocol::Http1);
    hasty.policies.timeouts.head = 3 * SECOND;
    play_in(1, hasty, async |world| {
        let before = ring::now();
        let mut caller = world.captured(ADDRESS);
        caller.send("GET / HT").await;
        assert_eq!(caller.answer().await.expect("an answer").status, 408);
        assert_eq!(ring::now() - before, 3 * SECOND);
        world
    });
}

#[test]
fn a_relay_that_is_cut_is_reset_and_one_that_ended_is_not() {
    for (ends, expected) in [(true, End::Fin), (false, End::Reset)] {
        play_in(1, plan(Protocol::Tcp), async move |world| {
            hands(&world, 1);
            let entry = Entry::Tcp("up".into());
            let mut caller = Caller::new(&world.context, Link::Tcp, entry, None);
            let server = world.endpoints[0].handed().await;
            if ends {
                caller.wire.stream.shutdown_write();
                drop(server);
            }
            assert_eq!(caller.wire.rest().await, "");
            assert_eq!(caller.wire.end, Some(expected));
            world
        });
    }
}

#[test]
fn connections_are_counted_while_they_last() {
    play_in(1, plan(Protocol::Http1), async |world| {
        let listener = crate::telemetry::ListenerIndex::CAPTURE;
        let open = |world: &World| {
            world
                .context
                .telemetry
                .cells
                .snapshot()
                .connections(listener)
        };
        let mut callers = vec![world.caller(), world.caller()];
        for caller in &mut callers {
            caller.get().await;
        }
        assert_eq!((open(&world), world.context.connections.get()), (2, 2));
        callers.clear();
        world.until_all_have_left().await;
        assert_eq!(open(&world), 0);
        assert_eq!(HOST, "up.test");
        world
    });
}
