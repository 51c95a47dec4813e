//! Peers that are slow or silent: `timeouts.min_rate`, `idle`, `first_byte`,
//! `per_try`, and whose fault it is.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{SECOND, policies};
use crate::policy::breaker::{State, Trip};
use crate::policy::pace::MinRate;
use crate::proxy::scripted::{Caller, Connect, Deed, End, HOST, Wire, World, play};
use crate::ring::{self, timer};
use crate::route::settings::Policies;

const MS: Duration = Duration::from_millis(1);

/// One failure opens the circuit, and bytes have a rate.
fn paced(rate: u32) -> Policies {
    policies(|policies| {
        policies.timeouts.min_rate = NonZeroU32::new(rate).map(MinRate);
        policies.timeouts.request = None;
        policies.timeouts.idle = 60 * SECOND;
        policies.circuit_breaker.trip = Trip::Consecutive(1);
        policies.retry.attempts = 1;
    })
}

fn state(world: &World) -> State {
    world.shared.health.breaker.state()
}

#[test]
fn a_response_that_comes_too_slowly_is_cut_and_counts() {
    // A byte in 5 s.
    let body = || {
        let mut pieces = vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"];
        pieces.extend(["x"; 9]);
        Deed::Pieces(5 * SECOND, pieces)
    };
    for (rate, is_cut) in [(100, true), (0, false)] {
        play(1, paced(rate), 1, async move |world| {
            world.endpoints[0].does([body()]);
            let before = ring::now();
            let answer = world.get().await;
            assert_eq!((answer.status, answer.body.is_none()), (200, is_cut));
            world.until_all_have_left().await;
            let line = &world.log()[0];
            match is_cut {
                true => {
                    assert_eq!((ring::now() - before).as_secs(), 15);
                    assert_eq!(line["reason"], "upstream-reset");
                    assert!(line["detail"].as_str().expect("why").contains("min_rate"));
                    assert_eq!(world.counted().attempts, [("too-slow", 1)]);
                    assert_eq!(state(&world), State::Open);
                }
                false => {
                    assert_eq!(line.get("reason"), None);
                    assert_eq!(state(&world), State::Closed);
                }
            }
            world
        });
    }
}

#[test]
fn a_body_that_comes_fast_enough_is_a_success_once_it_has_come() {
    play(1, paced(100), 1, async |world| {
        world.endpoints[0].does([Deed::Pieces(
            SECOND,
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "a", "b"],
        )]);
        assert_eq!(world.get().await.body, Some(b"ab".to_vec()));
        assert_eq!(
            world.shared.endpoints.views(ring::now())[0].consecutive_failures,
            0
        );
        assert_eq!(world.counted().attempts, [("response", 1)]);
        world
    });
}

#[test]
fn a_caller_that_reads_too_slowly_is_cut_and_nobody_else_is_to_blame() {
    play(1, paced(100_000), 1, async |world| {
        world.endpoints[0].does([Deed::Large(5_000_000)]);
        let mut caller = world.caller();
        caller.ask("GET").await;
        // It does not read.
        while world.log().is_empty() {
            timer::sleep(100 * MS).await;
        }
        let line = &world.log()[0];
        assert_eq!(
            (&line["status"], &line["reason"]),
            (&200.into(), &"client-gone".into())
        );
        assert!(line["detail"].as_str().expect("why").contains("min_rate"));
        assert_eq!(world.counted().attempts, [("cancelled", 1)]);
        assert_eq!(state(&world), State::Closed);
        assert_eq!(caller.answer().await.expect("a head").body, None);
        world
    });
}

#[test]
fn a_caller_that_never_reads_is_gone_after_the_silence() {
    let mut patient = paced(0);
    patient.timeouts.idle = 30 * SECOND;
    play(1, patient, 1, async |world| {
        world.endpoints[0].does([Deed::Large(5_000_000)]);
        let caller = world.caller();
        caller.ask("GET").await;
        while world.log().is_empty() {
            timer::sleep(100 * MS).await;
        }
        let line = &world.log()[0];
        assert_eq!(
            (&line["reason"], line.get("detail")),
            (&"client-gone".into(), None)
        );
        let took = line["duration_ms"].as_f64().expect("a number");
        assert!((30_000.0..31_000.0).contains(&took), "{took}");
        assert_eq!(world.counted().attempts, [("cancelled", 1)]);
        world
    });
}

