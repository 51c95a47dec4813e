//! Requests of an upstream with `auth`: what they carry, and what becomes of them
//! where there is nothing to carry.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{SECOND, policies, times};
use crate::clock::Instant;
use crate::credential::settings::{Auth, TokenSource};
use crate::credential::{Credential, Secret};
use crate::policy::breaker::Trip;
use crate::proxy::context::Tokens;
use crate::proxy::scripted::{ADDRESS, Deed, Plan, World, play_in};
use crate::ring::{self, timer};
use crate::route::settings::{Policies, Protocol};
use crate::upstream::credential::UpstreamCredential;

const REFUSED: Deed = Deed::Answer(401);

fn auth() -> Auth {
    Auth::Bearer(TokenSource::File("/token".into()))
}

fn play<F: Future<Output = World> + 'static>(
    policies: Policies,
    endpoints: usize,
    scenario: impl FnOnce(World) -> F + 'static,
) {
    let plan = Plan {
        endpoints,
        policies,
        protocol: Protocol::Http1,
        auth: Some(auth()),
        ..Plan::default()
    };
    play_in(1, plan, scenario);
}

fn credential(world: &World) -> Arc<UpstreamCredential> {
    let target = world.context.generation().target(0);
    Arc::clone(target.credential().expect("the upstream has auth"))
}

/// As the control side does it.
fn issue(credential: &UpstreamCredential, token: &str, expires: Option<Instant>) {
    let token = Secret::from(token.as_bytes().to_vec());
    let made = Credential::of(&auth(), &token).expect("it can be sent");
    credential.issue(made, expires);
}

/// Does `fetch` each time that the upstream has refused a credential, after a second.
/// Says how often that was.
fn fetcher(
    credential: &Arc<UpstreamCredential>,
    fetch: impl Fn(&UpstreamCredential, usize) + 'static,
) -> Rc<Cell<usize>> {
    let (credential, fetched) = (Arc::clone(credential), Rc::new(Cell::new(0)));
    let count = Rc::clone(&fetched);
    ring::spawn(async move {
        loop {
            credential.refused().await;
            timer::sleep(SECOND).await;
            count.set(count.get() + 1);
            fetch(&credential, count.get());
        }
    });
    fetched
}

/// What each endpoint was shown, in order.
fn shown(world: &World) -> Vec<Vec<String>> {
    let of_endpoint = |fields: &[(String, String)]| {
        let fields = fields.iter();
        let named = fields.filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        named.map(|(_, value)| value.clone()).collect()
    };
    let endpoints = world.endpoints.iter();
    endpoints
        .flat_map(|endpoint| {
            let heard = endpoint.heard.borrow();
            let shown = heard.iter().map(|heard| of_endpoint(&heard.fields));
            shown.collect::<Vec<Vec<String>>>()
        })
        .collect()
}

#[test]
fn a_request_carries_the_credential_in_place_of_its_own() {
    let ruled = policies(|policies| {
        policies.headers.set = vec![("Authorization".into(), "by-a-rule".into())];
    });
    play(ruled, 1, async |world| {
        issue(&credential(&world), "t0ken", None);
        let mut caller = world.caller();
        caller
            .send("GET / HTTP/1.1\r\nHost: up.test\r\nAuthorization: own\r\nauthorization: own\r\n\r\n")
            .await;
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        assert_eq!(shown(&world), [["Bearer t0ken"]]);
        let log = format!("{:?}", world.log());
        assert!(!log.contains("t0ken"), "{log}");
        world
    });
}

#[test]
fn a_request_waits_a_while_for_the_first_credential() {
    play(Policies::default(), 1, async |world| {
        let coming = credential(&world);
        ring::spawn(async move {
            timer::sleep(SECOND).await;
            issue(&coming, "t0ken", None);
        });
        let before = ring::now();
        assert_eq!(world.get().await.status, 200);
        assert_eq!(ring::now() - before, SECOND);
        assert_eq!(shown(&world), [["Bearer t0ken"]]);
        world
    });
}

#[test]
fn without_a_credential_nothing_is_dialled_and_nobody_is_at_fault() {
    let touchy = policies(|policies| policies.circuit_breaker.trip = Trip::Consecutive(1));
    play(touchy, 1, async |world| {
        // None has come so far.
        let before = ring::now();
        let answer = world.get().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (503, Some("auth-unavailable"))
        );
        assert_eq!(ring::now() - before, 2 * SECOND);
        // It is known that none will.
        credential(&world).fail("there is no file");
        for _ in 0..3 {
            let before = ring::now();
            assert_eq!(world.get().await.reason(), Some("auth-unavailable"));
            assert_eq!(ring::now(), before);
        }
        assert_eq!((world.connected(), world.heard()), (0, 0));
        let counted = world.counted();
        assert_eq!((counted.attempts, counted.retries), (vec![], vec![]));
        issue(&credential(&world), "t0ken", None);
        assert_eq!(world.get().await.status, 200);
        world
    });
}

