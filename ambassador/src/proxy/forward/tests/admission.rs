//! What a request must pass before its first try, and what its caller is told.

use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use super::{SECOND, policies};
use crate::policy::fault::{self, Abort, Delay};
use crate::policy::rate_limit::{self, OnLimit};
use crate::proxy::scripted::{Answer, Deed, Plan, World, play, play_in};
use crate::ring::{self, timer};
use crate::route::settings::{Policies, Protocol, Settings, Unmatched};

const MS: Duration = Duration::from_millis(1);

/// What a GET with these fields is answered.
async fn get_with(world: &World, fields: &str) -> Answer {
    let mut caller = world.caller();
    let head = format!("GET / HTTP/1.1\r\nHost: up.test\r\n{fields}\r\n");
    caller.send(head).await;
    caller.answer().await.expect("there is an answer")
}

#[test]
fn an_upstream_without_requests_and_a_host_that_nobody_claims_have_no_route() {
    let tcp = Plan {
        endpoints: 1,
        policies: Policies::default(),
        protocol: Protocol::Tcp,
        settings: Settings {
            unmatched: Unmatched::Refuse,
            ..Settings::default()
        },
        ..Plan::default()
    };
    play_in(1, tcp, async |world| {
        let answer = world.get().await;
        assert_eq!((answer.status, answer.reason()), (404, Some("no-route")));
        let mut caller = world.caller();
        caller
            .send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n")
            .await;
        let answer = caller.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.reason()), (404, Some("no-route")));
        drop(caller);
        world.until_all_have_left().await;
        let lines = world.log();
        let detail = lines[0]["detail"].as_str().expect("it says why");
        assert!(
            detail.contains("the upstream up has protocol tcp"),
            "{detail}"
        );
        assert_eq!(
            (&lines[0]["upstream"], &lines[1]["upstream"]),
            (&"up".into(), &"unmatched".into())
        );
        assert_eq!(world.heard(), 0);
        world
    });
}

#[test]
fn a_request_that_goes_in_a_circle_is_stopped() {
    let three = || policies(|policies| policies.hops.max = Some(3));
    for (hops, status) in [
        ("", 200),
        ("x-ambassador-hops: 3\r\n", 200),
        ("x-ambassador-hops: 4\r\n", 508),
    ] {
        play(1, three(), 1, async move |world| {
            let answer = get_with(&world, hops).await;
            assert_eq!(answer.status, status, "{hops}");
            world
        });
    }
    play(
        1,
        policies(|policies| policies.hops.max = None),
        1,
        async |world| {
            assert_eq!(
                get_with(&world, "x-ambassador-hops: 99\r\n").await.status,
                200
            );
            world
        },
    );
}

#[test]
fn requests_in_flight_have_a_limit() {
    play(
        1,
        policies(|policies| policies.pool.max_requests = Some(1)),
        1,
        async |world| {
            world.endpoints[0].does([Deed::After(SECOND, Box::new(Deed::Answer(200)))]);
            let mut first = world.caller();
            first.ask("GET").await;
            timer::sleep(MS).await;
            let second = world.get().await;
            assert_eq!((second.status, second.reason()), (503, Some("overloaded")));
            assert_eq!(first.answer().await.expect("an answer").status, 200);
            assert_eq!(world.get().await.status, 200);
            world
        },
    );
}

#[test]
fn what_waits_for_its_response_has_an_adaptive_limit() {
    let adaptive = policies(|policies| {
        policies.concurrency.adaptive = true;
        (policies.concurrency.min, policies.concurrency.max) = (2, 2);
    });
    play(1, adaptive, 1, async |world| {
        let late = || {
            Deed::Pieces(
                SECOND,
                vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", "b"],
            )
        };
        world.endpoints[0].does([late(), late()]);
        let mut callers = [world.caller(), world.caller()];
        for caller in &callers {
            caller.ask("GET").await;
            timer::sleep(MS).await;
        }
        assert_eq!(world.shared.health.awaiting.count(), 2);
        assert_eq!(world.get().await.reason(), Some("overloaded"));
        // What streams keeps nobody waiting.
        timer::sleep(SECOND + MS).await;
        assert_eq!(world.shared.health.awaiting.count(), 0);
        assert_eq!(world.get().await.status, 200);
        for caller in &mut callers {
            assert_eq!(
                caller.answer().await.expect("an answer").body,
                Some(b"ab".to_vec())
            );
        }
        world
    });
}

fn limited(on_limit: OnLimit, request: u32) -> Policies {
    policies(|policies| {
        policies.timeouts.request = Some(request * SECOND);
        policies.rate_limit = Some(rate_limit::Settings {
            requests_per_second: 0.25,
            burst: 1,
            on_limit,
        });
    })
}

#[test]
fn a_request_over_the_rate_is_refused_and_told_when_to_come_back() {
    for (on_limit, request) in [(OnLimit::Reject, 9), (OnLimit::Wait, 3)] {
        play(1, limited(on_limit, request), 1, async |world| {
            assert_eq!(world.get().await.status, 200);
            let refused = world.get().await;
            assert_eq!(
                (refused.status, refused.reason()),
                (429, Some("rate-limited"))
            );
            assert_eq!(refused.field("retry-after"), Some("4"));
            assert_eq!(world.heard(), 1);
            world
        });
    }
}

