//! Connections that many requests share, where each has places for one.

use super::*;
use crate::upstream::key::Protocol;
use crate::upstream::permits::{Acquisition, Requester, Turn};

impl Shard {
    fn limit_shared(&self, limits: &limits::Pool) {
        self.limit_streams(limits, 1);
    }

    /// So many requests share a connection.
    fn limit_streams(&self, limits: &limits::Pool, max_streams: u32) {
        let timeouts = limits::Timeouts::default();
        let http2 = limits::Http2 {
            max_streams,
            ..limits::Http2::default()
        };
        self.shared.limits.set(limits, &timeouts, http2);
        self.shared.permits.set_cap(limits.max_connections);
    }

    /// A place on a shared connection to endpoint 1.
    async fn place(&self) -> Result<StreamLease, CheckoutError> {
        self.place_at(1).await
    }

    async fn place_at(&self, number: u8) -> Result<StreamLease, CheckoutError> {
        self.place_of(Peer::Local, number).await
    }

    async fn place_of(&self, peer: Peer, number: u8) -> Result<StreamLease, CheckoutError> {
        let wanted = Checkout {
            key: shared_key(number),
            freshness: Freshness::Any,
            peer,
            server_name: None,
        };
        let opening = self.shared.limits.opening();
        let leased = self.pools.checkout(&self.shared, opening, wanted).await?;
        match leased {
            Leased::Shared(place) => Ok(place),
            Leased::Own(_) => panic!("it is a connection"),
        }
    }

    /// So many, each on a connection of its own.
    async fn places(&self, count: usize) -> Vec<StreamLease> {
        let mut places = Vec::new();
        for _ in 0..count {
            places.push(self.place().await.unwrap());
        }
        places
    }
}

fn shared_key(number: u8) -> PoolKey {
    let (namespace, identity) = (Namespace::default(), Identity::ANONYMOUS);
    PoolKey::new(Protocol::Http2, namespace, endpoint(number), identity)
}

fn of_another_shard() -> Requester {
    Requester {
        shard: 0,
        peer: Peer::Local,
    }
}

#[test]
fn one_is_kept_only_where_no_limit_speaks_against_it() {
    let none_idle = limits::Pool {
        max_idle: 0,
        ..of(9)
    };
    for (in_use, limits, kept) in [
        (3, of(9), 3),
        (3, of(2), 2),
        (3, of(1), 1),
        (1, none_idle, 0),
    ] {
        on_a_shard(of(9), move |shard| async move {
            shard.limit_shared(&of(9));
            let places = shard.places(in_use).await;
            shard.limit_shared(&limits);
            drop(places);
            timer::sleep(MS).await;
            assert_eq!(shard.counts(), (kept, kept), "{limits:?}");
        });
    }
}

#[test]
fn those_above_a_limit_close() {
    let one_idle = limits::Pool {
        max_idle: 1,
        ..of(9)
    };
    for (limits, kept) in [(of(9), 4), (one_idle, 1), (of(3), 3)] {
        on_a_shard(of(9), move |shard| async move {
            shard.limit_shared(&of(9));
            drop(shard.places(4).await);
            assert_eq!(shard.counts(), (4, 4));
            shard.limit_shared(&limits);
            shard.pools.obey_limits([&shard.shared].into_iter());
            assert_eq!(shard.counts().1, kept, "at once");
            timer::sleep(MS).await;
            assert_eq!(shard.counts(), (kept, kept), "{limits:?}");
            timer::sleep(3 * SECOND).await;
            assert_eq!(shard.counts(), (kept, kept), "no more of them");
        });
    }
}

#[test]
fn the_place_of_one_goes_to_another_shard_that_waits() {
    on_a_shard(of(1), |shard| async move {
        let place = shard.place().await.unwrap();
        let permits = &shard.shared.permits;
        let wait = permits.acquire(of_another_shard(), 9, ring::now());
        let Acquisition::Later(wait) = wait else {
            panic!("there is one")
        };
        let mut wait = pin!(wait);
        assert!(is_pending(&mut wait).await);
        drop(place);
        let turn = timer::timeout(SECOND, wait).await;
        assert!(matches!(turn, Ok(Turn::Dial(_))));
    });
}