#[test]
fn one_whose_time_is_over_is_not_sent() {
    play(Policies::default(), 1, async |world| {
        let credential = credential(&world);
        issue(&credential, "t0ken", Some(ring::now() + SECOND));
        assert_eq!(world.get().await.status, 200);
        // One failed refresh is not the end.
        credential.fail("the source is away");
        assert_eq!(world.get().await.status, 200);
        timer::sleep(SECOND).await;
        let answer = world.get().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (503, Some("auth-unavailable"))
        );
        assert_eq!(world.heard(), 2);
        world
    });
}

#[test]
fn a_try_that_comes_too_late_for_its_credential_is_the_last() {
    let slow = policies(|policies| {
        policies.retry.base = 10 * SECOND;
        policies.timeouts.request = None;
        policies.circuit_breaker.trip = Trip::Never;
    });
    play(slow, 1, async |world| {
        let expires = ring::now() + Duration::from_millis(1);
        issue(&credential(&world), "t0ken", Some(expires));
        world.endpoints[0].does([Deed::Close]);
        let answer = world.get().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (503, Some("auth-unavailable"))
        );
        assert_eq!(world.heard(), 1);
        let counted = world.counted();
        assert_eq!(
            counted.attempts,
            [("upstream-reset", 1), ("auth-unavailable", 1)]
        );
        world
    });
}

#[test]
fn a_retry_elsewhere_carries_it_as_well() {
    play(Policies::default(), 2, async |world| {
        issue(&credential(&world), "t0ken", None);
        for endpoint in &world.endpoints {
            endpoint.does([Deed::Answer(503)]);
        }
        assert_eq!(world.get().await.status, 200);
        assert_eq!(shown(&world), times_of(3, &["Bearer t0ken"]));
        world
    });
}

fn times_of(count: usize, one: &[&str]) -> Vec<Vec<String>> {
    let one: Vec<String> = one.iter().map(|text| (*text).to_owned()).collect();
    vec![one; count]
}

#[test]
fn a_refused_credential_is_replaced_and_the_request_sent_once_more() {
    let once = policies(|policies| policies.retry.attempts = 1);
    play(once, 1, async |world| {
        let credential = credential(&world);
        issue(&credential, "old", None);
        let fetched = fetcher(&credential, |credential, _| issue(credential, "new", None));
        world.endpoints[0].does([REFUSED]);
        let before = ring::now();
        assert_eq!(world.get().await.status, 200);
        assert_eq!(ring::now() - before, SECOND);
        assert_eq!(shown(&world), [["Bearer old"], ["Bearer new"]]);
        assert_eq!(fetched.get(), 1);
        let counted = world.counted();
        assert_eq!(counted.retries, [("credential", 1)]);
        assert_eq!(counted.attempts, [("response", 2)]);
        assert_eq!(counted.requests, [(200, 1)]);
        world
    });
}

#[test]
fn it_takes_no_try_from_those_that_the_upstream_may_fail() {
    let two = policies(|policies| policies.retry.attempts = 2);
    play(two, 1, async |world| {
        let credential = credential(&world);
        issue(&credential, "old", None);
        fetcher(&credential, |credential, _| issue(credential, "new", None));
        world.endpoints[0].does([REFUSED, Deed::Answer(503)]);
        assert_eq!(world.get().await.status, 200);
        assert_eq!(world.heard(), 3);
        assert_eq!(world.counted().retries, [("503", 1), ("credential", 1)]);
        world
    });
}

#[test]
fn one_that_is_refused_again_goes_back_to_the_caller() {
    play(Policies::default(), 1, async |world| {
        let credential = credential(&world);
        issue(&credential, "old", None);
        let fetched = fetcher(&credential, |credential, count| {
            issue(credential, &format!("new-{count}"), None);
        });
        world.endpoints[0].does(times(100, REFUSED));
        let answer = world.get().await;
        assert_eq!((answer.status, answer.reason()), (401, None));
        assert_eq!((world.heard(), fetched.get()), (2, 1));
        // Nor is the source asked for every request that is refused.
        for _ in 0..10 {
            assert_eq!(world.get().await.status, 401);
        }
        assert_eq!((world.heard(), fetched.get()), (12, 1));
        timer::sleep(5 * SECOND).await;
        assert_eq!(world.get().await.status, 401);
        assert_eq!((world.heard(), fetched.get()), (14, 2));
        world
    });
}

