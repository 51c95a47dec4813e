//! Two shards, and what becomes of a connection between them.

use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;

use super::*;
use crate::addr::{EndpointAddr, Peer};
use crate::ring::{Backend, Options, Spin};
use crate::telemetry::UpstreamIndex;
use crate::upstream::connection::ConnectionUse;
use crate::upstream::dial::{Dialer, Namespace, OwnAddresses};
use crate::upstream::key::Identity;
use crate::upstream::limits::Limits;
use crate::upstream::pool::{Checkout, Freshness, Lease};

/// An upstream that two shards have connections to: shard 0 in a thread of its
/// own, shard 1 in that of the test.
struct Shards {
    shared: Arc<Shared>,
    key: PoolKey,
    pools: Rc<Pools>,
    owner: Remote,
}

fn pools(shard: u16) -> Rc<Pools> {
    let dialer = Dialer::new(OwnAddresses::default(), Vec::new());
    Pools::new(shard, Rc::new(dialer))
}

fn checkout(key: PoolKey) -> Checkout<'static> {
    Checkout {
        key,
        freshness: Freshness::Any,
        peer: Peer::Local,
        server_name: None,
    }
}

impl Shards {
    async fn checkout(&self) -> Lease {
        let opening = self.shared.limits.opening();
        let wanted = checkout(self.key);
        let checkout = self.pools.checkout(&self.shared, opening, wanted);
        let Ok(leased) = checkout.await else {
            panic!("it listens");
        };
        leased.connection()
    }

    /// Does something on the other shard, and waits for it.
    async fn over_there(&self, act: impl FnOnce(&Rc<Pools>, &Arc<Shared>) + Send + 'static) {
        let done = Arc::new(AtomicBool::new(false));
        let (shared, tell) = (Arc::clone(&self.shared), Arc::clone(&done));
        let there = Box::new(move || {
            let pools = CURRENT.with_borrow(std::rc::Weak::upgrade).unwrap();
            act(&pools, &shared);
            tell.store(true, Ordering::SeqCst);
        });
        self.owner.send(there).unwrap();
        until(|| done.load(Ordering::SeqCst)).await;
    }

