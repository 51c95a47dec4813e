//! What becomes of the heads and bodies of messages on their way.

use std::time::Duration;

use super::{SECOND, policies};
use crate::proxy::scripted::{Answer, Deed, HOST, World, play};
use crate::ring::{self, timer};
use crate::route::settings::Policies;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nto the end";

async fn answer_to(world: &World, request: &'static str) -> Answer {
    let mut caller = world.caller();
    caller.send(request).await;
    caller.answer().await.expect("there is an answer")
}

#[test]
fn a_body_passes_in_whatever_pieces_it_comes() {
    let half_a_chunk = vec![
        "HTTP/1.1 200 OK\r\nTransfer-",
        "Encoding: chunked\r\n\r\n5\r\nhel",
        "lo\r\n6",
        "\r\n world\r\n0\r",
        "\n\r\n",
    ];
    for deed in [
        Deed::Write(CHUNKED),
        Deed::Pieces(SECOND / 100, half_a_chunk),
        Deed::Write("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"),
        Deed::Pieces(
            SECOND / 100,
            vec![
                "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhel",
                "lo world",
            ],
        ),
    ] {
        play(1, Policies::default(), 1, async move |world| {
            world.endpoints[0].does([deed.clone(), deed]);
            let mut caller = world.caller();
            for _ in 0..2 {
                let answer = caller.get().await.expect("an answer");
                assert_eq!(answer.body, Some(b"hello world".to_vec()));
                assert_eq!(answer.field("connection"), None);
            }
            assert_eq!(world.connected(), 1);
            world
        });
    }
}

#[test]
fn responses_without_a_body_leave_both_connections_open() {
    for (method, response) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
        ),
    ] {
        play(1, Policies::default(), 1, async move |world| {
            world.endpoints[0].does([Deed::Write(response), Deed::Write(response)]);
            let mut caller = world.caller();
            for _ in 0..2 {
                caller.ask(method).await;
                let head = caller.wire.head().await.expect("an answer");
                assert_eq!(head[..12], response.as_bytes()[..12]);
            }
            drop(caller);
            world.until_all_have_left().await;
            assert_eq!(world.connected(), 1);
            world
        });
    }
}

#[test]
fn a_body_that_ends_with_its_connection_ends_that_of_the_caller() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].does([Deed::Last(UNTIL_CLOSE)]);
        let answer = answer_to(&world, "GET / HTTP/1.1\r\nHost: up.test\r\n\r\n").await;
        assert_eq!(answer.body, Some(b"to the end".to_vec()));
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(world.get().await.status, 200);
        assert_eq!(world.connected(), 2);
        world.until_all_have_left().await;
        assert_eq!(world.log()[0].get("reason"), None);
        assert_eq!(world.counted().attempts, [("response", 2)]);
        world
    });
}

#[test]
fn a_connection_is_used_again_where_nothing_speaks_against_it() {
    const ALONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n";
    for (response, connections) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", 2),
        ("HTTP/1.1 204 No\r\n\r\n!", 2),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            2,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 2),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: max=0\r\n\r\nok",
            2,
        ),
    ] {
        play(1, Policies::default(), 1, async move |world| {
            world.endpoints[0].does([Deed::Write(response)]);
            assert!(matches!(world.get().await.status, 200 | 204));
            assert_eq!(world.get().await.status, 200);
            assert_eq!(world.connected(), connections, "{response}");
            let lines = world.log();
            assert_eq!(lines.last().expect("two")["reused"], connections == 1);
            assert!(ALONE.len() > 2);
            world
        });
    }
}

#[test]
fn surplus_bytes_behind_a_later_part_count_too() {
    play(1, Policies::default(), 1, async |world| {
        let pieces = vec!["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", "cd!"];
        world.endpoints[0].does([Deed::Pieces(SECOND / 100, pieces)]);
        assert_eq!(world.get().await.body, Some(b"abcd".to_vec()));
        assert_eq!(world.get().await.status, 200);
        assert_eq!(world.connected(), 2);
        world
    });
}