#[test]
fn a_large_body_passes_as_fast_as_it_is_read() {
    play(1, paced(1_000), 1, async |world| {
        world.endpoints[0].does([Deed::Large(3_000_000)]);
        let answer = world.get().await;
        assert_eq!(answer.body.map(|body| body.len()), Some(3_000_000));
        assert_eq!(state(&world), State::Closed);
        world
    });
}

async fn upload(world: &World, part: &str) -> Caller {
    let caller = world.caller();
    let head = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\n");
    caller.send(format!("{head}{part}")).await;
    caller
}

#[test]
fn a_caller_that_sends_too_slowly_is_refused() {
    play(1, paced(100), 1, async |world| {
        let before = ring::now();
        let mut caller = upload(&world, "half").await;
        let answer = caller.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.reason()), (408, Some("bad-request")));
        assert_eq!(ring::now() - before, 10 * SECOND);
        assert_eq!(state(&world), State::Closed);
        assert_eq!(world.counted().attempts, [("cancelled", 1)]);
        world
    });
}

#[test]
fn a_caller_that_falls_silent_within_its_body_is_gone() {
    let mut patient = paced(0);
    patient.timeouts.idle = 30 * SECOND;
    play(1, patient, 1, async |world| {
        let before = ring::now();
        let mut caller = upload(&world, "half").await;
        assert_eq!(caller.answer().await, None);
        assert_eq!(ring::now() - before, 30 * SECOND);
        world.until_all_have_left().await;
        assert_eq!(world.log()[0]["reason"], "client-gone");
        assert_eq!(state(&world), State::Closed);
        world
    });
}

/// A caller that waits to be told to go on, and the server that its request has
/// come to.
async fn expecting(world: &World) -> (Caller, Wire) {
    let caller = world.caller();
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    );
    caller.send(head).await;
    let mut server = world.endpoints[0].handed().await;
    server.head().await.expect("a head");
    (caller, server)
}

#[test]
fn who_expects_to_be_told_to_go_on_is_not_slow() {
    play(1, paced(100), 1, async |world| {
        world.endpoints[0].meets([Connect::Hand]);
        let (mut caller, mut server) = expecting(&world).await;
        timer::sleep(40 * SECOND).await;
        server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        assert_eq!(caller.answer().await.expect("interim").status, 100);
        caller.send("body").await;
        assert_eq!(server.text(4).await, "body");
        server.send("HTTP/1.1 204 Done\r\n\r\n").await;
        assert_eq!(caller.answer().await.expect("final").status, 204);
        world
    });
}

#[test]
fn who_was_told_to_go_on_and_does_not_is_slow() {
    play(1, paced(100), 1, async |world| {
        world.endpoints[0].meets([Connect::Hand]);
        let (mut caller, server) = expecting(&world).await;
        server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        assert_eq!(caller.answer().await.expect("interim").status, 100);
        let before = ring::now();
        assert_eq!(caller.answer().await.expect("an answer").status, 408);
        let took = ring::now() - before;
        assert!(took > 9 * SECOND && took < 11 * SECOND, "{took:?}");
        world
    });
}

#[test]
fn an_upstream_that_fails_while_its_caller_withholds_the_body_is_not_to_blame() {
    for (wait, expected) in [(2 * SECOND, State::Closed), (SECOND / 2, State::Open)] {
        for deed in ["close", "503"] {
            play(1, paced(0), 1, async move |world| {
                world.endpoints[0].meets([Connect::Hand]);
                let mut caller = upload(&world, "half").await;
                let mut server = world.endpoints[0].handed().await;
                server.head().await.expect("a head");
                assert_eq!(server.text(4).await, "half");
                timer::sleep(wait).await;
                if deed == "503" {
                    server
                        .send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
                        .await;
                }
                server.stream.shutdown_write();
                let status = if deed == "503" { 503 } else { 502 };
                assert_eq!(caller.answer().await.expect("an answer").status, status);
                assert_eq!(state(&world), expected, "{wait:?} {deed}");
                world
            });
        }
    }
}

