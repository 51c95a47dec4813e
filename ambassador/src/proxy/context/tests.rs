use super::*;
use crate::policy::breaker::Trip;
use crate::proxy::listener::Entry;
use crate::proxy::scripted::{Deed, World, play};
use crate::ring::timer;
use crate::route::settings::{Policies, Settings};
use crate::telemetry::Registry;

const SECOND: Duration = Duration::from_secs(1);

fn settings(registry: &Registry, name: &str, max: Option<u32>) -> ListenerSettings {
    ListenerSettings {
        tls: None,
        index: registry.listener(name),
        entry: Entry::Http,
        max_connections: max,
    }
}

#[test]
fn a_drain_has_served_when_nobody_is_left() {
    play(1, Policies::default(), 1, async |world| {
        let context = &world.context;
        let caller = world.caller();
        context.listener_opened();
        timer::sleep(SECOND).await;
        let (now, grace) = (ring::now(), SECOND);
        context.begin_drain(now + 60 * SECOND, grace);
        context.begin_drain(now + 90 * SECOND, grace);
        assert_eq!(
            (context.drain_deadline(), context.drain_grace()),
            (now + 60 * SECOND, grace)
        );
        drop(caller);
        world.until_all_have_left().await;
        assert!(!context.served.has_begun(), "a listener accepts");
        context.listener_closed();
        assert!(context.served.has_begun());
        world
    });
    play(1, Policies::default(), 1, async |world| {
        let caller = world.caller();
        timer::sleep(SECOND).await;
        world.context.begin_drain(ring::now(), SECOND);
        assert!(world.context.served.has_begun(), "its time is over");
        drop(caller);
        world
    });
}

#[test]
fn listeners_change_and_stop_by_their_number() {
    play(1, Policies::default(), 1, async |world| {
        let (context, registry, here) = (&world.context, Registry::default(), Namespace::default());
        let a = settings(&registry, "a", Some(1));
        let b = settings(&registry, "b", None);
        let first = context.add_listener(a.clone(), Room::new(a.max_connections), here);
        let second = context.add_listener(b.clone(), Room::new(b.max_connections), here);
        // They swap their names.
        context.change_listeners(vec![(a.index, b.clone()), (b.index, a.clone())]);
        assert_eq!((first.settings().index, first.room.max()), (b.index, None));
        assert_eq!(
            (second.settings().index, second.room.max()),
            (a.index, Some(1))
        );
        context.stop_listener(b.index, here);
        assert!(first.stop.has_begun() && !second.stop.has_begun());
        world
    });
}

#[test]
fn gauges_show_pools_and_breakers_as_they_are() {
    let mut touchy = Policies::default();
    touchy.circuit_breaker.trip = Trip::Consecutive(1);
    touchy.concurrency.adaptive = true;
    play(1, touchy, 1, async |world| {
        let gauges = |world: &World| {
            let snapshot = world.context.snapshot();
            let cells = snapshot.upstream(world.shared.label).expect("it was asked");
            let (pool, breaker) = (cells.pool(), cells.breaker());
            (
                (pool.open, pool.idle, pool.pending),
                (breaker.state, breaker.opened),
                cells.concurrency_limit(),
            )
        };
        world.endpoints[0].does([Deed::After(SECOND, Box::new(Deed::Answer(200)))]);
        let mut caller = world.caller();
        caller.ask("GET").await;
        timer::sleep(SECOND / 2).await;
        let limit = world.shared.health.concurrency.limit(
            &world
                .context
                .generation()
                .target(0)
                .upstream
                .policies
                .concurrency,
        );
        assert!(limit.is_some());
        for _ in 0..2 {
            assert_eq!(gauges(&world), ((1, 0, 0), (0, 0), limit));
        }
        caller.answer().await.expect("an answer");
        assert_eq!(gauges(&world).0, (1, 1, 0));
        world.endpoints[0].does([Deed::Write("nonsense\r\n\r\n")]);
        caller.get().await.expect("an answer");
        let (_, (state, opened), _) = gauges(&world);
        assert_eq!((state > 0, opened), (true, 1));
        drop(caller);
        world
    });
}

#[test]
fn what_is_gone_from_the_configuration_leaves_with_its_connections() {
    play(1, Policies::default(), 1, async |world| {
        world.get().await;
        world.until_all_have_left().await;
        assert_eq!(world.shared.idle(), 1);
        let context = &world.context;
        let empty = Generation::new(
            Settings::default(),
            &Registry::default(),
            Some(&context.generation()),
        );
        context.set_generation(Arc::new(empty));
        assert_eq!(world.shared.idle(), 0);
        assert!(Context::current().is_some_and(|current| Rc::ptr_eq(&current, context)));
        world
    });
}

#[test]
fn memory_that_connections_do_not_hold_is_full_without_anybody_to_go() {
    play(1, Policies::default(), 1, async |world| {
        let memory = &world.context.memory;
        memory.set_limit(Some(1 << 20));
        world.context.look_at_memory();
        assert!(memory.is_full(), "it is not of connections");
        memory.set_limit(Some(1 << 50));
        world.context.look_at_memory();
        assert!(!memory.is_full());
        world
    });
}

#[test]
fn memory_that_connections_hold_is_freed_by_ending_them() {
    play(1, Policies::default(), 1, async |world| {
        let mut slow = world.caller();
        let head = "PUT / HTTP/1.1\r\nHost: up.test\r\nIdempotency-Key: 1\r\nContent-Length: 60000\r\n\r\n";
        slow.send(head).await;
        slow.send(vec![b'x'; 50_000]).await;
        for _ in 0..3 {
            timer::sleep(SECOND).await;
            world.context.clients.load(ring::now());
        }
        // So small that what it holds is a part of it that matters.
        world.context.memory.set_limit(Some(256 << 10));
        world.context.look_at_memory();
        assert_eq!(
            world
                .context
                .telemetry
                .cells
                .snapshot()
                .shed(ShedCause::Memory),
            1
        );
        world.context.memory.set_limit(None);
        assert_eq!(slow.answer().await.expect("an answer").status, 503);
        world
    });
}
