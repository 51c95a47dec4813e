//! A name with addresses of both families: the one that works is used.

use std::time::Duration;

use super::SECOND;
use crate::proxy::scripted::{Connect, Plan, play_in};
use crate::ring;
use crate::route::settings::Protocol;

const DELAY: Duration = Duration::from_millis(250);

fn named(endpoints: usize) -> Plan {
    Plan {
        is_named: true,
        endpoints,
        protocol: Protocol::Http1,
        ..Plan::default()
    }
}

#[test]
fn an_address_that_does_not_answer_is_overtaken_by_one_of_the_other_family() {
    for hangs in [0, 1] {
        for seed in 0..4 {
            play_in(seed, named(2), async move |world| {
                world.endpoints[hangs].meets([Connect::Hang]);
                let before = ring::now();
                let answer = world.get().await;
                assert_eq!(answer.body, Some((1 - hangs).to_string().into()));
                let took = ring::now() - before;
                assert!(took == DELAY || took == Duration::ZERO, "{took:?}");
                world.until_all_have_left().await;
                let line = &world.log()[0];
                let answered = world.endpoints[1 - hangs].address.to_string();
                assert_eq!(
                    (&line["endpoint"], &line["attempts"]),
                    (&answered.into(), &1.into())
                );
                // It counts as a failed connect of the slower one.
                let views = world.shared.endpoints.views(ring::now());
                let failures = views.iter().map(|view| view.consecutive_failures);
                let expected = u32::from(took == DELAY);
                assert_eq!(failures.collect::<Vec<_>>()[hangs], expected);
                assert_eq!(world.counted().attempts, [("response", 1)]);
                world
            });
        }
    }
}

#[test]
fn one_of_the_same_family_does_not_overtake() {
    play_in(1, named(1), async |world| {
        world.endpoints[0].meets([Connect::Hang]);
        let before = ring::now();
        assert_eq!(world.get().await.status, 200);
        assert!(ring::now() - before >= 5 * SECOND);
        world
    });
}
