//! Which connections are kept, and which of them are used again.

use super::*;

#[test]
fn the_newest_is_used_first_and_one_that_is_not_complete_closes() {
    on_a_shard(of(9), |shard| async move {
        let ids = shard.idle(1, 2).await;
        assert_eq!(shard.counts(), (2, 2));
        for id in ids.iter().rev() {
            let lease = shard.lease(1).await;
            assert_eq!((lease.stream.id(), lease.past), (*id, ConnectionUse::Used));
            std::mem::forget(lease);
        }
        assert_eq!((shard.counts(), shard.dials()), ((2, 0), 2));
        drop(shard.lease(1).await);
        assert_eq!(shard.counts(), (2, 0), "something may be on its way");
    });
}

#[test]
fn another_endpoint_is_another_connection() {
    on_a_shard(of(9), |shard| async move {
        shard.idle(1, 1).await;
        let other = shard.lease(2).await;
        assert_eq!(other.endpoint(), endpoint(2));
        assert_eq!((shard.counts(), shard.dials()), ((2, 1), 2));
    });
}

#[test]
fn who_wants_a_new_one_leaves_the_idle_ones() {
    on_a_shard(of(9), |shard| async move {
        shard.idle(1, 1).await;
        let new = shard.checkout(1, Freshness::New).await.unwrap();
        assert_eq!(new.past, ConnectionUse::Dialled);
        assert_eq!((shard.counts(), shard.dials()), ((2, 1), 2));
    });
}

#[test]
fn one_is_kept_only_where_nothing_speaks_against_it() {
    type Act = fn(&Shard);
    let none = limits::Pool {
        max_idle: 0,
        ..of(9)
    };
    let cases: [(&str, Act, Duration, u32); 9] = [
        ("nothing", |_| (), MS, 1),
        ("it is young", |_| (), 500 * SECOND, 1),
        ("it is old", |_| (), 600 * SECOND, 0),
        ("the endpoint has closed it", |shard| shard.close(0), MS, 0),
        (
            "a byte that nobody asked for",
            |shard| {
                let mut peers = shard.peers.borrow_mut();
                peers[0].as_mut().unwrap().write_all(b"!").unwrap();
            },
            MS,
            0,
        ),
        ("the shard drains", |shard| shard.pools.close_idle(), MS, 0),
        (
            "the upstream left the configuration",
            |shard| shard.shared.retire(),
            MS,
            0,
        ),
        (
            "the upstream is forgotten",
            |shard| shard.pools.forget(shard.shared.id),
            MS,
            0,
        ),
        (
            "the cap was lowered",
            |shard| shard.shared.permits.set_cap(Some(0)),
            MS,
            0,
        ),
    ];
    for (what, act, passes, kept) in cases {
        on_a_shard(of(9), move |shard| async move {
            let lease = shard.lease(1).await;
            act(&shard);
            timer::sleep(passes).await;
            give_back(lease);
            assert_eq!(shard.counts(), (kept, kept), "{what}");
        });
    }
    on_a_shard(none, |shard| async move {
        shard.idle(1, 1).await;
        assert_eq!(shard.counts(), (0, 0), "none may be idle");
    });
}

#[test]
fn no_more_are_kept_than_may_be() {
    let limits = limits::Pool {
        max_idle: 2,
        ..of(9)
    };
    on_a_shard(limits, |shard| async move {
        let ids = shard.idle(1, 3).await;
        assert_eq!(shard.counts(), (3, 3), "it may be used again at once");
        timer::sleep(2 * SECOND).await;
        assert_eq!(shard.counts(), (2, 2), "the oldest closes");
        let newest = shard.lease(1).await;
        assert_eq!(newest.stream.id(), ids[2]);
    });
}

