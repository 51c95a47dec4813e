//! Connections and requests of a shard that drains.

use std::time::Duration;

use super::SECOND;
use crate::proxy::scripted::{Deed, World, play};
use crate::ring::{self, timer};
use crate::route::settings::Policies;

const GRACE: Duration = Duration::from_millis(100);

fn drain(world: &World) {
    world.context.begin_drain(ring::now() + 60 * SECOND, GRACE);
}

#[test]
fn an_idle_connection_has_some_time_for_one_more_request() {
    for (asked_before, within) in [(0, 10 * GRACE), (1, 2 * GRACE)] {
        play(1, Policies::default(), 1, async move |world| {
            let mut caller = world.caller();
            for _ in 0..asked_before {
                caller.get().await.expect("an answer");
            }
            timer::sleep(SECOND).await;
            drain(&world);
            let before = ring::now();
            assert_eq!(caller.wire.rest().await, "");
            assert_eq!(ring::now() - before, within);
            world
        });
    }
}

#[test]
fn a_request_that_comes_in_time_is_the_last_of_its_connection() {
    for asked_before in [0, 1] {
        play(1, Policies::default(), 1, async move |world| {
            let mut caller = world.caller();
            for _ in 0..asked_before {
                caller.get().await.expect("an answer");
            }
            timer::sleep(SECOND).await;
            drain(&world);
            timer::sleep(GRACE).await;
            let answer = caller.get().await.expect("an answer");
            assert_eq!(
                (answer.status, answer.field("connection")),
                (200, Some("close"))
            );
            assert_eq!(caller.wire.rest().await, "");
            world
        });
    }
}

#[test]
fn a_request_in_flight_is_answered_and_then_its_connection_ends() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].does([Deed::After(5 * SECOND, Box::new(Deed::Answer(200)))]);
        let mut caller = world.caller();
        caller.ask("GET").await;
        timer::sleep(SECOND).await;
        drain(&world);
        assert!(!world.context.served.has_begun());
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(
            (answer.status, answer.field("connection")),
            (200, Some("close"))
        );
        assert_eq!(caller.wire.rest().await, "");
        drop(caller);
        world.until_all_have_left().await;
        assert!(world.context.served.has_begun());
        world
    });
}

#[test]
fn idle_connections_to_upstreams_are_closed() {
    play(1, Policies::default(), 1, async |world| {
        world.get().await;
        world.until_all_have_left().await;
        assert_eq!(world.shared.idle(), 1);
        drain(&world);
        assert_eq!(world.shared.idle(), 0);
        assert!(world.context.served.has_begun());
        world
    });
}

#[test]
fn a_reply_made_here_says_so_too() {
    play(1, Policies::default(), 0, async |world| {
        drain(&world);
        let answer = world.get().await;
        assert_eq!(
            (answer.reason(), answer.field("connection")),
            (Some("no-endpoint"), Some("close"))
        );
        world
    });
}
