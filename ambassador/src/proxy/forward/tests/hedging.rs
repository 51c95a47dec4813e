//! A second try beside a slow or a silent one.

use std::time::Duration;

use super::{SECOND, policies};
use crate::policy::hedge;
use crate::proxy::scripted::{Connect, Deed, World, play};
use crate::ring;
use crate::route::settings::Policies;

const SOON: Duration = Duration::from_millis(100);

fn hedged() -> Policies {
    policies(|policies| {
        policies.hedge.after = hedge::HedgeDelay::Time(SOON);
        policies.hedge.budget = 1.0;
        policies.retry.elsewhere = false;
    })
}

/// Does this with the first request of each endpoint, whichever it comes to.
fn all_do(world: &World, deeds: [Deed; 2]) {
    for (endpoint, deed) in world.endpoints.iter().zip(deeds) {
        endpoint.does([deed]);
    }
}

fn after(time: Duration, deed: Deed) -> Deed {
    Deed::After(time, Box::new(deed))
}

#[test]
fn the_faster_of_two_answers() {
    play(1, hedged(), 2, async |world| {
        all_do(
            &world,
            [after(SECOND, Deed::Answer(200)), Deed::Answer(200)],
        );
        let mut took = Vec::new();
        for _ in 0..2 {
            let before = ring::now();
            assert_eq!(world.get().await.body, Some(b"1".to_vec()));
            took.push(ring::now() - before);
        }
        assert!(took.contains(&SOON), "{took:?}");
        let counted = world.counted();
        assert_eq!(counted.retries, [("hedge", 1)]);
        assert_eq!(counted.attempts, [("response", 2), ("cancelled", 1)]);
        world
    });
}

#[test]
fn a_fast_one_is_alone() {
    play(1, hedged(), 2, async |world| {
        for _ in 0..10 {
            assert_eq!(world.get().await.status, 200);
        }
        assert_eq!(world.counted().attempts, [("response", 10)]);
        assert_eq!(world.heard(), 10);
        world
    });
}

#[test]
fn where_both_fail_there_is_one_more_try() {
    play(1, hedged(), 2, async |world| {
        let late = || after(3 * SOON, Deed::Close);
        all_do(&world, [late(), late()]);
        assert_eq!(world.get().await.status, 200);
        let counted = world.counted();
        assert_eq!(counted.attempts, [("response", 1), ("upstream-reset", 2)]);
        assert_eq!(counted.retries, [("hedge", 1), ("reset", 1)]);
        world
    });
}

#[test]
fn the_slower_one_may_yet_be_right() {
    play(1, hedged(), 2, async |world| {
        // Both are slow, the second fails first.
        let late = after(4 * SOON, Deed::Answer(200));
        all_do(&world, [late.clone(), late]);
        for endpoint in &world.endpoints {
            endpoint.meets([Connect::Accept]);
        }
        let before = ring::now();
        assert_eq!(world.get().await.status, 200);
        assert_eq!(ring::now() - before, 4 * SOON);
        world
    });
}

#[test]
fn what_changes_something_is_in_one_place() {
    // A key allows one try after another, not two beside each other.
    for fields in ["", "Idempotency-Key: 1\r\n"] {
        play(1, hedged(), 2, async move |world| {
            let late = || after(SECOND, Deed::Answer(200));
            all_do(&world, [late(), late()]);
            let mut caller = world.caller();
            caller.post(fields, b"once").await;
            assert_eq!(caller.answer().await.expect("it waits").status, 200);
            assert_eq!(world.heard(), 1);
            drop(caller);
            world
        });
    }
}

#[test]
fn a_silent_endpoint_is_given_up_for_another() {
    let policies = policies(|policies| policies.timeouts.request = Some(2 * SECOND));
    play(1, policies, 2, async |world| {
        all_do(&world, [Deed::Silence, Deed::Answer(200)]);
        let mut took = Vec::new();
        for _ in 0..2 {
            let before = ring::now();
            assert_eq!(world.get().await.status, 200);
            took.push(ring::now() - before);
        }
        assert!(took.contains(&SECOND), "{took:?}");
        let counted = world.counted();
        assert_eq!(counted.retries, [("silence", 1)]);
        assert_eq!(counted.attempts, [("response", 2), ("try-timeout", 1)]);
        world
    });
}
