//! Requests with placeholders: what the upstream gets, and what becomes of those for
//! which there is no secret.

use std::sync::Arc;

use super::{SECOND, policies};
use crate::credential::settings::Auth;
use crate::credential::{Credential, Material, Secret};
use crate::proxy::scripted::{Deed, Plan, World, play_in};
use crate::ring;
use crate::route::settings::{Policies, Protocol};
use crate::upstream::credential::UpstreamCredential;

fn placeholder(name: &str) -> Arc<Auth> {
    Arc::new(Auth::Placeholder {
        name: name.into(),
        value: format!("/{name}").into(),
    })
}

/// An upstream with `stripe` and `stripe-test`.
fn play<F: Future<Output = World> + 'static>(
    policies: Policies,
    auth: Option<Auth>,
    scenario: impl FnOnce(World) -> F + 'static,
) {
    let plan = Plan {
        endpoints: 1,
        policies,
        protocol: Protocol::Http1,
        auth,
        placeholders: vec![placeholder("stripe"), placeholder("stripe-test")],
        ..Plan::default()
    };
    play_in(1, plan, scenario);
}

fn secret_of(world: &World, name: &str) -> Arc<UpstreamCredential> {
    let target = world.context.generation().target(0);
    let placeholders = target.placeholders().expect("the upstream has some");
    Arc::clone(placeholders.find(name.as_bytes()).expect("it has this one"))
}

/// As the control side does it.
fn issue(credential: &UpstreamCredential, secret: &str) {
    let secret = Material::Secret(Secret::from(secret.as_bytes().to_vec()));
    let made = Credential::made_of(&credential.auth, secret).expect("it can be sent");
    credential.issue(made, None);
}

/// The values of a field that the endpoint was shown, in order.
fn shown(world: &World, name: &str) -> Vec<String> {
    let heard = world.endpoints[0].heard.borrow();
    let fields = heard.iter().flat_map(|heard| &heard.fields);
    let named = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.clone()).collect()
}

const BEARER: &str =
    "GET / HTTP/1.1\r\nHost: up.test\r\nAuthorization: Bearer amb-placeholder-stripe\r\n\r\n";

#[test]
fn secrets_stand_in_for_placeholders() {
    play(Policies::default(), None, async |world| {
        issue(&secret_of(&world, "stripe"), "sk-1");
        issue(&secret_of(&world, "stripe-test"), "sk-2");
        let mut caller = world.caller();
        // `u:amb-placeholder-stripe`, and `amb-placeholder-other`, which is none here.
        let head = "GET /?key=amb-placeholder-stripe HTTP/1.1\r\nHost: up.test\r\n\
                    Authorization: Basic dTphbWItcGxhY2Vob2xkZXItc3RyaXBl\r\n\
                    X-Key: amb-placeholder-stripe-test, amb-placeholder-stripe\r\n\
                    x-request-id: amb-placeholder-stripe\r\n\
                    X-Other: amb-placeholder-other\r\n\r\n";
        caller.send(head).await;
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        // `u:sk-1`
        assert_eq!(shown(&world, "authorization"), ["Basic dTpzay0x"]);
        assert_eq!(shown(&world, "x-key"), ["sk-2, sk-1"]);
        assert_eq!(shown(&world, "x-request-id"), ["amb-placeholder-stripe"]);
        assert_eq!(shown(&world, "x-other"), ["amb-placeholder-other"]);
        world
    });
}

#[test]
fn header_rules_may_hold_placeholders() {
    let ruled = policies(|policies| {
        let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        policies.headers.set = vec![of("x-key", "token amb-placeholder-stripe")];
        policies.headers.remove = vec!["x-removed".to_owned()];
    });
    play(ruled, None, async |world| {
        issue(&secret_of(&world, "stripe"), "sk-1");
        let mut caller = world.caller();
        // There is no secret for the other one, and none is needed.
        let head = "GET / HTTP/1.1\r\nHost: up.test\r\nx-key: amb-placeholder-stripe-test\r\n\
                    x-removed: amb-placeholder-stripe-test\r\n\r\n";
        caller.send(head).await;
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        assert_eq!(shown(&world, "x-key"), ["token sk-1"]);
        assert!(shown(&world, "x-removed").is_empty());
        world
    });
}