#[test]
fn where_there_is_no_other_the_refusal_is_the_answer() {
    let same = |credential: &UpstreamCredential, _: usize| issue(credential, "old", None);
    let none = |credential: &UpstreamCredential, _: usize| credential.fail("away");
    for fetch in [same, none] {
        play(Policies::default(), 1, async move |world| {
            let credential = credential(&world);
            issue(&credential, "old", None);
            fetcher(&credential, fetch);
            world.endpoints[0].does([REFUSED]);
            let answer = world.get().await;
            assert_eq!((answer.status, answer.body), (401, Some(b"0".to_vec())));
            assert_eq!(world.heard(), 1);
            world
        });
    }
}

#[test]
fn a_refused_request_waits_no_longer_than_it_has_time() {
    let hasty = policies(|policies| policies.timeouts.request = Some(SECOND / 2));
    for (policies, waited) in [(hasty, SECOND / 2), (Policies::default(), 5 * SECOND)] {
        play(policies, 1, async move |world| {
            issue(&credential(&world), "old", None);
            world.endpoints[0].does([REFUSED]);
            let before = ring::now();
            assert_eq!(world.get().await.status, 401);
            assert_eq!(ring::now() - before, waited);
            world
        });
    }
}

#[test]
fn a_refused_body_is_sent_again_where_it_is_kept() {
    for (length, status, heard) in [(64 << 10, 200, 2), (65 << 10, 401, 1)] {
        play(Policies::default(), 1, async move |world| {
            let credential = credential(&world);
            issue(&credential, "old", None);
            let fetched = fetcher(&credential, |credential, _| issue(credential, "new", None));
            world.endpoints[0].does([REFUSED]);
            let mut caller = world.caller();
            let body = vec![b'x'; length];
            caller.post("", &body).await;
            let answer = caller.answer().await.expect("an answer");
            assert_eq!((answer.status, world.heard()), (status, heard));
            let last = world.endpoints[0].heard.borrow().last().cloned();
            assert_eq!(last.and_then(|last| last.body), Some(body));
            drop(caller);
            // It is replaced in any case.
            timer::sleep(2 * SECOND).await;
            assert_eq!(fetched.get(), 1);
            world
        });
    }
}

#[test]
fn a_post_is_sent_again_after_a_refusal_and_not_after_a_reset() {
    play(Policies::default(), 1, async |world| {
        issue(&credential(&world), "t0ken", None);
        world.endpoints[0].does([Deed::Close]);
        let mut caller = world.caller();
        caller.post("", b"body").await;
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(
            (answer.status, answer.reason()),
            (502, Some("upstream-reset"))
        );
        assert_eq!(world.heard(), 1);
        world
    });
}

#[test]
fn where_tokens_may_be_borrowed_what_is_captured_gets_no_credential() {
    play(Policies::default(), 1, async |world| {
        issue(&credential(&world), "t0ken", None);
        world.context.tokens.set(Tokens::Borrowable);
        let mut captured = world.captured(ADDRESS);
        let answer = captured.get().await.expect("an answer");
        assert_eq!(
            (answer.status, answer.reason()),
            (503, Some("auth-unavailable"))
        );
        assert_eq!((world.connected(), world.heard()), (0, 0));
        // Who calls the listener is who may.
        assert_eq!(world.get().await.status, 200);
        world.context.tokens.set(Tokens::Guarded);
        let mut captured = world.captured(ADDRESS);
        assert_eq!(captured.get().await.expect("an answer").status, 200);
        assert_eq!(shown(&world), times_of(2, &["Bearer t0ken"]));
        world
    });
}

#[test]
fn all_that_are_refused_at_once_share_one_fetch() {
    play(Policies::default(), 1, async |world| {
        let credential = credential(&world);
        issue(&credential, "old", None);
        let fetched = fetcher(&credential, |credential, _| issue(credential, "new", None));
        world.endpoints[0].does(times(5, REFUSED));
        let mut callers: Vec<_> = (0..5).map(|_| world.caller()).collect();
        for caller in &callers {
            caller.ask("GET").await;
        }
        for caller in &mut callers {
            assert_eq!(caller.answer().await.expect("an answer").status, 200);
        }
        assert_eq!((world.heard(), fetched.get()), (10, 1));
        world
    });
}
