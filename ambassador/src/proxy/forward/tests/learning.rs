//! What endpoints, the circuit breaker and the adaptive limit learn of a try.

use super::{SECOND, policies, times};
use crate::policy::balance::LoadBalancing;
use crate::policy::breaker::{State, Trip};
use crate::proxy::scripted::{Connect, Deed, HOST, World, play};
use crate::ring::{self, timer};
use crate::route::settings::Policies;

const KEY: &str = "Idempotency-Key: 7\r\n";

fn state(world: &World) -> State {
    world.shared.health.breaker.state()
}

/// So many failures in a row open the circuit, and no retry is paid for.
fn broke(failures: u32) -> Policies {
    policies(|policies| {
        policies.circuit_breaker.trip = Trip::Consecutive(failures);
        policies.retry.budget.ratio = 0.0;
        policies.retry.budget.min_per_second = 0;
        policies.outlier.consecutive = None;
    })
}

/// All endpoints do this with all requests.
fn all_do(world: &World, deed: &Deed) {
    for endpoint in &world.endpoints {
        endpoint.does(times(20, deed.clone()));
    }
}

#[test]
fn a_response_that_was_held_back_in_vain_counts_once() {
    for endpoints in [1, 2] {
        play(1, broke(4), endpoints, async move |world| {
            all_do(&world, &Deed::Answer(503));
            let mut asked = 0;
            while state(&world) == State::Closed && asked < 10 {
                let answer = world.get().await;
                assert_eq!((answer.status, answer.reason()), (503, None));
                asked += 1;
            }
            // What one endpoint gets wrong while the other is well does not open it.
            let expected = if endpoints == 1 { 4..=4 } else { 4..=8 };
            assert!(expected.contains(&asked), "{asked}");
            assert_eq!(world.heard(), asked);
            world.until_all_have_left().await;
            assert!(world.log().iter().all(|line| line["reason"].is_string()));
            world
        });
    }
}

#[test]
fn what_is_held_back_while_a_caller_withholds_its_body_counts_for_nobody() {
    for (wait, expected) in [(2 * SECOND, State::Closed), (SECOND / 2, State::Open)] {
        play(1, broke(1), 2, async move |world| {
            for endpoint in &world.endpoints {
                endpoint.meets(times_of(6, Connect::Hand));
            }
            for _ in 0..3 {
                let mut caller = world.caller();
                let head =
                    format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\n{KEY}Content-Length: 9\r\n\r\nhalf");
                caller.send(head).await;
                timer::sleep(wait).await;
                let reached = world.endpoints.iter().find(|one| one.is_reached());
                let Some(endpoint) = reached else {
                    // The circuit has opened.
                    break;
                };
                let mut server = endpoint.handed().await;
                server.head().await.expect("a head");
                server
                    .send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
                    .await;
                assert_eq!(caller.answer().await.expect("an answer").status, 503);
            }
            assert_eq!(state(&world), expected, "{wait:?}");
            world
        });
    }
}

fn times_of<T: Clone>(count: usize, one: T) -> Vec<T> {
    vec![one; count]
}

#[test]
fn a_response_that_is_cut_after_the_last_try_was_no_response() {
    let one = policies(|policies| policies.retry.attempts = 1);
    play(1, one, 1, async |world| {
        world.endpoints[0].does([Deed::Last(
            "HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nabc",
        )]);
        let answer = world.get().await;
        assert_eq!((answer.status, answer.body), (503, None));
        assert_eq!(world.counted().attempts, [("upstream-reset", 1)]);
        world
    });
}

#[test]
fn a_further_try_goes_where_none_has_been() {
    for seed in 0..30 {
        let random = policies(|policies| {
            policies.load_balancing = LoadBalancing::Random;
            policies.outlier.consecutive = None;
        });
        play(seed, random, 3, async move |world| {
            for endpoint in &world.endpoints[..2] {
                endpoint.does(times(9, Deed::Answer(503)));
            }
            assert_eq!(world.get().await.status, 200, "{seed}");
            let heard = world.endpoints.iter().map(|one| one.heard.borrow().len());
            assert!(heard.max() <= Some(1), "{seed}");
            world
        });
    }
}