#[test]
fn who_uses_many_at_once_again_and_again_finds_them() {
    let limits = limits::Pool {
        max_idle: 2,
        ..of(9)
    };
    on_a_shard(limits, |shard| async move {
        for _ in 0..20 {
            shard.idle(1, 6).await;
            timer::sleep(300 * MS).await;
        }
        assert_eq!(shard.dials(), 6, "none was dialled anew");
        // Fewer are used: the surplus goes, whatever the others do.
        for _ in 0..10 {
            shard.idle(1, 3).await;
            timer::sleep(300 * MS).await;
        }
        assert_eq!((shard.counts(), shard.dials()), ((3, 3), 6));
        timer::sleep(2 * SECOND).await;
        assert_eq!(shard.counts(), (2, 2));
    });
}

#[test]
fn what_is_found_dead_is_passed_over() {
    on_a_shard(of(9), |shard| async move {
        let ids = shard.idle(1, 3).await;
        shard.close(2);
        timer::sleep(MS).await;
        let lease = shard.lease(1).await;
        assert_eq!(lease.stream.id(), ids[1]);
        assert_eq!(shard.counts(), (2, 1));
    });
}

#[test]
fn one_stands_idle_for_as_long_as_its_upstream_lets_it() {
    for (waits, dials) in [(4_999, 1), (5_000, 2)] {
        on_a_shard(of(9), move |shard| async move {
            let mut lease = shard.lease(1).await;
            lease.set_idle_limit(Some(5 * SECOND));
            give_back(lease);
            timer::sleep(MS * waits).await;
            drop(shard.lease(1).await);
            assert_eq!(shard.dials(), dials, "{waits}");
        });
    }
    on_a_shard(of(9), |shard| async move {
        let mut lease = shard.lease(1).await;
        lease.set_idle_limit(Some(5 * SECOND));
        lease.set_idle_limit(None);
        give_back(lease);
        timer::sleep(6 * SECOND).await;
        drop(shard.lease(1).await);
        assert_eq!(shard.dials(), 1, "it has said the last of it");
    });
}

#[test]
fn one_whose_certificate_comes_to_its_end_is_not_used_again() {
    // Between two sweeps, and whatever its upstream says of how long it stays.
    for (waits, dials) in [(8_099, 1), (9_000, 2)] {
        for idle_limit in [None, Some(100 * SECOND)] {
            on_a_shard(of(9), move |shard| async move {
                let mut lease = shard.lease(1).await;
                lease.ends_in(10 * SECOND);
                lease.set_idle_limit(idle_limit);
                give_back(lease);
                virtual_time::advance(MS * waits);
                timer::sleep(MS).await;
                let lease = shard.lease(1).await;
                assert!(!lease.has_ended());
                drop(lease);
                assert_eq!(shard.dials(), dials, "{waits}");
            });
        }
    }
    on_a_shard(of(9), |shard| async move {
        let mut lease = shard.lease(1).await;
        lease.ends_in(10 * SECOND);
        timer::sleep(9_999 * MS).await;
        assert!(!lease.has_ended());
        timer::sleep(MS).await;
        assert!(lease.has_ended());
    });
}

#[test]
fn idle_ones_close_after_a_while_but_for_those_that_are_to_stay() {
    for (min_idle, left) in [(0, 0), (1, 1), (2, 2), (3, 3)] {
        let limits = limits::Pool {
            min_idle,
            max_lifetime: 100 * SECOND,
            ..of(9)
        };
        on_a_shard(limits, move |shard| async move {
            shard.idle(1, 3).await;
            timer::sleep(53 * SECOND).await;
            assert_eq!(shard.counts(), (3, 3), "up to a tenth before their time");
            timer::sleep(9 * SECOND).await;
            assert_eq!(shard.counts(), (left, left), "{min_idle}");
            timer::sleep(40 * SECOND).await;
            assert_eq!(shard.counts(), (0, 0), "too old to be kept");
        });
    }
}