#[test]
fn an_upload_that_is_not_read_is_the_upstreams_fault() {
    for (rate, outcome, within) in [(100_000, "too-slow", 15), (0, "idle-timeout", 61)] {
        play(1, paced(rate), 1, async move |world| {
            world.endpoints[0].meets([Connect::Hand]);
            let mut caller = world.caller();
            let before = ring::now();
            let head = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5000000\r\n\r\n");
            caller.send(head).await;
            let stream = &caller.wire.stream;
            let body = ring::Gather::from(ring::Chunk::from(vec![b'x'; 5_000_000]));
            let _ = timer::timeout(65 * SECOND, stream.send(body)).await;
            let answer = caller.answer().await.expect("an answer");
            assert_eq!(
                (answer.status, answer.reason()),
                (504, Some("request-timeout"))
            );
            assert!(ring::now() - before <= 66 * SECOND, "{within}");
            assert_eq!(world.counted().attempts, [(outcome, 1)]);
            assert_eq!(state(&world), State::Open);
            world
        });
    }
}

#[test]
fn each_limit_of_a_try_ends_it_at_its_time_with_its_reason() {
    type Change = fn(&mut Policies);
    let late = || Deed::Pieces(2 * SECOND, vec!["HTTP/1.1 ", "200", " ", "OK\r\n", "\r\n"]);
    let cases: [(Change, Deed, u32, &str, &str); 6] = [
        (
            |policies| policies.timeouts.first_byte = Some(SECOND),
            Deed::Silence,
            1,
            "try-timeout",
            "try-timeout",
        ),
        // Its first byte has come.
        (
            |policies| {
                policies.timeouts.first_byte = Some(3 * SECOND);
                policies.timeouts.per_try = Some(5 * SECOND);
            },
            late(),
            5,
            "try-timeout",
            "try-timeout",
        ),
        (
            |policies| policies.timeouts.per_try = Some(3 * SECOND),
            late(),
            3,
            "try-timeout",
            "try-timeout",
        ),
        (
            |policies| policies.timeouts.request = Some(4 * SECOND),
            late(),
            4,
            "request-timeout",
            "request-timeout",
        ),
        (
            |policies| {
                policies.timeouts.request = None;
                policies.timeouts.idle = 7 * SECOND;
            },
            Deed::Silence,
            7,
            "request-timeout",
            "idle-timeout",
        ),
        (
            |policies| policies.timeouts.head = 3 * SECOND,
            late(),
            5,
            "try-timeout",
            "try-timeout",
        ),
    ];
    for (change, deed, seconds, reason, outcome) in cases {
        let policies = policies(|policies| {
            policies.retry.attempts = 1;
            policies.circuit_breaker.trip = Trip::Consecutive(1);
            change(policies);
        });
        play(1, policies, 1, async move |world| {
            world.endpoints[0].does([deed]);
            let before = ring::now();
            let answer = world.get().await;
            assert_eq!((answer.status, answer.reason()), (504, Some(reason)));
            assert_eq!(ring::now() - before, seconds * SECOND);
            assert_eq!(world.counted().attempts, [(outcome, 1)]);
            assert_eq!(state(&world), State::Open);
            world
        });
    }
}

#[test]
fn the_time_of_a_request_runs_from_its_last_byte() {
    let policies = policies(|policies| {
        policies.timeouts.request = Some(5 * SECOND);
        policies.retry.attempts = 1;
    });
    play(1, policies, 1, async |world| {
        world.endpoints[0].does([Deed::Silence]);
        let mut caller = upload(&world, "half").await;
        timer::sleep(20 * SECOND).await;
        let before = ring::now();
        caller.send(" more").await;
        assert_eq!(caller.answer().await.expect("an answer").status, 504);
        assert_eq!(ring::now() - before, 5 * SECOND);
        world
    });
}

