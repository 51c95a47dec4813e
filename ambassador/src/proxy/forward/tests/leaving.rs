//! Callers that leave, and answers that are cut.

use super::{SECOND, policies};
use crate::policy::breaker::{State, Trip};
use crate::proxy::scripted::{Connect, Deed, play};
use crate::ring::timer;
use crate::route::settings::Policies;

/// One failure opens the circuit.
fn touchy() -> Policies {
    policies(|policies| {
        policies.circuit_breaker.trip = Trip::Consecutive(1);
        policies.retry.elsewhere = false;
    })
}

#[test]
fn whoever_leaves_speaks_against_nobody() {
    for deed in [Deed::Silence, Deed::Interim(Box::new(Deed::Silence))] {
        play(1, touchy(), 1, async move |world| {
            world.endpoints[0].does([deed]);
            let caller = world.caller();
            caller.ask("GET").await;
            while world.heard() == 0 {
                timer::sleep(SECOND / 1_000).await;
            }
            drop(caller);
            while world.context.connections.get() > 0 {
                timer::sleep(SECOND / 1_000).await;
            }
            assert_eq!(world.shared.health.breaker.state(), State::Closed);
            assert_eq!(world.counted().attempts, [("cancelled", 1)]);
            assert_eq!(world.get().await.status, 200);
            world
        });
    }
}

#[test]
fn whoever_leaves_during_the_connect_gives_its_place_back() {
    let one = policies(|policies| policies.pool.max_connections = Some(1));
    play(1, one, 1, async |world| {
        world.endpoints[0].meets([Connect::Hang]);
        let caller = world.caller();
        caller.ask("GET").await;
        timer::sleep(SECOND).await;
        drop(caller);
        assert_eq!(world.get().await.status, 200);
        assert_eq!(
            world.counted().attempts,
            [("response", 1), ("cancelled", 1)]
        );
        world
    });
}

#[test]
fn the_probe_of_one_that_leaves_is_given_to_the_next() {
    play(1, touchy(), 1, async |world| {
        let never = Deed::Silence;
        world.endpoints[0].does([Deed::Close, never]);
        let mut caller = world.caller();
        caller.post("", b"fails").await;
        assert_eq!(caller.answer().await.expect("it waits").status, 502);
        assert_eq!(world.shared.health.breaker.state(), State::Open);
        let refused = world.get().await;
        assert_eq!(
            (refused.status, refused.reason()),
            (503, Some("circuit-open"))
        );
        // ConnectionUse the time that it is open.
        timer::sleep(60 * SECOND).await;
        let probe = world.caller();
        probe.ask("GET").await;
        while world.heard() < 2 {
            timer::sleep(SECOND / 1_000).await;
        }
        assert_eq!(world.get().await.status, 503);
        drop(probe);
        timer::sleep(SECOND).await;
        assert_eq!(world.get().await.status, 200);
        assert_eq!(world.shared.health.breaker.state(), State::Closed);
        drop(caller);
        world
    });
}

#[test]
fn a_response_that_is_cut_is_cut_for_the_caller() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].does([Deed::Cut]);
        let answer = world.get().await;
        assert_eq!((answer.status, answer.body), (200, None));
        assert_eq!(world.heard(), 1);
        let counted = world.counted();
        assert_eq!(counted.attempts, [("upstream-reset", 1)]);
        assert_eq!(counted.requests, [(200, 1)]);
        world
    });
}