/// Fails until the circuit is open, and waits until a probe is due.
async fn until_a_probe_is_due(world: &World) {
    while state(world) == State::Closed {
        let answer = world.get().await;
        assert!(answer.status >= 500);
    }
    timer::sleep(60 * SECOND).await;
}

fn touchy() -> Policies {
    policies(|policies| {
        policies.circuit_breaker.trip = Trip::Consecutive(1);
        policies.outlier.consecutive = None;
    })
}

#[test]
fn the_probe_of_the_only_endpoint_is_one_try() {
    play(1, touchy(), 1, async |world| {
        world.endpoints[0].does(times(2, Deed::Answer(503)));
        until_a_probe_is_due(&world).await;
        let heard = world.heard();
        let answer = world.get().await;
        assert_eq!((answer.status, answer.reason()), (503, None));
        assert_eq!((world.heard(), state(&world)), (heard + 1, State::Open));
        world.until_all_have_left().await;
        assert_eq!(world.log().last().expect("a line").get("reason"), None);
        world
    });
}

#[test]
fn a_probe_may_be_repeated_where_there_is_another_endpoint() {
    for seed in 0..4 {
        play(seed, touchy(), 2, async |world| {
            all_do(&world, &Deed::Answer(503));
            until_a_probe_is_due(&world).await;
            for endpoint in &world.endpoints {
                endpoint.deeds.borrow_mut().clear();
            }
            world.endpoints[0].does([Deed::Answer(503)]);
            world.endpoints[1].does([Deed::Answer(200)]);
            assert_eq!(world.get().await.status, 200);
            assert_eq!(state(&world), State::Closed);
            world
        });
    }
}

#[test]
fn what_an_endpoint_gets_wrong_is_remembered_of_it() {
    for (deed, failures) in [
        (Deed::Answer(200), 0),
        (Deed::Answer(404), 0),
        (Deed::Answer(429), 0),
        (Deed::Answer(500), 1),
        (Deed::Answer(503), 1),
        (Deed::Close, 1),
        (Deed::Write("nonsense\r\n\r\n"), 1),
        (Deed::Cut, 0),
    ] {
        let one = policies(|policies| policies.retry.attempts = 1);
        play(1, one, 2, async move |world| {
            all_do(&world, &deed);
            world.get().await;
            let views = world.shared.endpoints.views(ring::now());
            let counted = views.iter().map(|view| view.consecutive_failures);
            assert_eq!(counted.sum::<u32>(), failures, "{deed:?}");
            world
        });
    }
}

#[test]
fn what_the_circuit_counts() {
    for (deed, failures) in [
        (Deed::Answer(200), 0),
        (Deed::Answer(429), 0),
        (Deed::Answer(500), 1),
        (Deed::Answer(503), 1),
        (Deed::Close, 1),
        (Deed::Silence, 1),
        (Deed::Write("nonsense\r\n\r\n"), 1),
        (Deed::Cut, 0),
        // Proxies in a circle are no failure of this upstream.
        (
            Deed::Write(
                "HTTP/1.1 508 Loop\r\nX-Ambassador-Reason: loop\r\nContent-Length: 0\r\n\r\n",
            ),
            0,
        ),
    ] {
        for endpoints in [1, 2] {
            let policies = policies(|policies| {
                policies.retry.attempts = 1;
                policies.circuit_breaker.trip = Trip::Consecutive(9);
            });
            let deed = deed.clone();
            play(1, policies, endpoints, async move |world| {
                all_do(&world, &deed);
                world.get().await;
                let target = world.context.generation().target(0);
                let settings = &target.upstream.policies.circuit_breaker;
                let counted = world.shared.health.breaker.failures(settings, ring::now());
                assert_eq!(counted, failures, "{deed:?} {endpoints}");
                for endpoint in &world.endpoints {
                    endpoint.deeds.borrow_mut().clear();
                }
                assert_eq!(world.get().await.status, 200);
                let counted = world.shared.health.breaker.failures(settings, ring::now());
                assert_eq!(counted, 0, "a success ends the run");
                world
            });
        }
    }
}

