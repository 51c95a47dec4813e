//! Callers who wait under the cap, and what they get.

use super::*;
use crate::upstream::permits::{Acquisition, Requester};

#[test]
fn who_waits_gets_what_comes_back_and_no_newcomer_does() {
    on_a_shard(of(1), |shard| async move {
        let first = shard.lease(1).await;
        let id = first.stream.id();
        let mut second = pin!(shard.checkout(1, Freshness::Any));
        assert!(is_pending(&mut second).await);
        give_back(first);
        let mut third = pin!(shard.checkout(1, Freshness::Any));
        assert!(is_pending(&mut third).await);
        let second = second.await.unwrap();
        assert_eq!((second.stream.id(), second.past), (id, ConnectionUse::Used));
        give_back(second);
        assert_eq!(third.await.unwrap().stream.id(), id);
        assert_eq!(shard.dials(), 1);
    });
}

#[test]
fn nobody_takes_an_idle_one_while_others_wait() {
    on_a_shard(of(9), |shard| async move {
        shard.idle(1, 1).await;
        shard.shared.permits.set_cap(Some(1));
        let take = || {
            let lease = shard.pools.take_idle(&shard.shared, key(1), Freshness::Any);
            lease.map(give_back).is_some()
        };
        assert!(take());
        let wait = {
            let requester = Requester {
                shard: 0,
                peer: Peer::Local,
            };
            shard.shared.permits.acquire(requester, 9, ring::now())
        };
        assert!(matches!(wait, Acquisition::Later(_)));
        assert!(!take());
        drop(wait);
        assert!(take());
    });
}

#[test]
fn what_comes_back_is_not_what_everybody_wants() {
    // What the waiter wants; whether the connection has ended meanwhile.
    for (number, freshness, ends) in [
        (2, Freshness::Any, false),
        (1, Freshness::New, false),
        (1, Freshness::Any, true),
    ] {
        on_a_shard(of(1), move |shard| async move {
            let first = shard.lease(1).await;
            let mut second = pin!(shard.checkout(number, freshness));
            assert!(is_pending(&mut second).await);
            give_back(first);
            if ends {
                shard.close(0);
                timer::sleep(MS).await;
            }
            let second = second.await.unwrap();
            assert_eq!(second.endpoint(), endpoint(number));
            assert_eq!(second.past, ConnectionUse::Dialled);
            assert_eq!(shard.counts(), (1, 0), "with the permit of the other");
        });
    }
}

#[test]
fn who_waits_for_an_idle_one_of_another_shard_takes_no_place_of_the_queue() {
    on_a_shard(of(3), |shard| async move {
        let shared = &shard.shared;
        let other_shard = Requester {
            shard: 0,
            peer: Peer::Local,
        };
        let mut idle_elsewhere = Vec::new();
        for _ in 0..3 {
            match shared.permits.acquire(other_shard, 0, ring::now()) {
                Acquisition::Now(permit) => idle_elsewhere.push(permit),
                _ => panic!("there are three places"),
            }
            shared.add_idle();
        }
        let checkout = || Box::pin(shard.checkout(1, Freshness::Any));
        let mut waiting = Vec::new();
        // Three for what is idle, and the two of `max_pending`.
        for _ in 0..5 {
            let mut one = checkout();
            assert!(is_pending(&mut one.as_mut()).await);
            waiting.push(one);
        }
        assert!(matches!(checkout().await, Err(CheckoutError::Overloaded)));
        while let Some(permit) = idle_elsewhere.pop() {
            shared.remove_idle();
            drop(permit);
        }
        for one in waiting {
            give_back(one.await.unwrap());
        }
        assert_eq!(shard.dials(), 3);
    });
}

#[test]
fn of_those_set_aside_each_gets_its_own() {
    on_a_shard(of(2), |shard| async move {
        let (one, two) = (shard.lease(1).await, shard.lease(2).await);
        let ids = [one.stream.id(), two.stream.id()];
        let mut for_two = pin!(shard.checkout(2, Freshness::Any));
        assert!(is_pending(&mut for_two).await);
        let mut for_one = pin!(shard.checkout(1, Freshness::Any));
        assert!(is_pending(&mut for_one).await);
        give_back(one);
        give_back(two);
        assert_eq!(for_two.await.unwrap().stream.id(), ids[1]);
        assert_eq!(for_one.await.unwrap().stream.id(), ids[0]);
        assert_eq!(shard.dials(), 2);
    });
}

#[test]
fn who_leaves_passes_on_what_was_set_aside() {
    on_a_shard(of(1), |shard| async move {
        let first = shard.lease(1).await;
        let id = first.stream.id();
        {
            let mut second = pin!(shard.checkout(1, Freshness::Any));
            assert!(is_pending(&mut second).await);
            let mut third = pin!(shard.checkout(1, Freshness::Any));
            assert!(is_pending(&mut third).await);
            give_back(first);
            second.set(shard.checkout(1, Freshness::Any));
            let third = third.await.unwrap();
            assert_eq!(third.stream.id(), id);
            assert!(is_pending(&mut second).await);
            give_back(third);
        }
        // Nobody is left who waits.
        assert_eq!(
            (shard.counts(), shard.shared.permits.waiting()),
            ((1, 1), 0)
        );
        assert_eq!(shard.lease(1).await.stream.id(), id);
    });
}

#[test]
fn nobody_waits_longer_than_a_connect_may_take() {
    on_a_shard(of(1), |shard| async move {
        let _first = shard.lease(1).await;
        let began = ring::now();
        let second = shard.checkout(1, Freshness::Any).await;
        assert!(matches!(second, Err(CheckoutError::PendingTimeout)));
        assert_eq!(ring::now() - began, 5 * SECOND);
        assert_eq!(shard.shared.permits.waiting(), 0);
    });
}

#[test]
fn a_full_queue_turns_away_who_has_most_of_it() {
    on_a_shard(of(1), |shard| async move {
        let first = shard.lease(1).await;
        let by = |peer| shard.checkout_by(Peer::Workload(peer), 1, Freshness::Any);
        let (mut second, mut third) = (pin!(by(1)), pin!(by(1)));
        assert!(is_pending(&mut second).await && is_pending(&mut third).await);
        assert!(matches!(by(1).await, Err(CheckoutError::Overloaded)));
        let mut other = pin!(by(2));
        assert!(is_pending(&mut other).await);
        assert!(matches!(third.await, Err(CheckoutError::Overloaded)));
        give_back(first);
        give_back(second.await.unwrap());
        assert!(other.await.is_ok());
    });
}

#[test]
fn an_idle_one_makes_room_for_another_the_oldest_first() {
    on_a_shard(of(2), |shard| async move {
        let ids = shard.idle(1, 2).await;
        let other = shard.lease(2).await;
        assert_eq!(other.past, ConnectionUse::Dialled);
        assert_eq!((shard.counts(), shard.dials()), ((2, 1), 3));
        assert_eq!(shard.lease(1).await.stream.id(), ids[1]);
    });
}

#[test]
fn a_dial_that_fails_leaves_its_place() {
    on_a_shard(of(1), |shard| async move {
        shard.refuses.set(1);
        let refused = shard.checkout(1, Freshness::Any).await;
        assert!(matches!(
            refused,
            Err(CheckoutError::Dial(DialError::Connect(_)))
        ));
        assert_eq!(shard.counts(), (0, 0));
        drop(shard.lease(1).await);
        assert_eq!(shard.counts(), (0, 0));
    });
}