    /// Open connections, and how many of them are idle.
    fn counts(&self) -> (u32, u32) {
        (self.shared.permits.in_use(), self.shared.idle())
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        timer::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs `test` where the other shard has one idle connection.
fn on_two_shards<F: Future<Output = ()> + 'static>(test: fn(Shards) -> F) {
    for backend in [Backend::Ring, Backend::Epoll] {
        let options = move |shard| Options {
            backend,
            shard,
            spin: Spin::Never,
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let key = PoolKey::http1(
            Namespace::default(),
            EndpointAddr(address),
            Identity::ANONYMOUS,
        );
        let shared = Arc::new(Shared::new(
            UpstreamIndex::UNMATCHED,
            Arc::new(Limits::default()),
        ));
        let (ended, is_ready) = (Arc::new(AtomicBool::new(false)), mpsc::channel());
        let (end, owned) = (Arc::clone(&ended), Arc::clone(&shared));
        let owner = thread::spawn(move || {
            let serving = async move {
                let pools = pools(0);
                let opening = owned.limits.opening();
                let dialled = pools.checkout(&owned, opening, checkout(key)).await;
                let Ok(leased) = dialled else {
                    panic!("it listens");
                };
                let mut lease = leased.connection();
                lease.complete();
                drop(lease);
                is_ready.0.send(ring::remote()).unwrap();
                until(|| end.load(Ordering::SeqCst)).await;
            };
            ring::run(options(0), serving).unwrap();
        });
        let remote = is_ready.1.recv().unwrap();
        ring::run(options(1), async move {
            let pools = pools(1);
            pools.set_peers(vec![remote.clone()]);
            test(Shards {
                shared,
                key,
                pools,
                owner: remote,
            })
            .await;
        })
        .unwrap();
        ended.store(true, Ordering::SeqCst);
        owner.join().unwrap();
        drop(listener);
    }
}

#[test]
fn an_idle_connection_moves_with_its_permit() {
    on_two_shards(|shards| async move {
        assert_eq!(shards.counts(), (1, 1));
        let mut connection = shards.checkout().await;
        assert_eq!(
            (connection.past, shards.counts()),
            (ConnectionUse::Used, (1, 0))
        );
        connection.complete();
        drop(connection);
        assert_eq!(shards.counts(), (1, 1));
        let others = shards.shared.holders.others(shards.key.slot(), 1, 2);
        assert_eq!(others.count(), 0, "its former shard has none any more");
        // And is used where it is now.
        let connection = shards.checkout().await;
        assert_eq!(
            (connection.past, shards.counts()),
            (ConnectionUse::Used, (1, 0))
        );
    });
}

#[test]
fn what_comes_for_a_caller_that_has_left_closes() {
    on_two_shards(|shards| async move {
        {
            let mut checkout = pin!(shards.checkout());
            let asked = poll_fn(|context| Poll::Ready(checkout.as_mut().poll(context)));
            assert!(asked.await.is_pending(), "it waits for the other shard");
        }
        until(|| shards.counts() == (0, 0)).await;
        assert!(shards.pools.answers.borrow().is_empty());
        assert_eq!(shards.checkout().await.past, ConnectionUse::Dialled);
    });
}

#[test]
fn a_busy_shard_keeps_its_own() {
    on_two_shards(|shards| async move {
        let be_busy = |pools: &Rc<Pools>, shared: &Arc<Shared>| {
            for _ in 0..BUSY_FROM {
                pools.count_request(shared, ring::now());
            }
        };
        shards.over_there(be_busy).await;
        let (pools, shared) = (&shards.pools, &shards.shared);
        pools.count_request(shared, ring::now());
        let connection = shards.checkout().await;
        assert_eq!(connection.past, ConnectionUse::Dialled);
        assert_eq!(shards.counts(), (2, 1));
        let asked = shards.pools.questions.get();
        drop(shards.checkout().await);
        assert_eq!(shards.pools.questions.get(), asked, "and is left in peace");
        // Unless it may keep the upstream from answering this one.
        shards.pools.watch(&shards.shared, &connection);
        until(|| shards.counts() == (1, 0)).await;
        drop(connection);
    });
}

#[test]
fn a_shard_that_takes_no_mail_is_not_waited_for() {
    on_two_shards(|shards| async move {
        // It hangs, and its mailbox is full.
        let goes_on = Arc::new(AtomicBool::new(false));
        let hangs = Arc::clone(&goes_on);
        let hang = move || {
            while !hangs.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        };
        shards.owner.send(Box::new(hang)).unwrap();
        while shards.owner.send(Box::new(|| {})).is_ok() {}
        let before = ring::now();
        let connection = shards.checkout().await;
        assert_eq!(
            (connection.past, shards.counts()),
            (ConnectionUse::Dialled, (2, 1))
        );
        assert!(ring::now() - before < WAIT_MAX, "nobody was waited for");
        goes_on.store(true, Ordering::SeqCst);
        drop(connection);
        assert_eq!(shards.counts(), (1, 1));
    });
}

#[test]
fn a_shard_that_drains_gives_nothing() {
    on_two_shards(|shards| async move {
        shards.over_there(|pools, _| pools.close_idle()).await;
        assert_eq!(shards.counts(), (0, 0));
        let connection = shards.checkout().await;
        assert_eq!(connection.past, ConnectionUse::Dialled);
        drop(connection);
        // Nor one that is found in vain.
        shards.shared.add_idle();
        shards.shared.holders.announce(shards.key.slot(), 0);
        assert_eq!(shards.checkout().await.past, ConnectionUse::Dialled);
    });
}

#[test]
fn an_idle_connection_of_another_shard_makes_room() {
    on_two_shards(|shards| async move {
        shards.shared.permits.set_cap(Some(1));
        let wanted = Checkout {
            freshness: Freshness::New,
            ..checkout(shards.key)
        };
        let opening = shards.shared.limits.opening();
        let new = shards.pools.checkout(&shards.shared, opening, wanted);
        let past = new.await.map(|leased| leased.past());
        assert!(matches!(past, Ok(ConnectionUse::Dialled)));
        assert_eq!(shards.counts(), (0, 0));
    });
}

#[test]
fn another_key_is_left_alone() {
    on_two_shards(|shards| async move {
        let elsewhere = PoolKey::http1(Namespace(7), shards.key.endpoint, Identity::ANONYMOUS);
        assert!(
            shards
                .pools
                .take_over(&shards.shared, elsewhere)
                .await
                .is_none()
        );
        assert_eq!(shards.counts(), (1, 1));
    });
}

#[test]
fn a_shard_is_busy_from_ten_requests_a_second_on() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut demand = Demand::new(start);
    for request in 0..9 {
        demand.count(at(request));
    }
    assert!(!demand.is_busy(at(10)));
    demand.count(at(900));
    assert!(demand.is_busy(at(999)));
    assert!(demand.is_busy(at(1_999)), "it was in the second before");
    assert!(!demand.is_busy(at(2_000)));
    // Nine in each second are few.
    for request in 0..100 {
        demand.count(at(3_000 + request * 112));
        assert!(!demand.is_busy(at(3_000 + request * 112)));
    }
}