#[test]
fn the_credential_of_the_upstream_stays_as_it_is() {
    let auth = Auth::Header {
        name: "x-key".into(),
        value: "/k".into(),
    };
    play(Policies::default(), Some(auth), async |world| {
        let target = world.context.generation().target(0);
        issue(&secret_of(&world, "stripe"), "sk-1");
        issue(
            target.credential().expect("it has auth"),
            "amb-placeholder-stripe",
        );
        let mut caller = world.caller();
        let head = "GET / HTTP/1.1\r\nHost: up.test\r\nx-key: amb-placeholder-stripe-test\r\n\
                    x-more: amb-placeholder-stripe\r\n\r\n";
        caller.send(head).await;
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        assert_eq!(shown(&world, "x-key"), ["amb-placeholder-stripe"]);
        assert_eq!(shown(&world, "x-more"), ["sk-1"]);
        world
    });
}

#[test]
fn a_placeholder_without_a_secret_goes_nowhere() {
    play(Policies::default(), None, async |world| {
        issue(&secret_of(&world, "stripe-test"), "sk-2");
        secret_of(&world, "stripe").fail("there is no such file");
        let mut caller = world.caller();
        caller.send(BEARER).await;
        let answer = caller.answer().await.expect("an answer");
        assert_eq!(
            (answer.status, answer.reason()),
            (503, Some("auth-unavailable"))
        );
        assert_eq!(world.endpoints[0].heard.borrow().len(), 0);
        // Requests that do not need it go on.
        let head = "GET / HTTP/1.1\r\nHost: up.test\r\nx-key: amb-placeholder-stripe-test\r\n\r\n";
        caller.send(head).await;
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        caller.send("GET / HTTP/1.1\r\nHost: up.test\r\n\r\n").await;
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        assert_eq!(shown(&world, "x-key"), ["sk-2"]);
        world
    });
}

#[test]
fn each_try_carries_the_secret_of_its_time() {
    let again = policies(|policies| policies.retry.base = SECOND);
    play(again, None, async |world| {
        let secret = secret_of(&world, "stripe");
        issue(&secret, "sk-1");
        world.endpoints[0].does([Deed::Answer(503), Deed::Answer(200)]);
        let mut caller = world.caller();
        caller.send(BEARER).await;
        while world.endpoints[0].heard.borrow().is_empty() {
            ring::timer::sleep(SECOND / 1_000).await;
        }
        issue(&secret, "sk-2");
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        assert_eq!(
            shown(&world, "authorization"),
            ["Bearer sk-1", "Bearer sk-2"]
        );
        world
    });
}

#[test]
fn a_refused_secret_is_read_again_and_the_request_sent_once_more() {
    play(Policies::default(), None, async |world| {
        let secret = secret_of(&world, "stripe");
        issue(&secret, "sk-1");
        world.endpoints[0].does([Deed::Answer(401), Deed::Answer(200), Deed::Answer(401)]);
        let reader = Arc::clone(&secret);
        ring::spawn(async move {
            reader.refused().await;
            issue(&reader, "sk-2");
        });
        let mut caller = world.caller();
        caller.send(BEARER).await;
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        assert_eq!(
            shown(&world, "authorization"),
            ["Bearer sk-1", "Bearer sk-2"]
        );
        // A 401 to a request without a secret is the program's.
        caller.send("GET / HTTP/1.1\r\nHost: up.test\r\n\r\n").await;
        assert_eq!(caller.answer().await.expect("an answer").status, 401);
        assert_eq!(world.endpoints[0].heard.borrow().len(), 3);
        world
    });
}

#[test]
fn a_head_has_a_limited_number_of_placeholders() {
    play(Policies::default(), None, async |world| {
        issue(&secret_of(&world, "stripe"), &"x".repeat(8 << 10));
        let of = |count: usize| {
            let field = "x-key: amb-placeholder-stripe\r\n".repeat(count);
            format!("GET / HTTP/1.1\r\nHost: up.test\r\n{field}\r\n")
        };
        let mut caller = world.caller();
        caller.send(of(16)).await;
        assert_eq!(caller.answer().await.expect("an answer").status, 200);
        caller.send(of(17)).await;
        assert_eq!(caller.answer().await.expect("an answer").status, 431);
        world
    });
}
