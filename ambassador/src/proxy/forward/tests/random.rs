//! Any callers, any endpoints, any order of events: what always holds.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;

use super::policies;
use crate::policy::breaker::Trip;
use crate::policy::hedge;
use crate::proxy::scripted::{Connect, Deed, HOST, World, play};
use crate::ring::{self, timer};
use crate::route::settings::Policies;

/// What one caller does.
#[derive(Debug, Clone)]
struct Script {
    begins_after: Duration,
    requests: Vec<Request>,
    /// `None`: it waits for every answer.
    leaves_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Get,
    Post,
    PostWithKey,
}

/// What happened over all.
#[derive(Default)]
struct Seen {
    left: Cell<bool>,
    sent: Cell<u64>,
    received: Cell<u64>,
    /// Heads that were sent, by the id of their request.
    asked: RefCell<HashMap<String, Request>>,
}

fn milliseconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn deed() -> impl Strategy<Value = Deed> {
    let simple = prop_oneof![
        6 => Just(Deed::Answer(200)),
        2 => Just(Deed::Answer(503)),
        1 => Just(Deed::Answer(429)),
        1 => Just(Deed::Early(200)),
        1 => Just(Deed::Early(503)),
        2 => Just(Deed::Close),
        1 => Just(Deed::Cut),
        1 => Just(Deed::Silence),
        1 => Just(Deed::Write("HTTP/1.1 nonsense\r\n\r\n")),
        1 => Just(Deed::Write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")),
        1 => Just(Deed::Write("HTTP/1.1 204 No\r\n\r\nsurplus")),
    ];
    simple.prop_flat_map(|deed| {
        let boxed = Box::new(deed.clone());
        prop_oneof![
            4 => Just(deed),
            1 => Just(Deed::Interim(boxed.clone())),
            2 => milliseconds(0..3_000)
                .prop_map(move |time| Deed::After(time, boxed.clone())),
        ]
    })
}

fn connect() -> impl Strategy<Value = Connect> {
    prop_oneof![
        8 => Just(Connect::Accept),
        2 => Just(Connect::Refuse),
        1 => Just(Connect::Hang),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let request = prop_oneof![
        Just(Request::Get),
        Just(Request::Post),
        Just(Request::PostWithKey),
    ];
    let requests = prop::collection::vec(request, 1..5);
    let leaves_after = prop::option::weighted(0.2, milliseconds(0..4_000));
    (milliseconds(0..2_000), requests, leaves_after).prop_map(
        |(begins_after, requests, leaves_after)| Script {
            begins_after,
            requests,
            leaves_after,
        },
    )
}

fn any_policies() -> impl Strategy<Value = Policies> {
    let limits = (
        1_u16..5,
        prop::option::of(milliseconds(100..3_000)),
        prop::option::of(milliseconds(50..1_000)),
    );
    let hedge = prop::option::of(milliseconds(10..500));
    let breaker = prop::option::of(1_u32..6);
    let pool = (1_u32..4, 0_u32..4);
    (limits, hedge, breaker, pool, any::<bool>()).prop_map(
        |((attempts, request, per_try), hedge, breaker, (connections, pending), elsewhere)| {
            policies(|policies| {
                policies.retry.attempts = attempts;
                policies.retry.elsewhere = elsewhere;
                policies.timeouts.request = request;
                policies.timeouts.per_try = per_try;
                policies.timeouts.idle = Duration::from_secs(20);
                policies.pool.max_connections = Some(connections);
                policies.pool.max_pending = pending;
                if let Some(after) = hedge {
                    policies.hedge.after = hedge::HedgeDelay::Time(after);
                    policies.hedge.budget = 1.0;
                }
                if let Some(failures) = breaker {
                    policies.circuit_breaker.trip = Trip::Consecutive(failures);
                }
            })
        },
    )
}

/// Has one caller follow its script.
async fn follow(world: Rc<World>, script: Script, number: usize, seen: Rc<Seen>) {
    timer::sleep(script.begins_after).await;
    let leaves = script.leaves_after.map(|after| ring::now() + after);
    let ask = async {
        let mut caller = world.caller();
        for (turn, request) in script.requests.iter().enumerate() {
            let id = format!("{number}.{turn}");
            let (method, key, body) = match request {
                Request::Get => ("GET", "", ""),
                Request::Post => ("POST", "", "body"),
                Request::PostWithKey => ("POST", "Idempotency-Key: 1\r\n", "body"),
            };
            let length = body.len();
            let message = format!(
                "{method} / HTTP/1.1\r\nHost: {HOST}\r\nX-Id: {id}\r\n{key}\
                 Content-Length: {length}\r\n\r\n{body}"
            );
            let bytes = message.len() as u64;
            seen.asked.borrow_mut().insert(id, *request);
            if !caller.send(message).await {
                break;
            }
            seen.sent.set(seen.sent.get() + bytes);
            let answer = loop {
                match caller.answer().await {
                    Some(interim) if interim.status < 200 => {}
                    answer => break answer,
                }
            };
            let closes = |name, value| {
                let answer = answer.as_ref();
                answer.is_none_or(|answer| answer.field(name) == Some(value))
            };
            if closes("connection", "close") || answer.is_none_or(|answer| answer.body.is_none()) {
                break;
            }
        }
        seen.received.set(seen.received.get() + caller.received());
    };
    match leaves {
        None => ask.await,
        Some(until) => {
            if timer::timeout_at(until, ask).await.is_err() {
                seen.left.set(true);
            }
        }
    }
}

/// What holds at the end, whatever has happened.
fn check(world: &World, seen: &Seen, attempts: u16) {
    let mut heard: HashMap<String, usize> = HashMap::new();
    for endpoint in &world.endpoints {
        for request in endpoint.heard.borrow().iter() {
            let id = request.fields.iter().find(|(name, _)| name == "X-Id");
            *heard.entry(id.expect("it has one").1.clone()).or_default() += 1;
        }
    }
    let asked = seen.asked.borrow();
    for (id, times) in heard {
        match asked[&id] {
            Request::Post => assert_eq!(times, 1, "{id} was sent again"),
            // A connection that had died is replaced within its try.
            Request::Get | Request::PostWithKey => {
                assert!(
                    times <= 2 * usize::from(attempts) + 1,
                    "{id}: {times} times"
                );
            }
        }
    }
    let counted = world.counted();
    let total = |counts: &[(&str, u64)]| counts.iter().map(|(_, count)| count).sum::<u64>();
    let requests: u64 = counted.requests.iter().map(|(_, count)| count).sum();
    let (tries, retries) = (total(&counted.attempts), total(&counted.retries));
    assert!(requests <= asked.len() as u64, "{counted:?}");
    assert!(
        retries <= tries && tries <= requests + retries,
        "{counted:?}"
    );
    if !seen.left.get() {
        assert_eq!(requests, asked.len() as u64, "{counted:?}");
        assert_eq!(counted.bytes, [seen.sent.get(), seen.received.get()]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_is_lost_and_nothing_is_done_twice(
        seed: u64,
        policies in any_policies(),
        connects in prop::collection::vec(prop::collection::vec(connect(), 0..6), 1..4),
        deeds in prop::collection::vec(prop::collection::vec(deed(), 0..8), 4),
        scripts in prop::collection::vec(script(), 1..6),
    ) {
        let attempts = policies.retry.attempts;
        play(seed, policies, connects.len(), async move |world| {
            for (endpoint, (connects, deeds)) in
                world.endpoints.iter().zip(connects.into_iter().zip(deeds))
            {
                endpoint.meets(connects);
                endpoint.does(deeds);
            }
            let (world, seen) = (Rc::new(world), Rc::new(Seen::default()));
            let done = Rc::new(Cell::new(0));
            let callers = scripts.len();
            for (number, script) in scripts.into_iter().enumerate() {
                let follow = follow(Rc::clone(&world), script, number, Rc::clone(&seen));
                let done = Rc::clone(&done);
                ring::spawn(async move {
                    follow.await;
                    done.set(done.get() + 1);
                });
            }
            while done.get() < callers || world.context.connections.get() > 0 {
                timer::sleep(Duration::from_secs(1)).await;
            }
            check(&world, &seen, attempts);
            Rc::into_inner(world).expect("the callers have ended")
        });
    }
}