#[test]
fn a_connection_is_left_alone_for_as_long_as_it_says() {
    const FIVE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\n\r\nok";
    for (wait, connections) in [(3 * SECOND, 1), (4 * SECOND, 2)] {
        play(1, Policies::default(), 1, async move |world| {
            world.endpoints[0].does([Deed::Write(FIVE)]);
            assert_eq!(world.get().await.status, 200);
            timer::sleep(wait).await;
            assert_eq!(world.get().await.status, 200);
            assert_eq!(world.connected(), connections, "{wait:?}");
            world
        });
    }
}

#[test]
fn http_1_0_gets_what_it_knows() {
    const GET: &str = "GET / HTTP/1.0\r\nHost: up.test\r\n\r\n";
    const KEPT: &str = "GET / HTTP/1.0\r\nHost: up.test\r\nConnection: keep-alive\r\n\r\n";
    for (request, deed, closes, body) in [
        (GET, Deed::Answer(200), true, "0"),
        (KEPT, Deed::Answer(200), false, "0"),
        // Chunks are taken apart, so that the end is that of the connection.
        (KEPT, Deed::Write(CHUNKED), true, "hello world"),
        (
            KEPT,
            Deed::Pieces(SECOND / 100, vec![&CHUNKED[..60], &CHUNKED[60..]]),
            true,
            "hello world",
        ),
        (KEPT, Deed::Interim(Box::new(Deed::Answer(200))), false, "0"),
    ] {
        play(1, Policies::default(), 1, async move |world| {
            world.endpoints[0].does([deed.clone()]);
            let answer = answer_to(&world, request).await;
            assert_eq!(
                (answer.status, answer.body.as_deref()),
                (200, Some(body.as_bytes())),
                "{deed:?}"
            );
            assert_eq!(answer.field("transfer-encoding"), None);
            assert_eq!(world.get().await.status, 200);
            assert_eq!(world.connected(), 1, "{deed:?}");
            let closed = answer
                .fields
                .iter()
                .any(|(name, value)| name.eq_ignore_ascii_case("connection") && value == "close");
            assert_eq!(closed, closes, "{deed:?}: {:?}", answer.fields);
            world
        });
    }
}

#[test]
fn what_http_1_0_cannot_be_told_is_its_callers_fault() {
    let one = policies(|policies| {
        policies.circuit_breaker.trip = crate::policy::breaker::Trip::Consecutive(1);
    });
    play(1, one, 1, async |world| {
        let coded = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
        world.endpoints[0].does([Deed::Write(coded)]);
        let answer = answer_to(&world, "GET / HTTP/1.0\r\nHost: up.test\r\n\r\n").await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("protocol-error"))
        );
        assert_eq!(world.get().await.status, 200, "the circuit is closed");
        world
    });
}

#[test]
fn a_response_head_has_its_time_and_its_limits() {
    let impatient = || {
        policies(|policies| {
            policies.timeouts.head = 5 * SECOND;
            policies.retry.attempts = 1;
        })
    };
    let slow = Deed::Pieces(
        SECOND,
        vec![
            "HTTP/1.1 200 OK\r\n",
            "X: 1\r\n",
            "Y: 1",
            "\r\n",
            "Z:",
            "1",
            "1",
        ],
    );
    play(1, impatient(), 1, async move |world| {
        world.endpoints[0].does([slow]);
        let before = ring::now();
        let answer = world.get().await;
        assert_eq!((answer.status, answer.reason()), (504, Some("try-timeout")));
        assert_eq!(ring::now() - before, 6 * SECOND);
        world
    });
    for malformed in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ] {
        play(1, impatient(), 1, async move |world| {
            world.endpoints[0].does([Deed::Write(malformed)]);
            let answer = world.get().await;
            assert_eq!(
                (answer.status, answer.reason()),
                (502, Some("protocol-error"))
            );
            assert_eq!(world.counted().attempts, [("protocol-error", 1)]);
            world
        });
    }
}

#[test]
fn interim_responses_pass_up_to_a_number() {
    for (count, status) in [(64, 200), (65, 502)] {
        play(1, Policies::default(), 1, async move |world| {
            let mut deed = Deed::Answer(200);
            for _ in 0..count {
                deed = Deed::Interim(Box::new(deed));
            }
            world.endpoints[0].does([deed]);
            let mut caller = world.caller();
            caller.ask("GET").await;
            for _ in 0..64 {
                assert_eq!(caller.answer().await.expect("interim").status, 103);
            }
            let last = loop {
                let answer = caller.answer().await.expect("final");
                if answer.status != 103 {
                    break answer;
                }
            };
            assert_eq!(last.status, status);
            world
        });
    }
}

