//! What becomes of the body of a request over its tries, and of a response that
//! comes before all of it was sent.

use super::{policies, times};
use crate::proxy::scripted::{Connect, Deed, HOST, play};
use crate::ring::timer;
use crate::route::settings::Policies;

const KEY: &str = "Idempotency-Key: 7\r\n";

#[test]
fn a_body_is_sent_again_whole() {
    for size in [1, 100, 60_000] {
        play(1, Policies::default(), 1, async move |world| {
            world.endpoints[0].does(times(2, Deed::Answer(503)));
            let body = vec![b'x'; size];
            let mut caller = world.caller();
            caller.post(KEY, &body).await;
            assert_eq!(caller.answer().await.expect("it waits").status, 200);
            let heard = world.endpoints[0].heard.borrow();
            let bodies = heard.iter().map(|heard| heard.body.clone());
            assert!(bodies.eq(times_of(3, Some(body))));
            drop((heard, caller));
            world
        });
    }
}

fn times_of<T: Clone>(count: usize, one: T) -> impl Iterator<Item = T> {
    std::iter::repeat_n(one, count)
}

#[test]
fn what_may_not_be_sent_twice_is_sent_once() {
    for (fields, deed, status) in [
        ("", Deed::Answer(503), 503),
        ("", Deed::Close, 502),
        // Too large to be kept.
        (KEY, Deed::Close, 502),
    ] {
        let small = policies(|policies| policies.retry.body_limit = 3);
        play(1, small, 1, async move |world| {
            world.endpoints[0].does([deed]);
            let mut caller = world.caller();
            caller.post(fields, b"body").await;
            assert_eq!(caller.answer().await.expect("it waits").status, status);
            assert_eq!(world.heard(), 1);
            assert_eq!(world.counted().retries, []);
            drop(caller);
            world
        });
    }
}

#[test]
fn what_was_not_sent_may_be() {
    play(1, Policies::default(), 2, async |world| {
        world.endpoints[0].meets([Connect::Refuse]);
        world.endpoints[1].meets([Connect::Refuse]);
        let mut caller = world.caller();
        caller.post("", b"once").await;
        assert_eq!(caller.answer().await.expect("it waits").status, 200);
        assert_eq!(world.heard(), 1);
        drop(caller);
        world
    });
}

#[test]
fn an_early_answer_arrives_and_the_rest_of_the_body_too() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].does([Deed::Early(200)]);
        let mut caller = world.caller();
        let head = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 8\r\n\r\n");
        caller.send(format!("{head}half")).await;
        let answer = caller.answer().await.expect("it is early");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.field("connection"), Some("close"));
        caller.send("rest").await;
        while world.heard() == 0 {
            timer::sleep(std::time::Duration::from_millis(1)).await;
        }
        let body = world.endpoints[0].heard.borrow()[0].body.clone();
        assert_eq!(body, Some(b"halfrest".to_vec()));
        drop(caller);
        world
    });
}

#[test]
fn another_try_after_an_early_refusal_gets_the_whole_body() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].does([Deed::Early(503), Deed::Answer(200)]);
        let mut caller = world.caller();
        let head = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\n{KEY}Content-Length: 8\r\n\r\n");
        caller.send(format!("{head}half")).await;
        // What has come is kept, and the next try waits for the rest.
        timer::sleep(std::time::Duration::from_secs(1)).await;
        caller.send("rest").await;
        let answer = caller.answer().await.expect("it waits");
        assert_eq!(answer.status, 200);
        let heard = world.endpoints[0].heard.borrow();
        let whole: Vec<_> = heard
            .iter()
            .filter_map(|heard| heard.body.clone())
            .collect();
        assert_eq!(whole.last(), Some(&b"halfrest".to_vec()));
        drop((heard, caller));
        world
    });
}

#[test]
fn an_interim_response_passes_and_binds() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].does([Deed::Interim(Box::new(Deed::Close))]);
        let mut caller = world.caller();
        caller.ask("GET").await;
        assert_eq!(caller.answer().await.expect("interim").status, 103);
        let answer = caller.answer().await.expect("final");
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("upstream-reset"))
        );
        assert_eq!(world.heard(), 1);
        drop(caller);
        world
    });
}
