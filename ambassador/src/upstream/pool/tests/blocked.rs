//! Idle connections that may keep an upstream from one that has no answer.

use super::*;

/// A request on a connection that was dialled beside so many idle ones.
async fn watched(shard: &Shard, idle: usize) -> Lease {
    shard.idle(1, idle).await;
    // They are not from just now.
    timer::sleep(20 * MS).await;
    let lease = shard.checkout(1, Freshness::New).await.unwrap();
    shard.pools.watch(&shard.shared, &lease);
    lease
}

#[test]
fn one_idle_connection_after_the_other_makes_way_until_there_is_an_answer() {
    on_a_shard(of(9), |shard| async move {
        let lease = watched(&shard, 5).await;
        let mut idle = Vec::new();
        for wait in [24, 2, 25, 100, 250] {
            timer::sleep(MS * wait).await;
            idle.push(shard.shared.idle());
        }
        assert_eq!(idle, [5, 4, 3, 2, 1]);
        lease.is_answered(&shard.shared);
        timer::sleep(10 * SECOND).await;
        assert_eq!(shard.counts(), (2, 1));
    });
}

#[test]
fn beside_as_many_as_were_seen_before_none_makes_way_for_a_while() {
    on_a_shard(of(9), |shard| async move {
        // It is answered beside two.
        let first = watched(&shard, 2).await;
        first.is_answered(&shard.shared);
        assert_eq!(shard.shared.answered_beside(), 2);
        let second = shard.checkout(1, Freshness::New).await.unwrap();
        shard.pools.watch(&shard.shared, &second);
        timer::sleep(1_600 * MS).await;
        assert_eq!(shard.shared.idle(), 2);
        // In doubt, after two seconds or so.
        timer::sleep(600 * MS).await;
        assert_eq!(shard.shared.idle(), 1);
        timer::sleep(2_200 * MS).await;
        assert_eq!(shard.shared.idle(), 1, "every tenth look");
        timer::sleep(500 * MS).await;
        assert_eq!(shard.shared.idle(), 0);
    });
}

#[test]
fn what_stands_in_nobodys_way_stays() {
    on_a_shard(of(9), |shard| async move {
        // One to elsewhere, and one that has just come back.
        let elsewhere = shard.idle(2, 1).await;
        let recent = shard.lease(1).await;
        let lease = shard.checkout(1, Freshness::New).await.unwrap();
        shard.pools.watch(&shard.shared, &lease);
        timer::sleep(10 * MS).await;
        give_back(recent);
        timer::sleep(16 * MS).await;
        assert_eq!(shard.counts(), (3, 2), "it stands idle for 16 ms");
        timer::sleep(25 * MS).await;
        assert_eq!(shard.counts(), (2, 1));
        drop(lease);
        assert_eq!(shard.lease(2).await.stream.id(), elsewhere[0]);
    });
}

#[test]
fn one_that_was_used_before_or_has_gone_is_not_watched() {
    on_a_shard(of(9), |shard| async move {
        shard.idle(1, 3).await;
        let used = shard.lease(1).await;
        shard.pools.watch(&shard.shared, &used);
        used.is_answered(&shard.shared);
        assert_eq!(
            shard.shared.answered_beside(),
            0,
            "it says nothing of dials"
        );
        let gone = shard.checkout(1, Freshness::New).await.unwrap();
        shard.pools.watch(&shard.shared, &gone);
        drop(gone);
        timer::sleep(10 * SECOND).await;
        assert_eq!(shard.counts(), (3, 2));
    });
}

#[test]
fn it_is_given_up_after_half_a_minute() {
    on_a_shard(of(9), |shard| async move {
        let lease = shard.checkout(1, Freshness::New).await.unwrap();
        shard.pools.watch(&shard.shared, &lease);
        timer::sleep(25 * SECOND).await;
        shard.idle(1, 1).await;
        timer::sleep(SECOND).await;
        assert_eq!(shard.counts(), (1, 0));
        timer::sleep(10 * SECOND).await;
        shard.idle(1, 1).await;
        timer::sleep(10 * SECOND).await;
        assert_eq!(shard.counts(), (2, 1));
        drop(lease);
    });
}