#[test]
fn a_server_that_had_waited_too_long_is_asked_again() {
    const STALE: &str =
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    // On a connection that is new it is an answer.
    for (before, status) in [(1, 200), (0, 408)] {
        play(1, Policies::default(), 1, async move |world| {
            for _ in 0..before {
                assert_eq!(world.get().await.status, 200);
            }
            world.endpoints[0].does([Deed::Write(STALE)]);
            assert_eq!(world.get().await.status, status);
            assert_eq!(world.connected(), 1 + before);
            let retries = if before == 1 {
                vec![("reset", 1)]
            } else {
                vec![]
            };
            assert_eq!(world.counted().retries, retries);
            world
        });
    }
}

#[test]
fn a_connection_that_was_idle_and_dead_is_replaced_once() {
    // A POST that may have arrived is not sent again.
    for (method, deed, status) in [
        ("GET", Deed::Close, 200),
        ("POST", Deed::Close, 502),
        // Something came: it was not dead.
        ("DELETE", Deed::Last("HTTP/1.1"), 502),
    ] {
        let one = policies(|policies| policies.retry.attempts = 1);
        play(1, one, 1, async move |world| {
            assert_eq!(world.get().await.status, 200);
            world.endpoints[0].does([deed]);
            let mut caller = world.caller();
            caller.ask(method).await;
            assert_eq!(
                caller.answer().await.expect("an answer").status,
                status,
                "{method}"
            );
            assert_eq!(world.connected(), if status == 200 { 2 } else { 1 });
            world
        });
    }
    play(
        1,
        policies(|policies| policies.retry.attempts = 1),
        1,
        async |world| {
            assert_eq!(world.get().await.status, 200);
            // The replacement fails as well.
            world.endpoints[0].does([Deed::Close, Deed::Close]);
            assert_eq!(world.get().await.status, 502);
            assert_eq!((world.connected(), world.heard()), (2, 3));
            world
        },
    );
}

#[test]
fn requests_one_behind_the_other_are_answered_in_turn() {
    play(1, Policies::default(), 1, async |world| {
        let mut caller = world.caller();
        let get = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let post = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nbody");
        let sent = [get.as_str(), &post, &get].concat();
        caller.send(sent.clone()).await;
        for _ in 0..3 {
            assert_eq!(caller.answer().await.expect("an answer").status, 200);
        }
        let bodies: Vec<_> = world.endpoints[0]
            .heard
            .borrow()
            .iter()
            .map(|one| one.body.clone())
            .collect();
        assert_eq!(bodies, [Some(vec![]), Some(b"body".to_vec()), Some(vec![])]);
        assert_eq!(world.counted().bytes[0], sent.len() as u64);
        world
    });
}

#[test]
fn a_caller_that_says_close_is_closed_behind_its_answer() {
    play(1, Policies::default(), 1, async |world| {
        let mut caller = world.caller_over_tcp();
        caller
            .send("GET / HTTP/1.1\r\nHost: up.test\r\nConnection: close\r\n\r\n")
            .await;
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(caller.wire.rest().await, "");
        assert_eq!(caller.wire.end, Some(crate::proxy::scripted::End::Fin));
        world
    });
}

#[test]
fn a_request_head_has_its_time_and_silence_is_no_request() {
    play(1, Policies::default(), 1, async |world| {
        let mut caller = world.caller();
        let before = ring::now();
        caller.send("GET / HTTP/1.1\r\nHost: up").await;
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(
            (answer.status, answer.field("connection")),
            (408, Some("close"))
        );
        assert_eq!(ring::now() - before, 10 * SECOND);
        drop(caller);
        world.until_all_have_left().await;
        assert_eq!(world.log()[0]["bytes_in"], 24);

        let before = ring::now();
        let mut silent = world.caller();
        assert_eq!(silent.wire.rest().await, "");
        assert_eq!(ring::now() - before, Duration::from_secs(300));
        drop(silent);
        let early = world.caller();
        early.send("GET / HT").await;
        drop(early);
        world.until_all_have_left().await;
        assert_eq!(world.log().len(), 1);
        world
    });
}