#[test]
fn what_its_caller_gives_is_passed_on_and_is_its_own_matter() {
    let touchy = policies(|policies| policies.circuit_breaker.trip = Trip::Consecutive(1));
    play(1, touchy, 1, async |world| {
        let silent = Deed::After(SECOND, Box::new(Deed::Answer(503)));
        world.endpoints[0].does([silent, Deed::Silence]);
        let mut caller = world.caller();
        let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\ngrpc-timeout: 4S\r\n\r\n");
        let before = ring::now();
        caller.send(head).await;
        let answer = caller.answer().await.expect("an answer");
        let heard = world.endpoints[0].heard.borrow();
        let left = heard[0].field("grpc-timeout").expect("it goes on");
        assert!(
            left.trim() == "4000m" || left.trim() == "4000000u",
            "{left}"
        );
        if heard.len() == 2 {
            assert_ne!(heard[1].field("grpc-timeout"), Some(left));
            assert_eq!((answer.status, ring::now() - before), (504, 4 * SECOND));
        }
        drop((heard, caller));
        world
    });
}

#[test]
fn a_wait_for_a_connection_ends_with_the_time_of_its_request() {
    type Change = fn(&mut Policies);
    let cases: [(Change, u32, &str); 3] = [
        (
            |policies| policies.timeouts.request = Some(3 * SECOND),
            3,
            "request-timeout",
        ),
        (
            |policies| policies.timeouts.per_try = Some(2 * SECOND),
            2,
            "try-timeout",
        ),
        (|_| {}, 5, "connect-timeout"),
    ];
    for (change, seconds, reason) in cases {
        let policies = policies(|policies| {
            policies.retry.attempts = 1;
            change(policies);
        });
        play(1, policies, 1, async move |world| {
            world.endpoints[0].meets([Connect::Hang]);
            let before = ring::now();
            let answer = world.get().await;
            assert_eq!((answer.status, answer.reason()), (504, Some(reason)));
            assert_eq!(ring::now() - before, seconds * SECOND);
            world
        });
    }
}

#[test]
fn a_response_that_has_begun_is_cut_by_what_its_request_comes_to() {
    play(1, Policies::default(), 1, async move |world| {
        world.endpoints[0].meets([Connect::Hand]);
        let mut caller = world.caller_over_tcp();
        let head = "POST / HTTP/1.1\r\nHost: up.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        caller.send(head).await;
        let mut server = world.endpoints[0].handed().await;
        server.head().await.expect("a head");
        let response = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart";
        server.send(response).await;
        assert_eq!(caller.wire.text(12).await, "HTTP/1.1 200");
        caller.send("xyz\r\n").await;
        while caller.wire.more().await {}
        assert_eq!(caller.wire.end, Some(End::Reset));
        world.until_all_have_left().await;
        let line = &world.log()[0];
        assert_eq!(
            (&line["status"], &line["reason"]),
            (&200.into(), &"bad-request".into())
        );
        assert!(line["detail"].is_string());
        world
    });
}

#[test]
fn a_response_may_depend_on_the_rest_of_its_request() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].meets([Connect::Hand]);
        let mut caller = upload(&world, "half").await;
        let mut server = world.endpoints[0].handed().await;
        server.head().await.expect("a head");
        server
            .send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
            .await;
        assert_eq!(caller.wire.text(12).await, "HTTP/1.1 200");
        caller.send(" more").await;
        assert_eq!(server.text(9).await, "half more");
        server.send("half more").await;
        assert!(caller.wire.rest().await.ends_with("half more"));
        world
    });
}

#[test]
fn a_response_head_that_never_ends_is_refused_at_its_limit() {
    let one = policies(|policies| policies.retry.attempts = 1);
    play(1, one, 1, async |world| {
        let endless: &'static str = Box::leak(format!("X: {}", "x".repeat(90_000)).into());
        world.endpoints[0].does([Deed::Pieces(MS, vec!["HTTP/1.1 200 OK\r\n", endless])]);
        let before = ring::now();
        let answer = world.get().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("protocol-error"))
        );
        assert!(ring::now() - before < SECOND);
        world
    });
}