#[test]
fn a_failure_that_another_endpoint_makes_good_does_not_count() {
    for seed in 0..4 {
        play(seed, touchy(), 2, async |world| {
            world.endpoints[0].does(times(9, Deed::Close));
            for _ in 0..9 {
                assert_eq!(world.get().await.status, 200);
            }
            assert_eq!(state(&world), State::Closed);
            world
        });
    }
}

#[test]
fn the_adaptive_limit_learns_from_answers_alone() {
    for (deed, learns) in [
        (Deed::Answer(200), true),
        (Deed::Answer(404), true),
        (Deed::Answer(429), false),
        (Deed::Answer(503), false),
    ] {
        let adaptive = policies(|policies| {
            policies.concurrency.adaptive = true;
            policies.concurrency.min = 1;
            policies.retry.attempts = 1;
            policies.circuit_breaker.trip = Trip::Never;
        });
        play(1, adaptive, 1, async move |world| {
            let deed = Deed::After(SECOND / 100, Box::new(deed));
            world.endpoints[0].does(times(130, deed.clone()));
            let target = world.context.generation().target(0);
            let settings = &target.upstream.policies.concurrency;
            let limit = || world.shared.health.concurrency.limit(settings);
            let before = limit();
            let mut caller = world.caller();
            for _ in 0..130 {
                caller.get().await.expect("an answer");
            }
            assert_eq!(limit() != before, learns, "{deed:?}: {:?}", limit());
            drop(caller);
            world
        });
    }
}

#[test]
fn a_success_whose_body_streams_counts_once_it_has_come_but_for_a_probe() {
    let paced = || {
        let mut policies = touchy();
        policies.timeouts.min_rate = std::num::NonZeroU32::new(1).map(crate::policy::pace::MinRate);
        policies
    };
    play(1, paced(), 1, async |world| {
        world.endpoints[0].does([Deed::Answer(503)]);
        until_a_probe_is_due(&world).await;
        let pieces = vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "a", "b"];
        world.endpoints[0].does([Deed::Pieces(SECOND, pieces)]);
        let mut caller = world.caller();
        caller.ask("GET").await;
        timer::sleep(SECOND * 3 / 2).await;
        assert_eq!(state(&world), State::Closed);
        assert_eq!(
            caller.answer().await.expect("an answer").body,
            Some(b"ab".to_vec())
        );
        drop(caller);
        world
    });
}

#[test]
fn where_an_interim_response_went_to_the_caller_it_is_bound_to_what_follows() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].does([Deed::Interim(Box::new(Deed::Answer(503)))]);
        let mut caller = world.caller();
        caller.ask("GET").await;
        assert_eq!(caller.answer().await.expect("interim").status, 103);
        assert_eq!(caller.answer().await.expect("final").status, 503);
        assert_eq!(world.heard(), 1);
        world
    });
}

#[test]
fn the_connection_of_a_response_that_gives_way_stays_where_all_of_it_has_come() {
    const HEAD: &str = "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\n";
    for (deed, connections) in [
        (
            Deed::Write("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbody"),
            1,
        ),
        (
            Deed::Write("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
            1,
        ),
        (
            Deed::Write("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n!"),
            2,
        ),
        (
            Deed::Write("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbody!"),
            2,
        ),
        (
            Deed::Write("HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
            2,
        ),
        (Deed::Write(HEAD), 2),
        (Deed::Last("HTTP/1.1 503 No\r\n\r\nbody"), 2),
    ] {
        play(1, Policies::default(), 1, async move |world| {
            world.endpoints[0].does([deed.clone()]);
            assert_eq!(world.get().await.status, 200);
            assert_eq!(world.connected(), connections, "{deed:?}");
            world
        });
    }
}

#[test]
fn what_http_1_0_cannot_be_told_is_not_asked_for_again() {
    play(1, Policies::default(), 2, async |world| {
        all_do(
            &world,
            &Deed::Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        );
        let mut caller = world.caller();
        caller.send("GET / HTTP/1.0\r\nHost: up.test\r\n\r\n").await;
        assert_eq!(caller.answer().await.expect("an answer").status, 502);
        assert_eq!(world.heard(), 1);
        world
    });
}