#[test]
fn who_waits_for_a_place_is_pending() {
    on_a_shard(of(1), |shard| async move {
        shard.limit_shared(&of(1));
        let first = shard.place().await.unwrap();
        let (mut second, mut third) = (pin!(shard.place()), pin!(shard.place()));
        assert!(is_pending(&mut second).await && is_pending(&mut third).await);
        assert_eq!(shard.shared.pending(), 2);
        // There is room for two that wait.
        let fourth = shard.place().await;
        assert!(matches!(fourth, Err(CheckoutError::Overloaded)));
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(shard.shared.pending(), 1);
        assert!(is_pending(&mut third).await);
        drop(second);
        drop(third.await.unwrap());
        assert_eq!((shard.shared.pending(), shard.dials()), (0, 1));
    });
}

#[test]
fn a_place_is_for_who_waits_for_its_endpoint() {
    on_a_shard(of(2), |shard| async move {
        shard.limit_streams(&of(2), 2);
        let mut places = Vec::new();
        for number in [1, 1, 2, 2] {
            places.push(shard.place_at(number).await.unwrap());
        }
        let (mut one, mut two) = (pin!(shard.place_at(1)), pin!(shard.place_at(2)));
        assert!(is_pending(&mut one).await && is_pending(&mut two).await);
        places.pop();
        let two = timer::timeout(SECOND, &mut two).await;
        assert_eq!(
            two.unwrap().unwrap().connection().key().endpoint,
            endpoint(2)
        );
        assert!(is_pending(&mut one).await);
    });
}

#[test]
fn peers_have_turns_for_places() {
    let limits = limits::Pool {
        max_pending: 4,
        ..of(1)
    };
    on_a_shard(of(1), move |shard| async move {
        shard.limit_shared(&limits);
        let (many, one) = (Peer::Workload(1), Peer::Workload(2));
        let first = shard.place().await.unwrap();
        // The first of them is the one that will dial.
        let mut dials = pin!(shard.place_of(many, 1));
        let mut next = pin!(shard.place_of(many, 1));
        let mut third = pin!(shard.place_of(many, 1));
        let mut newest = pin!(shard.place_of(many, 1));
        assert!(is_pending(&mut dials).await && is_pending(&mut next).await);
        assert!(is_pending(&mut third).await && is_pending(&mut newest).await);
        let mut other = pin!(shard.place_of(one, 1));
        assert!(is_pending(&mut other).await, "there is room for it");
        let of_many = [newest.await, shard.place_of(many, 1).await];
        for turned_away in of_many {
            assert!(matches!(turned_away, Err(CheckoutError::Overloaded)));
        }
        drop(first);
        drop(dials.await.unwrap());
        drop(next.await.unwrap());
        let other = timer::timeout(SECOND, other).await.unwrap();
        assert!(is_pending(&mut third).await, "it comes behind the other");
        drop(other);
        assert!(third.await.is_ok());
        assert_eq!(shard.dials(), 1);
    });
}

#[test]
fn a_burst_is_no_queue_where_more_connections_may_be_opened() {
    on_a_shard(of(3), |shard| async move {
        shard.limit_shared(&of(3));
        // Three get a place, and two wait.
        let turn = shard
            .pools
            .begin_dial(&shard.shared, shared_key(1))
            .unwrap();
        let permit = shard
            .shared
            .permits
            .acquire(of_another_shard(), 0, ring::now());
        let mut waiting = [(); 4].map(|()| Box::pin(shard.place()));
        for waiting in &mut waiting {
            assert!(is_pending(&mut waiting.as_mut()).await);
        }
        let late = shard.place().await;
        assert!(matches!(late, Err(CheckoutError::Overloaded)));
        drop((permit, turn));
    });
}