#[test]
fn a_request_over_the_rate_may_wait_for_its_turn() {
    play(1, limited(OnLimit::Wait, 9), 1, async |world| {
        let before = ring::now();
        for turn in 0..3 {
            assert_eq!(world.get().await.status, 200);
            assert_eq!(ring::now() - before, turn * 4 * SECOND);
        }
        // Its caller waits for less.
        let refused = get_with(&world, "grpc-timeout: 3S\r\n").await;
        assert_eq!(refused.reason(), Some("rate-limited"));
        assert_eq!(get_with(&world, "grpc-timeout: 5S\r\n").await.status, 200);
        world
    });
}

#[test]
fn without_a_limit_of_its_own_a_request_waits_for_its_turn_as_long_as_for_silence() {
    let mut patient = limited(OnLimit::Wait, 9);
    (patient.timeouts.request, patient.timeouts.idle) = (None, 5 * SECOND);
    play(1, patient, 1, async |world| {
        assert_eq!(world.get().await.status, 200);
        let mut callers = [world.caller(), world.caller()];
        let mut statuses = Vec::new();
        for caller in &callers {
            caller.ask("GET").await;
        }
        for caller in &mut callers {
            statuses.push(caller.answer().await.expect("an answer").status);
        }
        assert_eq!(statuses, [200, 429]);
        world
    });
}

#[test]
fn whoever_waits_for_its_turn_for_too_long_has_no_time_left() {
    // The first is not late, and neither is the second where it waits.
    play(1, limited(OnLimit::Wait, 9), 1, async |world| {
        assert_eq!(world.get().await.status, 200);
        let answer = get_with(&world, "grpc-timeout: 4S\r\n").await;
        assert_eq!(
            (answer.status, answer.reason()),
            (504, Some("request-timeout"))
        );
        assert_eq!(world.heard(), 1);
        world
    });
}

fn faulty(change: impl FnOnce(&mut fault::Settings)) -> Policies {
    policies(|policies| {
        let mut settings = fault::Settings::default();
        change(&mut settings);
        policies.fault = Some(Box::new(settings));
        policies.timeouts.request = Some(10 * SECOND);
    })
}

fn aborts(settings: &mut fault::Settings) {
    settings.abort = Some(Abort {
        status: 418,
        share: 1.0,
    });
}

fn delays(settings: &mut fault::Settings, wait: Duration) {
    settings.delay = Some(Delay { wait, share: 1.0 });
}

#[test]
fn a_fault_ends_a_request_and_is_told() {
    play(1, faulty(aborts), 1, async |world| {
        let answer = world.get().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (418, Some("fault-injected"))
        );
        world.until_all_have_left().await;
        assert_eq!(world.log()[0]["fault"], "abort");
        assert_eq!(world.heard(), 0);
        let snapshot = world.context.telemetry.cells.snapshot();
        let cells = snapshot.upstream(world.shared.label).expect("it was asked");
        assert_eq!(cells.faults(crate::telemetry::FaultKind::Abort), 1);
        world
    });
    play(
        1,
        faulty(|settings| settings.reset = 1.0),
        1,
        async |world| {
            let mut caller = world.caller_over_tcp();
            assert_eq!(caller.get().await, None);
            assert_eq!(caller.wire.end, Some(crate::proxy::scripted::End::Reset));
            world.until_all_have_left().await;
            let line = &world.log()[0];
            assert_eq!(
                (&line["status"], &line["reason"]),
                (&0.into(), &"fault-injected".into())
            );
            world
        },
    );
}

#[test]
fn a_delay_is_not_the_time_of_the_upstream() {
    let slow = faulty(|settings| delays(settings, 8 * SECOND));
    play(1, slow, 1, async |world| {
        let late = || Deed::After(9 * SECOND, Box::new(Deed::Answer(200)));
        world.endpoints[0].does([late(), late()]);
        let before = ring::now();
        assert_eq!(world.get().await.status, 200);
        assert_eq!(ring::now() - before, 17 * SECOND);
        // What its caller gives counts from the start.
        let before = ring::now();
        let answer = get_with(&world, "grpc-timeout: 9S\r\n").await;
        assert_eq!(
            (answer.status, answer.reason()),
            (504, Some("request-timeout"))
        );
        assert_eq!(ring::now() - before, 9 * SECOND);
        world
    });
}

#[test]
fn a_delay_beyond_its_time_ends_a_request() {
    for (fields, wait) in [("", 10), ("grpc-timeout: 7S\r\n", 7)] {
        let slow = faulty(|settings| delays(settings, 10 * SECOND));
        play(1, slow, 1, async move |world| {
            let before = ring::now();
            let answer = get_with(&world, fields).await;
            assert_eq!(
                (answer.status, answer.reason()),
                (504, Some("fault-injected"))
            );
            assert_eq!(ring::now() - before, wait * SECOND);
            world
        });
    }
}

