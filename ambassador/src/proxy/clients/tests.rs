use super::*;
use crate::proxy::scripted::{Caller, Deed, HOST, World, play};
use crate::ring;
use crate::ring::timer;
use crate::route::settings::Policies;
use crate::telemetry::ShedCause;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// One connection for all.
fn scarce() -> Policies {
    let mut policies = Policies::default();
    policies.pool.max_connections = Some(1);
    policies.timeouts.request = None;
    policies.timeouts.connect = 20 * SECOND;
    policies.retry.attempts = 1;
    policies
}

/// Begins a request whose body has so many bytes, and sends the first of them.
async fn begins(world: &World, length: usize) -> Caller {
    let caller = world.caller();
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: {HOST}\r\nIdempotency-Key: 1\r\nContent-Length: {length}\r\n\r\nx"
    );
    caller.send(head).await;
    caller
}

/// How long somebody waits for the connection; `None`: it does not get it.
async fn wait_of_another(world: &World) -> Option<Duration> {
    let before = ring::now();
    let mut other = world.caller();
    let answer = other.get().await.expect("an answer");
    (answer.status == 200).then(|| ring::now() - before)
}

fn shed(world: &World, cause: ShedCause) -> u64 {
    world.context.telemetry.cells.snapshot().shed(cause)
}

#[test]
fn who_withholds_its_body_gives_way_to_who_waits() {
    play(1, scarce(), 1, async |world| {
        let mut slow = begins(&world, 9).await;
        timer::sleep(MS).await;
        let waited = wait_of_another(&world).await.expect("it gets one");
        assert!(waited >= SLOW_FOR && waited < 3 * SECOND, "{waited:?}");
        let answer = slow.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.reason()), (503, Some("overloaded")));
        assert_eq!(
            (
                shed(&world, ShedCause::Share),
                shed(&world, ShedCause::Memory)
            ),
            (1, 0)
        );
        drop(slow);
        world.until_all_have_left().await;
        let lines = world.log();
        let line = lines
            .iter()
            .find(|line| line["status"] == 503)
            .expect("a line");
        assert!(line["detail"].as_str().expect("why").contains("slow"));
        world
    });
}

#[test]
fn who_does_not_read_its_response_gives_way_to_who_waits() {
    play(1, scarce(), 1, async |world| {
        world.endpoints[0].does([Deed::Large(5_000_000)]);
        let slow = world.caller();
        slow.ask("GET").await;
        timer::sleep(MS).await;
        let waited = wait_of_another(&world).await.expect("it gets one");
        assert!(waited >= SLOW_FOR && waited < 3 * SECOND, "{waited:?}");
        assert_eq!(shed(&world, ShedCause::Share), 1);
        drop(slow);
        world.until_all_have_left().await;
        let lines = world.log();
        assert!(
            lines.iter().any(|line| line["reason"] == "overloaded"),
            "{lines:?}"
        );
        world
    });
}

#[test]
fn who_waits_for_its_upstream_is_not_slow() {
    play(1, scarce(), 1, async |world| {
        world.endpoints[0].does([Deed::Silence]);
        let silent = world.caller();
        silent.ask("GET").await;
        timer::sleep(MS).await;
        assert_eq!(wait_of_another(&world).await, None);
        assert_eq!(shed(&world, ShedCause::Share), 0);
        drop(silent);
        world
    });
}

#[test]
fn who_sends_a_kilobyte_in_a_second_is_not_slow() {
    for (bytes, is_shed) in [(1_100, false), (900, true)] {
        play(1, scarce(), 1, async move |world| {
            let slow = begins(&world, 1_000_000).await;
            let other = world.caller();
            timer::sleep(MS).await;
            other.ask("GET").await;
            for _ in 0..10 {
                timer::sleep(SECOND).await;
                slow.send(vec![b'x'; bytes]).await;
            }
            assert_eq!(shed(&world, ShedCause::Share) > 0, is_shed, "{bytes}");
            drop((slow, other));
            world
        });
    }
}

#[test]
fn the_worst_goes_first_and_one_at_a_time() {
    let mut two = scarce();
    two.pool.max_connections = Some(2);
    play(1, two, 1, async |world| {
        let first = begins(&world, 9).await;
        timer::sleep(MS).await;
        let second = begins(&world, 9).await;
        timer::sleep(MS).await;
        wait_of_another(&world).await.expect("it gets one");
        assert_eq!(shed(&world, ShedCause::Share), 1);
        let now = ring::now();
        assert!(
            !world
                .context
                .clients
                .make_room(world.shared.id + 1, now + SECOND),
            "of another upstream"
        );
        drop((first, second));
        world
    });
}

