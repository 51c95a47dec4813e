use std::time::Duration;

use super::*;
use crate::policy::breaker::Force;

struct World {
    adopted: Adopted,
    policies: Policies,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let policies = Policies::default();
        let adopted = Adopted::new(&policies);
        Self {
            now: adopted.started,
            adopted,
            policies,
        }
    }

    fn version(&self, number: u64) -> Version<'_> {
        Version {
            number,
            policies: &self.policies,
        }
    }

    /// Adopts an address, a millisecond after the last one.
    fn adopt(&mut self, cache: &mut Cache, port: u16) -> Adoption {
        self.now += Duration::from_millis(1);
        let version = self.version(1);
        let target = cache.adopt(&self.adopted, version, address(port), self.now);
        target.expect("one may leave")
    }

    fn knows(&self, port: u16) -> bool {
        let name = format!("10.0.0.1:{port}");
        self.adopted.entries().contains_key(&name)
    }
}

fn address(port: u16) -> AdoptKey<'static> {
    AdoptKey::Address(OriginalDst(([10, 0, 0, 1], port).into()))
}

const MAX: u16 = ADOPTED_MAX as u16;

#[test]
fn a_key_means_one_upstream_on_all_shards() {
    let mut world = World::new();
    let (mut one, mut other) = (Cache::default(), Cache::default());
    let first = world.adopt(&mut one, 1);
    let again = world.adopt(&mut one, 1);
    let elsewhere = world.adopt(&mut other, 1);
    assert!(Arc::ptr_eq(&first.upstream, &again.upstream));
    assert_eq!(first.shared.id, elsewhere.shared.id);
    assert_ne!(first.shared.id, world.adopt(&mut one, 2).shared.id);
    assert_eq!(&*first.upstream.name, "10.0.0.1:1");
}

#[test]
fn what_the_cache_knows_needs_no_lock() {
    let mut world = World::new();
    let mut cache = Cache::default();
    let authority = Authority::new("api.test", None).unwrap();
    let key = AdoptKey::Authority(&authority);
    world.adopt(&mut cache, 1);
    cache.adopt(&world.adopted, world.version(1), key, world.now);
    // Whoever locks now waits for ever.
    let _locked = world.adopted.entries();
    for key in [address(1), key] {
        cache.adopt(&world.adopted, world.version(1), key, world.now);
        assert!(cache.take_evicted(&world.adopted).is_empty());
    }
}

#[test]
fn the_least_recently_used_one_leaves_at_the_limit() {
    let mut world = World::new();
    let mut cache = Cache::default();
    for port in 1..=MAX {
        world.adopt(&mut cache, port);
    }
    assert!(cache.take_evicted(&world.adopted).is_empty());
    // The oldest is used again, from the cache.
    let first = world.adopt(&mut cache, 1).shared.id;
    let second = world.adopt(&mut cache, 2).shared.id;
    let third = world.adopt(&mut cache, 3).shared.id;
    let fourth = cache.by_address[&OriginalDst(([10, 0, 0, 1], 4).into())]
        .entry
        .shared
        .id;
    world.adopt(&mut cache, MAX + 1);
    assert_eq!(cache.take_evicted(&world.adopted), [fourth]);
    assert!(cache.take_evicted(&world.adopted).is_empty());
    assert!(!world.knows(4) && world.knows(1) && world.knows(MAX + 1));
    assert_eq!(world.adopted.entries().len(), ADOPTED_MAX);
    assert_eq!(cache.by_address.len(), ADOPTED_MAX);
    assert_eq!(world.adopt(&mut cache, 1).shared.id, first);
    assert!(first < second && second < third);
}

#[test]
fn what_is_held_stays() {
    let mut world = World::new();
    let mut cache = Cache::default();
    let oldest = world.adopt(&mut cache, 1);
    let copy = oldest.clone();
    drop(oldest);
    for port in 2..=MAX + 1 {
        world.adopt(&mut cache, port);
    }
    assert!(world.knows(1) && !world.knows(2));
    drop(copy);
    world.adopt(&mut cache, MAX + 2);
    assert!(!world.knows(1));
}

#[test]
fn there_are_never_more_than_the_limit() {
    let mut world = World::new();
    let mut cache = Cache::default();
    let mut held: Vec<_> = (1..=MAX)
        .map(|port| world.adopt(&mut cache, port))
        .collect();
    let more = |world: &World, cache: &mut Cache| {
        let key = address(MAX + 1);
        cache.adopt(&world.adopted, world.version(1), key, world.now)
    };
    // All are in use.
    assert!(more(&world, &mut cache).is_none());
    assert!(!world.knows(MAX + 1));
    // One that its breaker leaves alone stays, in use or not.
    let failed = held.pop().unwrap();
    failed.shared.health.breaker.force(Force::Open);
    drop(failed);
    assert!(more(&world, &mut cache).is_none());
    held.pop();
    assert!(more(&world, &mut cache).is_some());
    assert_eq!(world.adopted.entries().len(), ADOPTED_MAX);
}

#[test]
fn an_evicted_one_is_made_anew_and_forgotten_by_every_shard() {
    let mut world = World::new();
    let (mut one, mut other) = (Cache::default(), Cache::default());
    let evicted = world.adopt(&mut one, 1).shared.id;
    let next = world.adopt(&mut other, 2).shared.id;
    for port in 3..=MAX + 1 {
        world.adopt(&mut other, port);
    }
    assert!(other.take_evicted(&world.adopted).is_empty());
    // The first shard still had it in its cache.
    assert_ne!(world.adopt(&mut one, 1).shared.id, evicted);
    assert_eq!(one.take_evicted(&world.adopted), [evicted]);
    assert_eq!(other.take_evicted(&world.adopted), [next]);
}

#[test]
fn a_new_version_brings_its_policies_and_keeps_the_connections() {
    let mut world = World::new();
    let mut cache = Cache::default();
    let before = world.adopt(&mut cache, 1);
    world.policies.timeouts.idle = Duration::from_secs(7);
    let after = cache.adopt(&world.adopted, world.version(2), address(1), world.now);
    let after = after.unwrap();
    assert_eq!(
        after.upstream.policies.timeouts.idle,
        Duration::from_secs(7)
    );
    assert_ne!(
        before.upstream.policies.timeouts.idle,
        Duration::from_secs(7)
    );
    assert_eq!(before.shared.id, after.shared.id);
}

#[test]
fn requests_are_shown() {
    let mut world = World::new();
    let mut cache = Cache::default();
    for _ in 0..3 {
        world.adopt(&mut cache, 1).hold.count_use();
    }
    let view = world.adopted.view();
    assert_eq!((&*view[0].name, view[0].requests), ("10.0.0.1:1", 3));
}