#[test]
fn dead_ones_are_swept_within_a_second() {
    on_a_shard(of(9), |shard| async move {
        shard.idle(1, 3).await;
        shard.close(1);
        timer::sleep(1_001 * MS).await;
        assert_eq!(shard.counts(), (2, 2));
        // Nothing is left to look at, and later there is again.
        shard.close(0);
        shard.close(2);
        timer::sleep(3 * SECOND).await;
        assert_eq!(shard.counts(), (0, 0));
        shard.idle(1, 1).await;
        shard.close(3);
        timer::sleep(1_001 * MS).await;
        assert_eq!(shard.counts(), (0, 0));
    });
}

#[test]
fn lowered_limits_close_the_oldest() {
    type Lower = fn(&Shard);
    let idle: Lower = |shard| {
        shard.limit(&limits::Pool {
            max_idle: 1,
            ..of(9)
        });
    };
    let cap: Lower = |shard| shard.shared.permits.set_cap(Some(1));
    for lower in [idle, cap] {
        on_a_shard(of(9), move |shard| async move {
            let ids = shard.idle(1, 3).await;
            lower(&shard);
            shard.pools.obey_limits([&shard.shared].into_iter());
            assert_eq!(shard.counts(), (1, 1));
            assert_eq!(shard.lease(1).await.stream.id(), ids[2]);
        });
    }
}

#[test]
fn what_is_forgotten_closes() {
    type Forget = fn(&Shard);
    let forget: Forget = |shard| shard.pools.forget(shard.shared.id);
    let drain: Forget = |shard| shard.pools.close_idle();
    for forget in [forget, drain] {
        on_a_shard(of(9), move |shard| async move {
            shard.idle(1, 2).await;
            let holders = |shard: &Shard| {
                let slot = key(1).slot();
                shard.shared.holders.others(slot, 0, 4).count()
            };
            assert_eq!(holders(&shard), 1);
            forget(&shard);
            assert_eq!(shard.counts(), (0, 0));
            assert_eq!(holders(&shard), 0, "other shards need not ask");
        });
    }
}

#[test]
fn other_shards_are_told_where_there_are_some() {
    on_a_shard(of(9), |shard| async move {
        let holders = |number: u8| {
            let slot = key(number).slot();
            shard.shared.holders.others(slot, 0, 4).collect::<Vec<_>>()
        };
        let other = (2..).find(|other| key(*other).slot() != key(1).slot());
        let other = other.unwrap();
        shard.idle(1, 2).await;
        assert_eq!((holders(1), holders(other)), (vec![3], vec![]));
        shard.idle(other, 1).await;
        timer::sleep(1_001 * MS).await;
        assert_eq!((holders(1), holders(other)), (vec![3], vec![3]));
        shard.close(0);
        shard.close(1);
        timer::sleep(1_001 * MS).await;
        assert_eq!((holders(1), holders(other)), (vec![], vec![3]));
        shard.idle(1, 1).await;
        assert_eq!((holders(1), holders(other)), (vec![3], vec![3]));
        assert_eq!(shard.pools.shard(), 3);
    });
}

/// Requests that are under way when their upstream leaves the configuration count, wait
/// and dial after that, too.
#[test]
fn nothing_is_kept_of_upstreams_that_have_left() {
    on_a_shard(of(9), |shard| async move {
        for _ in 0..1_000 {
            let other = Shared::new(UpstreamIndex::UNMATCHED, Arc::clone(&shard.shared.limits));
            let other = Arc::new(other);
            let now = ring::now();
            shard.pools.count_request(&other, now);
            other.retire();
            shard.pools.forget(other.id);
            shard.pools.count_request(&other, now);
            let turn = shard.pools.begin_dial(&other, key(1)).unwrap();
            shard.pools.obey_limits([&shard.shared].into_iter());
            assert!(shard.pools.pools.borrow().contains_key(&other.id));
            drop(turn);
        }
        shard.pools.obey_limits([&shard.shared].into_iter());
        assert_eq!(shard.pools.pools.borrow().len(), 0);
    });
}
