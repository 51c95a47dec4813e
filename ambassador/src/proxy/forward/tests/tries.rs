//! How often a request is sent, to whom, and what its caller learns.

use super::{SECOND, policies, times};
use crate::policy::breaker::Trip;
use crate::proxy::scripted::{Connect, Deed, play};
use crate::route::settings::Policies;

#[test]
fn an_answer_is_passed_on_and_counted_once() {
    play(1, Policies::default(), 1, async |world| {
        let answer = world.get().await;
        assert_eq!((answer.status, answer.body), (200, Some(b"0".to_vec())));
        let counted = world.counted();
        assert_eq!(counted.requests, [(200, 1)]);
        assert_eq!(counted.attempts, [("response", 1)]);
        assert_eq!(counted.retries, []);
        world
    });
}

#[test]
fn what_may_be_sent_again_is() {
    for deed in [Deed::Answer(503), Deed::Close] {
        play(1, Policies::default(), 1, async move |world| {
            world.endpoints[0].does([deed]);
            let answer = world.get().await;
            assert_eq!(answer.status, 200);
            assert_eq!(world.heard(), 2);
            world
        });
    }
}

#[test]
fn tries_end_with_their_number() {
    let three = policies(|policies| policies.retry.attempts = 3);
    play(1, three, 1, async |world| {
        world.endpoints[0].does(times(3, Deed::Answer(503)));
        let answer = world.get().await;
        assert_eq!((answer.status, answer.reason()), (503, None));
        assert_eq!(world.heard(), 3);
        assert_eq!(world.counted().attempts, [("response", 3)]);
        world
    });
}

#[test]
fn a_silent_endpoint_costs_the_time_that_it_has() {
    let policies = policies(|policies| {
        policies.timeouts.request = Some(3 * SECOND);
        policies.retry.elsewhere = false;
    });
    play(1, policies, 1, async |world| {
        world.endpoints[0].does([Deed::Silence]);
        let before = crate::ring::now();
        let answer = world.get().await;
        assert_eq!(answer.status, 504);
        assert_eq!(answer.reason(), Some("request-timeout"));
        assert_eq!(crate::ring::now() - before, 3 * SECOND);
        world
    });
}

#[test]
fn a_connect_that_is_refused_moves_on() {
    play(1, Policies::default(), 2, async |world| {
        for endpoint in &world.endpoints {
            endpoint.meets([Connect::Refuse]);
        }
        let answer = world.get().await;
        assert_eq!(answer.status, 200);
        assert_eq!(world.counted().retries, [("connect-failure", 2)]);
        world
    });
}

#[test]
fn another_try_goes_to_another_endpoint() {
    for seed in 0..20 {
        play(seed, Policies::default(), 2, async |world| {
            world.endpoints[0].does(times(9, Deed::Answer(503)));
            let answer = world.get().await;
            assert_eq!((answer.status, answer.body), (200, Some(b"1".to_vec())));
            assert!(world.endpoints[0].heard.borrow().len() <= 1);
            world
        });
    }
}

#[test]
fn an_endpoint_that_refuses_and_has_no_other_is_waited_for() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].meets([Connect::Refuse]);
        let before = crate::ring::now();
        assert_eq!(world.get().await.status, 200);
        assert!(crate::ring::now() > before, "it was tried again at once");
        world
    });
}

#[test]
fn between_two_tries_there_is_a_wait() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].does([Deed::Answer(503)]);
        let before = crate::ring::now();
        assert_eq!(world.get().await.status, 200);
        assert!(crate::ring::now() > before, "it was tried again at once");
        world
    });
}

#[test]
fn a_caller_learns_why_it_was_not_tried_again() {
    let broke = policies(|policies| {
        policies.retry.budget.ratio = 0.0;
        policies.retry.budget.min_per_second = 0;
    });
    let touchy = policies(|policies| policies.circuit_breaker.trip = Trip::Consecutive(1));
    for (policies, status, reason) in [(broke, 502, "retry-budget"), (touchy, 503, "circuit-open")]
    {
        play(1, policies, 1, async move |world| {
            world.endpoints[0].does([Deed::Close]);
            let answer = world.get().await;
            assert_eq!((answer.status, answer.reason()), (status, Some(reason)));
            assert_eq!(world.heard(), 1);
            world
        });
    }
}

#[test]
fn an_upstream_that_asks_for_time_gets_it() {
    play(1, Policies::default(), 1, async |world| {
        let busy = "HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n";
        world.endpoints[0].does([Deed::Write(busy)]);
        let before = crate::ring::now();
        assert_eq!(world.get().await.status, 200);
        assert!(crate::ring::now() - before >= 2 * SECOND);
        world
    });
}
