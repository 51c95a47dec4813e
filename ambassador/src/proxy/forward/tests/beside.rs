//! When a second try is made beside one that is silent or slow, and when not.

use super::{SECOND, policies};
use crate::policy::breaker::{State, Trip};
use crate::policy::hedge::HedgeDelay;
use crate::proxy::scripted::{Deed, HOST, World, play};
use crate::ring::{self, timer};
use crate::route::settings::Policies;

/// What all endpoints do with their first request.
fn all_do(world: &World, deed: &Deed) {
    for endpoint in &world.endpoints {
        endpoint.does([deed.clone()]);
    }
}

fn late() -> Deed {
    Deed::After(3 * SECOND, Box::new(Deed::Answer(200)))
}

fn message(fields: &str, body: &str) -> String {
    let length = body.len();
    format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n{fields}\r\n{body}")
}

fn four_seconds() -> Policies {
    policies(|policies| policies.timeouts.request = Some(4 * SECOND))
}

/// How many requests the endpoints get of one that none answers soon.
fn tries(policies: Policies, endpoints: usize, message: String, expected: usize) {
    play(1, policies, endpoints, async move |world| {
        all_do(&world, &late());
        let mut caller = world.caller();
        caller.send(message.clone()).await;
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        assert_eq!(world.heard(), expected, "{message}");
        world
    });
}

#[test]
fn a_silent_one_is_not_alone_where_another_may_do_better() {
    tries(four_seconds(), 2, message("", ""), 2);
    // It is not in two places,
    let upgrade = "Connection: upgrade\r\nUpgrade: x\r\n";
    for (fields, body) in [
        ("", "body"),
        (upgrade, ""),
        ("Authorization: NTLM x\r\n", ""),
    ] {
        tries(four_seconds(), 2, message(fields, body), 1);
    }
    tries(
        four_seconds(),
        2,
        message("", "").replace("GET", "DELETE"),
        1,
    );
    // and there is no other one, or none may follow.
    tries(four_seconds(), 1, message("", ""), 1);
    type Change = fn(&mut Policies);
    let changes: [Change; 5] = [
        |policies| policies.retry.elsewhere = false,
        |policies| policies.retry.attempts = 1,
        |policies| policies.timeouts.request = None,
        |policies| policies.retry.methods = crate::policy::methods::Methods::of([]),
        |policies| {
            policies.retry.budget.ratio = 0.0;
            policies.retry.budget.min_per_second = 0;
        },
    ];
    for change in changes {
        let mut policies = four_seconds();
        change(&mut policies);
        tries(policies, 2, message("", ""), 1);
    }
}

#[test]
fn a_silent_one_is_alone_where_no_other_is_well() {
    let mut policies = four_seconds();
    policies.outlier.consecutive = None;
    policies.retry.attempts = 2;
    play(1, policies, 2, async |world| {
        all_do(&world, &Deed::Answer(503));
        assert_eq!(world.get().await.status, 503);
        let heard = world.heard();
        all_do(&world, &late());
        assert_eq!(world.get().await.status, 200);
        assert_eq!(world.heard(), heard + 1);
        world
    });
}

fn hedged() -> Policies {
    policies(|policies| {
        policies.hedge.after = HedgeDelay::Time(SECOND);
        policies.hedge.budget = 1.0;
        policies.retry.elsewhere = false;
    })
}

#[test]
fn a_slow_one_is_hedged_at_the_same_endpoint_where_there_is_no_other() {
    tries(hedged(), 1, message("", ""), 2);
    tries(hedged(), 2, message("", ""), 2);
    for (fields, body) in [
        ("Connection: upgrade\r\nUpgrade: x\r\n", ""),
        ("Authorization: NTLM x\r\n", ""),
    ] {
        tries(hedged(), 2, message(fields, body), 1);
    }
    // What is kept of a body goes along.
    tries(hedged(), 2, message("", "body"), 2);
    let mut small = hedged();
    small.retry.body_limit = 3;
    tries(small, 2, message("", "body"), 1);
    let mut poor = hedged();
    poor.hedge.budget = 0.0;
    tries(poor, 2, message("", ""), 1);
}

#[test]
fn a_body_that_is_yet_to_come_is_in_one_place() {
    for hedge in [true, false] {
        let policies = if hedge { hedged() } else { four_seconds() };
        play(1, policies, 2, async |world| {
            all_do(&world, &late());
            let mut caller = world.caller();
            caller.send(message("", "body").replace("body", "bo")).await;
            timer::sleep(3 * SECOND).await;
            caller.send("dy").await;
            assert_eq!(caller.answer().await.expect("an answer").status, 200);
            assert_eq!(world.heard(), 1);
            world
        });
    }
}

#[test]
fn a_probe_is_not_hedged_and_its_interim_responses_pass() {
    let mut touchy = hedged();
    touchy.circuit_breaker.trip = Trip::Consecutive(1);
    play(1, touchy, 1, async |world| {
        world.endpoints[0].does([Deed::Close, Deed::Interim(Box::new(late()))]);
        world.get().await;
        assert_eq!(world.shared.health.breaker.state(), State::Open);
        timer::sleep(60 * SECOND).await;
        let heard = world.heard();
        let mut caller = world.caller();
        caller.ask("GET").await;
        assert_eq!(caller.answer().await.expect("interim").status, 103);
        assert_eq!(caller.answer().await.expect("final").status, 200);
        assert_eq!(world.heard(), heard + 1);
        world
    });
}

#[test]
fn interim_responses_of_hedged_tries_are_dropped() {
    play(1, hedged(), 1, async |world| {
        let interim = || Deed::Interim(Box::new(late()));
        world.endpoints[0].does([interim(), interim()]);
        let before = ring::now();
        assert_eq!(world.get().await.status, 200);
        assert_eq!(ring::now() - before, 3 * SECOND);
        world
    });
}

#[test]
fn the_log_tells_of_both_endpoints_and_of_the_one_that_answered_last() {
    for seed in 0..6 {
        play(seed, hedged(), 2, async |world| {
            let slow = Deed::After(9 * SECOND, Box::new(Deed::Answer(200)));
            world.endpoints[0].does([slow]);
            assert_eq!(world.get().await.body, Some(b"1".to_vec()));
            world.until_all_have_left().await;
            let line = &world.log()[0];
            assert_eq!(line["endpoint"], "10.0.0.2:80");
            if world.endpoints[0].heard.borrow().len() == 1 {
                assert_eq!(line["attempts"], 2);
                assert_eq!(
                    line["endpoints"],
                    serde_json::json!(["10.0.0.1:80", "10.0.0.2:80"])
                );
                assert_eq!(
                    world.counted().attempts,
                    [("response", 1), ("cancelled", 1)]
                );
            }
            world
        });
    }
}

#[test]
fn a_second_one_that_fails_leaves_the_first() {
    play(1, hedged(), 2, async |world| {
        let fails = Deed::After(SECOND / 2, Box::new(Deed::Close));
        for endpoint in &world.endpoints {
            endpoint.does([late(), fails.clone()]);
        }
        let before = ring::now();
        assert_eq!(world.get().await.status, 200);
        assert_eq!(ring::now() - before, 3 * SECOND);
        world
    });
}