#[test]
fn faults_meet_those_that_they_are_for() {
    type Change = fn(&mut fault::Settings);
    let cases: [(Change, &str, u16); 8] = [
        (|settings| settings.header = Some("x-test".into()), "", 200),
        (
            |settings| settings.header = Some("x-test".into()),
            "X-Test: 1\r\n",
            418,
        ),
        (
            |settings| settings.authority = "up.test".parse().ok(),
            "",
            418,
        ),
        (
            |settings| settings.authority = "up.test:80".parse().ok(),
            "",
            418,
        ),
        (
            |settings| settings.authority = "up.test:81".parse().ok(),
            "",
            200,
        ),
        (
            |settings| settings.authority = "other.test".parse().ok(),
            "",
            200,
        ),
        (|settings| settings.until = Some(UNIX_EPOCH), "", 200),
        (
            |settings| {
                settings.header = Some("x-test".into());
                settings.authority = "other.test".parse().ok();
            },
            "X-Test: 1\r\n",
            200,
        ),
    ];
    for (number, (change, fields, status)) in cases.into_iter().enumerate() {
        let policies = faulty(|settings| {
            aborts(settings);
            change(settings);
        });
        play(1, policies, 1, async move |world| {
            assert_eq!(get_with(&world, fields).await.status, status, "{number}");
            world
        });
    }
}

#[test]
fn the_port_of_a_captured_request_is_that_of_its_destination() {
    for (authority, status) in [("up.test:443", 418), ("up.test:80", 200)] {
        let policies = faulty(|settings| {
            aborts(settings);
            settings.authority = authority.parse().ok();
        });
        play(1, policies, 1, async move |world| {
            let mut caller = world.captured(crate::proxy::scripted::ADDRESS);
            assert_eq!(
                caller.get().await.expect("an answer").status,
                status,
                "{authority}"
            );
            world
        });
    }
}

#[test]
fn a_reply_made_here_leaves_the_connection_where_the_request_was_read() {
    play(1, faulty(aborts), 1, async |world| {
        let mut caller = world.caller();
        for _ in 0..2 {
            let answer = caller.get().await.expect("an answer");
            assert_eq!((answer.status, answer.field("connection")), (418, None));
        }
        // A body that nobody reads is drained, and then it ends.
        caller
            .send("PUT / HTTP/1.1\r\nHost: up.test\r\nContent-Length: 9\r\n\r\nhalf")
            .await;
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(
            (answer.status, answer.field("connection")),
            (418, Some("close"))
        );
        let before = ring::now();
        assert_eq!(caller.wire.rest().await, "");
        assert!(ring::now() - before < SECOND);
        drop(caller);
        world.until_all_have_left().await;
        let get = "GET / HTTP/1.1\r\nHost: up.test\r\n\r\n".len();
        let lines = world.log();
        assert_eq!(lines[0]["bytes_in"], get);
        let put = "PUT / HTTP/1.1\r\nHost: up.test\r\nContent-Length: 9\r\n\r\nhalf".len();
        assert_eq!(lines[2]["bytes_in"], put);
        assert!(lines.iter().all(|line| line.get("cancelled").is_none()));
        world
    });
}

#[test]
fn head_and_http_1_0_get_replies_that_they_know() {
    play(1, faulty(aborts), 1, async |world| {
        let mut caller = world.caller();
        caller.ask("HEAD").await;
        let head = caller.wire.head().await.expect("an answer");
        assert!(head.starts_with(b"HTTP/1.1 418"));
        assert_eq!(caller.get().await.expect("no body in between").status, 418);
        let mut old = world.caller();
        old.send("GET / HTTP/1.0\r\nHost: up.test\r\n\r\n").await;
        assert_eq!(
            old.answer().await.expect("an answer").field("connection"),
            Some("close")
        );
        assert_eq!(old.wire.rest().await, "");
        world
    });
}

#[test]
fn a_malformed_request_is_refused_and_ends_its_connection() {
    play(1, Policies::default(), 1, async |world| {
        let bad = "GET / HTTP/1.1\r\nHost: up.test\r\nContent-Length: x\r\n\r\n";
        let mut caller = world.caller();
        caller.send(bad).await;
        let answer = caller.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.reason()), (400, Some("bad-request")));
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(caller.wire.rest().await, "");
        drop(caller);
        let mut caller = world.caller();
        let chunks =
            "POST / HTTP/1.1\r\nHost: up.test\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n";
        caller.send(chunks).await;
        assert_eq!(caller.answer().await.expect("an answer").status, 400);
        drop(caller);
        world.until_all_have_left().await;
        let lines = world.log();
        assert_eq!(lines[0]["bytes_in"], bad.len());
        let detail = lines[0]["detail"].as_str().expect("it says which");
        assert!(
            detail.to_ascii_lowercase().contains("content-length"),
            "{detail}"
        );
        assert!(lines[1]["detail"].as_str().is_some());
        assert!(Rc::strong_count(&world.context) > 0);
        world
    });
}