#[test]
fn what_is_kept_for_clients_is_their_load() {
    play(1, Policies::default(), 1, async |world| {
        let clients = &world.context.clients;
        let before = clients.load(ring::now());
        let mut slow = begins(&world, 60_000).await;
        slow.send(vec![b'x'; 30_000]).await;
        timer::sleep(SECOND).await;
        let load = clients.load(ring::now());
        let grown = load.here - before.here;
        assert!((30_000..40_000).contains(&grown), "{load:?}");
        timer::sleep(SECOND).await;
        // It is seen a second later that it does not move.
        let load = clients.load(ring::now());
        assert!(load.still >= 30_000, "{load:?}");
        slow.send(vec![b'x'; 29_999]).await;
        assert_eq!(slow.answer().await.expect("an answer").status, 200);
        timer::sleep(2 * SECOND).await;
        let load = clients.load(ring::now());
        assert!(
            load.here < before.here + 5_000 && load.still == 0,
            "{load:?}"
        );
        drop(slow);
        world
    });
}

#[test]
fn what_is_shed_takes_nothing_off_the_load_of_others() {
    play(1, Policies::default(), 1, async |world| {
        let before = world.context.clients.load(ring::now());
        let slow = [begins(&world, 60_000).await, begins(&world, 60_000).await];
        for slow in &slow {
            slow.send(vec![b'x'; 30_000]).await;
        }
        timer::sleep(SECOND).await;
        world.context.clients.load(ring::now());
        timer::sleep(SECOND).await;
        assert_eq!(frees(&world, 0, 1).0, 1);
        // It has not left yet.
        let load = world.context.clients.load(ring::now());
        assert!(load.here - before.here >= 30_000, "{load:?}");
        drop(slow);
        world
    });
}

/// What of an excess is freed: how many clients and bytes go.
fn frees(world: &World, over: u64, free: u64) -> (usize, u64) {
    let shed = world
        .context
        .clients
        .shed_for_memory(Excess { over, free }, ring::now());
    assert!(shed.here <= shed.bytes);
    (shed.clients, shed.bytes)
}

#[test]
fn who_keeps_the_most_without_moving_goes_first() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].does([Deed::Silence]);
        let mut waits = world.caller();
        waits.post("Idempotency-Key: 1\r\n", &[b'x'; 20_000]).await;
        timer::sleep(MS).await;
        let mut small = begins(&world, 60_000).await;
        small.send(vec![b'x'; 10_000]).await;
        let mut large = begins(&world, 60_000).await;
        large.send(vec![b'x'; 30_000]).await;
        let idle = world.caller();
        for _ in 0..3 {
            timer::sleep(SECOND).await;
            world.context.clients.load(ring::now());
        }
        assert_eq!(frees(&world, 0, 0), (0, 0));
        // Of those that withhold, the larger one; then the smaller.
        let (clients, bytes) = frees(&world, 0, 1);
        assert!(clients == 1 && bytes >= 30_000, "{clients} {bytes}");
        let answer = large.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.reason()), (503, Some("overloaded")));
        let (clients, bytes) = frees(&world, 0, 1);
        assert!(
            clients == 1 && (10_000..20_000).contains(&bytes),
            "{clients} {bytes}"
        );
        assert_eq!(small.answer().await.expect("an answer").status, 503);
        // Then who waits for its upstream.
        let (clients, bytes) = frees(&world, 0, 1 << 30);
        assert!(clients == 1 && bytes >= 20_000, "{clients} {bytes}");
        assert_eq!(waits.answer().await.expect("an answer").status, 503);
        assert_eq!(frees(&world, 1 << 30, 1 << 30), (0, 0));
        drop(idle);
        world
    });
}

#[test]
fn who_moves_goes_where_the_limit_is_exceeded() {
    play(1, Policies::default(), 1, async |world| {
        let mut caller = begins(&world, 60_000).await;
        caller.send(vec![b'x'; 30_000]).await;
        timer::sleep(MS).await;
        assert_eq!(frees(&world, 0, 1 << 30), (0, 0));
        assert_eq!(frees(&world, 1, 1).0, 1);
        assert_eq!(caller.answer().await.expect("an answer").status, 503);
        world
    });
}

#[test]
fn a_part_of_a_head_is_worth_to_be_given_up() {
    play(1, Policies::default(), 1, async |world| {
        let mut caller = world.caller();
        caller.send("GET / HTTP/1.1\r\nHost: up.test\r\nX: ").await;
        timer::sleep(MS).await;
        let (clients, bytes) = frees(&world, 0, 1);
        assert!(clients == 1 && bytes >= 30, "{clients} {bytes}");
        let answer = caller.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.reason()), (503, Some("overloaded")));
        drop(caller);
        world.until_all_have_left().await;
        assert!(
            world.log()[0]["detail"]
                .as_str()
                .expect("why")
                .contains("memory_limit")
        );
        world
    });
}

#[test]
fn a_response_that_is_not_read_is_held_by_its_client() {
    play(1, Policies::default(), 1, async |world| {
        world.endpoints[0].does([Deed::Large(3_000_000)]);
        let caller = world.caller();
        caller.ask("GET").await;
        for _ in 0..3 {
            timer::sleep(SECOND).await;
            world.context.clients.load(ring::now());
        }
        let (clients, bytes) = frees(&world, 0, 1);
        assert!(clients == 1 && bytes > 4_000, "{clients} {bytes}");
        drop(caller);
        world.until_all_have_left().await;
        assert_eq!(world.log()[0]["reason"], "overloaded");
        world
    });
}
